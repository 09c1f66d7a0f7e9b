"""What A1111's clients fill their menus from. Files go by name: no path of this machine is told."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from clipskip.doors.http.a1111.plot import NAME, plot_script
from clipskip.doors.http.a1111.styles import read_styles
from clipskip.errors import ClipskipError
from clipskip.image import LATENT_MODES, UPSCALERS
from clipskip.sample import SAMPLERS, SCHEDULES
from clipskip.sweep import Studio
from clipskip.weights import FileKind, LibraryFile, cached_hashes, count_vectors, upscaler_name

Json = dict[str, Any]  # Any: A1111's own shapes


def add_lists(routes: APIRouter, studio: Studio) -> None:
    """Adds them."""
    _add_models(routes, studio)
    _add_styles(routes, studio)
    _add_menus(routes)
    _add_upscalers(routes, studio)
    for what in (
        "face-restorers",
        "hypernetworks",
        "realesrgan-models",
    ):
        routes.add_api_route(f"/{what}", _none, methods=["GET"])


def _none() -> list[Json]:
    """None of these here."""
    return []


def _add_models(routes: APIRouter, studio: Studio) -> None:
    @routes.get("/sd-models")
    def sd_models() -> list[Json]:
        """Checkpoints; a hash is null until the file has been used."""
        return [_model(found) for found in studio.library.files(FileKind.CHECKPOINT)]

    @routes.get("/sd-vae")
    def sd_vae() -> list[Json]:
        """VAE files."""
        return [{"model_name": one.name, "filename": one.name} for one in studio.library.files(FileKind.VAE)]

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


def _model(found: LibraryFile) -> Json:
    hashes = cached_hashes(found.path) if found.path.is_file() else None
    return {
        "title": f"{found.name} [{hashes.autov2}]" if hashes else found.name,
        "model_name": found.stem,
        "hash": hashes.autov2 if hashes else None,
        "sha256": hashes.sha256 if hashes else None,
        "filename": found.name,
        "config": None,
    }


def _embedding(found: LibraryFile) -> Json | None:
    try:
        vectors = count_vectors(found.path)
    except ClipskipError:
        return None
    return {"step": None, "sd_checkpoint": None, "sd_checkpoint_name": None, "shape": 768, "vectors": vectors}


def _add_upscalers(routes: APIRouter, studio: Studio) -> None:
    @routes.get("/upscalers")
    def upscalers() -> list[Json]:
        """What makes pictures larger, the models among them."""
        models = dict.fromkeys(upscaler_name(found) for found in studio.library.files(FileKind.UPSCALER))
        nothing = {"model_path": None, "model_url": None, "scale": 4.0}
        return [
            *({"name": name, "model_name": None, **nothing} for name in UPSCALERS),
            *({"name": name, "model_name": name, **nothing} for name in models),
        ]


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

    @routes.get("/latent-upscale-modes")
    def latent_upscale_modes() -> list[Json]:
        """What enlarges latents, in a hires pass."""
        return [{"name": name} for name in LATENT_MODES]

    @routes.get("/scripts")
    def scripts() -> dict[str, list[str]]:
        """Scripts."""
        return {"txt2img": [NAME.lower()], "img2img": []}

    @routes.get("/script-info")
    def script_info() -> list[Json]:
        """What scripts take."""
        return [plot_script()]
