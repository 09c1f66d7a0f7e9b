"""What A1111's clients fill their menus from. Files go by name: no path of this machine is told."""

import os
from dataclasses import asdict
from typing import Any

import torch
from fastapi import APIRouter

from clipskip.doors.http.a1111.plot import NAME, plot_script
from clipskip.doors.http.a1111.styles import read_styles
from clipskip.errors import ClipskipError
from clipskip.sample import SAMPLERS, SCHEDULES, free_bytes
from clipskip.sweep import Studio
from clipskip.weights import FileKind, Found, count_vectors
from clipskip.weights.hashes import cached_hashes

Json = dict[str, Any]  # Any: A1111's own shapes
NO_UPSCALER = {"name": "None", "model_name": None, "model_path": None, "model_url": None, "scale": 4.0}


def add_lists(routes: APIRouter, studio: Studio) -> None:
    """Adds them."""
    _add_models(routes, studio)
    _add_styles(routes, studio)
    _add_menus(routes)
    _add_machine(routes)
    for what in ("checkpoints", "vae", "loras", "embeddings"):
        routes.add_api_route(f"/refresh-{what}", _refreshed, methods=["POST"])
    for what in (
        "sd-vae",
        "latent-upscale-modes",
        "face-restorers",
        "hypernetworks",
        "realesrgan-models",
    ):
        routes.add_api_route(f"/{what}", _none, methods=["GET"])


def _refreshed() -> None:
    """Nothing to do: folders are looked into at every request."""


def _none() -> list[Json]:
    """None of these here."""
    return []


def _add_models(routes: APIRouter, studio: Studio) -> None:
    @routes.get("/sd-models")
    def sd_models() -> list[Json]:
        """Checkpoints; a hash is null until the file has been used."""
        return [_model(found) for found in studio.library.files(FileKind.CHECKPOINT)]

    @routes.get("/loras")
    def loras() -> list[Json]:
        """LoRAs."""
        files = studio.library.files(FileKind.LORA)
        return [{"name": one.stem, "alias": one.stem, "path": one.name, "metadata": {}} for one in files]

    @routes.get("/embeddings")
    def embeddings() -> Json:
        """Embeddings."""
        loaded = {one.stem: _embedding(one) for one in studio.library.files(FileKind.EMBEDDING)}
        return {"loaded": {name: one for name, one in loaded.items() if one}, "skipped": {}}


def _add_styles(routes: APIRouter, studio: Studio) -> None:
    @routes.get("/prompt-styles")
    def prompt_styles() -> list[Json]:
        """The styles of the styles.csv in the model folders."""
        return [asdict(style) for style in read_styles(studio.library.folders).values()]


def _model(found: Found) -> Json:
    hashes = cached_hashes(found.path) if found.path.is_file() else None
    return {
        "title": f"{found.name} [{hashes.autov2}]" if hashes else found.name,
        "model_name": found.stem,
        "hash": hashes.autov2 if hashes else None,
        "sha256": hashes.sha256 if hashes else None,
        "filename": found.name,
        "config": None,
    }


def _embedding(found: Found) -> Json | None:
    try:
        vectors = count_vectors(found.path)
    except ClipskipError:
        return None
    return {"step": None, "sd_checkpoint": None, "sd_checkpoint_name": None, "shape": 768, "vectors": vectors}


def _add_menus(routes: APIRouter) -> None:
    @routes.get("/samplers")
    def samplers() -> list[Json]:
        """Sampling methods."""
        return [{"name": one.name, "aliases": list(one.aliases), "options": {}} for one in SAMPLERS]

    @routes.get("/schedulers")
    def schedulers() -> list[Json]:
        """Schedule types."""
        return [
            {
                "name": label.lower().replace(" ", "_"),
                "label": label,
                "aliases": None,
                "default_rho": -1.0,
                "need_inner_model": False,
            }
            for label in ("Automatic", *SCHEDULES)
        ]

    @routes.get("/upscalers")
    def upscalers() -> list[Json]:
        """None but the one that does nothing."""
        return [NO_UPSCALER]

    @routes.get("/scripts")
    def scripts() -> dict[str, list[str]]:
        """Scripts."""
        return {"txt2img": [NAME.lower()], "img2img": []}

    @routes.get("/script-info")
    def script_info() -> list[Json]:
        """What scripts take."""
        return [plot_script()]


def _add_machine(routes: APIRouter) -> None:
    @routes.get("/cmd-flags")
    def flags() -> Json:
        """The flags of A1111's command line that have a meaning here."""
        return {"api": True, "nowebui": False}

    @routes.get("/memory")
    def memory() -> Json:
        """Bytes of memory, free and in all."""
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        free = free_bytes(torch.device("cpu"))
        return {"ram": {"free": free, "used": total - free, "total": total}, "cuda": _cuda()}


def _cuda() -> Json:
    if not torch.cuda.is_available():
        return {"error": "unavailable"}
    free, total = torch.cuda.mem_get_info()
    return {"system": {"free": free, "used": total - free, "total": total}}
