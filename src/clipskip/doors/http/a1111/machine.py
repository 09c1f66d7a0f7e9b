"""A1111's routes about the machine and the models in its memory, and about work that this server does not do."""

import asyncio
import os
from collections.abc import Callable

import torch
from fastapi import APIRouter, HTTPException, Request

from clipskip.doors.http.a1111.answers import Json
from clipskip.doors.http.a1111.kept_options import MODEL, Options
from clipskip.doors.http.pictures import awaited
from clipskip.sample import free_bytes
from clipskip.spec import Request as Asked
from clipskip.sweep import Studio

ABSENT = {
    "interrogate": "describing a picture (CLIP, deepbooru) is not here",
    "create/embedding": "training embeddings is not here",
    "create/hypernetwork": "hypernetworks are not here",
    "train/embedding": "training embeddings is not here",
    "train/hypernetwork": "hypernetworks are not here",
}
"""A1111's routes below /sdapi/v1 that this server refuses, and why."""
EXTENSIONS = {"controlnet": "ControlNet", "adetailer": "ADetailer"}


def add_machine(routes: APIRouter, studio: Studio, options: Options) -> None:
    """Add the routes."""
    for what in ("checkpoints", "vae", "loras", "embeddings"):
        routes.add_api_route(f"/refresh-{what}", _refreshed, methods=["POST"])
    _add_memory(routes, studio, options)
    for path, why in ABSENT.items():
        routes.add_api_route(f"/{path}", _refusing(why), methods=["POST"], include_in_schema=False)

    @routes.get("/cmd-flags")
    def flags() -> Json:
        """Return the flags of A1111's command line that mean something here."""
        return {"api": True, "nowebui": False}

    @routes.get("/extensions")
    def extensions() -> list[Json]:
        """List the extensions: none."""
        return []


def outer_routes() -> APIRouter:
    """Build A1111's routes outside /sdapi/v1: the answer that it is up, and refusals of known extensions by name."""
    routes = APIRouter(tags=["A1111"])

    @routes.get("/internal/ping")
    def ping() -> Json:
        """Return nothing: clients ask whether anybody is here."""
        return {}

    for start, name in EXTENSIONS.items():
        for method in ("GET", "POST"):
            refusing = _refusing(f"{name} is not here; A1111 draws with it")
            routes.add_api_route(f"/{start}/{{path:path}}", refusing, methods=[method], include_in_schema=False)
    return routes


def _refreshed() -> None:
    """Do nothing: folders are read at every request."""


def _refusing(why: str) -> Callable[[], None]:
    def refuse() -> None:
        raise HTTPException(501, why)

    return refuse


def _add_memory(routes: APIRouter, studio: Studio, options: Options) -> None:
    @routes.get("/memory")
    def memory() -> Json:
        """Return the memory, free and in all, in bytes."""
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        free = free_bytes(torch.device("cpu"))
        return {"ram": {"free": free, "used": total - free, "total": total}, "cuda": _cuda()}

    @routes.post("/unload-checkpoint")
    def unload() -> Json:
        """Let go of the models in memory; the next picture opens its own again."""
        studio.queue.unload()
        return {}

    @routes.post("/reload-checkpoint")
    async def reload(request: Request) -> Json:
        """Open the model of the options, so that the next picture need not."""
        named = str(options.kept.get(MODEL) or "") or None
        job = await asyncio.to_thread(studio.load, Asked(prompt="", model=named))
        await awaited(job, studio, asker=request)
        return {}


def _cuda() -> Json:
    if not torch.cuda.is_available():
        return {"error": "unavailable"}
    free, total = torch.cuda.mem_get_info()
    return {"system": {"free": free, "used": total - free, "total": total}}
