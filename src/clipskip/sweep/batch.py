"""The number of pictures that a device draws at once, and pictures that are being decoded."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from torch import Tensor

from clipskip.encode import Conditioning
from clipskip.image import Canvas
from clipskip.networks import UNet
from clipskip.sample import Begin, free_bytes
from clipskip.spec import Render

CPU_CELLS, CPU_PICTURES = 32 * 64, 2
"""Latent cells beyond which a CPU draws a picture alone, and how many smaller ones it draws at once: always the same
number, because a matrix product of another size may add up in another order (decision 0012)."""
GPU_CELLS = 32 * 64 * 64
"""Latent cells beyond which larger batches gain too little on a GPU for the memory that they take."""
SHARE = 0.8
"""The share of a GPU's free memory that a batch may take; the decoder needs the rest."""
ROWS = 2
"""One for the prompt and one for the negative prompt."""
LIVE = 40
"""How many maps of the first level's width a UNet holds at once for each row: 21 where attention keeps no scores
(counted at 512 x 512), and as much again for what kernels need."""


def pictures_at_once(unet: UNet, render: Render, *, begins: Begin | None = None) -> int:
    """Return how many pictures like this one are drawn together: enough to fill the device, and as many as fit its
    memory.

    A picture that begins at a latent has the latent's size.
    """
    cells = render.width * render.height // 64 if begins is None else math.prod(begins.latent.shape[1:])
    if unet.device.type == "cpu":
        return 1 if cells > CPU_CELLS else CPU_PICTURES
    fitting = int(SHARE * free_bytes(unet.device)) // drawing_bytes(unet, cells)
    return max(1, min(fitting, GPU_CELLS // cells))


def drawing_bytes(unet: UNet, cells: int) -> int:
    """Estimate the bytes that a picture with so many latent cells takes while it is drawn."""
    return ROWS * LIVE * cells * unet.shape.block_out_channels[0] * unet.dtype.itemsize


def shape_of(conditioning: Conditioning) -> tuple[object, ...]:
    """Return the text lengths, call by call, which pictures must share for a batch to have the same shapes whoever is
    in it."""
    schedules = (conditioning.negative, *(part.schedule for part in conditioning.positive))
    return tuple(tuple((until, len(vectors.tokens)) for until, vectors in schedule) for schedule in schedules)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decoding:
    """A picture that is being decoded; on a GPU the next batch is drawn meanwhile."""

    indices: tuple[int, ...]
    render: Render
    pixels: UInt8[Tensor, "height_px width_px 3"]
    ready: torch.cuda.Event | None
    """None when the pixels are there."""
    half_done: int | None = None
    """The step after which somebody stopped it; None for a finished picture."""
    canvas: Canvas | None = None
    """What is put back around the drawn part."""

    @classmethod
    def start(
        cls,
        pixels: Tensor,
        *,
        indices: tuple[int, ...],
        render: Render,
        half_done: int | None = None,
        canvas: Canvas | None = None,
    ) -> "Decoding":
        """Start fetching the pixels from the device."""
        fetched, ready = pixels.to("cpu", non_blocking=True), None
        if pixels.device.type != "cpu":
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            ready.record(torch.cuda.current_stream(pixels.device))
        return cls(indices=indices, render=render, pixels=fetched, ready=ready, half_done=half_done, canvas=canvas)

    @property
    def is_ready(self) -> bool:
        """Return whether the pixels are there."""
        return self.ready is None or self.ready.query()  # type: ignore[no-untyped-call]  # as above


def finished(decodings: list[Decoding], *, wait: bool = False) -> Iterator[Decoding]:
    """Take out the decodings that are ready, in order; with `wait` all of them."""
    while decodings and (wait or decodings[0].is_ready):
        first = decodings.pop(0)
        if first.ready is not None:
            first.ready.synchronize()
        yield first
