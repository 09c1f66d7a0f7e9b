"""A1111's extras: pictures made larger (1.10 modules/postprocessing.py, scripts/postprocessing_upscale.py)."""

import asyncio
import html
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Request
from numpy.typing import NDArray
from pydantic import Field

from clipskip.doors.http.a1111.answers import Json, writing_of
from clipskip.doors.http.a1111.bodies import LaxBody, Name, Picture, taking
from clipskip.doors.http.a1111.options import Options
from clipskip.doors.http.a1111.wish import read_lax
from clipskip.doors.http.pictures import MOST_PICTURES, decoded, encoded
from clipskip.doors.http.reasons import Reason, refusal
from clipskip.errors import SpecError
from clipskip.image import blend, crop_middle, enlarge, picture_infotext, read_pixels

Pixels = NDArray[np.uint8]
NONE = ("None", "")
Side = Annotated[int, Field(ge=1, le=8192)]
Share = Annotated[float, Field(ge=0, le=1)]


class ExtrasBody(LaxBody):
    """How pictures are made larger."""

    resize_mode: Annotated[int, Field(ge=0, le=1)] = 0
    """0: so many times as large; 1: to a size."""
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

    def enlarged(self, pixels: Pixels) -> Pixels:
        """A picture made larger as the body says."""
        if self.upscaler_1 in NONE:
            return pixels
        first = self._by(self.upscaler_1, pixels, field="upscaler_1")
        if self.upscaler_2 in NONE or not self.extras_upscaler_2_visibility:
            return first
        second = self._by(self.upscaler_2, pixels, field="upscaler_2")
        return blend(first, second, share=self.extras_upscaler_2_visibility)

    def _by(self, upscaler: str, pixels: Pixels, *, field: str) -> Pixels:
        height, width, _ = pixels.shape
        to_width, to_height = self.upscaling_resize_w, self.upscaling_resize_h
        scale = max(to_width / width, to_height / height) if self.resize_mode else self.upscaling_resize
        try:
            larger = enlarge(pixels, upscaler, scale=scale)
        except SpecError as error:
            raise SpecError(str(error), field=field if error.field == "upscaler" else "upscaling_resize") from None
        return (
            crop_middle(larger, width=to_width, height=to_height)
            if self.resize_mode and self.upscaling_crop
            else larger
        )

    @property
    def said(self) -> dict[str, object]:
        """What is noted of it, as A1111 notes it."""
        if self.upscaler_1 in NONE:
            return {}
        said: dict[str, object] = {"Postprocess upscaler": self.upscaler_1}
        if self.resize_mode:
            said["Postprocess upscale to"] = f"{self.upscaling_resize_w}x{self.upscaling_resize_h}"
        else:
            said["Postprocess upscale by"] = self.upscaling_resize
        return said if self.upscaler_2 in NONE else said | {"Postprocess upscaler 2": self.upscaler_2}


class SingleBody(ExtrasBody):
    """One picture."""

    image: Picture = ""


class FileBody(LaxBody):
    """One picture of several."""

    data: Picture
    name: Name


class BatchBody(ExtrasBody):
    """Several pictures."""

    imageList: Annotated[list[FileBody], Field(max_length=MOST_PICTURES)]


def add_extras(routes: APIRouter, options: Options) -> None:
    """Add them."""

    @routes.post("/extra-single-image", openapi_extra=taking(SingleBody))
    async def extra_single_image(request: Request) -> Json:
        """A picture made larger, with the settings that it carries."""
        body = await read_lax(request, SingleBody)
        info, images = await _enlarged(body, {"image": body.image}, options)
        return {"html_info": info, "image": images[0]}

    @routes.post("/extra-batch-images", openapi_extra=taking(BatchBody))
    async def extra_batch_images(request: Request) -> Json:
        """Pictures made larger, each with the settings that it carries."""
        body = await read_lax(request, BatchBody)
        info, images = await _enlarged(
            body, {f"imageList.{i}": one.data for i, one in enumerate(body.imageList)}, options
        )
        return {"html_info": info, "images": images}


async def _enlarged(body: ExtrasBody, sent: dict[str, str], options: Options) -> tuple[str, list[str]]:
    """What is said of the pictures, as HTML, and the pictures."""
    faces = [name for name in ("gfpgan_visibility", "codeformer_visibility") if getattr(body, name)]
    if faces:
        raise refusal([Reason(field=name, why=f"{name}: face restoration is not here; send 0") for name in faces])

    def make() -> list[tuple[Pixels, str]]:
        contents = {field: decoded(text, field=field) for field, text in sent.items()}
        noted = ", ".join(f"{name}: {value}" for name, value in body.said.items())
        return [
            (body.enlarged(read_pixels(content, field=field)), _with(noted, picture_infotext(content, field)))
            for field, content in contents.items()
        ]

    pictures = await asyncio.to_thread(make)
    info = "".join(f"<p>{html.escape(f'{name}: {value}')}</p>" for name, value in body.said.items())
    return info, await encoded(pictures, writing_of(options.all))


def _with(noted: str, text: str | None) -> str:
    """The settings that a picture carries and what was done to it."""
    return ", ".join(part for part in (text, noted) if part)
