"""Single pictures for whoever waits for them."""

import asyncio
import base64
import binascii
from collections.abc import Sequence

from fastapi import Request

from clipskip.errors import SpecError
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
    at_hand: int | None = None,
) -> list[Drawn]:
    """These pictures, in order; when somebody interrupted, those that were done and `at_hand` half done."""
    return await awaited(studio.draw(facts, renders, extras, at_hand=at_hand), studio, asker=asker, keep=keep)


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

    def encode() -> list[str]:
        pngs = (png_bytes(one.pixels, render_infotext(one.render)) for one in drawn)
        return [base64.b64encode(png).decode("ascii") for png in pngs]

    return await asyncio.to_thread(encode)


def decoded(text: str, *, field: str) -> bytes:
    """A picture's bytes from base64, broken into lines or not, with or without the start of a data URL.

    SpecError for a link or a path.
    """
    start, comma, rest = text.strip().partition(",")
    if comma and not start.startswith("data:image/"):
        raise SpecError(f"{field} is neither base64 nor a data URL of a picture; send the file as base64", field=field)
    try:
        content = base64.b64decode("".join((rest if comma else start).split()), validate=True)
    except (binascii.Error, ValueError):
        raise SpecError(
            f"{field} is not base64; send the file itself as base64, no link or path", field=field
        ) from None
    if not content:
        raise SpecError(f"{field} is empty; send a PNG, JPEG or WebP as base64", field=field)
    return content
