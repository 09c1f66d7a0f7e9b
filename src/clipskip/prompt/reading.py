"""A whole prompt, read as A1111 reads it: the structure that the encoder takes."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from clipskip.errors import PromptError, SpecError
from clipskip.prompt.brackets import parse_attention
from clipskip.prompt.chunks import CHUNK, Chunk, Chunked, EmbeddingNames, chunk_segments, name_embeddings
from clipskip.prompt.comfy import read_comfy
from clipskip.prompt.composition import parse_composition
from clipskip.prompt.edits import parse_schedule
from clipskip.prompt.limits import check_text
from clipskip.prompt.tags import extract_tags, lora_refs
from clipskip.spec import LoraRef

MAX_PARTS = 64
MAX_ALL_CHUNKS = 1_000
"""The most chunks of all distinct texts of a prompt."""
MAX_ALL_CHARACTERS = 2_000_000

_COMMENT_LINE = re.compile(r"(^|\n)#[^\n]*(\n|$)")
_COMMENT = re.compile(r"#[^\n]*(\n|$)")


class Emphasis(Enum):
    """The rule by which weights apply to the encoder's output (A1111 1.8.0 modules/sd_emphasis.py)."""

    ORIGINAL = "Original"
    """Multiply, then restore the mean of the whole."""
    NO_NORM = "No norm"
    """Multiply only."""
    IGNORE = "Ignore"
    """Read the brackets but do not multiply."""
    NONE = "None"
    """Take brackets and BREAK as text."""
    COMFYUI = "ComfyUI"
    """Read the whole prompt by ComfyUI's rules: weights relative to the empty prompt; no comments, tags, edits or
    AND."""

    @classmethod
    def parse(cls, name: str) -> "Emphasis":
        """Return the mode of this name, in A1111's spelling."""
        try:
            return cls(name)
        except ValueError:
            known = ", ".join(mode.value for mode in cls)
            raise SpecError(f"the emphasis {name!r} is unknown; use one of {known}", field="emphasis") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """A1111's settings for reading prompts, with A1111's defaults."""

    emphasis: Emphasis = Emphasis.ORIGINAL
    comments: bool = True
    """Whether # hides the rest of its line."""
    hires_steps: int | None = None
    """The second pass's denoiser calls, where the prompt is read for that pass."""

    @property
    def comfy(self) -> bool:
        """Return whether prompts are read by ComfyUI's rules."""
        return self.emphasis is Emphasis.COMFYUI

    def uncommented(self, text: str) -> str:
        """Return the prompt without its comments, where these rules have comments."""
        return strip_comments(text) if self.comments and not self.comfy else text


DEFAULT_RULES = Rules()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The text for some of the denoiser's calls."""

    until_step: int
    """It applies to calls up to and including this one, counted from 0, after those of earlier entries."""
    text: str
    chunks: tuple[Chunk, ...]
    """All entries of a part have the same number: shorter texts end in empty chunks."""
    own_chunks: int
    """How many of the chunks this text fills."""
    count: int
    """Number of tokens as A1111 counts them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptPart:
    """One side of an AND."""

    weight: float
    schedule: tuple[Entry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt after reading."""

    parts: tuple[PromptPart, ...]
    """At least one; a negative prompt has one of weight 1."""
    loras: tuple[LoraRef, ...] = ()
    text: str
    """The text without comments and tags."""
    emphasis: Emphasis

    @property
    def embeddings(self) -> tuple[str, ...]:
        """Names of the embeddings in it, in order of appearance."""
        chunks = (chunk for part in self.parts for entry in part.schedule for chunk in entry.chunks)
        return tuple(dict.fromkeys(slot.name for chunk in chunks for slot in chunk.slots))


def strip_comments(text: str) -> str:
    """Remove comments as A1111 1.10 modules/processing_scripts/comments.py does: each becomes a new line."""
    check_text(text)
    return _COMMENT.sub("\n", _COMMENT_LINE.sub("\n", text))


def read_prompt(
    text: str,
    *,
    steps: int,
    embeddings: Mapping[str, int] | None = None,
    rules: Rules = DEFAULT_RULES,
    negative: bool = False,
) -> Prompt:
    """Read the prompt of a picture of `steps` denoiser calls (twice the steps of a sampler of second order).

    `embeddings` gives each name's number of vectors. In a negative prompt tags and AND are words, as in A1111. Raises
    PromptError for what cannot be drawn, SpecError for impossible steps.
    """
    clean = rules.uncommented(text)
    loras: tuple[LoraRef, ...] = ()
    if not (negative or rules.comfy):
        clean, tags = extract_tags(clean)
        loras = lora_refs(tags)
    parts = read_parts(clean, steps=steps, embeddings=embeddings, rules=rules, negative=negative)
    return Prompt(parts=parts, loras=loras, text=clean, emphasis=rules.emphasis)


def read_parts(
    text: str, *, steps: int, embeddings: Mapping[str, int] | None, rules: Rules, negative: bool
) -> tuple[PromptPart, ...]:
    """Read the parts of a prompt without comments and tags."""
    if rules.comfy:
        return (
            PromptPart(
                weight=1.0, schedule=_prompt_entries([(steps, text)], {text: read_comfy(text, embeddings or {})})
            ),
        )
    composition = [(text, 1.0)] if negative else _checked_composition(parse_composition(text))
    schedules = [(weight, parse_schedule(part, steps, hires_steps=rules.hires_steps)) for part, weight in composition]
    texts = [variant for _, schedule in schedules for _, variant in schedule]
    read = _chunk_all(texts, name_embeddings(embeddings or {}), rules)
    return tuple(PromptPart(weight=weight, schedule=_prompt_entries(schedule, read)) for weight, schedule in schedules)


def _checked_composition(composition: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Return the composition; PromptError where it cannot be drawn."""
    if len(composition) > MAX_PARTS:
        raise PromptError(
            f"the prompt has {len(composition):,} parts around AND; use at most {MAX_PARTS}",
            field="prompt",
        )
    for _, weight in composition:
        _check_weight(weight)
    return composition


def _check_weight(weight: float) -> None:
    if not math.isfinite(weight):
        raise PromptError(
            f"the prompt's weights multiply to {weight}, which is not a finite number; nest fewer brackets",
            field="prompt",
        )


def _chunk_all(texts: list[str], names: EmbeddingNames, rules: Rules) -> dict[str, Chunked]:
    """Split each distinct text into chunks."""
    different = dict.fromkeys(texts)
    if sum(map(len, different)) > MAX_ALL_CHARACTERS:
        raise PromptError(
            f"the prompt's edits make {len(different):,} texts of more than {MAX_ALL_CHARACTERS:,} characters in all; "
            "shorten it",
            field="prompt",
        )
    read: dict[str, Chunked] = {}
    total = 0
    for text in different:
        segments = [(text, 1.0)] if rules.emphasis is Emphasis.NONE else parse_attention(text)
        for _, weight in segments:
            _check_weight(weight)
        read[text] = chunk_segments(segments, embeddings=names)
        total += len(read[text].chunks)
        if total > MAX_ALL_CHUNKS:
            raise PromptError(
                f"the prompt and its edits make more than {MAX_ALL_CHUNKS:,} chunks of {CHUNK} tokens; shorten it",
                field="prompt",
            )
    return read


def _prompt_entries(schedule: list[tuple[int, str]], read: Mapping[str, Chunked]) -> tuple[Entry, ...]:
    """Return the schedule with its chunks; all texts get one length, because A1111 encodes them together."""
    longest = max(len(read[text].chunks) for _, text in schedule)
    padding = {text: (Chunk(),) * (longest - len(read[text].chunks)) for _, text in schedule}
    return tuple(
        Entry(
            until_step=until,
            text=text,
            chunks=read[text].chunks + padding[text],
            own_chunks=len(read[text].chunks),
            count=read[text].count,
        )
        for until, text in schedule
    )
