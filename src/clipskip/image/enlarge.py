"""Enlarging pictures without a model: A1111's upscalers None, Lanczos and Nearest, and its latent upscalers."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from clipskip.errors import SpecError
from clipskip.image.tiles import Enlarge, enlarge_by_tiles

Upscaler = Callable[[Image.Image, float], Image.Image]
"""Enlarges a picture by about this factor."""
FILTERS = {"Lanczos": Image.Resampling.LANCZOS, "Nearest": Image.Resampling.NEAREST}
UPSCALERS = ("None", *FILTERS)
LATENT_MODES = {
    "Latent": ("bilinear", False),
    "Latent (antialiased)": ("bilinear", True),
    "Latent (bicubic)": ("bicubic", False),
    "Latent (bicubic antialiased)": ("bicubic", True),
    "Latent (nearest)": ("nearest", False),
    "Latent (nearest-exact)": ("nearest-exact", False),
}
"""The latent upscalers under A1111's names (1.10 modules/shared.py): torch's mode, and whether it antialiases."""
MOST_ROUNDS = 3
"""How often at most A1111 enlarges again what an upscaler leaves too small (modules/upscaler.py)."""
MOST_SIDE = 8192
"""The largest side, in pixels."""
BLOCK_PX = 8
"""A1111 rounds enlarged sides down to multiples of this (modules/upscaler.py)."""


def enlarge(pixels: NDArray[np.uint8], upscale: Upscaler, *, scale: float) -> NDArray[np.uint8]:
    """Enlarge pixels [height, width, 3] by a factor, each side rounded down to whole blocks."""
    height, width, _ = pixels.shape
    across, down = (int(side * scale) // BLOCK_PX * BLOCK_PX for side in (width, height))
    if not 1 <= min(across, down) <= max(across, down) <= MOST_SIDE:
        raise SpecError(
            f"{width} x {height} enlarged is {across} x {down}; use {BLOCK_PX} to {MOST_SIDE} pixels each way",
            field="size",
        )
    return np.asarray(_upscaled(Image.fromarray(pixels), scale, upscale))


def enlarge_latent(
    latent: Float[Tensor, "pictures channels height width"], upscaler: str, *, cells: tuple[int, int]
) -> Float[Tensor, "pictures channels down across"]:
    """Return the latent enlarged to so many cells across and down."""
    mode, antialias = LATENT_MODES[upscaler]
    return interpolate(latent, size=cells[::-1], mode=mode, antialias=antialias)


def stretch(pixels: NDArray[np.uint8], size: tuple[int, int], *, upscale: Upscaler | None) -> NDArray[np.uint8]:
    """Resize pixels [height, width, 3] to a size (width, height).

    Where that is larger, `upscale` enlarges them first and Lanczos does the rest (1.10 modules/images.py resize_image).
    """
    picture = Image.fromarray(pixels)
    scale = max(size[0] / picture.width, size[1] / picture.height)
    if upscale is not None and scale > 1:
        picture = _upscaled(picture, scale, upscale)
    return np.array(picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS))


def upscale_by(upscaler: str) -> Upscaler | None:
    """Return the function with which Lanczos or Nearest enlarges a picture; None leaves everything to the final
    resize."""
    filter = FILTERS.get(upscaler)
    if filter is None:
        return None
    return lambda picture, scale: picture.resize((int(picture.width * scale), int(picture.height * scale)), filter)


def upscale_with(enlarge: Enlarge, *, device: torch.device, given_up: Callable[[], bool] = lambda: False) -> Upscaler:
    """Return a function that enlarges a picture by an upscaler model, by the model's own factor."""

    def upscale(picture: Image.Image, scale: float) -> Image.Image:
        return Image.fromarray(enlarge_by_tiles(np.array(picture), enlarge, device=device, given_up=given_up))

    return upscale


def _upscaled(picture: Image.Image, scale: float, upscale: Upscaler) -> Image.Image:
    """Enlarge the picture by a factor, each side rounded down to whole blocks (1.10 modules/upscaler.py)."""
    size = (int(picture.width * scale // BLOCK_PX * BLOCK_PX), int(picture.height * scale // BLOCK_PX * BLOCK_PX))
    for _ in range(MOST_ROUNDS):
        before = picture.size
        picture = upscale(picture, scale)
        if picture.size == before or (picture.width >= size[0] and picture.height >= size[1]):
            break
    return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)


def crop_middle(pixels: NDArray[np.uint8], *, width: int, height: int) -> NDArray[np.uint8]:
    """Return the middle of the pixels at this size, with black where they do not reach."""
    whole = Image.new("RGB", (width, height))
    picture = Image.fromarray(pixels)
    whole.paste(picture, (width // 2 - picture.width // 2, height // 2 - picture.height // 2))
    return np.asarray(whole)


def blend(first: NDArray[np.uint8], second: NDArray[np.uint8], *, share: float) -> NDArray[np.uint8]:
    """Blend two pictures, the second resized to the first's size and given this share."""
    base, overlay = Image.fromarray(first), Image.fromarray(second)
    return np.asarray(Image.blend(base, overlay if overlay.size == base.size else overlay.resize(base.size), share))
