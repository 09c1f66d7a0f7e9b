"""A1111's extras: enlarging pictures (1.10 modules/postprocessing.py, scripts/postprocessing_upscale.py)."""

import asyncio
import html
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from fastapi import APIRouter, Request
from numpy.typing import NDArray
from pydantic import Field

from clipskip.doors.http.a1111.answers import Json, writing_of
from clipskip.doors.http.a1111.bodies import LaxBody, Name, Picture, taking
from clipskip.doors.http.a1111.kept_options import Options
from clipskip.doors.http.a1111.wish import read_lax
from clipskip.doors.http.pictures import GONE_S, MOST_PICTURES, decoded, encoded
from clipskip.doors.http.reasons import Reason, refusal
from clipskip.errors import Busy, ClipskipError, NotFound, SpecError
from clipskip.image import (
    UPSCALERS,
    Upscaler,
    blend,
    crop_middle,
    enlarge,
    picture_infotext,
    read_pixels,
    upscale_by,
    upscale_with,
)
from clipskip.sweep import Studio
from clipskip.weights import find_upscaler, load_upscaler

Pixels = NDArray[np.uint8]
NONE, LANCZOS = ("None", ""), "Lanczos"
Side = Annotated[int, Field(ge=1, le=8192)]
Share = Annotated[float, Field(ge=0, le=1)]


class ExtrasBody(LaxBody):
    """A request to enlarge pictures."""

    resize_mode: Annotated[int, Field(ge=0, le=1)] = 0
    """0 enlarges by a factor; 1 enlarges to a size."""
    show_extras_results: bool = True
    gfpgan_visibility: Share = 0.0
    codeformer_visibility: Share = 0.0
    codeformer_weight: Share = 0.0
    upscaling_resize: Annotated[float, Field(ge=1, le=8)] = 2.0
    upscaling_resize_w: Side = 512
    upscaling_resize_h: Side = 512
    upscaling_crop: bool = True
    upscaler_1: Name = "None"
    upscaler_2: Name = "None"
    extras_upscaler_2_visibility: Share = 0.0
    upscale_first: bool = False

    @property
    def used(self) -> dict[str, str]:
        """The upscalers in use, by their fields."""
        if self.upscaler_1 in NONE:
            return {}
        if self.upscaler_2 in NONE or not self.extras_upscaler_2_visibility:
            return {"upscaler_1": self.upscaler_1}
        return {"upscaler_1": self.upscaler_1, "upscaler_2": self.upscaler_2}

    def enlarged(self, pixels: Pixels, upscalers: Sequence[Upscaler]) -> Pixels:
        """Return a picture enlarged as the body asks, by the upscalers in use."""
        made = [self._by(upscale, pixels) for upscale in upscalers]
        if not made:
            return pixels
        return made[0] if len(made) == 1 else blend(made[0], made[1], share=self.extras_upscaler_2_visibility)

    def _by(self, upscale: Upscaler, pixels: Pixels) -> Pixels:
        height, width, _ = pixels.shape
        to_width, to_height = self.upscaling_resize_w, self.upscaling_resize_h
        scale = max(to_width / width, to_height / height) if self.resize_mode else self.upscaling_resize
        try:
            larger = enlarge(pixels, upscale, scale=scale)
        except SpecError as error:
            raise SpecError(str(error), field="upscaling_resize") from None
        return (
            crop_middle(larger, width=to_width, height=to_height)
            if self.resize_mode and self.upscaling_crop
            else larger
        )

    @property
    def said(self) -> dict[str, object]:
        """Return the record of the enlarging, in A1111's words."""
        if self.upscaler_1 in NONE:
            return {}
        notes: dict[str, object] = {"Postprocess upscaler": self.upscaler_1}
        if self.resize_mode:
            notes["Postprocess upscale to"] = f"{self.upscaling_resize_w}x{self.upscaling_resize_h}"
        else:
            notes["Postprocess upscale by"] = self.upscaling_resize
        return notes if self.upscaler_2 in NONE else notes | {"Postprocess upscaler 2": self.upscaler_2}


class SingleBody(ExtrasBody):
    """One picture to enlarge."""

    image: Picture = ""


class FileBody(LaxBody):
    """One picture of a batch."""

    data: Picture
    name: Name


class BatchBody(ExtrasBody):
    """Several pictures to enlarge."""

    imageList: Annotated[list[FileBody], Field(max_length=MOST_PICTURES)]


def add_extras(routes: APIRouter, studio: Studio, options: Options, ended: threading.Event) -> None:
    """Add the routes that enlarge pictures, until it is `ended`: then what is left is enlarged by Lanczos, as in A1111."""
    turn = threading.Lock()

    @routes.post("/extra-single-image", openapi_extra=taking(SingleBody))
    async def extra_single_image(request: Request) -> Json:
        """Enlarge a picture and keep the settings that it carries."""
        body = await read_lax(request, SingleBody)
        shop = Shop(studio=studio, options=options, turn=turn, ended=ended, asker=request)
        info, images = await _enlarged(body, {"image": body.image}, shop)
        return {"html_info": info, "image": images[0]}

    @routes.post("/extra-batch-images", openapi_extra=taking(BatchBody))
    async def extra_batch_images(request: Request) -> Json:
        """Enlarge pictures, each with the settings that it carries."""
        body = await read_lax(request, BatchBody)
        shop = Shop(studio=studio, options=options, turn=turn, ended=ended, asker=request)
        sent = {f"imageList.{i}": file.data for i, file in enumerate(body.imageList)}
        info, images = await _enlarged(body, sent, shop)
        return {"html_info": info, "images": images}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shop:
    """The tools that enlarging needs besides the body."""

    studio: Studio
    options: Options
    turn: threading.Lock
    """Held while pictures are enlarged: models take much memory, so requests are served one after the other."""
    ended: threading.Event
    """Set when somebody ends what is being enlarged."""
    asker: Request

    def upscaler(self, name: str, *, field: str, given_up: Callable[[], bool]) -> Upscaler:
        """Return the upscaler of this name. Raises SpecError or NotFound with the field's name."""
        plain = upscale_by(name)
        if plain is not None:
            return plain
        library, allow_pickle = self.studio.library, self.studio.allow_pickle
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            file = find_upscaler(name, library, allow_pickle=allow_pickle)
            return upscale_with(load_upscaler(file, device=device), device=device, given_up=given_up)
        except NotFound as error:
            raise SpecError(f"{error}; without a model: {', '.join(UPSCALERS)}", field=field) from None
        except ClipskipError as error:
            raise type(error)(str(error), field=field) from None


async def _enlarged(body: ExtrasBody, sent: dict[str, str], shop: Shop) -> tuple[str, list[str]]:
    """Return an HTML note about the pictures, and the pictures. Enlarging stops when the client hangs up."""
    faces = [name for name in ("gfpgan_visibility", "codeformer_visibility") if getattr(body, name)]
    if faces:
        raise refusal([Reason(field=name, why=f"{name}: face restoration is not here; send 0") for name in faces])
    given_up = threading.Event()

    def given_up_or_ended() -> bool:
        return given_up.is_set() or shop.ended.is_set()

    def make() -> list[tuple[Pixels, str]]:
        contents = {field: decoded(text, field=field) for field, text in sent.items()}
        pictures = [
            (read_pixels(content, field=field), picture_infotext(content, field)) for field, content in contents.items()
        ]
        with shop.turn:
            shop.ended.clear()
            used = [shop.upscaler(name, field=field, given_up=given_up_or_ended) for field, name in body.used.items()]
            return [_made(body, pixels, used, text, shop) for pixels, text in pictures]

    made = asyncio.create_task(asyncio.to_thread(make))
    while not (await asyncio.wait({made}, timeout=GONE_S))[0]:
        if await shop.asker.is_disconnected():
            given_up.set()
    info = "".join(f"<p>{html.escape(f'{name}: {value}')}</p>" for name, value in body.said.items())
    return info, await encoded(await made, writing_of(shop.options.all))


def _made(
    body: ExtrasBody, pixels: Pixels, used: Sequence[Upscaler], text: str | None, shop: Shop
) -> tuple[Pixels, str]:
    """Return a picture enlarged, and the settings that it carries with a note of what was done to it."""
    notes = body.said
    try:
        larger = body.enlarged(pixels, used)
    except Busy:
        if not shop.ended.is_set():
            raise
        lanczos = upscale_by(LANCZOS)
        assert lanczos is not None
        larger, notes = body.enlarged(pixels, [lanczos]), notes | {"Postprocess interrupted": LANCZOS}
    noted = ", ".join(f"{name}: {value}" for name, value in notes.items())
    return larger, ", ".join(part for part in (text, noted) if part)
