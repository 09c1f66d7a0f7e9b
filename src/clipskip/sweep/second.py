"""The second pass of a hires fix: its settings and the enlarged latent that it begins at."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from torch import Tensor

from clipskip.encode import SecondPass, TextReader, condition_all
from clipskip.image import (
    LATENT_MODES,
    Canvas,
    Upscaler,
    decode,
    encode,
    enlarge_latent,
    picture_px,
    stretch,
)
from clipskip.networks import VAE
from clipskip.sample import Picture, PictureLatent, find_sampler
from clipskip.spec import Hires, LoraRef, Render

CELL_PX = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """One picture that is being drawn."""

    at: tuple[int, ...]
    """Its places among the renders that were asked for: the same picture is drawn once."""
    render: Render
    picture: Picture
    second: Picture | None = None
    """The second pass with the same LoRAs, still without the latent that it begins at."""
    canvas: Canvas | None = None
    """What is put back around the drawn part."""
    steps_before: int = 0
    """Steps of the first pass, where this is the second."""

    @property
    def steps_after(self) -> int:
        """Steps of the second pass, where this is the first."""
        hires = self.render.hires
        return hires_steps(self.render, hires) if hires and hires.strength and not self.steps_before else 0

    @property
    def refined(self) -> bool:
        """Return whether a refiner takes over in this pass."""
        hires = self.render.hires
        return self.render.refiner is not None and (hires is None or hires.refines(second=self.steps_before > 0))


def denoiser_calls(render: Render) -> int:
    """Return how often the UNet is called for a picture, which prompt editing counts."""
    return render.steps * find_sampler(render.sampler, render.scheduler)[0].order


def calls_of_passes(render: Render) -> tuple[int, ...]:
    """Return the denoiser calls of each pass of a picture."""
    first = denoiser_calls(render)
    return (first, denoiser_calls(second_render(render))) if render.hires else (first,)


def hires_steps(render: Render, hires: Hires) -> int:
    """Return the steps of the second pass."""
    return hires.steps or render.steps


def second_loras(render: Render) -> tuple[LoraRef, ...]:
    """Return the LoRAs of the second pass."""
    own_loras = render.hires.loras if render.hires else None
    return render.loras if own_loras is None else own_loras


def second_render(render: Render) -> Render:
    """Return the settings of the second pass; its size is that of the latent that it begins at."""
    hires = render.hires
    assert hires is not None
    prompt = render.prompt if hires.prompt is None else hires.prompt
    words = " ".join(prompt.lower().split())
    return replace(
        render,
        prompt=prompt,
        negative_prompt=render.negative_prompt if hires.negative_prompt is None else hires.negative_prompt,
        loras=second_loras(render),
        phrase_skips=tuple(phrase for phrase in render.phrase_skips if hires.prompt is None or phrase.phrase in words),
        steps=hires_steps(render, hires),
        sampler=hires.sampler or render.sampler,
        scheduler=hires.scheduler or render.scheduler,
        hires=None,
    )


def second_text(render: Render) -> SecondPass:
    """Return what reading the text of this picture's second pass needs."""
    assert render.hires is not None
    width, height = render.hires.size(render.width, render.height)
    return SecondPass(first_calls=denoiser_calls(render), width=width, height=height)


def enlarged(
    vae: VAE, latent: PictureLatent, render: Render, *, upscale: Upscaler | None
) -> Float[Tensor, "channels down across"]:
    """Return the latent that the second pass begins at, as A1111 makes it (1.10 modules/processing.py sample_hr_pass).

    Latent upscalers work on the latent. The others enlarge the picture and encode it; the latent is then sampled with
    torch's numbers for the seed, which A1111's own generator has reached at this point.
    """
    hires = render.hires
    assert hires is not None
    across, down = hires.size(render.width, render.height)
    if hires.upscaler in LATENT_MODES:
        larger = enlarge_latent(latent[None], hires.upscaler, cells=(across // CELL_PX, down // CELL_PX))[0]
    else:
        size = (picture_px(vae, across), picture_px(vae, down))
        pixels = stretch(decode(vae, latent[None])[0], size, upscale=upscale)
        larger = encode(vae, np.asarray(pixels)[None], seed=render.seed)[0]
    out_x, out_y = hires.cut(render.width, render.height)
    _, height, width = larger.shape
    whole: Tensor = larger[:, out_y // 2 : height - (out_y + 1) // 2, out_x // 2 : width - (out_x + 1) // 2]
    return whole.contiguous()


def second_follows(render: Render) -> bool:
    """Return whether a second pass with the same LoRAs follows."""
    return render.hires is not None and render.hires.strength > 0 and second_loras(render) == render.loras


def second_tasks(tasks: Sequence[Task], reader: TextReader) -> list[Task]:
    """Return the tasks with their second passes' settings and texts; their start latents stay."""
    renders, before = [second_render(task.render) for task in tasks], [second_text(task.render) for task in tasks]
    conditionings = condition_all(reader, renders, calls=denoiser_calls, second=before)
    return [
        replace(task, picture=replace(task.picture, render=render, conditioning=conditioning))
        for task, render, conditioning in zip(tasks, renders, conditionings, strict=True)
    ]
