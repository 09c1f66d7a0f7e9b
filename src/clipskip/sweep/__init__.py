"""A Request in; its picture, or the grid of its Clip Skips and LoRAs, out: planned, drawn, written, resumed."""

from clipskip.sweep.folder import SweepFolder
from clipskip.sweep.model import Advance, Drawn, Extras, Model
from clipskip.sweep.plan import Sweep, footer, name_row, with_and_without
from clipskip.sweep.resolve import resolve
from clipskip.sweep.run import Saved, draw_missing, draw_one, draw_sweep, draw_to, find_model, open_model, plan_sweep
from clipskip.sweep.studio import Studio

__all__ = [
    "Advance",
    "Drawn",
    "Extras",
    "Model",
    "Saved",
    "Studio",
    "Sweep",
    "SweepFolder",
    "draw_missing",
    "draw_one",
    "draw_sweep",
    "draw_to",
    "find_model",
    "footer",
    "name_row",
    "open_model",
    "plan_sweep",
    "resolve",
    "with_and_without",
]
