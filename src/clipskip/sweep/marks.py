"""A person's judgement of a sweep, kept beside its manifest: name, notes, stars, a winner and blind comparisons."""

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
    """A person's judgement of one picture."""

    star: bool = False
    name: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        _check_lengths(self.name, self.note)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A blind comparison of two pictures: their names were shown afterwards."""

    one: str
    """The cells' ids."""
    other: str
    chosen: str | None
    """One of the two; None where neither was better."""
    at: str = ""
    """When, as ISO 8601."""

    def __post_init__(self) -> None:
        if self.one == self.other or self.chosen not in (self.one, self.other, None):
            raise SpecError(
                "a comparison needs two different pictures, and chooses one of them or neither", field="choices"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """All marks of a sweep."""

    revision: int = 0
    """Grows with every change; 0 for a sweep without marks."""
    name: str = ""
    note: str = ""
    winner: str | None = None
    """A cell's id."""
    cells: tuple[tuple[str, CellMark], ...] = ()
    """By the cell's id."""
    choices: tuple[Choice, ...] = ()

    def __post_init__(self) -> None:
        _check_lengths(self.name, self.note)
        if len(self.choices) > MOST_CHOICES:
            raise SpecError(
                f"the marks have {len(self.choices)} comparisons; keep at most {MOST_CHOICES}", field="choices"
            )

    def of(self, id: str) -> CellMark:
        """Return the mark of a cell."""
        return next((mark for cell, mark in self.cells if cell == id), CellMark())

    @property
    def stars(self) -> frozenset[str]:
        """The ids of the cells with a star."""
        return frozenset(id for id, mark in self.cells if mark.star)

    @property
    def ids(self) -> frozenset[str]:
        """The ids of all cells with a mark."""
        chosen = {id for choice in self.choices for id in (choice.one, choice.other)}
        return frozenset({*dict(self.cells), *chosen, *([self.winner] if self.winner else ())})


def read_marks(folder: Path) -> Marks:
    """Return the marks in a sweep's folder, empty where it has none; DamagedFile where they cannot be read."""
    path = folder / MARKS
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["kind"] != KIND:
            raise ValueError(f"its kind is {content['kind']!r}")
        return _marks(content)
    except FileNotFoundError:
        return Marks()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SpecError, RecursionError) as error:
        raise DamagedFile(
            f"{path} cannot be read ({type(error).__name__}: {str(error)[:80]}); move it away to mark anew",
            field="sweep",
        ) from None


def shown_marks(folder: Path) -> Marks:
    """Return the marks of a folder for a page, which marks that cannot be read do not end: there they are none."""
    try:
        return read_marks(folder)
    except DamagedFile:
        return Marks()


def write_marks(folder: Path, marks: Marks, *, cells: Collection[str]) -> Marks:
    """Keep marks that were made on top of the revision that they name, and return them with their new revision.

    `cells` are the ids of the sweep's cells. Raises Conflict where somebody else has changed the marks since.
    """
    unknown = next((id for id in sorted(marks.ids) if id not in cells), None)
    if unknown is not None:
        raise SpecError(f"this sweep has no cell {unknown[:40]!r}; a cell's id is in GET /v1/sweeps/ID", field="cells")
    try:
        with changing(folder):
            now = read_marks(folder)
            if marks.revision != now.revision:
                raise Conflict(
                    f"somebody else has changed the marks of this sweep: they are at revision {now.revision}, but these were "
                    f"made on top of {marks.revision}; read them again",
                    field="revision",
                )
            marked = tuple((id, mark) for id, mark in marks.cells if mark != CellMark())
            kept = replace(marks, revision=now.revision + 1, cells=marked)
            write_bytes(folder / MARKS, json.dumps(marks_json(kept), indent=1, ensure_ascii=False).encode())
    except Timeout:
        raise Conflict("somebody else is changing the marks of this sweep; try again", field="revision") from None
    return kept


def marks_json(marks: Marks) -> dict[str, Any]:  # Any: JSON
    """Return the marks as they stand in the file."""
    return {"kind": KIND} | asdict(marks) | {"cells": {id: asdict(mark) for id, mark in marks.cells}}


def _marks(content: Mapping[str, Any]) -> Marks:  # Any: JSON
    return Marks(
        revision=int(content["revision"]),
        name=str(content["name"]),
        note=str(content["note"]),
        winner=content["winner"],
        cells=tuple((str(id), CellMark(**mark)) for id, mark in content["cells"].items()),
        choices=tuple(Choice(**choice) for choice in content["choices"]),
    )


def _check_lengths(name: str, note: str) -> None:
    if len(name) > LONGEST_NAME or len(note) > LONGEST_NOTE:
        raise SpecError(
            f"a name has at most {LONGEST_NAME} characters and a note {LONGEST_NOTE:,}; shorten it",
            field="name" if len(name) > LONGEST_NAME else "note",
        )
