"""A1111's API: names, bodies and answers are A1111 1.10's (modules/api/api.py)."""

import asyncio
import base64
import binascii
import json
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import StringConstraints

from clipskip import __version__
from clipskip.doors.http.a1111.bodies import MOST_BASE64, ImageBody, PictureBody
from clipskip.doors.http.a1111.lists import add_lists
from clipskip.doors.http.a1111.options import CLIP_SKIP, Options, read_skip, with_options
from clipskip.doors.http.a1111.plot import NAME, draw_sheets, plan_cells, read_plot, sheet_infotext
from clipskip.doors.http.ours import Body, data_url
from clipskip.doors.http.pictures import base64_png, draw_renders, encoded
from clipskip.doors.http.strict import StrictRoute
from clipskip.errors import SpecError
from clipskip.image import hash_pixels, picture_infotext, read_pixels
from clipskip.sample import check_start
from clipskip.spec import Render, Start, parse_infotext, render_infotext, with_defaults
from clipskip.spec import Request as Asked
from clipskip.sweep import Drawn, Extras, Job, Studio, save_picture, seeded
from clipskip.weights import CheckpointFacts

Json = dict[str, Any]  # Any: A1111's own shapes


class PngInfoBody(Body):
    """A picture."""

    image: Annotated[str, StringConstraints(max_length=MOST_BASE64)]


def a1111_routes(studio: Studio) -> APIRouter:
    """The routes below /sdapi/v1."""
    routes = APIRouter(prefix="/sdapi/v1", tags=["A1111"], route_class=StrictRoute)
    options = Options(studio)
    _add_pictures(routes, studio, options)
    _add_progress(routes, studio)
    _add_options(routes, options)
    add_lists(routes, studio)
    return routes


def _add_pictures(routes: APIRouter, studio: Studio, options: Options) -> None:
    @routes.post("/txt2img")
    async def txt2img(body: PictureBody, request: Request) -> Json:
        """Pictures of a prompt, with their settings in them."""
        body.check()
        if body.script_name.casefold() == NAME.casefold():
            found = await _plotted(body, _asked(body, options), studio, asker=request)
            return found | {"parameters": body.model_dump()}
        _refuse_script(body)
        facts, base, extras = await asyncio.to_thread(studio.plan, _asked(body, options))
        order = Order(body=body, facts=facts, renders=seeded(base, body.count), extras=extras)
        return await _answered(order, studio, request) | {"parameters": body.model_dump()}

    @routes.post("/img2img")
    async def img2img(body: ImageBody, request: Request) -> Json:
        """Pictures of a prompt that begin at a picture, stretched to their size."""
        body.check()
        _refuse_script(body)
        sent = decoded(body.init_image, field="init_images")
        pixels = await asyncio.to_thread(read_pixels, sent, field="init_images")
        facts, noise, extras = await asyncio.to_thread(studio.plan, _asked(body, options))
        start = Start(hash=hash_pixels(pixels), strength=body.denoising_strength)
        base = replace(noise, start=start)
        check_start(base)
        order = Order(
            body=body,
            facts=facts,
            renders=seeded(base, body.count),
            extras=replace(extras, starts={start.hash: pixels}),
        )
        echoed = body.model_dump(exclude=set() if body.include_init_images else {"init_images"})
        return await _answered(order, studio, request) | {"parameters": echoed}

    @routes.post("/png-info")
    async def png_info(body: PngInfoBody) -> Json:
        """The settings in a picture: as text, and as fields with A1111's defaults for those left out."""
        text = await asyncio.to_thread(picture_infotext, decoded(body.image, field="image"), "the picture")
        if text is None:
            return {"info": "", "items": {}, "parameters": {}}
        whole = with_defaults(parse_infotext(text))
        prompts = {"Prompt": whole.prompt, "Negative prompt": whole.negative_prompt}
        return {"info": text, "items": {"parameters": text}, "parameters": prompts | dict(whole.fields)}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Order:
    """Pictures that a body asks for, found and checked."""

    body: PictureBody
    facts: CheckpointFacts
    renders: list[Render]
    extras: Extras


async def _answered(order: Order, studio: Studio, asker: Request) -> Json:
    """The pictures, drawn and, where asked, saved; and what is to say of them."""
    body = order.body
    drawn = await draw_renders(
        studio, order.facts, order.renders, extras=order.extras, asker=asker, keep=body.save_images
    )
    if body.save_images:
        await asyncio.to_thread(_save, drawn, studio)
    info = info_of(body, order.renders[0], [one.render for one in drawn])
    return {"images": await encoded(drawn) if body.send_images else [], "info": json.dumps(info)}


async def _plotted(body: PictureBody, asked: Asked, studio: Studio, *, asker: Request) -> Json:
    """The sheet of a plot, then its blocks and cells where those are asked for, and what is to say of them."""
    if body.count > 1:
        raise SpecError(f"{NAME} draws one picture a cell; send a batch_size and n_iter of 1", field="batch_size")
    plot = read_plot(body.script_args)
    cells = plot.requests(asked)
    facts, renders, extras = await asyncio.to_thread(plan_cells, studio, cells)
    drawn = await draw_renders(studio, facts, renders, extras=extras, asker=asker, keep=body.save_images)
    if body.save_images:
        await asyncio.to_thread(_save, drawn, studio)
    info = info_of(body, renders[0], [one.render for one in drawn])
    if not drawn:
        return {"images": [], "info": json.dumps(info)}
    text = sheet_infotext(plot, renders[0])
    sheets = await asyncio.to_thread(draw_sheets, plot, drawn)
    shown = sheets if plot.blocks_too else sheets[:1]
    info |= {
        "infotexts": [text] * len(shown) + info["infotexts"],
        "index_of_first_image": 1,
        "all_prompts": [cells[one.index].prompt for one in drawn],
        "all_negative_prompts": [cells[one.index].negative_prompt for one in drawn],
    }
    images = [await asyncio.to_thread(base64_png, one, text) for one in shown] if body.send_images else []
    lone = await encoded(drawn) if body.send_images and plot.cells_too else []
    return {"images": [*images, *lone], "info": json.dumps(info)}


def _refuse_script(body: PictureBody) -> None:
    if body.script_name:
        raise SpecError(
            f"the script {body.script_name!r} is not here; leave it out, or use {NAME} with txt2img",
            field="script_name",
        )


def _asked(body: PictureBody, options: Options) -> Asked:
    """The request, with the Clip Skip of the override, else of the field, else of the options."""
    settings = options.changed(body.override_settings)
    skip = None
    if body.clip_skip is not None and CLIP_SKIP not in body.override_settings:
        skip = read_skip(body.clip_skip, field="clip_skip")
    asked = Asked(
        prompt=body.prompt,
        negative_prompt=body.negative_prompt,
        clip_skip=skip,
        steps=body.steps,
        sampler=body.sampler,
        scheduler=body.scheduler,
        cfg_scale=body.cfg_scale,
        seed=body.seed,
        width=body.width,
        height=body.height,
        variation_seed=body.subseed,
        variation_strength=body.subseed_strength,
    )
    if not body.override_settings_restore_afterwards:
        options.set(body.override_settings)
    return Asked(**_fields(asked) | with_options(asked, settings))


def _fields(asked: Asked) -> Json:
    return {name: getattr(asked, name) for name in Asked.__dataclass_fields__}


def _save(drawn: list[Drawn], studio: Studio) -> None:
    for one in drawn:
        save_picture(one, studio.history.out)


def decoded(text: str, *, field: str) -> bytes:
    """A picture's bytes from base64, with or without the start of a data URL; SpecError for a link or a path."""
    start, comma, rest = text.strip().partition(",")
    if comma and not start.startswith("data:image/"):
        raise SpecError(f"{field} is neither base64 nor a data URL of a picture; send the file as base64", field=field)
    try:
        content = base64.b64decode(rest if comma else start, validate=True)
    except (binascii.Error, ValueError):
        raise SpecError(
            f"{field} is not base64; send the file itself as base64, no link or path", field=field
        ) from None
    if not content:
        raise SpecError(f"{field} is empty; send a PNG, JPEG or WebP as base64", field=field)
    return content


def info_of(body: PictureBody, base: Render, renders: list[Render]) -> Json:
    """What A1111 says of pictures, as JSON in the answer's text."""
    count = len(renders)
    return {
        "prompt": body.prompt,
        "all_prompts": [body.prompt] * count,
        "negative_prompt": body.negative_prompt,
        "all_negative_prompts": [body.negative_prompt] * count,
        "seed": base.seed,
        "all_seeds": [one.seed for one in renders],
        "subseed": base.variation_seed,
        "all_subseeds": [one.variation_seed for one in renders],
        "subseed_strength": base.variation_strength,
        "width": base.width,
        "height": base.height,
        "sampler_name": base.sampler,
        "cfg_scale": base.cfg_scale,
        "steps": base.steps,
        "batch_size": body.batch_size,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": base.model.name,
        "sd_model_hash": base.model.hash,
        "sd_vae_name": None,
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": base.start.strength if base.start else None,
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": [render_infotext(one) for one in renders],
        "styles": [],
        "job_timestamp": datetime.now().strftime("%Y%m%d%H%M%S"),
        "clip_skip": base.clip_skip.first.from_end,
        "is_using_inpainting_conditioning": False,
        "version": f"clipskip {__version__}",
    }


def _add_progress(routes: APIRouter, studio: Studio) -> None:
    @routes.get("/progress")
    def progress(skip_current_image: bool = False) -> Json:
        """How far the worker is, with a rough look at the picture."""
        job = studio.queue.running
        look = None if job is None or skip_current_image else _look(job)
        return {
            "progress": job.share if job else 0.0,
            "eta_relative": (job.eta_s or 0.0) if job else 0.0,
            "state": _state(job),
            "current_image": look,
            "textinfo": None,
        }

    @routes.post("/interrupt")
    @routes.post("/skip")
    def interrupt() -> Json:
        """Stops the pictures that somebody waits for; those that are done are answered. Sweeps go on."""
        job = studio.queue.running
        if job is not None and not job.id:
            studio.queue.cancel(job)
        return {}


def _state(job: Job | None) -> Json:
    step, steps = max(job.steps.values(), default=(0, 0)) if job else (0, 0)
    return {
        "skipped": False,
        "interrupted": False,
        "stopping_generation": False,
        "job": ("sweep" if job.id else "pictures") if job else "",
        "job_count": job.total if job else 0,
        "job_timestamp": "0",
        "job_no": len(job.done) if job else 0,
        "sampling_step": step,
        "sampling_steps": steps,
    }


def _look(job: Job) -> str | None:
    """The newest preview."""
    looks = list(job.previews.values())
    return data_url(looks[-1]).partition(",")[2] if looks else None


def _add_options(routes: APIRouter, options: Options) -> None:
    @routes.get("/options")
    def get_options() -> Json:
        """The options."""
        return dict(options.all)

    @routes.post("/options")
    def set_options(body: Json) -> None:
        """Changes options; one bad value changes none of them."""
        options.set(body)
