"""A report of how a prompt is read, for its author."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

from clipskip.errors import PromptError
from clipskip.prompt.brackets import BREAK, parse_attention
from clipskip.prompt.chunks import CHUNK, Chunk
from clipskip.prompt.comfy import missing_embeddings
from clipskip.prompt.composition import parse_composition
from clipskip.prompt.edits import is_literal
from clipskip.prompt.reading import DEFAULT_RULES, Emphasis, Entry, PromptPart, Rules, read_parts
from clipskip.prompt.tags import Tag, check_lora_tag, extract_tags, lora_refs
from clipskip.prompt.tokens import ends_word, readable
from clipskip.spec import LoraRef

_FANCY = re.compile(r"[‘’‚‛“”„‟\uff01-\uff5e\ufb00-\ufb06]|&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z]{2,31});")
"""What ftfy, which A1111's tokenizer runs first, converts to plain characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenReport:
    """One token, or one embedding."""

    text: str
    """The token's spelling, with a space where a word ends; an embedding's name."""
    id: int | None
    """None for an embedding."""
    weight: float
    vectors: int = 1
    """How many places it takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkReport:
    """The tokens that the encoder reads at once."""

    tokens: tuple[TokenReport, ...]
    used: int
    """How many of the 75 places are filled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextReport:
    """One text and the steps that it conditions."""

    text: str
    steps: tuple[tuple[int, int], ...]
    """First and last step, counted from 1, of each stretch; empty where it is never used."""
    count: int
    """Number of tokens as A1111 shows it: a closed chunk counts 75."""
    limit: int
    """Places in the text's chunks."""
    chunks: tuple[ChunkReport, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartReport:
    """One side of an AND."""

    weight: float
    texts: tuple[TextReport, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptReport:
    """A prompt as it is read; `dataclasses.asdict` turns it into JSON."""

    text: str
    """The text without comments and tags."""
    negative: bool
    steps: int
    """Number of denoiser calls."""
    parts: tuple[PartReport, ...]
    loras: tuple[LoraRef, ...]
    embeddings: tuple[str, ...]
    unknown: tuple[str, ...]
    """For each tag that cannot be applied, the reason; a picture is not drawn then."""
    notes: tuple[str, ...]
    """What may surprise its author."""


def describe(
    text: str,
    *,
    steps: int,
    embeddings: Mapping[str, int] | None = None,
    rules: Rules = DEFAULT_RULES,
    negative: bool = False,
) -> PromptReport:
    """Report what `read_prompt` makes of a prompt; tags that it would refuse are listed under `unknown`."""
    clean = rules.uncommented(text)
    bare, tags = extract_tags(clean)
    literal = negative or rules.comfy
    words = clean if literal else bare
    good, unknown = _sorted_out(() if literal else tags)
    if rules.comfy:
        unknown = tuple(
            f"no model folder has the embedding {name!r}" for name in missing_embeddings(text, embeddings or {})
        )
    parts = read_parts(words, steps=steps, embeddings=embeddings, rules=rules, negative=negative)
    calls = rules.hires_steps if rules.hires_steps is not None else steps
    reports = tuple(PartReport(weight=part.weight, texts=tuple(_texts(part, calls))) for part in parts)
    chunks = (chunk for part in parts for entry in part.schedule for chunk in entry.chunks)
    return PromptReport(
        text=words,
        negative=negative,
        steps=calls,
        parts=reports,
        loras=lora_refs(good),
        embeddings=tuple(dict.fromkeys(slot.name for chunk in chunks for slot in chunk.slots)),
        unknown=unknown,
        notes=tuple(
            dict.fromkeys(
                (
                    *_tag_notes(tags, negative=negative, comfy=rules.comfy),
                    *([] if rules.comfy else _language_notes(words, parts, rules, negative=negative)),
                    *_text_notes(reports),
                )
            )
        ),
    )


def _sorted_out(tags: tuple[Tag, ...]) -> tuple[list[Tag], tuple[str, ...]]:
    """Return the tags that can be applied, and the reasons why the others cannot."""
    good: list[Tag] = []
    unknown: list[str] = []
    for tag in tags:
        try:
            check_lora_tag(tag)
        except PromptError as error:
            unknown.append(str(error))
        else:
            good.append(tag)
    return good, tuple(unknown)


def _texts(part: PromptPart, calls: int) -> Iterator[TextReport]:
    """Yield each distinct text of a part with its steps."""
    spans: dict[str, list[tuple[int, int]]] = {}
    entries: dict[str, Entry] = {}
    first = 1
    for entry in part.schedule:
        entries.setdefault(entry.text, entry)
        stretches = spans.setdefault(entry.text, [])
        last = min(entry.until_step + 1, calls)
        if last >= first:
            joins = bool(stretches) and stretches[-1][1] == first - 1
            begun = stretches.pop()[0] if joins else first
            stretches.append((begun, last))
            first = last + 1
    for text, entry in entries.items():
        chunks = tuple(_chunk(chunk) for chunk in entry.chunks[: entry.own_chunks])
        limit = len(chunks) * CHUNK
        yield TextReport(text=text, steps=tuple(spans[text]), count=entry.count, limit=limit, chunks=chunks)


def _chunk(chunk: Chunk) -> ChunkReport:
    tokens: list[TokenReport] = []
    slots = {slot.position - 1: slot for slot in chunk.slots}
    at = 0
    while at < len(chunk.tokens):
        weight = chunk.weights[at]
        if slot := slots.get(at):
            tokens.append(TokenReport(text=slot.name, id=None, weight=weight, vectors=slot.vectors))
            at += slot.vectors
        else:
            token = chunk.tokens[at]
            tokens.append(TokenReport(text=readable([token]), id=token, weight=weight))
            at += 1
    return ChunkReport(tokens=tuple(tokens), used=len(chunk.tokens))


def _tag_notes(tags: tuple[Tag, ...], *, negative: bool, comfy: bool) -> Iterator[str]:
    if negative or comfy:
        where = "in ComfyUI's prompts" if comfy else "in a negative prompt"
        yield from (f"{tag} is read as words: {where} tags have no effect" for tag in tags)
        return
    names = [tag.positional[0] for tag in tags if tag.positional]
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            yield f"LoRA {name[:60]!r} is named {names.count(name)} times; it is applied each time, with the strengths of its last tag"


def _language_notes(text: str, parts: tuple[PromptPart, ...], rules: Rules, *, negative: bool) -> Iterator[str]:
    """Yield notes where A1111's language means something else than most people expect."""
    sides = [(text, 1.0)] if negative else parse_composition(text)
    for side, weight in sides:
        if weight != 1 and len(sides) == 1:
            yield f"the prompt's end ': {weight:g}' is read as a weight: its guidance is multiplied by {weight:g}"
        if ("[" in side or "|" in side) and is_literal(side):
            yield (
                "no edit [a:b:when] or [a|b] takes effect, because the prompt has a '|' outside [a|b] or a '\\' "
                "at the end of a line; write '\\|' for a bar that is text"
            )
    if fancy := _FANCY.search(text):
        yield (
            f"{_safe_line(fancy[0])} is read as written; A1111 first converts curly quotes, full-width letters, ligatures "
            "and HTML entities to plain characters: write the plain form to get its picture"
        )
    if rules.emphasis is Emphasis.NONE:
        return
    for entry in (entry for part in parts for entry in part.schedule):
        if BREAK[0] in entry.text and any(
            word == BREAK[0] and weight != BREAK[1] for word, weight in parse_attention(entry.text)
        ):
            yield "BREAK inside weighted brackets is read as the word 'break'; close the brackets before it"


def _text_notes(parts: tuple[PartReport, ...]) -> Iterator[str]:
    for text in (text for part in parts for text in part.texts):
        if not text.steps:
            yield f"{_safe_line(text.text)} is never used: the last step comes before it would be"
        for number, chunk in enumerate(text.chunks[:-1], 1):
            last = chunk.tokens[-1].id if chunk.used == CHUNK else None
            if last is not None and not ends_word(last):
                yield f"a word is cut in two between chunks {number} and {number + 1} of {_safe_line(text.text)}"


def report_lines(report: PromptReport) -> list[str]:
    """Return the report as lines of text."""
    lines = [
        f"LoRA {_safe_line(lora.name)}: text encoder {lora.text_encoder:g}, U-Net {lora.unet:g}"
        for lora in report.loras
    ]
    for number, part in enumerate(report.parts, 1):
        if len(report.parts) > 1 or part.weight != 1:
            lines.append(f"part {number} of {len(report.parts)}, weight {part.weight:g}")
        for text in part.texts:
            stretches = ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in text.steps) or "none"
            lines.append(f'steps {stretches}: "{_safe_line(text.text)}" ({text.count} of {text.limit} tokens)')
            for at, chunk in enumerate(text.chunks, 1):
                lines += [f"  chunk {at}, {chunk.used} of {CHUNK}", *(f"    {line}" for line in _token_lines(chunk))]
    lines += [f"refused: {why}" for why in report.unknown]
    return lines + [f"note: {note}" for note in report.notes]


def _token_lines(chunk: ChunkReport) -> Iterator[str]:
    """Yield a line for each run of tokens of one weight: each token's spelling and id, or an embedding's vectors."""
    for weight, run in groupby(chunk.tokens, key=lambda token: token.weight):
        shown = (
            f"{_safe_line(token.text.rstrip())}{'' if token.text.endswith(' ') else '+'} {token.id}"
            if token.id is not None
            else f"<{_safe_line(token.text)}> {token.vectors} vectors"
            for token in run
        )
        yield f"x{weight:.4g}: {', '.join(shown)}"


def _safe_line(text: str) -> str:
    """Return the text on one line, safe to print."""
    return repr(text if len(text) <= 200 else f"{text[:197]}...")[1:-1]
