"""What a person thinks of a sweep: its name, notes, stars, a winner and what blind comparisons came to, beside its manifest."""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import Timeout

from clipskip.errors import Conflict, DamagedFile, SpecError
from clipskip.image import write_bytes
from clipskip.sweep.scores import changing

MARKS, KIND = "marks.json", "clipskip marks"
LONGEST_NAME, LONGEST_NOTE, MOST_CHOICES = 200, 10_000, 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class CellMark:
    """What is thought of one picture."""

    star: bool = False
    name: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        _check(self.name, self.note)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A blind comparison of two pictures: which is which was told afterwards."""

    one: str
    """The cells' ids."""
    other: str
    chosen: str | None
    """One of the two; None where neither was better."""
    at: str = ""
    """When, as ISO 8601."""

    def __post_init__(self) -> None:
        if self.one == self.other or self.chosen not in (self.one, self.other, None):
            raise SpecError("a comparison is of two pictures, and chooses one of them or neither", field="choices")


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """All of it."""

    revision: int = 0
    """Grows with every change; 0 is a sweep without marks."""
    name: str = ""
    note: str = ""
    winner: str | None = None
    """A cell's id."""
    cells: tuple[tuple[str, CellMark], ...] = ()
    """By the cell's id."""
    choices: tuple[Choice, ...] = ()

    def __post_init__(self) -> None:
        _check(self.name, self.note)
        if len(self.choices) > MOST_CHOICES:
            raise SpecError(f"{len(self.choices)} comparisons are kept; {MOST_CHOICES} is the most", field="choices")

    def of(self, id: str) -> CellMark:
        """What is thought of a cell."""
        return next((mark for cell, mark in self.cells if cell == id), CellMark())

    @property
    def stars(self) -> frozenset[str]:
        """The ids of the cells that have one."""
        return frozenset(id for id, mark in self.cells if mark.star)

    @property
    def ids(self) -> frozenset[str]:
        """All cells that something is said of."""
        chosen = {id for choice in self.choices for id in (choice.one, choice.other)}
        return frozenset({*dict(self.cells), *chosen, *([self.winner] if self.winner else ())})


def read_marks(folder: Path) -> Marks:
    """The marks of a sweep's folder, empty where it has none; DamagedFile where they cannot be read."""
    path = folder / MARKS
    try:
        said = json.loads(path.read_text("utf-8"))
        if said["kind"] != KIND:
            raise ValueError(f"its kind is {said['kind']!r}")
        return _marks(said)
    except FileNotFoundError:
        return Marks()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SpecError, RecursionError) as error:
        raise DamagedFile(
            f"{path} cannot be read ({type(error).__name__}: {str(error)[:80]}); move it away to mark anew",
            field="sweep",
        ) from None


def shown_marks(folder: Path) -> Marks:
    """The marks of a folder for a page, which marks that cannot be read do not end: there they are none."""
    try:
        return read_marks(folder)
    except DamagedFile:
        return Marks()


def write_marks(folder: Path, marks: Marks, *, cells: Collection[str]) -> Marks:
    """Keep marks that were made on top of the revision that they name, and give them with their new one.

    `cells` are the ids of the sweep's cells. Conflict where somebody else has changed the marks since.
    """
    strange = next((id for id in sorted(marks.ids) if id not in cells), None)
    if strange is not None:
        raise SpecError(f"this sweep has no cell {strange[:40]!r}; a cell's id is in GET /v1/sweeps/ID", field="cells")
    try:
        with changing(folder):
            now = read_marks(folder)
            if marks.revision != now.revision:
                raise Conflict(
                    f"somebody else has changed the marks of this sweep: they are at revision {now.revision}, and these were "
                    f"made on top of {marks.revision}; read them again",
                    field="revision",
                )
            told = tuple((id, mark) for id, mark in marks.cells if mark != CellMark())
            kept = replace(marks, revision=now.revision + 1, cells=told)
            write_bytes(folder / MARKS, json.dumps(marks_json(kept), indent=1, ensure_ascii=False).encode())
    except Timeout:
        raise Conflict("somebody else is changing the marks of this sweep; try again", field="revision") from None
    return kept


def marks_json(marks: Marks) -> dict[str, Any]:  # Any: JSON
    """The marks as the file has them."""
    return {"kind": KIND} | asdict(marks) | {"cells": {id: asdict(mark) for id, mark in marks.cells}}


def _marks(said: Mapping[str, Any]) -> Marks:  # Any: JSON
    return Marks(
        revision=int(said["revision"]),
        name=str(said["name"]),
        note=str(said["note"]),
        winner=said["winner"],
        cells=tuple((str(id), CellMark(**mark)) for id, mark in said["cells"].items()),
        choices=tuple(Choice(**choice) for choice in said["choices"]),
    )


def _check(name: str, note: str) -> None:
    if len(name) > LONGEST_NAME or len(note) > LONGEST_NOTE:
        raise SpecError(
            f"a name has at most {LONGEST_NAME} characters and a note {LONGEST_NOTE:,}; shorten it",
            field="name" if len(name) > LONGEST_NAME else "note",
        )
