"""Single pictures for whoever waits for them."""

import asyncio
import base64
from collections.abc import Sequence

import numpy as np
from fastapi import Request
from numpy.typing import NDArray

from clipskip.image import png_bytes
from clipskip.spec import Render, render_infotext
from clipskip.spec import Request as Asked
from clipskip.sweep import Drawn, Extras, Job, Studio, seeded
from clipskip.weights import CheckpointFacts

MOST_PICTURES = 64
"""Of one request: they wait in memory until the last is drawn."""
LOOK_S, GONE_S = 0.02, 1.0
"""How often it is looked whether the pictures are there, and whether the one who asked is."""


async def draw_all(studio: Studio, asked: Asked, count: int, *, asker: Request) -> list[Drawn]:
    """That many pictures, in order."""
    facts, base, extras = await asyncio.to_thread(studio.plan, asked)
    return await draw_renders(studio, facts, seeded(base, count), extras=extras, asker=asker)


async def draw_renders(
    studio: Studio,
    facts: CheckpointFacts,
    renders: Sequence[Render],
    *,
    extras: Extras,
    asker: Request,
    keep: bool = False,
) -> list[Drawn]:
    """These pictures, in order; those that were done when somebody interrupted."""
    return await awaited(studio.draw(facts, renders, extras), studio, asker=asker, keep=keep)


async def awaited(job: Job, studio: Studio, *, asker: Request, keep: bool = False) -> list[Drawn]:
    """A job's pictures, in order. Whoever hangs up gives up what is not kept."""
    looks = 0
    while not job.ended.is_set():
        await asyncio.sleep(LOOK_S)
        looks += 1
        if not keep and looks % round(GONE_S / LOOK_S) == 0 and await asker.is_disconnected():
            studio.queue.cancel(job)
    if job.error is not None:
        raise job.error
    found = dict(job.pictures)
    return [found[index] for index in sorted(found)]


async def encoded(drawn: Sequence[Drawn]) -> list[str]:
    """Pictures with their settings as base64 PNGs."""
    return await asyncio.to_thread(lambda: [base64_png(one.pixels, render_infotext(one.render)) for one in drawn])


def base64_png(pixels: NDArray[np.uint8], infotext: str) -> str:
    """Pixels [height, width, 3] and their settings as A1111's answers have them."""
    return base64.b64encode(png_bytes(pixels, infotext)).decode("ascii")
