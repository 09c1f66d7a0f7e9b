"""Write A1111's answers about pictures: the file format by its options, and the `info` text."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from clipskip import __version__
from clipskip.doors.http.a1111.bodies import PictureBody
from clipskip.doors.http.a1111.option_table import Value
from clipskip.doors.http.a1111.wish import Wish
from clipskip.doors.http.pictures import Writing
from clipskip.image import PictureFormat
from clipskip.spec import Render, render_infotext
from clipskip.sweep import Drawn

Json = dict[str, Any]  # Any: A1111's own shapes


def writing_of(options: Mapping[str, Value]) -> Writing:
    """Return how A1111's options have pictures written: format, quality and whether WebP is lossless."""
    kind = str(options["samples_format"])
    return Writing(
        format={"png": PictureFormat.PNG, "webp": PictureFormat.WEBP}.get(kind, PictureFormat.JPEG),
        quality=int(str(options["jpeg_quality"])),
        lossless=bool(options["webp_lossless"]),
    )


def settings_text(drawn: Drawn) -> str:
    """Return a picture's settings text. A picture that was interrupted also says after which step."""
    text = render_infotext(drawn.render)
    if drawn.half_done is None:
        return text
    start, version, end = text.rpartition(", Version: ")
    return f"{start}, Interrupted after: {drawn.half_done}{version}{end}"


def info_of(wish: Wish[PictureBody], base: Render, drawn: Sequence[Drawn]) -> Json:
    """Return A1111's `info` of the pictures, with the body's fields that were ignored or are obeyed here only."""
    renders, count = [drawing.render for drawing in drawn], len(drawn)
    begun = base.start or base.hires
    return {
        "prompt": wish.request.prompt,
        "all_prompts": [wish.request.prompt] * count,
        "negative_prompt": wish.request.negative_prompt,
        "all_negative_prompts": [wish.request.negative_prompt] * count,
        "seed": base.seed,
        "all_seeds": [render.seed for render in renders],
        "subseed": base.variation_seed,
        "all_subseeds": [render.variation_seed for render in renders],
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
        "sd_vae_name": base.vae.name if base.vae else None,
        "sd_vae_hash": base.vae.hash if base.vae else None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": begun.strength if begun else None,
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": [settings_text(drawing) for drawing in drawn],
        "styles": wish.body.styles,
        "job_timestamp": datetime.now().strftime("%Y%m%d%H%M%S"),
        "clip_skip": base.clip_skip.first.from_end,
        "is_using_inpainting_conditioning": False,
        "version": f"clipskip {__version__}",
        "clipskip_ignored": list(wish.ignored),
        "clipskip_notes": list(wish.notes),
    }


def answer(images: Sequence[str], info: Json, parameters: Json) -> Json:
    """Return A1111's whole answer."""
    return {"images": list(images), "parameters": parameters, "info": json.dumps(info)}
