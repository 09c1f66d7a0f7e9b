"""A1111's API, with the names, bodies and answers of A1111 1.10 (modules/api/api.py)."""

import asyncio
import threading
from functools import partial
from typing import Any

from fastapi import APIRouter, Request

from clipskip.doors.http.a1111.answers import Json, answer, info_of, settings_text, writing_of
from clipskip.doors.http.a1111.bodies import ImageBody, OptionsBody, PictureBody, PngInfoBody, taking
from clipskip.doors.http.a1111.extras import add_extras
from clipskip.doors.http.a1111.kept_options import Options, told
from clipskip.doors.http.a1111.lists import add_lists
from clipskip.doors.http.a1111.machine import add_machine
from clipskip.doors.http.a1111.order import Order, order_by
from clipskip.doors.http.a1111.plot import draw_sheets, sheet_infotext
from clipskip.doors.http.a1111.progress import add_progress
from clipskip.doors.http.a1111.styles import read_styles
from clipskip.doors.http.a1111.wish import Lookups, Wish, read_all, read_lax
from clipskip.doors.http.pictures import decoded, draw_renders, encoded
from clipskip.doors.http.reasons import Reason, refusal
from clipskip.doors.http.strict import StrictRoute, read_body
from clipskip.image import picture_infotext
from clipskip.spec import parse_infotext, with_defaults
from clipskip.sweep import Drawn, Studio, save_picture


def a1111_routes(studio: Studio) -> APIRouter:
    """Build the routes below /sdapi/v1."""
    routes = APIRouter(prefix="/sdapi/v1", tags=["A1111"], route_class=StrictRoute)
    options, enlarging_ended = Options(studio), threading.Event()
    _add_pictures(routes, studio, options)
    add_progress(routes, studio, enlarging_ended)
    _add_options(routes, options)
    add_lists(routes, studio)
    add_machine(routes, studio, options)
    add_extras(routes, studio, options, enlarging_ended)
    return routes


def _add_pictures(routes: APIRouter, studio: Studio, options: Options) -> None:
    def lookups() -> Lookups:
        return Lookups(options=options, styles=read_styles(studio.library.folders))

    async def order_of(request: Request, kind: type[PictureBody]) -> Order:
        order = await asyncio.to_thread(
            read_all, await read_body(request), kind, lookups(), partial(order_by, studio=studio)
        )
        if not order.wish.body.override_settings_restore_afterwards:
            options.set(order.wish.body.override_settings)
        return order

    @routes.post("/txt2img", openapi_extra=taking(PictureBody))
    async def txt2img(request: Request) -> Json:
        """Draw pictures of a prompt, with their settings in them."""
        order = await order_of(request, PictureBody)
        return await (_answered if order.plot is None else _plotted)(order, studio, request)

    @routes.post("/img2img", openapi_extra=taking(ImageBody))
    async def img2img(request: Request) -> Json:
        """Draw pictures of a prompt that begin at a picture, stretched to their size."""
        return await _answered(await order_of(request, ImageBody), studio, request)

    @routes.post("/png-info", openapi_extra=taking(PngInfoBody))
    async def png_info(request: Request) -> Json:
        """Read the settings in a picture: as text, and as fields with A1111's defaults for those left out."""
        body = await read_lax(request, PngInfoBody)
        return await asyncio.to_thread(_settings_in, body.image)


def _settings_in(image: str) -> Json:
    text = picture_infotext(decoded(image, field="image"), "the picture")
    if text is None:
        return {"info": "", "items": {}, "parameters": {}}
    whole = with_defaults(parse_infotext(text))
    prompts = {"Prompt": whole.prompt, "Negative prompt": whole.negative_prompt}
    return {"info": text, "items": {"parameters": text}, "parameters": prompts | dict(whole.fields)}


async def _answered(order: Order, studio: Studio, asker: Request) -> Json:
    """Draw the pictures, save them where asked, and return the answer."""
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
    pictures = [(drawing.pixels, settings_text(drawing)) for drawing in drawn] if body.send_images else []
    info = info_of(wish, order.renders[0], drawn) | {"clipskip_warnings": list(order.warnings)}
    return answer(await encoded(pictures, writing), info, order.parameters)


async def _plotted(order: Order, studio: Studio, asker: Request) -> Json:
    """Draw the sheet of a plot, and return it with its blocks and cells if those are asked for."""
    wish, body, plot = order.wish, order.wish.body, order.plot
    assert plot is not None
    drawn = await draw_renders(
        studio, order.facts, order.renders, extras=order.extras, asker=asker, keep=body.save_images, at_hand=1
    )
    if body.save_images:
        await asyncio.to_thread(_save, drawn, studio, wish)
    info = info_of(wish, order.renders[0], drawn)
    if not drawn:
        return answer([], info, body.model_dump())
    text = sheet_infotext(plot, order.renders[0])
    sheets = await asyncio.to_thread(draw_sheets, plot, drawn)
    pictures = [(sheet, text) for sheet in (sheets if plot.blocks_too else sheets[:1])]
    asked = plot.requests(wish.request)
    info |= {
        "infotexts": [text] * len(pictures) + info["infotexts"],
        "index_of_first_image": 1,
        "all_prompts": [asked[drawing.index].prompt for drawing in drawn],
        "all_negative_prompts": [asked[drawing.index].negative_prompt for drawing in drawn],
    }
    if plot.cells_too:
        pictures += [(drawing.pixels, settings_text(drawing)) for drawing in drawn]
    encoding = encoded(pictures if body.send_images else [], writing_of(wish.options))
    return answer(await encoding, info, body.model_dump())


def _save(drawn: list[Drawn], studio: Studio, wish: Wish[Any]) -> None:  # Any: txt2img's or img2img's
    """Save the pictures; interrupted ones only if the options say so, as in A1111."""
    writing = writing_of(wish.options)
    for drawing in drawn:
        if drawing.half_done is None or wish.options["save_incomplete_images"]:
            content = writing.content(drawing.pixels, settings_text(drawing))
            save_picture(drawing.render, studio.history.out, content=content, suffix=writing.format.suffix)


def _add_options(routes: APIRouter, options: Options) -> None:
    @routes.get("/options")
    def get_options() -> Json:
        """Return the options: A1111's whole list, with what has been set."""
        return dict(options.all)

    @routes.post("/options", openapi_extra=taking(OptionsBody))
    async def set_options(request: Request) -> Json | None:
        """Change options. Those that this server cannot honour are refused by name; the others are set all the same."""
        body = await read_lax(request, OptionsBody)
        changes = await asyncio.to_thread(options.set, body.model_extra or {})
        if changes.reasons:
            others = [Reason(field="", why=f"the other {len(changes.taken)} are set")] if changes.taken else []
            raise refusal([*changes.reasons, *others])
        return {"clipskip_ignored": told(changes.ignored)} if changes.ignored else None
