"""An upscaler model over a picture of any size, tile by tile (A1111 1.10 modules/upscaler_utils.py, modules/images.py)."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from clipskip.errors import Busy

Pixels = NDArray[np.uint8]
Enlarge = Callable[[Float[Tensor, "1 3 height width"]], Float[Tensor, "1 3 down across"]]
TILE_PX, OVERLAP_PX = 192, 8
"""A1111's own, of ESRGAN_tile and ESRGAN_tile_overlap."""


def enlarge_by_tiles(
    pixels: Pixels,
    enlarge: Enlarge,
    *,
    device: torch.device,
    tile_px: int = TILE_PX,
    overlap_px: int = OVERLAP_PX,
    given_up: Callable[[], bool] = lambda: False,
) -> Pixels:
    """Return the picture [height, width, 3] as a model enlarges it.

    Tiles lie at even distances, and fade into the one before them over the overlap. A side that is shorter than a tile
    is not filled up to it. A1111 hands its models blue first, and so do we: a settings text's picture comes out the same.
    """
    height, width, _ = pixels.shape
    down, whole = list(_places(height, tile_px, overlap_px)), np.empty((0, 0, 3), np.uint8)
    for y in down:
        row = np.empty((0, 0, 3), np.uint8)
        for x in _places(width, tile_px, overlap_px):
            if given_up():
                raise Busy("the picture was cancelled before it was enlarged")
            tile = pixels[y : y + tile_px, x : x + tile_px]
            larger = _enlarged(tile, enlarge, device)
            scale = larger.shape[0] // tile.shape[0]
            row = _append_tile(row, larger, at=x * scale, whole=width * scale, overlap=overlap_px * scale, axis=1)
        whole = _append_tile(whole, row, at=y * scale, whole=height * scale, overlap=overlap_px * scale, axis=0)
    return whole


def _places(side: int, tile: int, overlap: int) -> Iterator[int]:
    """Return where tiles begin along a side."""
    count = max(1, math.ceil((side - overlap) / (tile - overlap)))
    last = max(0, side - tile)
    return (last if at == count - 1 else int(at * last / (count - 1)) for at in range(count))


def _enlarged(tile: Pixels, enlarge: Enlarge, device: torch.device) -> Pixels:
    blue_first = np.ascontiguousarray(tile[:, :, ::-1].transpose(2, 0, 1))
    larger = enlarge(torch.from_numpy(blue_first).to(device)[None].float() / 255)[0]
    enlarged: Pixels = (larger.clamp(0, 1) * 255).round().byte().cpu().numpy().transpose(1, 2, 0)[:, :, ::-1]
    return enlarged


def _append_tile(before: Pixels, tile: Pixels, *, at: int, whole: int, overlap: int, axis: int) -> Pixels:
    """Return the pixels so far with one more tile along an axis, into which the first ones fade over the overlap."""
    if at == 0:
        before = np.zeros((*tile.shape[:axis], whole, *tile.shape[axis + 1 :]), np.uint8)
    into, tile = np.moveaxis(before, axis, 0), np.moveaxis(tile, axis, 0)
    faded = 0 if at == 0 else overlap
    share = (np.arange(faded, dtype=np.float32) / max(1, faded))[:, None, None]
    blended = into[at : at + faded] * (1 - share) + tile[:faded] * share
    into[at : at + faded] = np.rint(blended).astype(np.uint8)
    into[at + faded : at + len(tile)] = tile[faded:]
    return before
