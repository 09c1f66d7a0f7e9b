"""The same Clip Skip in every tool's numbers: reading, writing and tables.

`rules` holds the rules with their sources; `docs/clip-skip-in-every-tool.md` is generated from them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from clipskip.errors import SpecError
from clipskip.spec.encoder_skips import EncoderSkips, Skip, check_depths, parse_skip, skip_for, split_encoders
from clipskip.spec.family import Family
from clipskip.spec.numbering import ROWS, Dialect, Layers, Value, layers_of, numbering, value_of
from clipskip.spec.reforge import is_dynamic, read_dynamic, write_dynamic
from clipskip.spec.render import Request
from clipskip.spec.skip import ClipSkip

CANNOT = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """The Clip Skip that a tool's value selects."""

    skip: Skip
    remark: str = ""
    """One line on a layer that differs from the value, or that the model was not trained on; empty otherwise."""


def translate(value: Value | None, dialect: Dialect, *, family: Family = Family.SD1) -> Translation:
    """Return the Clip Skip that a tool's value selects on a family; SpecError when it selects none."""
    row, text = numbering(dialect, family), "" if value is None else str(value)
    if dialect is Dialect.CLIPSKIP and "[" in text:
        return Translation(skip=check_depths(parse_skip(text), depths(family)))
    if dialect is Dialect.REFORGE and is_dynamic(text):
        return Translation(skip=check_depths(read_dynamic(text), depths(family)))
    sides = split_encoders(text)
    if sides is None:
        layers = layers_of(value, dialect, family)
        return Translation(skip=_skip_of(layers), remark=layers.remark)
    if not row.each:
        raise SpecError(
            f"{dialect.label} has one number on {family.label}, not one for each encoder; use {row.range}",
            field="clip_skip",
        )
    both = [layers_of(side, dialect, family, encoder=number) for number, side in enumerate(sides)]
    skip = EncoderSkips.of(ClipSkip(both[0].l_from_end), ClipSkip(both[1].g_from_end))
    return Translation(skip=skip, remark=". ".join(filter(None, (layers.remark for layers in both))))


def asked_skip(request: Request, family: Family) -> Translation | None:
    """Return the requested Clip Skip as the tool that counted it reads it on a family; None where none was
    requested."""
    return _as_counted(request.clip_skip, request.counted_by, family)


def asked_negative_skip(request: Request, family: Family) -> Skip | None:
    """Return the negative prompt's own Clip Skip in the same way; None where it is the prompt's."""
    reading = _as_counted(request.negative_clip_skip, request.negative_counted_by, family)
    return reading.skip if reading else None


def _as_counted(skip: Skip | None, counted_by: Dialect | None, family: Family) -> Translation | None:
    if skip is None:
        return None
    if counted_by is None or not isinstance(skip, ClipSkip) or not family.usable:
        return Translation(skip=skip)
    left_out = counted_by is Dialect.COMFYUI  # whose own numbers mean one layer on every family
    return translate(None if left_out else skip.from_end, counted_by, family=family)


def _skip_of(layers: Layers) -> Skip:
    return EncoderSkips.of(ClipSkip(layers.l_from_end), ClipSkip(layers.g_from_end))


def depths(family: Family) -> tuple[int, ...]:
    """Return the number of layers of each of the family's text encoders."""
    return tuple(encoder.depth for encoder in family.value.encoders)


def from_dialect(value: Value | None, dialect: Dialect, *, family: Family = Family.SD1) -> Skip:
    """Return the Clip Skip that a tool's value selects on a family; SpecError when it selects none."""
    return translate(value, dialect, family=family).skip


def to_dialect(skip: Skip, dialect: Dialect, *, family: Family = Family.SD1, calls: int | None = None) -> Value:
    """Return the value with which a tool selects this Clip Skip; SpecError when it cannot.

    `calls`, the number of denoiser calls, is needed to write a schedule that counts in shares as a value for each step.
    """
    numbering(dialect, family)
    l_skip, g_skip = skip_for(skip, 0), skip_for(skip, 1)
    if isinstance(l_skip, ClipSkip) and isinstance(g_skip, ClipSkip):
        return value_of(l_skip.from_end, g_skip.from_end, dialect, family)
    if dialect is Dialect.CLIPSKIP:
        return str(skip)
    if dialect is Dialect.REFORGE and not isinstance(skip, EncoderSkips):
        return write_dynamic(skip, calls=calls)
    raise SpecError(
        f"{dialect.label} has no Clip Skip that changes by step, as {skip} does; use one number", field="clip_skip"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Spelling:
    """One tool's value for a Clip Skip: a line of the conversion table."""

    dialect: Dialect
    number: str
    """The value to give the tool; "-" where it cannot select this Clip Skip."""
    note: str
    """A note on the value, or why there is none."""


def conversion_table(skip: Skip, *, family: Family = Family.SD1, calls: int | None = None) -> Iterator[Spelling]:
    """Yield the value for this Clip Skip in every tool that has it on this family."""
    tools = dialects(family)
    check_depths(skip, depths(family))
    for dialect in tools:
        try:
            number = str(to_dialect(skip, dialect, family=family, calls=calls))
            note = full_note(dialect, family)
        except SpecError as error:
            number, note = CANNOT, str(error)
        yield Spelling(dialect=dialect, number=number, note=note)


def dialects(family: Family) -> tuple[Dialect, ...]:
    """Return the tools that have Clip Skip on this family; SpecError where it has no meaning."""
    numbering(Dialect.CLIPSKIP, family)
    return tuple(dialect for dialect in Dialect if dialect in ROWS[family])


def layers_read(skip: Skip, *, family: Family) -> tuple[tuple[str, int, float], ...]:
    """Return name, depth and layer, counted from the front, of each encoder, as the picture begins."""
    return tuple(
        (encoder.name, encoder.depth, encoder.depth + 1 - skip_for(skip, number).first.from_end)
        for number, encoder in enumerate(family.value.encoders)
    )


def full_note(dialect: Dialect, family: Family) -> str:
    """Return the note on a tool on this family, in one line."""
    return ". ".join(filter(None, (numbering(dialect, family).note, dialect.note)))


def markdown_table(family: Family) -> str:
    """Return the manual's table of each tool's rule, range and note."""
    lines = ["| Tool | For Clip Skip n | Clip Skip 2 | Takes | Beyond that | Note |", "|---|---|---|---|---|---|"]
    for dialect in dialects(family):
        row = numbering(dialect, family)
        span = row.range + (", fractions too" if row.fractions else "") + (", or one for each" if row.each else "")
        example = f"`{row.spell(2)}`"
        note = ". ".join(filter(None, (_sentence(row.why), full_note(dialect, family))))
        lines.append(f"| {dialect.label} | {row.rule} | {example} | {span} | {row.limits} | {note} |")
    return "\n".join(lines) + "\n"


WANTED: tuple[str, ...] = ("1", "2", "3", "12", "2/5", "5/2")


def which_number_table(family: Family) -> str:
    """Return the manual's table of what to type in each tool for some Clip Skips, and what its own 1 selects."""
    heads = [f"for {text}" for text in WANTED]
    lines = [f"| Tool | {' | '.join(heads)} | nothing typed reads | its 1 reads |", "|---" * (len(WANTED) + 3) + "|"]
    for dialect in dialects(family):
        typed = [_typed(parse_skip(text), dialect, family) for text in WANTED]
        row = numbering(dialect, family)
        own = "" if row.words else _reads("-1" if row.sign == -1 else "1", dialect, family)
        lines.append(f"| {dialect.label} | {' | '.join(typed)} | {_reads(None, dialect, family)} | {own} |")
    return "\n".join(lines) + "\n"


def nothing_table() -> str:
    """Return the manual's table of families without Clip Skip: why, and what ComfyUI's node changes there."""
    lines = ["| Family | Why | ComfyUI's CLIPSetLastLayer moves |", "|---|---|---|"]
    lines += [f"| {family.label} | {family.why_not} | {family.value.moves} |" for family in Family if not family.usable]
    return "\n".join(lines) + "\n"


def _typed(skip: Skip, dialect: Dialect, family: Family) -> str:
    try:
        return f"`{to_dialect(skip, dialect, family=family)}`"
    except SpecError:
        return CANNOT


def _reads(value: Value | None, dialect: Dialect, family: Family) -> str:
    return str(from_dialect(value, dialect, family=family))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
