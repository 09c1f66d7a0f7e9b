"""Lists from which A1111's clients fill their menus. Files go by name, so that no path of this machine is given
away."""

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
    """Add the routes that list things."""
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
    """Return an empty list: this server has none of these."""
    return []


def _add_models(routes: APIRouter, studio: Studio) -> None:
    @routes.get("/sd-models")
    def sd_models() -> list[Json]:
        """List the checkpoints. A hash is null until the file has been used."""
        return [_model_entry(file) for file in studio.library.files(FileKind.CHECKPOINT)]

    @routes.get("/sd-vae")
    def sd_vae() -> list[Json]:
        """List the VAE files."""
        return [{"model_name": file.name, "filename": file.name} for file in studio.library.files(FileKind.VAE)]

    @routes.get("/loras")
    def loras() -> list[Json]:
        """List the LoRAs."""
        files = studio.library.files(FileKind.LORA)
        return [{"name": file.stem, "alias": file.stem, "path": file.name, "metadata": {}} for file in files]

    @routes.get("/embeddings")
    def embeddings() -> Json:
        """List the embeddings."""
        loaded = {file.stem: _embedding(file) for file in studio.library.files(FileKind.EMBEDDING)}
        return {"loaded": {name: facts for name, facts in loaded.items() if facts}, "skipped": {}}


def _add_styles(routes: APIRouter, studio: Studio) -> None:
    @routes.get("/prompt-styles")
    def prompt_styles() -> list[Json]:
        """List the styles of the styles.csv in the model folders."""
        return [asdict(style) for style in read_styles(studio.library.folders).values()]


def _model_entry(file: LibraryFile) -> Json:
    hashes = cached_hashes(file.path) if file.path.is_file() else None
    return {
        "title": f"{file.name} [{hashes.autov2}]" if hashes else file.name,
        "model_name": file.stem,
        "hash": hashes.autov2 if hashes else None,
        "sha256": hashes.sha256 if hashes else None,
        "filename": file.name,
        "config": None,
    }


def _embedding(file: LibraryFile) -> Json | None:
    try:
        vectors = count_vectors(file.path)
    except ClipskipError:
        return None
    return {"step": None, "sd_checkpoint": None, "sd_checkpoint_name": None, "shape": 768, "vectors": vectors}


def _add_upscalers(routes: APIRouter, studio: Studio) -> None:
    @routes.get("/upscalers")
    def upscalers() -> list[Json]:
        """List what enlarges pictures, models included."""
        models = dict.fromkeys(upscaler_name(file) for file in studio.library.files(FileKind.UPSCALER))
        nothing = {"model_path": None, "model_url": None, "scale": 4.0}
        return [
            *({"name": name, "model_name": None, **nothing} for name in UPSCALERS),
            *({"name": name, "model_name": name, **nothing} for name in models),
        ]


def _add_menus(routes: APIRouter) -> None:
    @routes.get("/samplers")
    def samplers() -> list[Json]:
        """List the sampling methods."""
        return [{"name": sampler.name, "aliases": list(sampler.aliases), "options": {}} for sampler in SAMPLERS]

    @routes.get("/schedulers")
    def schedulers() -> list[Json]:
        """List the schedule types."""
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
        """List the methods that enlarge latents in a hires pass."""
        return [{"name": name} for name in LATENT_MODES]

    @routes.get("/scripts")
    def scripts() -> dict[str, list[str]]:
        """List the scripts."""
        return {"txt2img": [NAME.lower()], "img2img": []}

    @routes.get("/script-info")
    def script_info() -> list[Json]:
        """List the arguments that scripts take."""
        return [plot_script()]
