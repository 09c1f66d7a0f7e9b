"""Build the HTTP server: our own API, A1111's, OpenAI's, and the page."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from clipskip import __version__
from clipskip.doors.http.a1111 import a1111_routes, outer_routes
from clipskip.doors.http.access import COOKIE, Access
from clipskip.doors.http.guard import Guard
from clipskip.doors.http.openai import openai_routes
from clipskip.doors.http.ours import (
    ErrorView,
    RefusalView,
    SessionBody,
    advise_routes,
    fetch_routes,
    marking_routes,
    reading_routes,
    scoring_routes,
    sweep_routes,
)
from clipskip.doors.http.reasons import LOG, MOST_REASONS, Reason, joined, log_line, reasons_of
from clipskip.doors.http.strict import StrictRoute
from clipskip.errors import Busy, ClipskipError, Conflict, NotFound, OutputError
from clipskip.image import viewer_markup
from clipskip.sweep import Studio

ASSETS = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}
SERVED = {
    "reuse": '<button type="button" id="reuse">Draw more like it</button>',
    "more": '<button type="button" class="quiet" id="to-advice">Which should I use? ↓</button>',
}
"""What a server's page has in the viewer beyond a sweep's own page."""
WRONG_TOKEN_S = 0.5
"""Seconds by which a wrong token is delayed."""
REFUSALS: dict[int | str, dict[str, object]] = {
    status: {"model": RefusalView, "description": why}
    for status, why in (
        (400, "A request that is not valid HTTP"),
        (401, "A token or password is needed"),
        (403, "A request from another page, or to another name than this machine's"),
        (404, "No such file, sweep or picture"),
        (408, "The body did not arrive in time"),
        (409, "It has been changed since, or is being drawn"),
        (413, "Too large"),
        (422, "A field is not valid; `field` names it"),
        (429, "Too many requests are waiting"),
        (500, "An internal error; the server's log has the details"),
        (507, "The pictures cannot be written"),
    )
}


def build_app(
    studio: Studio,
    *,
    access: Access | None = None,
    origins: Iterable[str] = (),
    allow_fetch: bool = False,
    clip: str | None = None,
) -> FastAPI:
    """Return the application over one studio, for those whom `access` admits; for everybody on this machine without one. Pages of the
    `origins` may read its answers. `clip` is a CLIP model that pictures may be scored by."""
    access = access or Access()
    app = FastAPI(
        title="clipskip",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        responses=REFUSALS,
        lifespan=_ready,
    )
    app.router.route_class = StrictRoute
    app.add_middleware(Guard, access=access, origins=frozenset(origins))
    app.add_exception_handler(ClipskipError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _answer_fault)
    app.add_exception_handler(Exception, _broken)
    _add_page(app)
    _add_description(app)
    _add_session(app, access)
    for routes in (marking_routes, reading_routes, advise_routes, a1111_routes, openai_routes):
        app.include_router(routes(studio))
    for with_clip in (sweep_routes, scoring_routes):
        app.include_router(with_clip(studio, clip=clip))
    app.include_router(fetch_routes(studio, allowed=allow_fetch))
    app.include_router(outer_routes())
    return app


@asynccontextmanager
async def _ready(app: FastAPI) -> AsyncIterator[None]:
    """Build every route before the first request; FastAPI would do so at the first one, while others wait."""
    for route in app.router.routes:
        route.matches({"type": "http", "method": "GET", "path": "/nowhere", "root_path": "", "headers": []})
    yield


def _error(
    request: Request,
    status: int,
    reasons: Sequence[Reason],
    *,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Return the answer to a refused request, and log a line for each reason."""
    for reason in reasons[:MOST_REASONS]:
        LOG.warning("%d %s %s: %s", status, request.method, log_line(request.url.path), log_line(reason.why))
    errors = [ErrorView(detail=reason.why, field=reason.field or None) for reason in reasons[:MOST_REASONS]]
    view = RefusalView.of(joined(reasons), errors[0].field, errors=errors)
    return JSONResponse(view.model_dump(), status_code=status, headers=headers)


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ClipskipError)
    by_kind = {Busy: 429, Conflict: 409, NotFound: 404, OutputError: 507, ClipskipError: 500}
    status = by_kind.get(type(error), 422)
    reason = Reason(field=error.field or "", why=str(error))
    return _error(request, status, [reason], headers={"Retry-After": "5"} if status == 429 else None)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return _error(request, 422, reasons_of(error.errors()))


async def _answer_fault(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return _error(request, error.status_code, [Reason(field="", why=str(error.detail))], headers=error.headers)


async def _broken(request: Request, error: Exception) -> JSONResponse:
    """Answer an internal error; uvicorn logs the traceback."""
    why = f"the server failed: {type(error).__name__}; its log says where"
    return _error(request, 500, [Reason(field="", why=why)])


def _add_session(app: FastAPI, access: Access) -> None:
    @app.post("/v1/session", status_code=204, tags=["session"])
    async def sign_in(body: SessionBody) -> Response:
        """Exchange the token, or user:password, for the page's cookie."""
        session = access.sign_in(body.token)
        if session is None and access.asked:
            await asyncio.sleep(WRONG_TOKEN_S)
            raise HTTPException(401, "this is not the token that the server was started with")
        answer = Response(status_code=204)
        if session is not None:
            answer.set_cookie(COOKIE, session, httponly=True, samesite="strict")
        return answer


def _add_description(app: FastAPI) -> None:
    @app.get("/openapi.json", include_in_schema=False)
    def description() -> JSONResponse:
        """Describe every call. The description is built in a thread, because the first time takes half a second."""
        return JSONResponse(app.openapi())


def _add_page(app: FastAPI) -> None:
    web, viewer = files("clipskip.doors") / "web", files("clipskip.image") / "viewer"

    @app.head("/", include_in_schema=False)
    @app.get("/", include_in_schema=False)
    def page(request: Request) -> Response:
        text = (web / ("index.html" if request.state.signed_in else "signin.html")).read_text("utf-8")
        return Response(text.replace("{{viewer}}", viewer_markup(SERVED)), media_type="text/html; charset=utf-8")

    @app.get("/docs", include_in_schema=False)
    def reference(request: Request) -> Response:
        name = "reference.html" if request.state.signed_in else "signin.html"
        return Response((web / name).read_bytes(), media_type="text/html; charset=utf-8")

    @app.get("/web/{name}", include_in_schema=False)
    def asset(name: str) -> Response:
        kind = ASSETS.get(Path(name).suffix)
        file = next((place / name for place in (web, viewer) if (place / name).is_file()), None)
        if kind is None or Path(name).name != name or file is None:
            raise NotFound(f"there is no file {name[:80]!r}")
        return Response(file.read_bytes(), media_type=kind)
