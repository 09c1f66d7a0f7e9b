"""A Request to its picture, or to the grid of its Clip Skips and LoRAs: planned, drawn, written and resumed."""

from clipskip.sweep.delete import Deleted, delete_sweep
from clipskip.sweep.doubts import Doubt, doubts_of, warnings_of
from clipskip.sweep.folder import GRID, PAGE, SweepFolder, finish_folder
from clipskip.sweep.forms import Form, forms_of
from clipskip.sweep.history import History, Record, read_sweep
from clipskip.sweep.lock import held
from clipskip.sweep.marks import CellMark, Choice, Marks, marks_json, read_marks, write_marks
from clipskip.sweep.merge import merge_folders
from clipskip.sweep.model import Advance, Drawn, Extras, Halt, Model, not_finite
from clipskip.sweep.models import Models
from clipskip.sweep.plan import Sweep, footer, name_row, with_and_without
from clipskip.sweep.queue import ENDED, Job, Queue
from clipskip.sweep.resolve import NO_PICTURES, Pictures, fix_seed, resolve, seeded
from clipskip.sweep.run import (
    Draws,
    Saved,
    draw_missing,
    draw_one,
    draw_sweep,
    draw_to,
    draws,
    find_model,
    load_model,
    open_model,
    plan_sweep,
    save_picture,
)
from clipskip.sweep.scores import Badge, Group, Measure, PairedComparison, Scores, Summary, cell_id, write_scores
from clipskip.sweep.shard import Shard
from clipskip.sweep.studio import Studio
from clipskip.sweep.workers import Worker, drawing_now, kinds, read_workers, seconds_left

__all__ = [
    "ENDED",
    "GRID",
    "NO_PICTURES",
    "PAGE",
    "Advance",
    "Badge",
    "CellMark",
    "Choice",
    "Deleted",
    "Doubt",
    "Drawn",
    "Draws",
    "Extras",
    "Form",
    "Group",
    "Halt",
    "History",
    "Job",
    "Marks",
    "Measure",
    "Model",
    "Models",
    "PairedComparison",
    "Pictures",
    "Queue",
    "Record",
    "Saved",
    "Scores",
    "Shard",
    "Studio",
    "Summary",
    "Sweep",
    "SweepFolder",
    "Worker",
    "cell_id",
    "delete_sweep",
    "doubts_of",
    "draw_missing",
    "draw_one",
    "draw_sweep",
    "draw_to",
    "drawing_now",
    "draws",
    "find_model",
    "finish_folder",
    "fix_seed",
    "footer",
    "forms_of",
    "held",
    "kinds",
    "load_model",
    "marks_json",
    "merge_folders",
    "name_row",
    "not_finite",
    "open_model",
    "plan_sweep",
    "read_marks",
    "read_sweep",
    "read_workers",
    "resolve",
    "save_picture",
    "seconds_left",
    "seeded",
    "warnings_of",
    "with_and_without",
    "write_marks",
    "write_scores",
]
