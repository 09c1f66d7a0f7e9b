"""The same Clip Skip in every tool's words: read, said and tabled.

`numbering` holds the rules with their sources; `docs/clip-skip-in-every-tool.md` is made from them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from clipskip.errors import SpecError
from clipskip.spec.family import Family
from clipskip.spec.numbering import ROWS, Dialect, Value, numbering
from clipskip.spec.skip import ClipSkip

CANNOT = "-"


def from_dialect(value: Value | None, dialect: Dialect, *, family: Family = Family.SD1) -> ClipSkip:
    """The layer that a tool's value names on a family; SpecError when it names none."""
    return ClipSkip.from_dialect(value, dialect, family=family)


def to_dialect(skip: ClipSkip, dialect: Dialect, *, family: Family = Family.SD1) -> Value:
    """What to give a tool so that it reads this layer; SpecError when it cannot."""
    return skip.to_dialect(dialect, family=family)


def convert(value: str, *, source: Dialect, target: Dialect, family: Family = Family.SD1) -> str:
    """A tool's value in another tool's words: "2" of A1111 is "1" of diffusers."""
    return str(to_dialect(from_dialect(value, source, family=family), target, family=family))


@dataclass(frozen=True, slots=True, kw_only=True)
class Spelling:
    """How one tool says a Clip Skip: a line of the conversion table."""

    dialect: Dialect
    number: str
    """What to give the tool; "-" where it cannot be said."""
    note: str
    """What to know of it, or why it cannot be said."""


def conversion_table(skip: ClipSkip, *, family: Family = Family.SD1) -> Iterator[Spelling]:
    """The Clip Skip as every tool that has it on this family says it."""
    skip.check(family.depth)
    for dialect in dialects(family):
        try:
            number, note = str(to_dialect(skip, dialect, family=family)), full_note(dialect, family)
        except SpecError as error:
            number, note = CANNOT, str(error)
        yield Spelling(dialect=dialect, number=number, note=note)


def dialects(family: Family) -> tuple[Dialect, ...]:
    """The tools that have Clip Skip on this family; SpecError where it means nothing."""
    numbering(Dialect.COMFYUI, family)
    return tuple(dialect for dialect in Dialect if dialect in ROWS[family])


def full_note(dialect: Dialect, family: Family) -> str:
    """What to know of a tool on this family, in one line."""
    return ". ".join(filter(None, (numbering(dialect, family).note, dialect.note)))


def markdown_table(family: Family) -> str:
    """The table for the manual: each tool's rule, its range and its note."""
    lines = ["| Tool | For Clip Skip n | Takes | Clip Skip 2 | Note |", "|---|---|---|---|---|"]
    for dialect in dialects(family):
        row = numbering(dialect, family)
        span = row.range + (", fractions too" if row.fractions else "")
        example = f"`{row.spell(2)}`"
        lines.append(f"| {dialect.label} | {row.rule} | {span} | {example} | {full_note(dialect, family)} |")
    return "\n".join(lines) + "\n"
