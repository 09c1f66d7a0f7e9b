"""A whole prompt, read as A1111 reads it: the structure that the encoder consumes."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from clipskip.errors import PromptError, SpecError
from clipskip.prompt.attention import parse_attention
from clipskip.prompt.chunks import CHUNK, Chunk, Chunked, EmbeddingNames, chunk_segments, name_embeddings
from clipskip.prompt.comfy import read_comfy
from clipskip.prompt.composition import parse_composition
from clipskip.prompt.limits import check_text
from clipskip.prompt.schedule import parse_schedule
from clipskip.prompt.tags import extract_tags, lora_refs
from clipskip.spec import LoraRef

MAX_PARTS = 64
MAX_ALL_CHUNKS = 1_000
"""Chunks of all the different texts of a prompt."""
MAX_ALL_CHARACTERS = 2_000_000

_COMMENT_LINE = re.compile(r"(^|\n)#[^\n]*(\n|$)")
_COMMENT = re.compile(r"#[^\n]*(\n|$)")


class Emphasis(Enum):
    """What weights do to the encoder's output (A1111 1.8.0 modules/sd_emphasis.py)."""

    ORIGINAL = "Original"
    """Multiply, then bring the mean of the whole back to what it was."""
    NO_NORM = "No norm"
    """Multiply."""
    IGNORE = "Ignore"
    """Read the brackets, and do not multiply."""
    NONE = "None"
    """Brackets and BREAK are text."""
    COMFYUI = "ComfyUI"
    """All of the prompt by ComfyUI's rules: weights from the empty prompt's vectors on; no comments, tags, edits or AND."""

    @classmethod
    def parse(cls, name: str) -> "Emphasis":
        """The mode of this name, in A1111's spelling."""
        try:
            return cls(name)
        except ValueError:
            known = ", ".join(mode.value for mode in cls)
            raise SpecError(f"emphasis {name!r} is not known; use one of {known}", field="emphasis") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """A1111's settings for reading prompts, at A1111's defaults."""

    emphasis: Emphasis = Emphasis.ORIGINAL
    comma_backtrack: int = 20
    """0 to 74 tokens; 0 cuts chunks wherever they are full."""
    comments: bool = True
    """# hides the rest of its line."""
    hires_steps: int | None = None
    """Read for the second pass, of so many denoiser calls."""
    old_timelines: bool = False
    """Numbers of edits as before A1111 1.6."""

    def __post_init__(self) -> None:
        if isinstance(self.comma_backtrack, bool) or not 0 <= self.comma_backtrack < CHUNK:
            raise SpecError(
                f"comma backtrack {self.comma_backtrack} is out of range; use 0 to {CHUNK - 1}", field="comma_backtrack"
            )

    @property
    def comfy(self) -> bool:
        """Whether prompts are read by ComfyUI's rules."""
        return self.emphasis is Emphasis.COMFYUI

    def uncommented(self, text: str) -> str:
        """The prompt without what is no prompt under these rules."""
        return strip_comments(text) if self.comments and not self.comfy else text


DEFAULT_RULES = Rules()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The text of some of the denoiser's calls."""

    until_step: int
    """For calls up to and including this one, counted from 0, that no earlier entry has."""
    text: str
    chunks: tuple[Chunk, ...]
    """As many for each entry of a part: shorter texts end in empty chunks."""
    own_chunks: int
    """How many of them this text takes."""
    count: int
    """Tokens as A1111 counts them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One side of an AND."""

    weight: float
    schedule: tuple[Entry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt as it was read."""

    parts: tuple[Part, ...]
    """At least one; a negative prompt has one, of weight 1."""
    loras: tuple[LoraRef, ...] = ()
    text: str
    """Without comments and tags."""
    emphasis: Emphasis

    @property
    def embeddings(self) -> tuple[str, ...]:
        """Names of the embeddings in it, in order of appearance."""
        chunks = (chunk for part in self.parts for entry in part.schedule for chunk in entry.chunks)
        return tuple(dict.fromkeys(slot.name for chunk in chunks for slot in chunk.slots))


def strip_comments(text: str) -> str:
    """The prompt without comments: A1111 1.10 modules/processing_scripts/comments.py puts a new line for each."""
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
    """The prompt for a picture of `steps` denoiser calls (twice the sampler's steps where it is of second order).

    `embeddings` gives the number of vectors by name. In a negative prompt tags and AND are words, as in A1111.
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
) -> tuple[Part, ...]:
    """The parts of a prompt that has no comments and no tags any more."""
    if rules.comfy:
        return (Part(weight=1.0, schedule=_entries([(steps, text)], {text: read_comfy(text, embeddings or {})})),)
    composition = [(text, 1.0)] if negative else _checked(parse_composition(text))
    schedules = [
        (weight, parse_schedule(part, steps, hires_steps=rules.hires_steps, old_timelines=rules.old_timelines))
        for part, weight in composition
    ]
    texts = [one for _, schedule in schedules for _, one in schedule]
    read = _chunk_all(texts, name_embeddings(embeddings or {}), rules)
    return tuple(Part(weight=weight, schedule=_entries(schedule, read)) for weight, schedule in schedules)


def _checked(composition: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """The same, or PromptError where it cannot be drawn."""
    if len(composition) > MAX_PARTS:
        raise PromptError(
            f"the prompt has {len(composition):,} parts around AND, and {MAX_PARTS} is the most; remove some",
            field="prompt",
        )
    for _, weight in composition:
        _check_weight(weight)
    return composition


def _check_weight(weight: float) -> None:
    if not math.isfinite(weight):
        raise PromptError(
            f"the prompt's weights multiply to {weight}, which is no finite number; nest fewer brackets", field="prompt"
        )


def _chunk_all(texts: list[str], names: EmbeddingNames, rules: Rules) -> dict[str, Chunked]:
    """Each different text in chunks."""
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
        read[text] = chunk_segments(segments, embeddings=names, comma_backtrack=rules.comma_backtrack)
        total += len(read[text].chunks)
        if total > MAX_ALL_CHUNKS:
            raise PromptError(
                f"the prompt and its edits make more than {MAX_ALL_CHUNKS:,} chunks of {CHUNK} tokens; shorten it",
                field="prompt",
            )
    return read


def _entries(schedule: list[tuple[int, str]], read: Mapping[str, Chunked]) -> tuple[Entry, ...]:
    """The schedule with its chunks. A1111 encodes the texts of one schedule together, so they get one length."""
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
