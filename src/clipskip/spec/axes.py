"""Axes of a sweep besides Clip Skip, in the syntax of A1111's plot and SwarmUI's grid.

seed=1-4, cfg=3,5..9, lora-weight=0.2..1.0, sampler=Euler a||DPM++ 2M, prompt=frog||owl, lora=none||each||all; SKIP: leaves a
value out.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from clipskip.errors import SpecError
from clipskip.spec.encoder_skips import parse_columns
from clipskip.spec.value_lists import GAP, fill_gap, last_digit, split_values

MOST_VALUES = 10_000
Value = int | float | str
Kind = Literal["whole", "number", "text", "skips"]
"""`skips` are Clip Skips, read as those of the columns are."""
NUMBER = r"[+-]?(?:\d{1,20}(?:\.\d{0,12})?|\.\d{1,12})(?:e[+-]?\d{1,2})?"


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisKind:
    """A setting that an axis can vary."""

    name: str
    title: str
    """In a list to choose from."""
    kind: Kind
    label: str
    """The word before a value in labels: seed 5."""
    field: str
    """The infotext's name of it; empty where it has none of its own."""
    example: str
    """Values as a user may write them."""
    named: bool = True
    """Whether a row's name has its value; which LoRAs are on stands there anyway."""


AXES = (
    AxisKind(name="seed", title="Seed", kind="whole", label="seed", field="Seed", example="5-8"),
    AxisKind(name="cfg", title="CFG scale", kind="number", label="CFG", field="CFG scale", example="3,5,7"),
    AxisKind(name="steps", title="Steps", kind="whole", label="steps", field="Steps", example="10..30 (+10)"),
    AxisKind(
        name="sampler", title="Sampling method", kind="text", label="", field="Sampler", example="Euler a||DPM++ 2M"
    ),
    AxisKind(
        name="scheduler",
        title="Schedule type",
        kind="text",
        label="",
        field="Schedule type",
        example="Automatic||Karras",
    ),
    AxisKind(name="lora-weight", title="LoRA weight", kind="number", label="LoRA", field="", example="0.2..1.0"),
    AxisKind(
        name="lora-text-encoder",
        title="LoRA weight, text encoder",
        kind="number",
        label="LoRA text encoder",
        field="",
        example="0,0.5,1",
    ),
    AxisKind(
        name="lora-unet", title="LoRA weight, U-Net", kind="number", label="LoRA UNet", field="", example="0,0.5,1"
    ),
    AxisKind(
        name="negative-clip-skip",
        title="Negative Clip Skip",
        kind="skips",
        label="negative Clip Skip",
        field="Negative clip skip",
        example="1-11 (+2)",
    ),
    AxisKind(name="prompt", title="Prompt, search and replace", kind="text", label="", field="", example="frog||owl"),
    AxisKind(name="lora", title="Which LoRAs", kind="text", label="", field="", example="none||each||all", named=False),
    AxisKind(name="model", title="Checkpoint", kind="text", label="", field="Model", example="one||another"),
    AxisKind(name="vae", title="VAE", kind="text", label="VAE", field="VAE", example="own||another"),
    AxisKind(name="embedding", title="Embeddings", kind="text", label="embeddings", field="", example="on||off"),
)
BY_NAME = {axis.name: axis for axis in AXES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One axis of a sweep: the setting that it varies, with its values in order."""

    kind: AxisKind
    values: tuple[Value, ...]
    """The first value of the axis `prompt` is the text to replace, and also the first replacement."""

    @classmethod
    def parse(cls, text: str) -> "Axis":
        """Parse the axis that a user typed: name=values."""
        name, equals, values = text.partition("=")
        kind = BY_NAME.get(re.sub(r"[\s_]+", "-", name.strip().lower()))
        if not equals or kind is None:
            raise SpecError(
                f"axis {text[:60]!r}: write name=values, with one of {', '.join(BY_NAME)}; Clip Skip is the columns and has a "
                "list of its own",
                field="axis",
            )
        return cls(kind=kind, values=tuple(dict.fromkeys(_values(values, kind))))

    def __post_init__(self) -> None:
        if not 1 <= len(self.values) <= MOST_VALUES:
            raise SpecError(
                f"axis {self.kind.name} has {len(self.values)} values; give 1 to {MOST_VALUES}", field="axis"
            )

    def __str__(self) -> str:
        values = "||".join(map(str, self.values))
        return f"{self.kind.name}={values}{'||' if len(self.values) == 1 and ',' in values else ''}"

    def name(self, value: Value) -> str:
        """Return a value as a row's label has it."""
        if not self.kind.named:
            return ""
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        return f"{self.kind.label} {shown}".strip()


def combinations(axes: Sequence[Axis]) -> list[tuple[tuple[Axis, Value], ...]]:
    """Return every combination of the axes' values, the last axis changing fastest; one empty combination without
    axes."""
    names = [axis.kind.name for axis in axes]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled:
        raise SpecError(f"axis {doubled} is given twice; put its values into one", field="axis")
    count = math.prod(len(axis.values) for axis in axes)
    if count > MOST_VALUES:
        raise SpecError(f"these axes have {count:,} combinations; use at most {MOST_VALUES:,}", field="axis")
    return list(product(*([(axis, value) for value in axis.values] for axis in axes)))


def _values(text: str, kind: AxisKind) -> list[Value]:
    if kind.kind == "skips":
        return _skips(text, kind)
    kept = [part for part in split_values(text) if part]
    if kind.kind == "text":
        return list(kept)
    read = _number_parser(kind)
    values: list[Value] = []
    for index, part in enumerate(kept):
        if part == GAP:
            if not 2 <= index < len(kept) - 1:
                raise SpecError(f"axis {kind.name}: .. stands between numbers, as in 1, 2, .., 10", field="axis")
            values += _filled(values[-2:], read(kept[index + 1]), kind)
        else:
            values += _value_span(part, kind) or [read(part)]
        if len(values) > MOST_VALUES:
            raise SpecError(f"axis {kind.name} has more than {MOST_VALUES:,} values; use fewer", field="axis")
    return values


def _skips(text: str, kind: AxisKind) -> list[Value]:
    try:
        return [str(skip) for skip in parse_columns(text)]
    except SpecError as error:
        raise SpecError(f"axis {kind.name}: {error}", field="axis") from None


def _number_parser(kind: AxisKind) -> Callable[[str], int | float]:
    def read(text: str) -> int | float:
        if not re.fullmatch(r"[+-]?\d{1,20}" if kind.kind == "whole" else NUMBER, text):
            what = "a whole number" if kind.kind == "whole" else "a number"
            raise SpecError(
                f"axis {kind.name}: {text[:40]!r} is not {what} or a range such as 1-5, 1-9 (+2), 1-10 [4] or 0.2..1.0",
                field="axis",
            )
        return int(text) if kind.kind == "whole" else float(text)

    return read


def _value_span(text: str, kind: AxisKind) -> list[Value]:
    """Return the values of 1-5, 1-9 (+2), 1-10 [4] (A1111) or 0.2..1.0 (in steps of its last digit); empty for other
    texts.

    A1111 cuts counted values to whole numbers where its axis has whole numbers (1.10 scripts/xyz_grid.py).
    """
    match = re.fullmatch(rf"({NUMBER})\s*(-|\.\.)\s*({NUMBER})\s*(?:\(\s*({NUMBER})\s*\)|\[\s*(\d{{1,5}})\s*\])?", text)
    if match is None:
        return []
    low, high = float(match[1]), float(match[3])
    if match[5]:
        count = int(match[5])
        numbers = [low + (high - low) * i / max(1, count - 1) for i in range(min(count, MOST_VALUES + 1))]
        return [_axis_value(math.floor(number + 1e-9) if kind.kind == "whole" else number, kind) for number in numbers]
    step = abs(float(match[4])) if match[4] else last_digit(match[1], match[3]) if match[2] == ".." else 1.0
    if not step:
        raise SpecError(f"axis {kind.name}: the step of {text[:40]!r} is 0; give a larger step", field="axis")
    count = math.floor(abs(high - low) / step + 1e-9) + 1
    sign = 1 if high >= low else -1
    return [_axis_value(low + sign * step * i, kind) for i in range(min(count, MOST_VALUES + 1))]


def _filled(last: Sequence[Value], end: int | float, kind: AxisKind) -> list[Value]:
    """Return the values between two numbers and the next one, in steps of their distance."""
    try:
        between = fill_gap([float(value) for value in last], end, most=MOST_VALUES)
    except ValueError as error:
        raise SpecError(f"axis {kind.name}: {error}", field="axis") from None
    return [_axis_value(number, kind) for number in between]


def _axis_value(number: float, kind: AxisKind) -> Value:
    return round(number) if kind.kind == "whole" else round(number, 9)
