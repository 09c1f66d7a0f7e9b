"""Our own API: marking and deleting a sweep."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field, StringConstraints

from clipskip.doors.http.ours.bodies import Body
from clipskip.doors.http.ours.views import View
from clipskip.doors.http.strict import StrictRoute
from clipskip.errors import SpecError
from clipskip.sweep import LONGEST_NAME, LONGEST_NOTE, MOST_CHOICES, CellMark, Choice, Marks, Studio

CellId = Annotated[str, StringConstraints(max_length=40)]
MarkName = Annotated[str, StringConstraints(max_length=LONGEST_NAME)]
Note = Annotated[str, StringConstraints(max_length=LONGEST_NOTE)]


class CellMarkBody(Body):
    """The marks of one picture."""

    star: bool = False
    name: MarkName = ""
    note: Note = ""


class ChoiceBody(Body):
    """A blind comparison of two pictures."""

    one: CellId
    other: CellId
    chosen: CellId | None
    """The better one of the two; null where neither was better."""
    at: Annotated[str, StringConstraints(max_length=40)] = ""


class MarksBody(Body):
    """All marks of a sweep, made on top of one revision of them."""

    revision: Annotated[int, Field(ge=0)]
    name: MarkName = ""
    note: Note = ""
    winner: CellId | None = None
    cells: Annotated[dict[CellId, CellMarkBody], Field(default_factory=dict)]
    choices: Annotated[list[ChoiceBody], Field(max_length=MOST_CHOICES, default_factory=list)]

    def marks(self) -> Marks:
        """Return the marks."""
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
    """Sent back with a change; 0 stands for a sweep without marks."""
    name: str
    note: str
    winner: str | None
    cells: dict[str, CellMark]
    choices: list[Choice]


class DeletedView(View):
    """The outcome of deleting a sweep's folder."""

    files: int
    """The number of deleted files."""
    left: int
    """The number of files that no sweep made; they stay."""


def marking_routes(studio: Studio) -> APIRouter:
    """Build the routes that keep a sweep's marks and delete sweeps."""
    routes = APIRouter(prefix="/v1/sweeps", tags=["sweeps"], route_class=StrictRoute)

    @routes.get("/{id}/marks")
    def marks(id: str) -> MarksView:
        """Return a sweep's name, notes, stars, winner, and the result of blind comparisons of its pictures."""
        return _marks_view(studio.history.marks(studio.history.find(id)))

    @routes.put("/{id}/marks")
    def mark(id: str, body: MarksBody) -> MarksView:
        """Replace all marks by these. 409 if somebody else has changed them since that revision."""
        return _marks_view(studio.history.mark(studio.history.find(id), body.marks()))

    @routes.delete("/{id}/folder")
    def delete(id: str, confirm: str) -> DeletedView:
        """Delete a sweep's pictures for good; `confirm` is its id once more. 409 while it is being drawn."""
        if confirm != id:
            raise SpecError(
                f"nothing is deleted: confirm is {confirm[:64]!r}; send the sweep's id again, {id[:64]!r}",
                field="confirm",
            )
        gone = studio.delete(id)
        return DeletedView(files=gone.files, left=gone.left)

    return routes


def _marks_view(marks: Marks) -> MarksView:
    return MarksView(
        revision=marks.revision,
        name=marks.name,
        note=marks.note,
        winner=marks.winner,
        cells=dict(marks.cells),
        choices=list(marks.choices),
    )
