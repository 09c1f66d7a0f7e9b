"""Our own API: what a person thinks of a sweep, and that it is to go."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field, StringConstraints

from clipskip.doors.http.ours.bodies import Body
from clipskip.doors.http.ours.views import View
from clipskip.doors.http.strict import StrictRoute
from clipskip.errors import SpecError
from clipskip.sweep import CellMark, Choice, Marks, Studio
from clipskip.sweep.marks import LONGEST_NAME, LONGEST_NOTE, MOST_CHOICES

CellId = Annotated[str, StringConstraints(max_length=40)]
MarkName = Annotated[str, StringConstraints(max_length=LONGEST_NAME)]
Note = Annotated[str, StringConstraints(max_length=LONGEST_NOTE)]


class CellMarkBody(Body):
    """What is thought of one picture."""

    star: bool = False
    name: MarkName = ""
    note: Note = ""


class ChoiceBody(Body):
    """A blind comparison of two pictures."""

    one: CellId
    other: CellId
    chosen: CellId | None
    """One of the two; null where neither was better."""
    at: Annotated[str, StringConstraints(max_length=40)] = ""


class MarksBody(Body):
    """All marks of a sweep, made on top of a revision of them."""

    revision: Annotated[int, Field(ge=0)]
    name: MarkName = ""
    note: Note = ""
    winner: CellId | None = None
    cells: Annotated[dict[CellId, CellMarkBody], Field(default_factory=dict)]
    choices: Annotated[list[ChoiceBody], Field(max_length=MOST_CHOICES, default_factory=list)]

    def marks(self) -> Marks:
        """The value."""
        return Marks(
            revision=self.revision,
            name=self.name,
            note=self.note,
            winner=self.winner,
            cells=tuple((id, CellMark(**mark.model_dump())) for id, mark in self.cells.items()),
            choices=tuple(Choice(**choice.model_dump()) for choice in self.choices),
        )


class MarksView(View):
    """The marks of a sweep."""

    revision: int
    """To be sent back with a change; 0 is a sweep without marks."""
    name: str
    note: str
    winner: str | None
    cells: dict[str, CellMark]
    choices: list[Choice]


class DeletedView(View):
    """What became of a sweep's folder."""

    files: int
    """How many are gone."""
    left: int
    """How many lie there that no sweep made: they stay."""


def marking_routes(studio: Studio) -> APIRouter:
    """What a person keeps, and deletes, of sweeps."""
    routes = APIRouter(prefix="/v1/sweeps", tags=["sweeps"], route_class=StrictRoute)

    @routes.get("/{id}/marks")
    def marks(id: str) -> MarksView:
        """A sweep's name, notes, stars, winner, and what blind comparisons of its pictures came to."""
        return _view(studio.history.marks(studio.history.find(id)))

    @routes.put("/{id}/marks")
    def mark(id: str, body: MarksBody) -> MarksView:
        """Keeps them, all in the place of all; 409 where somebody else has changed them since that revision."""
        return _view(studio.history.mark(studio.history.find(id), body.marks()))

    @routes.delete("/{id}/folder")
    def delete(id: str, confirm: str) -> DeletedView:
        """Deletes a sweep's pictures for good; `confirm` is its id once more. 409 while it is drawn."""
        if confirm != id:
            raise SpecError(
                f"nothing is deleted: confirm is {confirm[:64]!r}; send the sweep's id again, {id[:64]!r}",
                field="confirm",
            )
        gone = studio.delete(id)
        return DeletedView(files=gone.files, left=gone.left)

    return routes


def _view(marks: Marks) -> MarksView:
    return MarksView(
        revision=marks.revision,
        name=marks.name,
        note=marks.note,
        winner=marks.winner,
        cells=dict(marks.cells),
        choices=list(marks.choices),
    )
