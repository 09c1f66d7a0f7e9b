"""A1111's API, with the names, bodies and answers of A1111 1.10 (modules/api/api.py)."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from fastapi import APIRouter, Request

from clipskip.doors.http.a1111.answers import Json, answer, info_of, infotext_of, writing_of
from clipskip.doors.http.a1111.bodies import ImageBody, PictureBody, PngInfoBody, taking
from clipskip.doors.http.a1111.extras import add_extras
from clipskip.doors.http.a1111.lists import add_lists
from clipskip.doors.http.a1111.machine import add_machine
from clipskip.doors.http.a1111.option_table import Value
from clipskip.doors.http.a1111.options import Options, told
from clipskip.doors.http.a1111.plot import NAME, draw_sheets, plan_cells, read_plot, sheet_infotext
from clipskip.doors.http.a1111.progress import add_progress
from clipskip.doors.http.a1111.styles import read_styles
from clipskip.doors.http.a1111.wish import Shelf, Wish, in_a1111s_words, read_lax, read_wish
from clipskip.doors.http.pictures import Pixels, decoded, draw_renders, encoded
from clipskip.doors.http.reasons import Reason, refusal
from clipskip.doors.http.strict import StrictRoute, read_body
from clipskip.errors import ClipskipError, SpecError
from clipskip.image import hash_pixels, picture_infotext, read_mask, read_pixels
from clipskip.spec import (
    INPAINT_AREAS,
    MASK_EDGES,
    MASK_MODES,
    MASKED_CONTENT,
    RESIZE_MODES,
    Mask,
    Render,
    Start,
    parse_infotext,
    with_defaults,
)
from clipskip.sweep import Drawn, Extras, Studio, doubts_of, save_picture, seeded, warnings_of
from clipskip.weights import CheckpointFacts

NUMBERED = {"inpainting_mask_invert": MASK_MODES, "inpainting_fill": MASKED_CONTENT}
"""Fields of a mask whose values A1111 numbers."""


def a1111_routes(studio: Studio) -> APIRouter:
    """Build the routes below /sdapi/v1."""
    routes = APIRouter(prefix="/sdapi/v1", tags=["A1111"], route_class=StrictRoute)
    options = Options(studio)
    _add_pictures(routes, studio, options)
    add_progress(routes, studio)
    _add_options(routes, options)
    add_lists(routes, studio)
    add_machine(routes, studio, options)
    add_extras(routes, studio, options)
    return routes


def _add_pictures(routes: APIRouter, studio: Studio, options: Options) -> None:
    def shelf() -> Shelf:
        return Shelf(options=options, styles=read_styles(studio.library.folders))

    @routes.post("/txt2img", openapi_extra=taking(PictureBody))
    async def txt2img(request: Request) -> Json:
        """Draw pictures of a prompt, with their settings in them."""
        wish = await asyncio.to_thread(read_wish, await read_body(request), PictureBody, shelf())
        if not wish.body.override_settings_restore_afterwards:
            options.set(wish.body.override_settings)
        if wish.body.script_name.strip().casefold() == NAME.casefold():
            return await _plotted(wish, studio, asker=request)
        order = await asyncio.to_thread(Order.of, wish, studio)
        return await _answered(order, studio, request)

    @routes.post("/img2img", openapi_extra=taking(ImageBody))
    async def img2img(request: Request) -> Json:
        """Draw pictures of a prompt that begin at a picture, stretched to their size."""
        wish = await asyncio.to_thread(read_wish, await read_body(request), ImageBody, shelf())
        begun = await asyncio.to_thread(_begun, wish.body, wish.options)
        order = await asyncio.to_thread(partial(Order.of, begun=begun), wish, studio)
        if not wish.body.override_settings_restore_afterwards:
            options.set(wish.body.override_settings)
        return await _answered(order, studio, request)

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Begun:
    """Where pictures begin, and the pictures and masks by the hash of their pixels."""

    starts: tuple[Start, ...]
    pictures: Mapping[str, Pixels]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Order:
    """The pictures that a body asks for, with the files they need."""

    wish: Wish[Any]  # Any: txt2img's or img2img's
    facts: CheckpointFacts
    renders: list[Render]
    extras: Extras
    warnings: tuple[str, ...]
    """What in its files and settings is probably a mistake."""

    @classmethod
    def of(cls, wish: Wish[Any], studio: Studio, *, begun: Begun | None = None) -> "Order":  # Any: as above
        """The order that a wish comes to; errors name the field as A1111 does."""
        starts, pictures = (begun.starts, begun.pictures) if begun else ((), {})
        request = replace(wish.request, start=starts[0]) if starts else wish.request
        try:
            facts, base, extras = studio.plan(request, pictures)
        except ClipskipError as error:
            raise in_a1111s_words(error) from None
        size = len(starts) if len(starts) > 1 else wish.body.batch_size
        renders = seeded(base, size * wish.body.n_iter)
        if starts:
            renders = [replace(render, start=starts[i % size % len(starts)]) for i, render in enumerate(renders)]
        odd = [*(doubt.text for doubt in doubts_of(request, base, facts, extras)), *warnings_of(request, extras)]
        return cls(wish=wish, facts=facts, renders=renders, extras=extras, warnings=tuple(odd))

    @property
    def parameters(self) -> Json:
        """The body as the answer repeats it."""
        body = self.wish.body
        pictures = isinstance(body, ImageBody) and not body.include_init_images
        repeated: Json = body.model_dump(exclude={"init_images", "mask"} if pictures else set())
        return repeated


def _begun(body: ImageBody, options: Mapping[str, Value]) -> Begun:
    """Return where the pictures begin: one start for all, or one for each of a batch, as in A1111."""
    if not 1 <= len(body.init_images) <= max(1, body.batch_size):
        raise SpecError(
            f"init_images has {len(body.init_images)} pictures; send one, or up to batch_size of them, as base64",
            field="init_images",
        )
    sent = [read_pixels(decoded(text, field="init_images"), field="init_images") for text in body.init_images]
    pictures = {hash_pixels(pixels): pixels for pixels in sent}
    return Begun(starts=tuple(_start(body, pixels, pictures, options) for pixels in sent), pictures=pictures)


def _start(body: ImageBody, pixels: Pixels, pictures: dict[str, Pixels], options: Mapping[str, Value]) -> Start:
    """Return where a picture begins; its mask is added to the pictures."""
    mask = None
    if body.mask:
        drawn = read_mask(decoded(body.mask, field="mask"), field="mask", soft=not body.mask_round)
        pictures[hash_pixels(drawn)] = drawn
        mask = _mask(body, hash_pixels(drawn), weight=float(str(options["inpainting_mask_weight"])))
    same = body.resize_mode in (1, 2) and (mask is None or not mask.cropped) and _same_shape(body, pixels)
    noise = body.initial_noise_multiplier
    try:
        return Start(
            hash=hash_pixels(pixels),
            strength=body.denoising_strength,
            resize_mode=RESIZE_MODES[0 if same else body.resize_mode],
            noise_multiplier=float(str(options["initial_noise_multiplier"])) if noise is None else noise,
            mask=mask,
        )
    except ClipskipError as error:
        raise in_a1111s_words(error) from None


def _same_shape(body: ImageBody, pixels: Pixels) -> bool:
    """Return whether cutting or filling would do no more than stretching does."""
    height, width, _ = pixels.shape
    return body.width is not None and body.height is not None and width * body.height == height * body.width


def _mask(body: ImageBody, hash: str, *, weight: float) -> Mask:
    """Return the mask, with the values that A1111 numbers."""
    across, down = (body.mask_blur_x, body.mask_blur_y) if body.mask_blur is None else (body.mask_blur, body.mask_blur)
    for name, words in NUMBERED.items():
        if getattr(body, name) not in range(len(words)):
            raise SpecError(f"{name} is {getattr(body, name)}; use 0 to {len(words) - 1}", field=name)
    try:
        return Mask(
            hash=hash,
            blur=across,
            blur_y=None if down == across else down,
            edge=MASK_EDGES[0 if body.mask_round else 1],
            weight=weight,
            mode=MASK_MODES[body.inpainting_mask_invert],
            content=MASKED_CONTENT[body.inpainting_fill],
            area=INPAINT_AREAS[body.inpaint_full_res],
            padding=body.inpaint_full_res_padding,
        )
    except ClipskipError as error:
        across_alone = error.field == "mask_blur" and body.mask_blur is None
        raise type(error)(str(error), field="mask_blur_x") if across_alone else in_a1111s_words(error) from None


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
    pictures = [(drawing.pixels, infotext_of(drawing)) for drawing in drawn] if body.send_images else []
    info = info_of(wish, order.renders[0], drawn) | {"clipskip_warnings": list(order.warnings)}
    return answer(await encoded(pictures, writing), info, order.parameters)


async def _plotted(wish: Wish[PictureBody], studio: Studio, *, asker: Request) -> Json:
    """Draw the sheet of a plot, and return it with its blocks and cells if those are asked for."""
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
        "all_prompts": [cells[drawing.index].prompt for drawing in drawn],
        "all_negative_prompts": [cells[drawing.index].negative_prompt for drawing in drawn],
    }
    if plot.cells_too:
        pictures += [(drawing.pixels, infotext_of(drawing)) for drawing in drawn]
    return answer(await encoded(pictures if body.send_images else [], writing), info, body.model_dump())


def _save(drawn: list[Drawn], studio: Studio, wish: Wish[Any]) -> None:  # Any: txt2img's or img2img's
    """Save the pictures; interrupted ones only if the options say so, as in A1111."""
    writing = writing_of(wish.options)
    for drawing in drawn:
        if drawing.half_done is None or wish.options["save_incomplete_images"]:
            content = writing.content(drawing.pixels, infotext_of(drawing))
            save_picture(drawing.render, studio.history.out, content=content, suffix=writing.format.suffix)


def _add_options(routes: APIRouter, options: Options) -> None:
    @routes.get("/options")
    def get_options() -> Json:
        """Return the options: A1111's whole list, with what has been set."""
        return dict(options.all)

    @routes.post("/options")
    def set_options(body: Json) -> Json | None:
        """Change options. Those that this server cannot honour are refused by name; the others are set all the same."""
        changes = options.set(body)
        if changes.reasons:
            others = [Reason(field="", why=f"the other {len(changes.taken)} are set")] if changes.taken else []
            raise refusal([*changes.reasons, *others])
        return {"clipskip_ignored": told(changes.ignored)} if changes.ignored else None
