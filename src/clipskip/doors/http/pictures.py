"""Single pictures for clients that wait for them."""

import asyncio
import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from fastapi import Request
from numpy.typing import NDArray

from clipskip.errors import SpecError
from clipskip.image import PictureFormat, picture_bytes
from clipskip.spec import Render
from clipskip.sweep import Drawn, Extras, Job, Studio
from clipskip.weights import CheckpointFacts

Pixels = NDArray[np.uint8]
MOST_PICTURES = 64
"""The most pictures of one request: they wait in memory until the last is drawn."""
LOOK_S, GONE_S = 0.02, 1.0
"""Seconds between looks whether the pictures are done and the client is still there."""


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
    """Return these renders' pictures in order; after an interruption, those that were done and `at_hand` half done."""
    return await awaited(studio.draw(facts, renders, extras, at_hand=at_hand), studio, asker=asker, keep=keep)


async def awaited(job: Job, studio: Studio, *, asker: Request, keep: bool = False) -> list[Drawn]:
    """Return a job's pictures in order. A client that hangs up gives up what is not kept."""
    looks = 0
    while not job.ended.is_set():
        await asyncio.sleep(LOOK_S)
        looks += 1
        if not keep and looks % round(GONE_S / LOOK_S) == 0 and await asker.is_disconnected():
            studio.queue.cancel(job)
    if job.error is not None:
        raise job.error
    pictures = dict(job.pictures)
    return [pictures[index] for index in sorted(pictures)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """The format that pictures are written in."""

    format: PictureFormat = PictureFormat.PNG
    quality: int = 80
    """Quality of a JPEG or WebP, 0 to 100."""
    lossless: bool = False
    """Whether a WebP loses nothing."""

    def content(self, pixels: Pixels, infotext: str) -> bytes:
        """Return a picture's file."""
        return picture_bytes(pixels, infotext, format=self.format, quality=self.quality, lossless=self.lossless)


async def encoded(pictures: Sequence[tuple[Pixels, str]], writing: Writing) -> list[str]:
    """Return pixels with their settings as base64."""

    def encode() -> list[str]:
        return [base64.b64encode(writing.content(*picture)).decode("ascii") for picture in pictures]

    return await asyncio.to_thread(encode)


def decoded(text: str, *, field: str) -> bytes:
    """Return a picture's bytes from base64, broken into lines or not, with or without the start of a data URL.

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
