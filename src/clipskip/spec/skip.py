"""Clip Skip, the layer that conditions the picture: one value type, one rule."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from clipskip.errors import SkipOutOfRange, SpecError
from clipskip.spec.family import Family
from clipskip.spec.numbering import Dialect, Value, layers_of, value_of
from clipskip.spec.value_lists import GAP, fill_gap, last_digit, split_values

_Skip = TypeVar("_Skip")

MOST_COLUMNS = 1000
"""The most Clip Skips of one range."""
_RANGE = "1 is the last layer; use 1 to the encoder's depth: 12 on SD 1.x and SDXL, 24 on SD 2.x"
_LARGEST = 10.0**300
"""Larger numbers are not computed with; `check` knows how deep an encoder is."""
_NUMBER = re.compile(r"[+-]?[0-9]++(\.[0-9]*+)?")
_N = r"[0-9]++(?:\.[0-9]++)?"
_SPAN = re.compile(
    rf"({_N})\s*+(-|\.\.)\s*+({_N})\s*+(?::\s*+({_N})|\(\s*+([+-]?{_N})\s*+\)|\[\s*+([0-9]{{1,4}})\s*+\])?", re.ASCII
)
"""Start, end, and then the step or the count: 1-3:0.5, 1-11 (+2), 1-5 [3], 1.0..2.0."""


@dataclass(frozen=True, slots=True, order=True)
class ClipSkip:
    """The layer to read, counted from the end: 1 is the last layer (A1111's number).

    A fraction lies between two layers: 1.5 is half-way between the last and the one before it, mixed before the final
    norm. The range is 1 to the encoder's depth, which `check` enforces.
    """

    from_end: int | float

    def __post_init__(self) -> None:
        number = self.from_end
        if isinstance(number, bool) or not isinstance(number, int | float) or number != number:
            raise SkipOutOfRange(f"clip skip {shown(number)} is not a number; {_RANGE}", field="clip_skip")
        if not 1 <= number <= _LARGEST:
            raise SkipOutOfRange(f"clip skip {shown(number)} does not exist; {_RANGE}", field="clip_skip")
        object.__setattr__(self, "from_end", int(number) if float(number).is_integer() else float(number))

    @classmethod
    def from_dialect(cls, value: Value | None, dialect: Dialect, *, family: Family = Family.SD1) -> "ClipSkip":
        """Return the layer that a tool's value selects on a family; SpecError when it selects none, or two different
        ones."""
        layers = layers_of(value, dialect, family)
        if layers.l_from_end != layers.g_from_end:
            raise SpecError(
                f"{layers.remark}: that is not a single layer; give each encoder its own number", field="clip_skip"
            )
        return cls(layers.l_from_end)

    def to_dialect(self, dialect: Dialect, *, family: Family = Family.SD1) -> Value:
        """Return the value with which a tool selects this layer; SpecError when it cannot."""
        return value_of(self.from_end, self.from_end, dialect, family)

    @classmethod
    def from_a1111(cls, clip_skip: int, *, family: Family = Family.SD1) -> "ClipSkip":
        """Read A1111's setting, where 1 is the last layer."""
        return cls.from_dialect(clip_skip, Dialect.A1111, family=family)

    @classmethod
    def from_comfy(cls, stop_at_clip_layer: int, *, family: Family = Family.SD1) -> "ClipSkip":
        """Read ComfyUI's CLIPSetLastLayer, where -1 is the last layer."""
        return cls.from_dialect(stop_at_clip_layer, Dialect.COMFYUI, family=family)

    @classmethod
    def from_diffusers(cls, clip_skip: int | None, *, family: Family = Family.SD1) -> "ClipSkip":
        """Read diffusers' argument: on SD 1.x, 1 is the layer before the last; None is the family's default."""
        return cls.from_dialect(clip_skip, Dialect.DIFFUSERS, family=family)

    @classmethod
    def from_invoke(cls, skipped_layers: int, *, family: Family = Family.SD1) -> "ClipSkip":
        """Read InvokeAI's `skipped_layers`, or `clip_skip` in its metadata: 0 is the last layer of SD 1.x."""
        return cls.from_dialect(skipped_layers, Dialect.INVOKEAI, family=family)

    @classmethod
    def from_sdnext(cls, clip_skip: float, *, family: Family = Family.SD1) -> "ClipSkip":
        """Read SD.Next's slider: 1 is the family's default, and fractions lie between two layers."""
        return cls.from_dialect(clip_skip, Dialect.SDNEXT, family=family)

    @classmethod
    def from_kohya(cls, clip_skip: int | None, *, family: Family = Family.SD1) -> "ClipSkip":
        """Read kohya's --clip_skip or a LoRA's ss_clip_skip: 1 is the last layer; None is the family's default."""
        return cls.from_dialect(clip_skip, Dialect.KOHYA, family=family)

    @classmethod
    def from_sdcpp(cls, clip_skip: int, *, family: Family = Family.SD1) -> "ClipSkip":
        """Read stable-diffusion.cpp's --clip-skip: 1 is the last layer; 0 and below are the family's default."""
        return cls.from_dialect(clip_skip, Dialect.SDCPP, family=family)

    @classmethod
    def parse(cls, text: str) -> "ClipSkip":
        """Parse the Clip Skip that a user typed: "2" or "1.5"."""
        if not _NUMBER.fullmatch(text.strip()):
            raise SkipOutOfRange(f"clip skip {shown(text)} is not a number; {_RANGE}", field="clip_skip")
        return cls(float(text.strip()))

    def __str__(self) -> str:
        return str(self.from_end)

    @property
    def first(self) -> "ClipSkip":
        """This Clip Skip, as the first of a schedule of one."""
        return self

    @property
    def parts(self) -> tuple["ClipSkip", ...]:
        """This Clip Skip, as all parts of a schedule of one."""
        return (self,)

    def over(self, calls: int) -> tuple[tuple[int, "ClipSkip"], ...]:
        """Return this Clip Skip as a schedule of one, until the last of the denoiser's calls."""
        return ((calls, self),)

    @property
    def fraction(self) -> float:
        """Return how far it is from layer `shallow` to the next deeper one; 0 for whole numbers."""
        return self.from_end - math.floor(self.from_end)

    @property
    def shallow(self) -> int:
        """The whole Clip Skip at or above this layer."""
        return math.floor(self.from_end)

    @property
    def deep(self) -> int:
        """The whole Clip Skip at or below this layer; equal to `shallow` for whole numbers."""
        return math.ceil(self.from_end)

    def check(self, depth: int) -> "ClipSkip":
        """Return this Clip Skip; SkipOutOfRange when an encoder of `depth` layers has no such layer."""
        if self.from_end > depth:
            raise SkipOutOfRange(
                f"clip skip {shown(self.from_end)} is deeper than this encoder's {depth} layers; use 1 to {depth}",
                field="clip_skip",
            )
        return self


def parse_skips(text: str) -> tuple[ClipSkip, ...]:
    """Parse the Clip Skips of a list, as users type them: "1-5", "1,2,4", "1-3:0.5", "1-11 (+2)", "1-5 [3]", "2"."""
    return parse_list(text, lambda part: parse_span(part) or (ClipSkip.parse(part),))


def parse_list(text: str, read: Callable[[str], Sequence[_Skip]]) -> tuple[_Skip, ...]:
    """Parse a list of Clip Skips, each part with `read`: between commas or ||, without SKIP:, .. filled (SwarmUI)."""
    parts, skips = list(_comma_joined(split_values(text))), list[_Skip]()
    for index, part in enumerate(parts):
        if part == GAP:
            skips += [skip for between in _between(skips[-2:], parts[index + 1 :]) for skip in read(f"{between:.9g}")]
        else:
            skips += read(part)
    if not skips:
        raise SpecError(f"clip skips {shown(text)} are all left out; give at least one", field="clip_skip")
    return tuple(dict.fromkeys(skips))


def _comma_joined(parts: Sequence[str]) -> Iterator[str]:
    """Yield the parts of a list, keeping "L=2,G=5" together."""
    rest = iter(parts)
    for part in rest:
        both = "=" in part and "/" not in part and "," not in part
        yield f"{part},{next(rest, '')}" if both else part


def _between(before: Sequence[object], after: Sequence[str]) -> list[float]:
    """Return the numbers that .. stands for, between two Clip Skips and the next one."""
    numbers = [skip.from_end for skip in before if isinstance(skip, ClipSkip)]
    end = parse_span(after[0]) or (ClipSkip.parse(after[0]),) if after else ()
    try:
        return fill_gap(numbers, end[0].from_end, most=MOST_COLUMNS)
    except (ValueError, IndexError) as error:
        said = error if len(numbers) == 2 and end else ".. stands between numbers, as in 1, 3, .., 11"
        raise SpecError(f"clip skips: {said}", field="clip_skip") from None


def parse_span(text: str) -> tuple[ClipSkip, ...] | None:
    """Parse a range of Clip Skips, ours (1-3:0.5), A1111's (1-11 (+2), 1-5 [3]) or SwarmUI's (1..5); None where it is
    not a range.

    Between whole ends A1111 cuts counted values to whole numbers (1.10 scripts/xyz_grid.py), and so does this.
    """
    span = _SPAN.fullmatch(text.strip())
    if span is None:
        return None
    first, last = float(span[1]), float(span[3])
    usual = last_digit(span[1], span[3]) if span[2] == GAP else 1
    step, count = float(span[4] or span[5] or usual), int(span[6] or 0)
    if max(first, last) <= _LARGEST and step and not span[6]:
        count = math.floor(min((last - first) / step, MOST_COLUMNS) + 1e-9) + 1
    if not 1 <= count <= MOST_COLUMNS:
        raise SpecError(
            f"clip skip range {shown(text.strip())} is empty or too long; write it as 1-5, 1-3:0.5, 1-11 (+2) or 1-5 [3]",
            field="clip_skip",
        )
    if not span[6]:
        return tuple(ClipSkip(round(first + i * step, 6)) for i in range(count))
    values = [first + i * (last - first) / max(count - 1, 1) for i in range(count)]
    whole = first.is_integer() and last.is_integer()
    return tuple(ClipSkip(int(value + 1e-9) if whole else round(value, 6)) for value in values)


def shown(value: object) -> str:
    """Return the value for a message, in at most 40 characters."""
    if isinstance(value, int) and abs(value) > _LARGEST:
        return "of more than 300 digits"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:.12g}"
    if not isinstance(value, str):
        return "None" if value is None else f"of type {type(value).__name__}"
    text = repr(value[:60])
    return text if len(text) <= 40 else f"{text[:40]}..."
