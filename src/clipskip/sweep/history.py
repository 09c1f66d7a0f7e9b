"""The sweeps in an output folder, read from disk, so that they outlive the process that drew them."""

import hashlib
import os
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, final

from clipskip.errors import ClipskipError, DamagedFile, NotFound
from clipskip.spec import Axis, LoraRef, Request, Skip, Value
from clipskip.sweep.folder import GRID, PAGE
from clipskip.sweep.manifest import MANIFEST, axes_of, read_manifest, request_of
from clipskip.sweep.marks import MARKS, Marks, read_marks, write_marks
from clipskip.sweep.scores import Scores, cell_id, scores_of

PREFIX = "sweep-"
MOST_KEPT = 20_000
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One picture of a past sweep, drawn or not."""

    path: Path
    settings: str
    scores: tuple[tuple[str, float], ...] = ()
    """(A measure's name, its number)."""

    @property
    def id(self) -> str:
        """12 hex digits that differ when any setting differs."""
        return cell_id(self.path.name)

    @property
    def drawn(self) -> bool:
        """Return whether its file is there; files appear only when complete."""
        return self.path.is_file()


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The content of a sweep's manifest."""

    id: str
    folder: Path
    created: str
    """As ISO 8601."""
    settings: str
    request: Request
    model_family: str | None
    model_depth: int | None
    model_trained_clip_skip: int | None
    skips: tuple[Skip, ...]
    labels: tuple[str, ...]
    rows: tuple[tuple[str, tuple[LoraRef, ...]], ...]
    """Name and LoRAs of each row."""
    axes: tuple[Axis, ...] = ()
    values: tuple[tuple[tuple[str, Value], ...], ...] = ()
    """For each row, (an axis' name, its value); an axis is left out where several of its values share the row."""
    left_out: tuple[str, ...] = ()
    """Combinations of the axes' values that cannot be drawn, and why."""
    cells: tuple[tuple[Cell, ...], ...]
    scores: Scores
    """What is measured in the cells, with its summary."""

    @property
    def flat(self) -> tuple[Cell, ...]:
        """The cells, row by row."""
        return tuple(cell for row in self.cells for cell in row)

    @property
    def drawn(self) -> frozenset[int]:
        """The places of the cells whose files are there, row by row; by one look into the folder, however many they are."""
        try:
            with os.scandir(self.folder) as entries:
                names = {entry.name for entry in entries if entry.is_file()}
        except OSError:
            return frozenset()
        return frozenset(place for place, cell in enumerate(self.flat) if cell.path.name in names)

    @property
    def complete(self) -> bool:
        """Return whether every picture, the grid and the page are there."""
        return len(self.drawn) == len(self.flat) and self.has(GRID) and self.has(PAGE)

    def has(self, name: str) -> bool:
        """Return whether the folder has this file."""
        return (self.folder / name).is_file()

    def cell(self, row: int, column: int) -> Cell:
        """Return the cell at a place of the grid; NotFound where the grid has no such place."""
        if not (0 <= row < len(self.cells) and 0 <= column < len(self.cells[row])):
            raise NotFound(
                f"the sweep {self.id} has {len(self.cells)} rows of {len(self.skips)} cells, counted from 0",
                field="sweep",
            )
        return self.cells[row][column]


@final
class History:
    """The sweeps in the folders directly below one folder."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._records = Remembered[Record | None](lambda path: _read_record(path.parent))
        self._marks = Remembered[Marks](lambda path: read_marks(path.parent))
        self._digests = Remembered[str](lambda path: hashlib.sha256(path.read_bytes()).hexdigest())

    def all(self, text: str = "") -> list[Record]:
        """Return the sweeps, newest first; with a text, those with each of its words in name, note, prompts, model or
        LoRAs."""
        records = [self._records.of(path) for path in self.out.glob(f"*/{MANIFEST}")]
        words = text.casefold().split()
        matches = [record for record in records if record is not None and self._has(record, words)]
        return sorted(matches, key=lambda record: record.created, reverse=True)

    def _has(self, record: Record, words: Sequence[str]) -> bool:
        if not words:
            return True
        marks, asked = self.shown_marks(record), record.request
        loras = (lora.name for _, row in record.rows for lora in row)
        texts = (marks.name, marks.note, asked.prompt, asked.negative_prompt, asked.model or "", *loras, record.id)
        whole = "\n".join(texts).casefold()
        return all(word in whole for word in words)

    def find(self, id: str) -> Record:
        """Return one sweep; NotFound where none has this name."""
        if ID.fullmatch(id):
            for folder in (self.out / f"{PREFIX}{id}", self.out / id):
                record = self._records.of(folder / MANIFEST)
                if record is not None:
                    return record
        raise NotFound(f"the sweep {id[:64]!r} does not exist; GET /v1/sweeps lists all", field="sweep")

    def marks(self, record: Record) -> Marks:
        """Return a person's marks on a sweep."""
        return self._marks.of(record.folder / MARKS) or Marks()

    def shown_marks(self, record: Record) -> Marks:
        """Return the same for a list, which marks that cannot be read do not end: there they are none."""
        try:
            return self.marks(record)
        except DamagedFile:
            return Marks()

    def mark(self, record: Record, marks: Marks) -> Marks:
        """Keep new marks; Conflict where somebody else has changed them since."""
        return write_marks(record.folder, marks, cells={cell.id for cell in record.flat})

    def digest(self, cell: Cell) -> str | None:
        """Return the sha256 of a cell's file; None where it is not drawn."""
        return self._digests.of(cell.path)


def read_sweep(folder: Path) -> Record:
    """Read the sweep in a folder anywhere; NotFound where it contains none."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise NotFound(
            f"{folder} contains no sweep: its {MANIFEST} is missing or cannot be read; choose the folder of a sweep",
            field="folder",
        )
    return _record(folder.name.removeprefix(PREFIX), folder, manifest)


@final
class Remembered(Generic[Made]):
    """Results made from files, kept as long as each file's size and time stay the same."""

    def __init__(self, make: Callable[[Path], Made]) -> None:
        self._make = make
        self._kept: dict[Path, tuple[tuple[int, int], Made]] = {}

    def of(self, path: Path) -> Made | None:
        """Return the result for this file; None where it does not exist or is only a link."""
        try:
            about = path.lstat()
            if not stat.S_ISREG(about.st_mode) or path.parent.is_symlink():
                return None
            stamp = about.st_mtime_ns, about.st_size
            kept = self._kept.get(path)
            if kept is None or kept[0] != stamp:
                if len(self._kept) >= MOST_KEPT:
                    self._kept.clear()
                kept = self._kept[path] = stamp, self._make(path)
        except OSError:
            return None
        return kept[1]


def _read_record(folder: Path) -> Record | None:
    """Return the content of a folder's manifest; None where it cannot be read."""
    manifest = read_manifest(folder)
    id = folder.name.removeprefix(PREFIX)
    if manifest is None or not ID.fullmatch(id):
        return None
    try:
        return _record(id, folder, manifest)
    except (ClipskipError, KeyError, TypeError, ValueError, AttributeError):
        return None


def _record(id: str, folder: Path, manifest: dict[str, Any]) -> Record:
    request, skips = request_of(manifest)
    model, columns = manifest["model"], manifest["columns"]
    cells = tuple(
        tuple(
            Cell(
                path=folder / Path(cell["file"]).name,
                settings=str(cell["settings"]),
                scores=tuple((str(name), float(value)) for name, value in cell.get("scores", {}).items()),
            )
            for cell in row
        )
        for row in manifest["cells"]
    )
    rows = tuple((str(row["name"]), tuple(LoraRef(**lora) for lora in row["loras"])) for row in manifest["rows"])
    if len(cells) != len(rows) or any(len(row) != len(skips) for row in cells):
        raise ValueError("cells do not fit rows and columns")
    return Record(
        id=id,
        folder=folder,
        created=str(manifest["created"]),
        settings=str(manifest["settings"]),
        request=request,
        model_family=model["family"],
        model_depth=model["depth"],
        model_trained_clip_skip=model["trained_clip_skip"],
        skips=skips,
        labels=tuple(str(column["label"]) for column in columns),
        rows=rows,
        axes=axes_of(manifest),
        values=tuple(tuple(row.get("values", {}).items()) for row in manifest["rows"]),
        left_out=tuple(map(str, manifest.get("left_out", ()))),
        cells=cells,
        scores=scores_of(manifest),
    )
