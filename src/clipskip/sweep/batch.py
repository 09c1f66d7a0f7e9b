"""The pictures that a device draws at once: how many, which together, how far they are, and those that are being decoded."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from clipskip.encode import Conditioning
from clipskip.errors import SpecError
from clipskip.image import Canvas
from clipskip.networks import UNet
from clipskip.sample import TOGETHER, Begin, Step, find_sampler, free_bytes
from clipskip.spec import Render
from clipskip.sweep.drawn import Advance, Drawn
from clipskip.sweep.second import Task

CPU_BATCHES = ((16 * 24, 5), (32 * 64, 2))
"""Up to how many latent cells a CPU draws how many pictures at once; larger ones it draws alone. The number depends on
the size alone, because a matrix product of more rows may add up in another order (decision 0012)."""
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
        return next((pictures for most, pictures in CPU_BATCHES if cells <= most), 1)
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


def drawn_of(decodings: Iterable[Decoding]) -> Iterator[Drawn]:
    """Yield a picture for each place that asked for it."""
    for decoding in decodings:
        pixels = decoding.pixels.numpy()
        pixels = decoding.canvas.finish(pixels) if decoding.canvas else pixels
        for index in decoding.indices:
            yield Drawn(index=index, render=decoding.render, pixels=pixels, half_done=decoding.half_done)


def advance_of(batch: Sequence[Task], step: Step, looks: Iterable[NDArray[np.uint8]] | None) -> Advance:
    """Return the progress of these pictures, over both passes where there are two."""
    first = batch[0]
    places = [index for task in batch for index in task.at]
    seen = [look for task, look in zip(batch, looks, strict=True) for _ in task.at] if looks is not None else []
    return Advance(
        indices=tuple(places),
        step=first.steps_before + step.number,
        steps=first.steps_before + step.total + first.steps_after,
        previews=tuple(seen),
        warnings=tuple(dict.fromkeys(line for task in batch for line in task.picture.conditioning.warnings)),
    )


def sound_of(latents: Float[Tensor, "pictures channels height width"]) -> list[bool]:
    """Return whether each picture has only finite numbers; others would be black."""
    finite: list[bool] = latents.isfinite().flatten(1).all(1).cpu().tolist()
    return finite


def not_finite(render: Render) -> SpecError:
    """Return the error for a picture that contains NaN or infinity."""
    loras = " ".join(lora.tag for lora in render.loras)
    cause = (
        f"its LoRAs ({loras}) are probably too strong: lower their weights"
        if loras
        else "the model is probably damaged, or its numbers exceed the dtype that it is drawn in: get another copy"
    )
    return SpecError(
        f"the picture at Clip Skip {render.clip_skip} with guidance {render.cfg_scale:g} contains NaN or infinity and would "
        f"be black; {cause}",
        field="lora" if loras else "model",
    )


def drawn_together(task: Task) -> tuple[object, ...]:
    """Return what pictures must share to be drawn in one batch."""
    render, begin = task.picture.render, task.picture.start
    alone = find_sampler(render.sampler, render.scheduler)[0].alone
    how = None if begin is None else (begin.strength, begin.every_step, begin.latent.shape, begin.drawn is None)
    hires = task.render.hires
    after = hires and (hires.steps, hires.strength, hires.refined)
    alone_render = render if alone else None
    texts = shape_of(task.picture.conditioning), render.cfg_scale == 1
    return (*(getattr(render, name) for name in TOGETHER), render.prediction, how, after, alone_render, texts)
