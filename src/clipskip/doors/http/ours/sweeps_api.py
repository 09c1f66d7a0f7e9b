"""Our own API: sweeps."""

from dataclasses import asdict, replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse, Response, StreamingResponse

from clipskip.doors.http.ours.bodies import SweepBody
from clipskip.doors.http.ours.events import watch
from clipskip.doors.http.ours.scores_api import begin_scoring
from clipskip.doors.http.ours.views import (
    CheckView,
    ColumnView,
    DoubtView,
    StartedView,
    SweepsView,
    SweepView,
    skip_json,
    view_axes,
    view_summary,
    view_sweep,
)
from clipskip.doors.http.strict import StrictRoute
from clipskip.errors import Busy, NotFound, SpecError
from clipskip.image import animation
from clipskip.score import Scoring
from clipskip.spec import Axis, Family, Request, Skip, request_from_text
from clipskip.sweep import GRID, PAGE, Record, Studio, as_csv, as_parquet, forms_of, read_manifest, tabulate

PAGE_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; frame-ancestors 'none'"
)
"""Policy of a sweep's own page, which carries its script, style and pictures, and requests nothing."""
TABLES = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}
PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {"schema": {"type": "string"}}}}}
"""How a route that gives a picture is described."""
KEPT = "private, max-age=86400, immutable"
"""Cache rule of a cell's picture: a sweep's id depends on everything that made it."""


def sweep_routes(studio: Studio, *, clip: str | None = None) -> APIRouter:
    """Build the routes below /v1/sweeps."""
    routes = APIRouter(prefix="/v1/sweeps", tags=["sweeps"], route_class=StrictRoute)
    _add_start(routes, studio, clip=clip)
    _add_control(routes, studio)
    _add_pictures(routes, studio)
    _add_files(routes, studio)
    return routes


def _add_start(routes: APIRouter, studio: Studio, *, clip: str | None) -> None:
    @routes.post("", status_code=202)
    def start(body: SweepBody) -> StartedView:
        """Start a sweep. A sweep that was started before is opened again; its missing pictures are drawn, then
        measured."""
        wanted = Scoring(sources=tuple(body.scores), clip=clip) if body.scores else None
        record, warnings = studio.start(*_wanted(body, studio), axes=_axes(body), previews=body.previews)
        if wanted is not None:
            try:
                begin_scoring(studio, record, wanted)
            except Busy as error:
                warnings = (*warnings, f"nothing will be measured: {error}")
        return StartedView(**dict(view_sweep(record, studio)), warnings=list(warnings))

    @routes.post("/check")
    def check(body: SweepBody) -> CheckView:
        """Return what a sweep would be, and what in it is probably a mistake. Draws nothing."""
        sweep, doubts = studio.check(*_wanted(body, studio), _axes(body))
        return CheckView(
            doubts=[DoubtView(field=doubt.field, text=doubt.text) for doubt in doubts],
            left_out=list(sweep.left_out),
            columns=[ColumnView(clip_skip=skip_json(skip), label=str(skip)) for skip in sweep.skips],
            axes=view_axes(sweep.axes),
            pictures=len(sweep.places),
            width=sweep.base.width,
            height=sweep.base.height,
        )


def _add_control(routes: APIRouter, studio: Studio) -> None:
    @routes.get("")
    def sweeps(q: Annotated[str, Query(max_length=400)] = "") -> SweepsView:
        """List every sweep of the output folder, the newest first. With `q`, list those that have each of its words in their
        name, note, prompts, model or LoRAs."""
        return SweepsView(sweeps=[view_summary(record, studio) for record in studio.history.all(q)])

    @routes.get("/{id}")
    def sweep(id: str) -> SweepView:
        """Return one sweep with its cells."""
        return view_sweep(studio.history.find(id), studio)

    @routes.delete("/{id}")
    def cancel(id: str) -> SweepView:
        """Stop a sweep before its next step; finished pictures stay."""
        studio.cancel(id)
        return view_sweep(studio.history.find(id), studio)

    @routes.post("/{id}/resume", status_code=202)
    def resume(id: str) -> SweepView:
        """Go on with a sweep."""
        return view_sweep(studio.resume(id), studio)

    @routes.get(
        "/{id}/events",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    )
    def events(id: str) -> StreamingResponse:
        """Send server-sent events: `sweep` (first and last), `step`, `cell`, `progress` (of a sweep that others draw), `end`."""
        record = studio.history.find(id)
        return StreamingResponse(watch(record, studio), media_type="text/event-stream")


def _add_pictures(routes: APIRouter, studio: Studio) -> None:
    @routes.get("/{id}/cells/{row}/{column}.png", response_class=FileResponse, responses=PNG)
    def cell(id: str, row: int, column: int) -> FileResponse:
        """Return one picture, with its settings in it."""
        drawn_cell = studio.history.find(id).cell(row, column)
        if not drawn_cell.drawn:
            raise NotFound(f"row {row}, column {column} of the sweep {id} is not drawn yet", field="sweep")
        return FileResponse(
            drawn_cell.path,
            media_type="image/png",
            headers={"Cache-Control": KEPT},
            filename=drawn_cell.path.name,
            content_disposition_type="inline",
        )

    @routes.get("/{id}/cells/{row}/{column}/forms")
    def forms(id: str, row: int, column: int) -> dict[str, Any]:
        """Return a picture in other tools' own forms: a ComfyUI workflow, diffusers code, a command line."""
        record = studio.history.find(id)
        family = Family.parse(record.model_family) if record.model_family else Family.SD1
        asked = request_from_text(record.cell(row, column).settings)
        return {"forms": [asdict(form) for form in forms_of(asked, family=family)]}

    @routes.get(
        "/{id}/rows/{row}/scrub.webp",
        response_class=Response,
        responses={200: {"content": {"image/webp": {"schema": {"type": "string"}}}}},
    )
    def scrub(id: str, row: int) -> Response:
        """Return a row's pictures one after the other, as a lossless animated WebP."""
        record = studio.history.find(id)
        drawn = [cell for column in range(len(record.skips)) if (cell := record.cell(row, column)).drawn]
        if not drawn:
            raise NotFound(f"nothing of row {row} of the sweep {id} is drawn yet", field="sweep")
        name = {"Content-Disposition": f'inline; filename="sweep-{record.id}-row{row}.webp"'}
        return Response(animation([cell.path for cell in drawn]), media_type="image/webp", headers=name)


def _manifest(studio: Studio, id: str) -> dict[str, Any]:
    record = studio.history.find(id)
    contents = read_manifest(record.folder)
    if contents is None:
        raise NotFound(f"the sweep {id} has no manifest any more; start the sweep again", field="sweep")
    digests = [[{"sha256": studio.history.digest(cell)} for cell in row] for row in record.cells]
    cells = [
        [cell | digest for cell, digest in zip(row, more, strict=True)]
        for row, more in zip(contents["cells"], digests, strict=True)
    ]
    return contents | {"cells": cells}


def _add_files(routes: APIRouter, studio: Studio) -> None:
    @routes.get("/{id}/grid.png", response_class=FileResponse, responses=PNG)
    def grid(id: str) -> FileResponse:
        """Return the labelled sheet."""
        return _file(studio.history.find(id), GRID, "image/png")

    @routes.get(
        "/{id}/page.html",
        response_class=FileResponse,
        responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
    )
    def own_page(id: str) -> FileResponse:
        """Return the sweep's self-contained page."""
        answer = _file(studio.history.find(id), PAGE, "text/html; charset=utf-8")
        answer.headers["Content-Security-Policy"] = PAGE_POLICY
        return answer

    @routes.get(
        "/{id}/table.{kind}",
        response_class=Response,
        responses={200: {"content": {kind: {"schema": {"type": "string"}} for kind in TABLES.values()}}},
    )
    def table(id: str, kind: Literal["csv", "parquet"]) -> Response:
        """Return settings, scores and marks of every cell, one row each."""
        record = studio.history.find(id)
        whole = tabulate(record, studio.history.marks(record))
        content = as_csv(whole).encode() if kind == "csv" else as_parquet(whole)
        name = {"Content-Disposition": f'attachment; filename="sweep-{record.id}.{kind}"'}
        return Response(content, media_type=TABLES[kind], headers=name)

    @routes.get("/{id}/manifest.json")
    def manifest(id: str) -> dict[str, Any]:
        """Return the manifest: each cell's file, its sha256 once it is drawn, and its settings."""
        return _manifest(studio, id)


def _wanted(body: SweepBody, studio: Studio) -> tuple[Request, tuple[Skip, ...]]:
    """Return what is asked, and its columns."""
    asked = _request_of(body)
    depth = studio.facts(asked).depth
    if "negative_clip_skip" in body.model_fields_set:
        asked = replace(asked, negative_clip_skip=body.negative(depth=depth), negative_counted_by=None)
    return asked, body.columns(depth=depth)


def _axes(body: SweepBody) -> tuple[Axis, ...]:
    return tuple(Axis.parse(text) for text in body.axes)


def _request_of(body: SweepBody) -> Request:
    """Return the settings block's request with the body's own fields over it."""
    asked = request_from_text(body.settings) if body.settings else None
    if asked is None and body.prompt is None:
        raise SpecError("give a prompt, or settings to repeat", field="prompt")
    noted = asked or Request(prompt="")
    asked = body.changed(noted)
    if body.model and body.model.casefold() != (noted.model or "").casefold():
        asked = replace(asked, model_hash=None)
    if "loras" in body.model_fields_set:
        asked = replace(asked, loras=body.refs())
    return asked


def _file(record: Record, name: str, kind: str) -> FileResponse:
    if not record.has(name):
        raise NotFound(f"the sweep {record.id} has no {name} yet", field="sweep")
    return FileResponse(record.folder / name, media_type=kind)
