"""One Render to the cells of a sweep: Clip Skip across, LoRAs on and off down."""

import hashlib
import re
from dataclasses import dataclass, replace
from functools import cached_property

from clipskip.errors import SpecError
from clipskip.spec import Axis, Hires, LoraRef, Render, Skip, Value, shared_infotext

MAX_CELLS = 100_000
MAX_NAME = 60
"""The most characters of a Clip Skip in a file's name."""

LoraRow = tuple[LoraRef, ...]
Point = tuple[tuple[Axis, Value], ...]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The same picture at several Clip Skips, once for each row of LoRAs and of other axes' values.

    It has no slots, because it keeps its cells: ten thousand of them are asked for again and again.
    """

    base: Render
    skips: tuple[Skip, ...]
    """The columns."""
    rows: tuple[LoraRow, ...] = ((),)
    """The LoRAs of each row; () is a row without any."""
    variants: tuple[Render, ...] = ()
    """The render that replaces `base` in each row, where other axes vary; else empty."""
    points: tuple[Point, ...] = ()
    """The other axes' values in each row; an axis is left out where several of its values share the row."""
    axes: tuple[Axis, ...] = ()
    loras: LoraRow = ()
    """The LoRAs as they were asked for, before an axis changed their weights."""
    left_out: tuple[str, ...] = ()
    """Combinations of the axes' values that cannot be drawn, and why."""

    def __post_init__(self) -> None:
        if not self.skips or not self.rows:
            raise SpecError("a sweep needs at least one Clip Skip and one row", field="clip_skip")
        if len(self.skips) * len(self.rows) > MAX_CELLS:
            raise SpecError(
                f"this sweep has {len(self.skips) * len(self.rows)} pictures; draw at most {MAX_CELLS}",
                field="clip_skip",
            )

    def cell(self, row: int, column: int) -> Render:
        """Return the picture at one place of the grid."""
        return self._cells[row][column]

    @cached_property
    def _cells(self) -> tuple[tuple[Render, ...], ...]:
        bases = self.variants or (self.base,) * len(self.rows)
        rows = ((base, loras, _of_row(base.hires, loras)) for base, loras in zip(bases, self.rows, strict=True))
        return tuple(
            tuple(replace(base, clip_skip=skip, loras=loras, hires=hires) for skip in self.skips)
            for base, loras, hires in rows
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """Column labels."""
        return tuple(f"Clip Skip {skip}" for skip in self.skips)

    @property
    def row_names(self) -> tuple[str, ...]:
        """Row labels."""
        points = self.points or ((),) * len(self.rows)
        return tuple(
            ", ".join(filter(None, (*(axis.name(value) for axis, value in point), name_row(row))))
            for point, row in zip(points, self.rows, strict=True)
        )

    @property
    def places(self) -> list[tuple[int, int]]:
        """Row and column of every cell, row by row."""
        return [(row, column) for row in range(len(self.rows)) for column in range(len(self.skips))]

    @cached_property
    def key(self) -> str:
        """8 hex digits that differ when any cell differs; they name the sweep's folder."""
        keys = ",".join(cell.key for row in self._cells for cell in row)
        return hashlib.sha256(keys.encode()).hexdigest()[:8]


def _of_row(hires: Hires | None, row: LoraRow) -> Hires | None:
    """Return the second pass with those of its own LoRAs that are on in a row."""
    if hires is None or hires.loras is None:
        return hires
    return replace(hires, loras=tuple(lora for lora in hires.loras if lora.hash in {ref.hash for ref in row}))


def with_and_without(loras: LoraRow) -> tuple[LoraRow, ...]:
    """Return the guide's rows: without LoRAs, then with all of them."""
    return ((), loras) if loras else ((),)


def name_row(loras: LoraRow) -> str:
    """Return the LoRAs of a row in words: "ogre", "ogre 0.8 + ink 0.5", "without LoRA"."""
    return " + ".join(_name(lora) for lora in loras) or "without LoRA"


def _name(lora: LoraRef) -> str:
    if lora.text_encoder != lora.unet:
        return f"{lora.name} {lora.text_encoder:g}/{lora.unet:g}"
    return lora.name if lora.unet == 1 else f"{lora.name} {lora.unet:g}"


def file_name(render: Render, *, row: int | None = None) -> str:
    """Return a picture's file name, which differs when any setting differs; a sweep's sort in the order of its grid."""
    start = "" if row is None else f"row{row}-"
    return f"{start}clipskip{_in_name(render.clip_skip)}-seed{render.seed}-{render.key}.png"


def _in_name(skip: Skip) -> str:
    """Return the Clip Skip in characters for any file system: 02, 01.5, 01-2-0.5 for [1:2:0.5], 02g5 for 2/5."""
    text = re.sub(r"[\[\]]", "", str(skip)).replace(":", "-").replace("|", "_").replace("/", "g").replace(">", "_")
    return f"{skip.first.shallow:02d}{text.removeprefix(str(skip.first.shallow))}"[:MAX_NAME]


def footer(sweep: Sweep) -> str:
    """Return the settings that all cells share, as the few lines under the grid; they can be pasted as settings again."""
    varied = [axis.kind.field for axis in sweep.axes]
    return shared_infotext(sweep.base, without=[*varied, *(f"{field} hash" for field in varied)])
