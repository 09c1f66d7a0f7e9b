"""What A1111 says of pictures: their files as base64 in the format of its options, and a JSON text about them."""

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipskip import __version__
from clipskip.doors.http.a1111.bodies import PictureBody
from clipskip.doors.http.a1111.option_table import Value
from clipskip.doors.http.a1111.wish import Wish
from clipskip.image import PictureFormat, picture_bytes
from clipskip.spec import Render, render_infotext
from clipskip.sweep import Drawn

Json = dict[str, Any]  # Any: A1111's own shapes


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """How pictures are written."""

    format: PictureFormat
    quality: int
    lossless: bool

    @classmethod
    def of(cls, options: Mapping[str, Value]) -> "Writing":
        """As A1111's options say."""
        kind = str(options["samples_format"])
        return cls(
            format={"png": PictureFormat.PNG, "webp": PictureFormat.WEBP}.get(kind, PictureFormat.JPEG),
            quality=int(str(options["jpeg_quality"])),
            lossless=bool(options["webp_lossless"]),
        )

    def content(self, pixels: NDArray[np.uint8], infotext: str) -> bytes:
        """A picture's file."""
        return picture_bytes(pixels, infotext, format=self.format, quality=self.quality, lossless=self.lossless)


async def encoded(pictures: Sequence[tuple[NDArray[np.uint8], str]], writing: Writing) -> list[str]:
    """Pixels with their settings as base64, as A1111's answers have them."""

    def encode() -> list[str]:
        return [base64.b64encode(writing.content(*picture)).decode("ascii") for picture in pictures]

    return await asyncio.to_thread(encode)


def infotext_of(drawn: Drawn) -> str:
    """A picture's settings; of one that somebody stopped, also where."""
    text = render_infotext(drawn.render)
    if drawn.half_done is None:
        return text
    start, version, end = text.rpartition(", Version: ")
    return f"{start}, Interrupted after: {drawn.half_done}{version}{end}"


def info_of(wish: Wish[PictureBody], base: Render, drawn: Sequence[Drawn]) -> Json:
    """What A1111 says of pictures, and what of the body was not used or used as A1111 would not."""
    renders, count = [one.render for one in drawn], len(drawn)
    return {
        "prompt": wish.request.prompt,
        "all_prompts": [wish.request.prompt] * count,
        "negative_prompt": wish.request.negative_prompt,
        "all_negative_prompts": [wish.request.negative_prompt] * count,
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
        "batch_size": wish.body.batch_size,
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
        "infotexts": [infotext_of(one) for one in drawn],
        "styles": wish.body.styles,
        "job_timestamp": datetime.now().strftime("%Y%m%d%H%M%S"),
        "clip_skip": base.clip_skip.first.from_end,
        "is_using_inpainting_conditioning": False,
        "version": f"clipskip {__version__}",
        "clipskip_ignored": list(wish.ignored),
        "clipskip_notes": list(wish.notes),
    }


def answer(images: Sequence[str], info: Json, parameters: Json) -> Json:
    """The whole answer."""
    return {"images": list(images), "parameters": parameters, "info": json.dumps(info)}
