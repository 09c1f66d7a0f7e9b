"""A Request to its picture, or to the grid of its Clip Skips and LoRAs: planned, drawn, written and resumed."""

from clipskip.sweep.batch import not_finite
from clipskip.sweep.delete import Deleted, delete_sweep
from clipskip.sweep.doubts import Doubt, doubts_of, warnings_of
from clipskip.sweep.drawn import Advance, Drawn, Extras, Failed, Halt, not_drawn
from clipskip.sweep.folder import GRID, PAGE, SweepFolder, ensure_writable, finish_folder, pixels_of
from clipskip.sweep.forms import Form, forms_of
from clipskip.sweep.history import History, Record, read_sweep
from clipskip.sweep.lock import held
from clipskip.sweep.manifest import read_manifest
from clipskip.sweep.marks import (
    LONGEST_NAME,
    LONGEST_NOTE,
    MOST_CHOICES,
    CellMark,
    Choice,
    Marks,
    marks_json,
    read_marks,
    write_marks,
)
from clipskip.sweep.merging import merge_folders
from clipskip.sweep.model import Model
from clipskip.sweep.models import Models
from clipskip.sweep.plan import Sweep, footer, name_row, with_and_without
from clipskip.sweep.queue import ENDED, Event, Job, Queue
from clipskip.sweep.resolve import NO_PICTURES, Pictures, fix_seed, resolve, seeded
from clipskip.sweep.run import (
    Draws,
    Saved,
    draw_missing,
    draw_one,
    draw_sweep,
    draw_to,
    drawing_models,
    find_model,
    load_model,
    open_model,
    plan_sweep,
    save_picture,
)
from clipskip.sweep.scores import SURE, Badge, Group, Measure, PairedComparison, Scores, Summary, cell_id, write_scores
from clipskip.sweep.shard import Shard
from clipskip.sweep.studio import SCORES, Studio
from clipskip.sweep.tabulate import FORMATS, as_csv, as_parquet, tabulate
from clipskip.sweep.workers import Worker, drawing_now, kinds, read_workers, seconds_left

__all__ = [
    "ENDED",
    "FORMATS",
    "GRID",
    "LONGEST_NAME",
    "LONGEST_NOTE",
    "MOST_CHOICES",
    "NO_PICTURES",
    "PAGE",
    "SCORES",
    "SURE",
    "Advance",
    "Badge",
    "CellMark",
    "Choice",
    "Deleted",
    "Doubt",
    "Drawn",
    "Draws",
    "Event",
    "Extras",
    "Failed",
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
    "as_csv",
    "as_parquet",
    "cell_id",
    "delete_sweep",
    "doubts_of",
    "draw_missing",
    "draw_one",
    "draw_sweep",
    "draw_to",
    "drawing_models",
    "drawing_now",
    "ensure_writable",
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
    "not_drawn",
    "not_finite",
    "open_model",
    "pixels_of",
    "plan_sweep",
    "read_manifest",
    "read_marks",
    "read_sweep",
    "read_workers",
    "resolve",
    "save_picture",
    "seconds_left",
    "seeded",
    "tabulate",
    "warnings_of",
    "with_and_without",
    "write_marks",
    "write_scores",
]
