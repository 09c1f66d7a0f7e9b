"""Pictures made larger without a model: A1111's upscalers None, Lanczos and Nearest."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipskip.errors import SpecError

FILTERS = {"Lanczos": Image.Resampling.LANCZOS, "Nearest": Image.Resampling.NEAREST}
UPSCALERS = ("None", *FILTERS)
MOST_SIDE = 8192
"""Pixels, each way."""
BLOCK_PX = 8
"""A1111 rounds what it enlarges down to multiples of this (modules/upscaler.py)."""


def enlarge(pixels: NDArray[np.uint8], upscaler: str, *, scale: float) -> NDArray[np.uint8]:
    """Pixels [height, width, 3] so many times as large; SpecError for an upscaler that is not here."""
    if upscaler == UPSCALERS[0]:
        return pixels
    if upscaler not in FILTERS:
        raise SpecError(
            f"the upscaler {upscaler[:80]!r} is not here; use one of {', '.join(UPSCALERS)}", field="upscaler"
        )
    height, width, _ = pixels.shape
    size = tuple(max(1, int(side * scale) // BLOCK_PX * BLOCK_PX) for side in (width, height))
    if max(size) > MOST_SIDE:
        raise SpecError(f"enlarged to {size[0]} x {size[1]}; {MOST_SIDE} pixels each way is the most", field="size")
    return np.asarray(Image.fromarray(pixels).resize((size[0], size[1]), FILTERS[upscaler]))


def crop_middle(pixels: NDArray[np.uint8], *, width: int, height: int) -> NDArray[np.uint8]:
    """The middle of the pixels at this size, with black where they do not reach."""
    whole = Image.new("RGB", (width, height))
    picture = Image.fromarray(pixels)
    whole.paste(picture, (width // 2 - picture.width // 2, height // 2 - picture.height // 2))
    return np.asarray(whole)


def blend(first: NDArray[np.uint8], second: NDArray[np.uint8], *, share: float) -> NDArray[np.uint8]:
    """A mixture of two pictures, the second stretched to the first's size, of which it has this share."""
    one, other = Image.fromarray(first), Image.fromarray(second)
    return np.asarray(Image.blend(one, other if other.size == one.size else other.resize(one.size), share))
