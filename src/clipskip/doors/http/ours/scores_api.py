"""Our own API: scores of a sweep's cells."""

from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from clipskip.doors.http.ours.bodies import Body, Name
from clipskip.doors.http.ours.views import ErrorView, JobState, View, view_error
from clipskip.doors.http.strict import StrictRoute
from clipskip.errors import NotFound
from clipskip.score import Scoring, available, score_sweep
from clipskip.sweep import ENDED, SCORES, Advance, Event, Job, Measure, Model, Record, Studio, Summary


class ScoresBody(Body):
    """The measures to take."""

    scores: Annotated[list[Name], Field(min_length=1, max_length=16, default_factory=lambda: ["advise"])]


class ScoresView(View):
    """The progress of measuring, and its result; the numbers stand in the sweep's cells."""

    state: JobState
    progress: float
    eta_s: float | None
    error: ErrorView | None
    measures: list[Measure]
    summary: Summary | None


class AvailableView(View):
    """The measures that this server can take."""

    scores: list[str]
    """advise; clip if the server has a CLIP model; and the installed plug-ins."""


class MeasuringStopped(Exception):
    """Measuring was cancelled."""


def scoring_routes(studio: Studio, *, clip: str | None) -> APIRouter:
    """Build the routes that list measures and measure."""
    routes = APIRouter(prefix="/v1", tags=["sweeps"], route_class=StrictRoute)

    @routes.get("/scores")
    def scores() -> AvailableView:
        """List what can be measured here."""
        return AvailableView(scores=list(available(clip=clip)))

    @routes.post("/sweeps/{id}/scores", status_code=202)
    def begin(id: str, body: ScoresBody) -> ScoresView:
        """Measure the cells of a sweep that have no number yet. The numbers are kept in its manifest."""
        wanted = Scoring(sources=tuple(body.scores), clip=clip)
        record = studio.history.find(id)
        begin_scoring(studio, record, wanted)
        return _scores_view(record, studio)

    @routes.get("/sweeps/{id}/scores")
    def progress(id: str) -> ScoresView:
        """Return how far measuring is, and its result."""
        return _scores_view(studio.history.find(id), studio)

    @routes.delete("/sweeps/{id}/scores")
    def cancel(id: str) -> ScoresView:
        """Stop before the next measurement; what was measured stays."""
        record = studio.history.find(id)
        job = studio.queue.find(SCORES + record.id)
        if job is None:
            raise NotFound(f"nothing is being measured of the sweep {id}; begin with POST", field="sweep")
        studio.queue.cancel(job)
        return _scores_view(record, studio)

    return routes


def begin_scoring(studio: Studio, record: Record, wanted: Scoring) -> None:
    """Queue the measuring after the sweep's drawing."""
    facts, folder, extras = studio.reopened(record)

    def measure(model: Model) -> Iterator[Event]:
        def tell(done: int, most: int) -> None:
            job.take(Advance(indices=(0,), step=done, steps=most))
            if job.stop.is_set():
                raise MeasuringStopped

        try:
            score_sweep(model, folder, extras, wanted, open=studio.models.open, tell=tell)
        except MeasuringStopped:
            return
        yield from ()

    job = Job(facts, measure, total=1, id=SCORES + record.id)
    studio.queue.put(job)


def _scores_view(record: Record, studio: Studio) -> ScoresView:
    job = studio.queue.find(SCORES + record.id)
    record = studio.history.find(record.id)
    running = job is not None and job.state not in ENDED
    there = record.scores.summary is not None
    return ScoresView(
        state=job.state if job else "done" if there else "none",
        progress=job.share if job and running else float(there),
        eta_s=job.eta_s if job and running else None,
        error=view_error(job.error) if job and job.error else None,
        measures=list(record.scores.measures),
        summary=record.scores.summary,
    )
