"""A1111's API, as far as its clients need it for pictures: names, bodies and answers are A1111 1.10's (modules/api/api.py)."""

import base64
import binascii
import json
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from clipskip import __version__
from clipskip.doors.http.bodies import Body, Name, Text
from clipskip.errors import SpecError
from clipskip.image import read_infotext
from clipskip.sample import SAMPLERS, SCHEDULES
from clipskip.spec import ClipSkip, Request, parse_infotext, render_infotext
from clipskip.sweep.studio import Errand, Studio
from clipskip.weights import FileKind
from clipskip.weights.hashes import cached_hashes

MOST_PICTURES = 16
NOTHING: tuple[Any, ...] = (None, False, 0, "", "None", "none", [], {})
USUAL: dict[str, tuple[Any, ...]] = {
    "eta": (None, 0, 1),
    "s_noise": (None, 0, 1),
    "denoising_strength": (None, *(n / 100 for n in range(101))),
    "hr_scale": (None, 0, 1, 1.5, 2),
    "seed_resize_from_h": (None, 0, -1),
    "seed_resize_from_w": (None, 0, -1),
    "send_images": (True, None),
    "override_settings_restore_afterwards": (True, None),
}
"""Values that change nothing here, of fields that this server has no use for."""
OPTIONAL = ("hr_", "do_not_save_", "firstphase_")
"""Fields that count only when something else is on, which is refused by its own name."""


class Picture(BaseModel):
    """A1111's txt2img body; whatever else a client sends must be without effect."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    prompt: Text = ""
    negative_prompt: Text = ""
    seed: Annotated[int, Field(ge=-1, le=2**64 - 1)] = -1
    subseed: Annotated[int, Field(ge=-1, le=2**64 - 1)] = -1
    subseed_strength: Annotated[float, Field(ge=0, le=1)] = 0.0
    sampler_name: Name | None = None
    sampler_index: Name | None = None
    """Older clients' name of the sampler."""
    scheduler: Name | None = None
    batch_size: Annotated[int, Field(ge=1, le=MOST_PICTURES)] = 1
    n_iter: Annotated[int, Field(ge=1, le=MOST_PICTURES)] = 1
    steps: Annotated[int, Field(ge=1, le=150)] = 50
    cfg_scale: Annotated[float, Field(ge=1, le=30)] = 7.0
    width: Annotated[int, Field(ge=64, le=2048)] = 512
    height: Annotated[int, Field(ge=64, le=2048)] = 512
    clip_skip: int | None = None
    override_settings: dict[str, Any] = {}


class PngInfo(Body):
    """A picture as base64."""

    image: Annotated[str, StringConstraints(max_length=64 * 2**20)]


class OpenAiPicture(Body):
    """OpenAI's body of /v1/images/generations."""

    prompt: Text
    model: Name | None = None
    n: Annotated[int, Field(ge=1, le=MOST_PICTURES)] = 1
    size: Annotated[str, StringConstraints(max_length=20)] | None = None
    response_format: str = "b64_json"
    user: Name | None = None


def defaults() -> dict[str, Any]:
    """The options that this server has, at their start."""
    return {
        "sd_model_checkpoint": "starter",
        "sd_vae": "Automatic",
        "CLIP_stop_at_last_layers": 1,
        "randn_source": "CPU",
        "emphasis": "Original",
        "eta_noise_seed_delta": 0,
        "samples_format": "png",
    }


def add_a1111(app: FastAPI, studio: Studio) -> None:
    """Adds the routes; the options are this server's, for as long as it runs."""
    options = defaults()
    _add_pictures(app, studio, options)
    _add_options(app, studio, options)
    _add_lists(app, studio)


def _add_pictures(app: FastAPI, studio: Studio, options: dict[str, Any]) -> None:
    @app.post("/sdapi/v1/txt2img")
    def txt2img(body: Picture) -> dict[str, Any]:
        """Pictures of a prompt, with their settings in them."""
        _check_unused(body)
        settings = options | checked_options(body.override_settings, studio)
        errand = studio.draw(_request(body, settings), body.batch_size * body.n_iter)
        pictures = errand.future.result()
        echo = body.model_dump()
        return {
            "images": [base64.b64encode(png).decode("ascii") for png in pictures],
            "parameters": echo,
            "info": json.dumps(_info(body, errand)),
        }

    @app.post("/sdapi/v1/png-info")
    def png_info(body: PngInfo) -> dict[str, Any]:
        """The settings in a picture."""
        try:
            content = base64.b64decode(body.image.rpartition(",")[2], validate=True)
        except (binascii.Error, ValueError):
            raise SpecError("image is not base64; send the file's bytes as base64", field="image") from None
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "picture"
            path.write_bytes(content)
            text = read_infotext(path)
        return {"info": text, "items": {"parameters": text}, "parameters": dict(parse_infotext(text).fields)}

    @app.get("/sdapi/v1/progress")
    def progress(skip_current_image: bool = False) -> dict[str, Any]:
        """How far the picture is that is drawn now."""
        errand = studio.errand
        share, step, steps = (errand.share, errand.step, errand.steps) if errand else (0.0, 0, 0)
        state = {
            "skipped": False, "interrupted": bool(errand and errand.stop.is_set()), "stopping_generation": False,
            "job": "txt2img" if errand else "", "job_count": len(errand.renders) if errand else 0, "job_timestamp": "0",
            "job_no": 0, "sampling_step": step, "sampling_steps": steps,
        }  # fmt: skip
        eta = errand.eta_s if errand else 0.0
        return {"progress": share, "eta_relative": eta, "state": state, "current_image": None, "textinfo": None}

    @app.post("/sdapi/v1/interrupt")
    @app.post("/sdapi/v1/skip")
    def interrupt() -> dict[str, Any]:
        """Stops the pictures that are drawn now; those that are done are answered."""
        if studio.errand:
            studio.errand.stop.set()
        return {}

    @app.post("/v1/images/generations")
    def openai(body: OpenAiPicture) -> dict[str, Any]:
        """OpenAI's pictures; always as base64."""
        if body.response_format != "b64_json":
            raise SpecError("this server keeps no pictures to link to; ask for b64_json", field="response_format")
        width, height = (int(n) for n in body.size.split("x")) if body.size and body.size != "auto" else (None, None)
        asked = Request(prompt=body.prompt, model=_model_name(body.model, studio), width=width, height=height)
        errand = studio.draw(asked, body.n)
        data = [{"b64_json": base64.b64encode(png).decode("ascii")} for png in errand.future.result()]
        return {"created": int(datetime.now().timestamp()), "data": data}

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        """The checkpoints as OpenAI lists models."""
        names = dict.fromkeys(found.stem for found in studio.library.files(FileKind.CHECKPOINT))
        return {
            "object": "list",
            "data": [{"id": name, "object": "model", "created": 0, "owned_by": "clipskip"} for name in names],
        }


def _request(body: Picture, settings: dict[str, Any]) -> Request:
    own = body.override_settings.get("CLIP_stop_at_last_layers")
    number = (
        own
        if own is not None
        else body.clip_skip
        if body.clip_skip is not None
        else settings["CLIP_stop_at_last_layers"]
    )
    scheduler = body.scheduler or "Automatic"
    return Request(
        prompt=body.prompt,
        negative_prompt=body.negative_prompt,
        model=settings["sd_model_checkpoint"],
        clip_skip=ClipSkip(number),
        steps=body.steps,
        sampler=body.sampler_name or body.sampler_index or "Euler",
        scheduler="Automatic" if scheduler.lower() == "automatic" else scheduler,
        cfg_scale=body.cfg_scale,
        seed=body.seed,
        width=body.width,
        height=body.height,
        emphasis=settings["emphasis"],
        rng=settings["randn_source"],
        ensd=settings["eta_noise_seed_delta"],
        variation_seed=max(0, body.subseed),
        variation_strength=body.subseed_strength,
    )


def _check_unused(body: Picture) -> None:
    """SpecError for a field that would change the picture in A1111 and cannot here."""
    for name, value in (body.model_extra or {}).items():
        if name.startswith(OPTIONAL) and name != "hr_prompt":
            continue
        if not any(
            value == usual and isinstance(value, bool) == isinstance(usual, bool) for usual in USUAL.get(name, NOTHING)
        ):
            raise SpecError(f"{name}={str(value)[:80]!r} is not supported here; leave it out", field=name)


def checked_options(changes: dict[str, Any], studio: Studio) -> dict[str, Any]:
    """Options of A1111's that this server has, checked; SpecError for one that it has not."""
    known = defaults()
    for name, value in changes.items():
        if name not in known:
            raise SpecError(f"the option {name!r} is not supported here; these are: {', '.join(known)}", field=name)
        kind = type(known[name])
        if isinstance(value, bool) or not isinstance(value, kind):
            raise SpecError(
                f"the option {name} is {value!r}; give {'a whole number' if kind is int else 'text'}", field=name
            )
    if "CLIP_stop_at_last_layers" in changes:
        ClipSkip(changes["CLIP_stop_at_last_layers"]).check(12)
    if "sd_model_checkpoint" in changes:
        studio.library.find(changes["sd_model_checkpoint"], FileKind.CHECKPOINT, allow_path=False)
    for name in ("sd_vae", "samples_format"):
        if changes.get(name, known[name]) not in (known[name], "None"):
            raise SpecError(f"the option {name} can only be {known[name]} here", field=name)
    if changes.get("randn_source", "CPU") not in ("CPU", "GPU", "NV"):
        raise SpecError("the option randn_source is one of CPU, GPU, NV", field="randn_source")
    return changes


def _model_name(name: str | None, studio: Studio) -> str | None:
    if name is not None:
        studio.library.find(name, FileKind.CHECKPOINT, allow_path=False)
    return name


def _info(body: Picture, errand: Errand) -> dict[str, Any]:
    """What A1111 says of the pictures, as JSON in the answer's text."""
    renders = [render for render, png in zip(errand.renders, errand.pictures, strict=True) if png is not None]
    first = errand.renders[0]
    count = len(renders)
    return {
        "prompt": body.prompt, "all_prompts": [body.prompt] * count,
        "negative_prompt": body.negative_prompt, "all_negative_prompts": [body.negative_prompt] * count,
        "seed": first.seed, "all_seeds": [render.seed for render in renders],
        "subseed": first.variation_seed, "all_subseeds": [render.variation_seed for render in renders],
        "subseed_strength": first.variation_strength, "width": first.width, "height": first.height,
        "sampler_name": first.sampler, "cfg_scale": first.cfg_scale, "steps": first.steps, "batch_size": body.batch_size,
        "restore_faces": False, "face_restoration_model": None, "sd_model_name": first.model.name,
        "sd_model_hash": first.model.hash, "sd_vae_name": None, "sd_vae_hash": None, "seed_resize_from_w": -1,
        "seed_resize_from_h": -1, "denoising_strength": None, "extra_generation_params": {}, "index_of_first_image": 0,
        "infotexts": [render_infotext(render) for render in renders], "styles": [],
        "job_timestamp": datetime.now().strftime("%Y%m%d%H%M%S"), "clip_skip": first.clip_skip.first.shallow,
        "is_using_inpainting_conditioning": False, "version": f"clipskip {__version__}",
    }  # fmt: skip


def _add_options(app: FastAPI, studio: Studio, options: dict[str, Any]) -> None:
    @app.get("/sdapi/v1/options")
    def get_options() -> dict[str, Any]:
        """The options."""
        return options

    @app.post("/sdapi/v1/options")
    def set_options(body: dict[str, Any]) -> None:
        """Changes options; one bad value changes none of them."""
        changed = {name: value for name, value in body.items() if name not in options or options[name] != value}
        options.update(checked_options(changed, studio))

    @app.get("/sdapi/v1/cmd-flags")
    def flags() -> dict[str, Any]:
        """Nothing: A1111's command line is not this one."""
        return {}

    @app.get("/sdapi/v1/memory")
    def memory() -> dict[str, Any]:
        """Not measured here."""
        return {"ram": {"error": "not measured"}, "cuda": {"error": "not measured"}}

    for what in ("checkpoints", "vae", "loras", "embeddings"):
        app.add_api_route(f"/sdapi/v1/refresh-{what}", _refreshed, methods=["POST"])


def _refreshed() -> None:
    """Folders are read at every request."""


def _add_lists(app: FastAPI, studio: Studio) -> None:
    @app.get("/sdapi/v1/sd-models")
    def sd_models() -> list[dict[str, Any]]:
        """Checkpoints by name; no path of this machine."""
        found = []
        for one in studio.library.files(FileKind.CHECKPOINT):
            hashes = cached_hashes(one.path) if one.path.is_file() else None
            digits = hashes.autov2 if hashes else None
            title = f"{one.name} [{digits}]" if digits else one.name
            sha = hashes.sha256 if hashes else None
            found.append(
                {
                    "title": title,
                    "model_name": one.stem,
                    "hash": digits,
                    "sha256": sha,
                    "filename": one.name,
                    "config": None,
                }
            )
        return found

    @app.get("/sdapi/v1/samplers")
    def samplers() -> list[dict[str, Any]]:
        """Sampling methods."""
        return [{"name": one.name, "aliases": [], "options": {}} for one in SAMPLERS]

    @app.get("/sdapi/v1/schedulers")
    def schedulers() -> list[dict[str, Any]]:
        """Schedule types."""
        names = ("Automatic", *SCHEDULES)
        return [
            {
                "name": n.lower().replace(" ", "_"),
                "label": n,
                "aliases": None,
                "default_rho": -1,
                "need_inner_model": False,
            }
            for n in names
        ]

    @app.get("/sdapi/v1/loras")
    def loras() -> list[dict[str, Any]]:
        """LoRAs by name."""
        files = studio.library.files(FileKind.LORA)
        return [{"name": one.stem, "alias": one.stem, "path": one.name, "metadata": {}} for one in files]

    @app.get("/sdapi/v1/embeddings")
    def embeddings() -> dict[str, Any]:
        """Embeddings by name."""
        blank = {"step": None, "sd_checkpoint": None, "sd_checkpoint_name": None, "shape": 0, "vectors": 0}
        return {"loaded": {one.stem: blank for one in studio.library.files(FileKind.EMBEDDING)}, "skipped": {}}

    for name in ("sd-vae", "upscalers", "latent-upscale-modes", "prompt-styles", "face-restorers", "script-info"):
        app.add_api_route(f"/sdapi/v1/{name}", _none, methods=["GET"])

    @app.get("/sdapi/v1/scripts")
    def scripts() -> dict[str, list[str]]:
        """None; /v1/sweeps draws grids."""
        return {"txt2img": [], "img2img": []}


def _none() -> list[dict[str, Any]]:
    """None of these here."""
    return []
