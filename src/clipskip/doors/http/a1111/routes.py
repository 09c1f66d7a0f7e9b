"""A1111's API: names, bodies and answers are A1111 1.10's (modules/api/api.py)."""

import asyncio
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter, Request

from clipskip.doors.http.a1111.answers import Json, answer, info_of, infotext_of, writing_of
from clipskip.doors.http.a1111.bodies import ImageBody, PictureBody, PngInfoBody, taking
from clipskip.doors.http.a1111.extras import add_extras
from clipskip.doors.http.a1111.lists import add_lists
from clipskip.doors.http.a1111.machine import add_machine
from clipskip.doors.http.a1111.options import Options, told
from clipskip.doors.http.a1111.plot import NAME, draw_sheets, plan_cells, read_plot, sheet_infotext
from clipskip.doors.http.a1111.progress import add_progress
from clipskip.doors.http.a1111.styles import read_styles
from clipskip.doors.http.a1111.wish import Shelf, Wish, read_lax, read_wish
from clipskip.doors.http.pictures import decoded, draw_renders, encoded
from clipskip.doors.http.reasons import Reason, refusal
from clipskip.doors.http.strict import StrictRoute, read_body
from clipskip.errors import SpecError
from clipskip.image import hash_pixels, picture_infotext, read_pixels
from clipskip.sample import check_start
from clipskip.spec import Render, Start, parse_infotext, with_defaults
from clipskip.sweep import Drawn, Extras, Studio, save_picture, seeded
from clipskip.weights import CheckpointFacts


def a1111_routes(studio: Studio) -> APIRouter:
    """The routes below /sdapi/v1."""
    routes = APIRouter(prefix="/sdapi/v1", tags=["A1111"], route_class=StrictRoute)
    options = Options(studio)
    _add_pictures(routes, studio, options)
    add_progress(routes, studio)
    _add_options(routes, options)
    add_lists(routes, studio)
    add_machine(routes, studio, options)
    add_extras(routes, options)
    return routes


def _add_pictures(routes: APIRouter, studio: Studio, options: Options) -> None:
    def shelf() -> Shelf:
        return Shelf(options=options, styles=read_styles(studio.library.folders))

    @routes.post("/txt2img", openapi_extra=taking(PictureBody))
    async def txt2img(request: Request) -> Json:
        """Pictures of a prompt, with their settings in them."""
        wish = await asyncio.to_thread(read_wish, await read_body(request), PictureBody, shelf())
        if not wish.body.override_settings_restore_afterwards:
            options.set(wish.body.override_settings)
        if wish.body.script_name.strip().casefold() == NAME.casefold():
            return await _plotted(wish, studio, asker=request)
        facts, base, extras = await asyncio.to_thread(studio.plan, wish.request)
        order = Order(wish=wish, facts=facts, renders=seeded(base, wish.body.count), extras=extras)
        return await _answered(order, studio, request)

    @routes.post("/img2img", openapi_extra=taking(ImageBody))
    async def img2img(request: Request) -> Json:
        """Pictures of a prompt that begin at a picture, stretched to their size."""
        wish = await asyncio.to_thread(read_wish, await read_body(request), ImageBody, shelf())
        order = await asyncio.to_thread(_begun, wish, studio)
        if not wish.body.override_settings_restore_afterwards:
            options.set(wish.body.override_settings)
        return await _answered(order, studio, request)

    @routes.post("/png-info", openapi_extra=taking(PngInfoBody))
    async def png_info(request: Request) -> Json:
        """The settings in a picture: as text, and as fields with A1111's defaults for those left out."""
        body = await read_lax(request, PngInfoBody)
        return await asyncio.to_thread(_settings_in, body.image)


def _settings_in(image: str) -> Json:
    text = picture_infotext(decoded(image, field="image"), "the picture")
    if text is None:
        return {"info": "", "items": {}, "parameters": {}}
    whole = with_defaults(parse_infotext(text))
    prompts = {"Prompt": whole.prompt, "Negative prompt": whole.negative_prompt}
    return {"info": text, "items": {"parameters": text}, "parameters": prompts | dict(whole.fields)}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Order:
    """Pictures that a body asks for, found and checked."""

    wish: Wish[Any]  # Any: txt2img's or img2img's
    facts: CheckpointFacts
    renders: list[Render]
    extras: Extras

    @property
    def parameters(self) -> Json:
        """The body as the answer repeats it."""
        body = self.wish.body
        pictures = isinstance(body, ImageBody) and not body.include_init_images
        found: Json = body.model_dump(exclude={"init_images"} if pictures else set())
        return found


def _begun(wish: Wish[ImageBody], studio: Studio) -> Order:
    """The order of pictures that begin at those sent: one for all, or one for each of a batch, as in A1111."""
    body = wish.body
    if not 1 <= len(body.init_images) <= max(1, body.batch_size):
        raise SpecError(
            f"init_images has {len(body.init_images)} pictures; send one, or up to batch_size of them, as base64",
            field="init_images",
        )
    sent = [read_pixels(decoded(text, field="init_images"), field="init_images") for text in body.init_images]
    facts, noise, extras = studio.plan(wish.request)
    starts = {hash_pixels(pixels): pixels for pixels in sent}
    hashes = [hash_pixels(pixels) for pixels in sent]
    for pixels in sent:
        _check_resize(body, noise, width=pixels.shape[1], height=pixels.shape[0])
    size = body.batch_size if len(sent) == 1 else len(sent)
    seeds = seeded(noise, size * body.n_iter)
    renders = [
        replace(render, start=Start(hash=hashes[i % size % len(hashes)], strength=body.denoising_strength))
        for i, render in enumerate(seeds)
    ]
    check_start(renders[0])
    return Order(wish=wish, facts=facts, renders=renders, extras=replace(extras, starts=starts))


def _check_resize(body: ImageBody, render: Render, *, width: int, height: int) -> None:
    """Refuse a resize_mode that would do anything else than stretch."""
    same_shape = width * render.height == height * render.width
    if (
        body.resize_mode == 0
        or (same_shape and body.resize_mode != 3)
        or (width, height) == (render.width, render.height)
    ):
        return
    why = f"resize_mode is {body.resize_mode}, which this server cannot do; send 0, or a picture of {render.width} x {render.height}"
    raise refusal([Reason(field="resize_mode", why=why)])


async def _answered(order: Order, studio: Studio, asker: Request) -> Json:
    """The pictures, drawn and, where asked, saved; and what is to say of them."""
    wish, body = order.wish, order.wish.body
    drawn = await draw_renders(
        studio,
        order.facts,
        order.renders,
        extras=order.extras,
        asker=asker,
        keep=body.save_images,
        at_hand=body.batch_size,
    )
    writing = writing_of(wish.options)
    if body.save_images:
        await asyncio.to_thread(_save, drawn, studio, wish)
    pictures = [(one.pixels, infotext_of(one)) for one in drawn] if body.send_images else []
    return answer(await encoded(pictures, writing), info_of(wish, order.renders[0], drawn), order.parameters)


async def _plotted(wish: Wish[PictureBody], studio: Studio, *, asker: Request) -> Json:
    """The sheet of a plot, then its blocks and cells where those are asked for, and what is to say of them."""
    body, writing = wish.body, writing_of(wish.options)
    if body.count > 1:
        raise SpecError(f"{NAME} draws one picture a cell; send a batch_size and n_iter of 1", field="batch_size")
    plot = read_plot(body.script_args)
    cells = plot.requests(wish.request)
    facts, renders, extras = await asyncio.to_thread(plan_cells, studio, cells)
    drawn = await draw_renders(studio, facts, renders, extras=extras, asker=asker, keep=body.save_images, at_hand=1)
    if body.save_images:
        await asyncio.to_thread(_save, drawn, studio, wish)
    info = info_of(wish, renders[0], drawn)
    if not drawn:
        return answer([], info, body.model_dump())
    text = sheet_infotext(plot, renders[0])
    sheets = await asyncio.to_thread(draw_sheets, plot, drawn)
    pictures = [(sheet, text) for sheet in (sheets if plot.blocks_too else sheets[:1])]
    info |= {
        "infotexts": [text] * len(pictures) + info["infotexts"],
        "index_of_first_image": 1,
        "all_prompts": [cells[one.index].prompt for one in drawn],
        "all_negative_prompts": [cells[one.index].negative_prompt for one in drawn],
    }
    if plot.cells_too:
        pictures += [(one.pixels, infotext_of(one)) for one in drawn]
    return answer(await encoded(pictures if body.send_images else [], writing), info, body.model_dump())


def _save(drawn: list[Drawn], studio: Studio, wish: Wish[Any]) -> None:  # Any: txt2img's or img2img's
    """Keep the pictures; those that somebody stopped only where the options say so, as in A1111."""
    writing = writing_of(wish.options)
    for one in drawn:
        if one.half_done is None or wish.options["save_incomplete_images"]:
            content = writing.content(one.pixels, infotext_of(one))
            save_picture(one.render, studio.history.out, content=content, suffix=writing.format.suffix)


def _add_options(routes: APIRouter, options: Options) -> None:
    @routes.get("/options")
    def get_options() -> Json:
        """The options: A1111's whole list, with what has been set."""
        return dict(options.all)

    @routes.post("/options")
    def set_options(body: Json) -> Json | None:
        """Change options. Those that cannot be had are refused by name, and all others are set all the same."""
        changes = options.set(body)
        if changes.reasons:
            others = [Reason(field="", why=f"the other {len(changes.taken)} are set")] if changes.taken else []
            raise refusal([*changes.reasons, *others])
        return {"clipskip_ignored": told(changes.ignored)} if changes.ignored else None
