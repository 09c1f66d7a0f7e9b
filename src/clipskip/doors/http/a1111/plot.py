"""A1111's X/Y/Z plot: read the script's arguments, list the cells to draw, and build the sheet and its `info`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipskip.doors.http.a1111.plot_axes import KINDS, SEEDS, PlotAxis, Value, read_axis
from clipskip.doors.http.pictures import MOST_PICTURES
from clipskip.errors import SpecError
from clipskip.image import draw_grid
from clipskip.spec import Render, quote, render_infotext
from clipskip.spec import Request as Asked
from clipskip.sweep import Drawn, Extras, Studio, fix_seed
from clipskip.weights import CheckpointFacts

NAME = "X/Y/Z plot"
Pixels = NDArray[np.uint8]
Json = dict[str, Any]  # Any: A1111's own shapes
SWITCHES = (
    "draw_legend", "include_lone_images", "include_sub_grids", "no_fixed_seeds", "vary_seeds_x", "vary_seeds_y",
    "vary_seeds_z", "margin_size", "csv_mode",
)  # fmt: skip
"""The arguments of A1111 1.10 that follow three for each axis."""
MARGIN = "margin_size"
MOST_MARGIN = 500
"""The widest margin, in pixels, as on A1111's page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A sheet of pictures: X runs across, Y down, and Z makes a block for each value."""

    x: PlotAxis
    y: PlotAxis
    z: PlotAxis
    legend: bool
    cells_too: bool
    blocks_too: bool
    fixed_seed: bool
    """Whether a seed of -1 is drawn once for all cells."""
    varied: tuple[bool, bool, bool]
    """Whether the seed counts up along X, Y and Z."""
    margin_px: int

    @property
    def size(self) -> int:
        """The number of pictures."""
        return len(self.x.values) * len(self.y.values) * len(self.z.values)

    def requests(self, asked: Asked) -> list[Asked]:
        """Return what each cell asks for, X counting fastest. All have one seed unless an axis or a switch says
        otherwise."""
        if self.fixed_seed:
            asked = replace(asked, seed=fix_seed(asked.seed), variation_seed=fix_seed(asked.variation_seed))
        slowest_first = product(*(enumerate(axis.values) for axis in reversed(self._axes)))
        return [self._cell(asked, places[::-1]) for places in slowest_first]

    @property
    def _axes(self) -> tuple[PlotAxis, PlotAxis, PlotAxis]:
        return self.x, self.y, self.z

    def _cell(self, asked: Asked, places: Sequence[tuple[int, Value]]) -> Asked:
        shift, width = 0, 1
        for (index, value), axis, varied in zip(places, self._axes, self.varied, strict=True):
            asked = axis.kind.apply(asked, value, axis.values)
            if varied:
                shift, width = shift + index * width, width * len(axis.values)
        return asked if asked.seed == -1 else replace(asked, seed=asked.seed + shift)


def read_plot(args: Sequence[Any]) -> Plot:  # Any: whatever the client sent
    """Read the plot that A1111's arguments ask for. Raises SpecError."""
    if len(args) != 9 + len(SWITCHES):
        raise SpecError(
            f"script_args has {len(args)} values; {NAME} takes {9 + len(SWITCHES)}: type, values and menu values of each "
            f"axis, then {', '.join(SWITCHES)}",
            field="script_args",
        )
    given = dict(zip(SWITCHES, args[9:], strict=True))
    for name, value in given.items():
        if name == MARGIN:
            if isinstance(value, bool) or value not in range(MOST_MARGIN + 1):
                raise SpecError(
                    f"script_args: {name} is {str(value)[:40]!r}; give whole pixels, 0 to {MOST_MARGIN}",
                    field="script_args",
                )
        elif not isinstance(value, bool):
            raise SpecError(f"script_args: {name} is {str(value)[:40]!r}; give true or false", field="script_args")
    x, y, z = (
        read_axis(args[3 * i : 3 * i + 3], name, csv_mode=given["csv_mode"], fixed_seeds=not given["no_fixed_seeds"])
        for i, name in enumerate("XYZ")
    )
    plot = Plot(
        x=x,
        y=y,
        z=z,
        legend=given["draw_legend"],
        cells_too=given["include_lone_images"],
        blocks_too=given["include_sub_grids"],
        fixed_seed=not given["no_fixed_seeds"],
        varied=(given["vary_seeds_x"], given["vary_seeds_y"], given["vary_seeds_z"]),
        margin_px=int(given[MARGIN]),
    )
    if plot.size > MOST_PICTURES:
        raise SpecError(f"this plot has {plot.size} pictures; {MOST_PICTURES} is the most", field="script_args")
    return plot


def plan_cells(studio: Studio, cells: Sequence[Asked]) -> tuple[CheckpointFacts, list[Render], Extras]:
    """Gather what all cells need."""
    planned = [studio.plan(cell) for cell in cells]
    first, models = planned[0][0], {facts.ref: facts for facts, _, _ in planned}
    other = next((facts for facts in models.values() if facts.family is not first.family), None)
    if other:
        raise SpecError(
            f"{other.ref.name} is {other.family.label} and {first.ref.name} is {first.family.label}, which read Clip Skip "
            "otherwise; plot the checkpoints of one family",
            field="script_args",
        )
    extras = reduce(Extras.with_more, (extras for _, _, extras in planned))
    del models[first.ref]
    return first, [render for _, render, _ in planned], replace(extras, models=models)


def draw_sheets(plot: Plot, drawn: Sequence[Drawn]) -> list[Pixels]:
    """Return the whole sheet, then the block of each Z value. A cell that was interrupted stays empty."""
    pixels = {drawing.index: drawing.pixels for drawing in drawn}
    height, width, _ = drawn[0].pixels.shape
    across, down = len(plot.x.values), len(plot.y.values)
    blocks = []
    for start in range(0, plot.size, across * down):
        rows = [[pixels.get(start + row * across + i) for i in range(across)] for row in range(down)]
        if plot.legend:
            blocks.append(draw_grid(rows, columns=plot.x.names, rows=plot.y.names, footer="", gap_px=plot.margin_px))
        else:
            empty = np.full((height, width, 3), 255, np.uint8)
            blocks.append(np.vstack([np.hstack([empty if cell is None else cell for cell in row]) for row in rows]))
    if len(blocks) == 1:
        return [blocks[0], *blocks]
    whole = draw_grid([blocks], columns=plot.z.names, rows=("",), footer="") if plot.legend else np.hstack(blocks)
    return [whole, *blocks]


def sheet_infotext(plot: Plot, first: Render) -> str:
    """Return the first cell's settings, with the axes written before the version."""
    axes = [("X", plot.x), ("Y", plot.y), ("Z", plot.z)]
    pairs = [("Script", NAME)]
    for name, axis in axes:
        if axis.kind.label != "Nothing":
            pairs += [(f"{name} Type", axis.kind.label), (f"{name} Values", axis.typed)]
        if plot.fixed_seed and axis.kind.label in SEEDS:
            pairs.append((f"Fixed {name} Values", ", ".join(map(str, axis.values))))
    start, version, end = render_infotext(first).rpartition(", Version: ")
    return start + "".join(f", {name}: {quote(value)}" for name, value in pairs) + version + end


def plot_script() -> Json:
    """Return the plot as A1111's `script-info` describes it."""
    labels = [kind.label for kind in KINDS]
    args: list[Json] = []
    for name in "XYZ":
        args.append(_arg(f"{name} type", "Clip skip" if name == "X" else "Nothing", choices=labels))
        args += [_arg(f"{name} values", ""), _arg(f"{name} values", [])]
    args += [_arg(name, 0 if name == MARGIN else name == "draw_legend") for name in SWITCHES]
    return {"name": NAME.lower(), "is_alwayson": False, "is_img2img": False, "args": args}


def _arg(label: str, value: object, *, choices: list[str] | None = None) -> Json:
    return {"label": label, "value": value, "minimum": None, "maximum": None, "step": None, "choices": choices}
