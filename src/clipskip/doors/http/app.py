"""The HTTP server: our own API and the page. Every answer is JSON but pictures, events and the page's own files."""

import asyncio
import json
import queue
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from clipskip import __version__
from clipskip.doors.http.a1111 import add_a1111
from clipskip.doors.http.access import COOKIE, Access
from clipskip.doors.http.bodies import (
    DialectBody,
    InspectBody,
    PromptBody,
    SessionBody,
    SettingsBody,
    SweepBody,
    request_json,
)
from clipskip.doors.http.guard import Guard
from clipskip.doors.http.library import describe_files
from clipskip.doors.http.strict import StrictRoute, read_json
from clipskip.doors.looking import inspect_file
from clipskip.doors.reading import read_aloud
from clipskip.errors import Busy, ClipskipError, NotFound, SpecError
from clipskip.image import read_infotext
from clipskip.sample import SAMPLERS, SCHEDULES
from clipskip.spec import ClipSkip, Family, conversion_table, request_from_text
from clipskip.spec import Request as Asked
from clipskip.sweep.studio import Studio
from clipskip.weights import FileKind

PAGE_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; frame-ancestors 'none'"
)
"""Of a sweep's own page, which has script, style and pictures in itself."""
KEPT = "private, max-age=86400, immutable"
"""Of a cell's picture: a sweep's name says all that made it."""
KEEP_ALIVE_S = 15
WRONG_TOKEN_S = 0.5
"""Seconds that a wrong token costs."""
ASSETS = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}


def build_app(studio: Studio, *, access: Access | None = None) -> FastAPI:
    """The application over one studio, for those whom `access` admits; for everybody on this machine without one."""
    access = access or Access()
    app = FastAPI(title="clipskip", version=__version__, docs_url=None, redoc_url=None)
    app.router.route_class = StrictRoute
    app.add_middleware(Guard, access=access)
    app.add_exception_handler(ClipskipError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _plain)
    _add_page(app)
    _add_session(app, access)
    _add_sweeps(app, studio)
    _add_reading(app, studio)
    add_a1111(app, studio)
    return app


def _error(
    status: int, detail: str, field: str | None = None, *, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    return JSONResponse({"detail": detail, "field": field}, status_code=status, headers=headers)


async def _refused(_: Request, error: Exception) -> JSONResponse:
    status = 429 if isinstance(error, Busy) else 404 if isinstance(error, NotFound) else 422
    return _error(status, str(error), getattr(error, "field", None))


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    told = max(error.errors(), key=lambda one: len(one["loc"]))
    parts = [str(part) for part in told["loc"]]
    # pydantic names the branches of a union, as in "list[...]" and "constrained-str", between the fields
    field = ".".join(
        part for part in parts if part not in ("body", "query", "path") and part.isidentifier() | part.isdigit()
    )
    return _error(422, f"{field or 'the body'}: {told['msg']}", field or None)


async def _plain(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, str(error.detail), headers=error.headers)


def _add_session(app: FastAPI, access: Access) -> None:
    @app.post("/v1/session", status_code=204)
    async def sign_in(body: SessionBody) -> Response:
        """Trades the token, or user:password, for the page's cookie."""
        session = access.sign_in(body.token)
        if session is None and access.asked:
            await asyncio.sleep(WRONG_TOKEN_S)
            raise HTTPException(401, "this is not the token that the server was started with")
        answer = Response(status_code=204)
        if session is not None:
            answer.set_cookie(COOKIE, session, httponly=True, samesite="strict")
        return answer


def _add_page(app: FastAPI) -> None:
    web = files("clipskip.doors") / "web"

    @app.get("/", include_in_schema=False)
    def page(request: Request) -> Response:
        name = "index.html" if request.state.signed_in else "signin.html"
        return Response((web / name).read_bytes(), media_type="text/html; charset=utf-8")

    @app.get("/web/{name}", include_in_schema=False)
    def asset(name: str) -> Response:
        kind = ASSETS.get(Path(name).suffix)
        if kind is None or not (web / name).is_file() or Path(name).name != name:
            raise NotFound(f"there is no file {name[:80]!r}")
        return Response((web / name).read_bytes(), media_type=kind)


def _add_sweeps(app: FastAPI, studio: Studio) -> None:
    @app.post("/v1/sweeps", status_code=202)
    def start(body: SweepBody) -> dict[str, Any]:
        """Starts a sweep; one that was asked before is opened again, and what it lacks is drawn."""
        asked = request_from_text(body.settings) if body.settings else None
        if asked is None and body.prompt is None:
            raise SpecError("give a prompt, or settings to repeat", field="prompt")
        asked = replace(asked or Asked(prompt=""), **body.changes())  # type: ignore[arg-type]
        if body.model:
            asked = replace(asked, model_hash=None)
        if "loras" in body.model_fields_set:
            asked = replace(asked, loras=body.refs())
        _check_names(asked, studio)
        return studio.view(studio.start(asked, body.columns(), previews=body.previews).id)

    @app.get("/v1/sweeps")
    def sweeps() -> dict[str, Any]:
        """Every sweep of the output folder, the newest first."""
        return {"sweeps": studio.all()}

    @app.get("/v1/sweeps/{id}")
    def sweep(id: str) -> dict[str, Any]:
        """One sweep with its cells."""
        return studio.view(id)

    @app.delete("/v1/sweeps/{id}")
    def cancel(id: str) -> dict[str, Any]:
        """Stops it before its next step; finished pictures stay."""
        studio.cancel(id)
        return studio.view(id)

    @app.post("/v1/sweeps/{id}/resume", status_code=202)
    def resume(id: str) -> dict[str, Any]:
        """Goes on with it."""
        return studio.view(studio.resume(id).id)

    @app.get("/v1/sweeps/{id}/events", response_class=StreamingResponse)
    def events(id: str) -> StreamingResponse:
        """Server-sent events: sweep, step, cell, end."""
        watcher = studio.watch(id)

        def lines() -> Iterator[str]:
            try:
                while True:
                    try:
                        event = watcher.get(timeout=KEEP_ALIVE_S)
                    except queue.Empty:
                        yield ": waiting\n\n"
                        continue
                    if event is None:
                        return
                    yield f"event: {event[0]}\ndata: {json.dumps(event[1])}\n\n"
            finally:
                studio.unwatch(id, watcher)

        return StreamingResponse(lines(), media_type="text/event-stream")

    @app.get("/v1/sweeps/{id}/cells/{row}/{column}.png", response_class=FileResponse)
    def cell(id: str, row: int, column: int) -> FileResponse:
        """One picture, with its settings in it."""
        if row < 0 or column < 0:
            raise NotFound("rows and columns count from 0", field="sweep")
        return FileResponse(studio.cell(id, row, column), media_type="image/png", headers={"Cache-Control": KEPT})

    @app.get("/v1/sweeps/{id}/grid.png", response_class=FileResponse)
    def grid(id: str) -> FileResponse:
        """The labelled sheet."""
        return FileResponse(studio.file(id, "grid.png"), media_type="image/png")

    @app.get("/v1/sweeps/{id}/page.html", response_class=FileResponse)
    def own_page(id: str) -> FileResponse:
        """The sweep's self-contained page."""
        answer = FileResponse(studio.file(id, "index.html"), media_type="text/html; charset=utf-8")
        answer.headers["Content-Security-Policy"] = PAGE_POLICY
        return answer

    @app.get("/v1/sweeps/{id}/manifest.json", response_class=FileResponse)
    def manifest(id: str) -> FileResponse:
        """What each file is."""
        return FileResponse(studio.file(id, "manifest.json"), media_type="application/json")


def _check_names(asked: Asked, studio: Studio) -> None:
    """Names only: over HTTP no path leads to a file."""
    if asked.model and not asked.model_hash:
        studio.library.find(asked.model, FileKind.CHECKPOINT, allow_path=False)
    for lora in asked.loras:
        noted = dict(asked.lora_hashes).get(lora.name)
        if not noted:
            studio.library.find(lora.name, FileKind.LORA, allow_path=False)


def _add_reading(app: FastAPI, studio: Studio) -> None:
    @app.get("/v1/status")
    def status() -> dict[str, Any]:
        """What the server is doing."""
        model = studio.model
        shape = model.reader.encoder.shape if model else None
        said = model and shape and {
            "name": model.ref.name, "hash": model.ref.hash, "family": model.reader.family.label, "depth": model.depth,
            "width": shape.width, "default_clip_skip": model.default_clip_skip.from_end,
            "trained_clip_skip": model.trained_clip_skip, "native_px": model.native_px,
        }  # fmt: skip
        waiting = {"waiting": studio.waiting, "running": studio.running, "limit": studio.limit}
        return {
            "version": __version__,
            "device": str(model.device) if model else None,
            "queue": waiting,
            "model": said or None,
        }

    @app.get("/v1/files")
    def library() -> dict[str, Any]:
        """Models, LoRAs and embeddings by name."""
        return describe_files(studio.library)

    @app.post("/v1/files/refresh")
    def refresh() -> dict[str, Any]:
        """The same, looked for again."""
        return describe_files(studio.library)

    @app.get("/v1/samplers")
    def samplers() -> dict[str, Any]:
        """Sampling methods and schedule types by A1111's names."""
        names = [{"name": one.name, "aliases": []} for one in SAMPLERS]
        return {"samplers": names, "schedulers": [{"name": name, "label": name} for name in ("Automatic", *SCHEDULES)]}

    @app.post("/v1/prompt")
    def prompt(body: PromptBody) -> Any:
        """How a prompt is read."""
        said = read_aloud(body.prompt, steps=body.steps, negative=body.negative, clip_skip=None, as_json=True)
        return json.loads(said)

    @app.post("/v1/settings")
    async def settings(request: Request) -> dict[str, Any]:
        """A settings block, or a picture that carries one, as fields."""
        if request.headers.get("content-type", "").startswith("multipart/form-data"):
            async with request.form(max_files=1, max_fields=1) as form:
                file = next((value for value in form.values() if isinstance(value, UploadFile)), None)
                if file is None:
                    raise SpecError("send one file", field="file")
                text = await asyncio.to_thread(_settings_in, await file.read())
        else:
            try:
                text = SettingsBody.model_validate(read_json(await request.body())).text
            except ValidationError as error:
                raise RequestValidationError(error.errors(include_url=False, include_context=False)) from None
        asked = request_from_text(text)
        return {"request": request_json(asked), "unused": [list(pair) for pair in asked.unused], "text": text}

    @app.post("/v1/dialects")
    def dialects(body: DialectBody) -> dict[str, Any]:
        """A Clip Skip in every tool's numbers."""
        family, skip = Family.parse(body.family), ClipSkip.parse(f"{body.clip_skip:g}")
        rows = [
            {"tool": row.dialect.value, "number": row.number, "note": row.note}
            for row in conversion_table(skip, family=family)
        ]
        return {"rows": rows, "layer": family.depth + 1 - skip.from_end, "depth": family.depth}

    @app.post("/v1/inspect")
    def inspect(body: InspectBody) -> Any:
        """What a file of the library is, by its name."""
        for kind in (FileKind.LORA, FileKind.CHECKPOINT, FileKind.EMBEDDING):
            try:
                path = studio.library.find(body.name, kind, allow_path=False)
            except NotFound as error:
                last = error
            else:
                return json.loads(inspect_file(path, as_json=True))
        raise last


def _settings_in(content: bytes) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(content)
        return read_infotext(path)
