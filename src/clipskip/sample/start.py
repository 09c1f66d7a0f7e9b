"""Where a run begins: at pure noise, or part of the way down from a picture, as A1111's img2img does."""

from collections.abc import Sequence

import torch

from clipskip.errors import SpecError
from clipskip.sample.noise import Latent, One
from clipskip.sample.samplers import SAMPLERS, Sampler, find_sampler
from clipskip.spec import Render

MOST_STRENGTH = 0.999
"""A1111 takes a denoising strength of 1 for this, so that the first of all levels is the last to begin at."""


def first_level(steps: int, strength: float) -> int:
    """The place of the noise level that a run from a picture begins at: a strength of s keeps int(s n) + 1 steps.

    A1111's own count (modules/sd_samplers_common.py setup_img2img_steps): a strength of 0 still makes the last step.
    """
    return steps - int(min(strength, MOST_STRENGTH) * steps) - 1


def check_start(render: Render) -> None:
    """SpecError for a sampler that cannot begin at a picture here."""
    sampler, _ = find_sampler(render.sampler, render.scheduler)
    if render.start is not None and not _goes_down(sampler):
        ours = ", ".join(one.name for one in SAMPLERS if _goes_down(one))
        raise SpecError(f"{sampler.name} cannot begin at a picture here; use one of {ours}", field="sampler_name")


def _goes_down(sampler: Sampler) -> bool:
    """Whether it takes levels that it is given, one after the other."""
    return sampler.own_times is None and sampler.path is None


def noised(starts: Sequence[One], noise: Latent, sigma: float) -> Latent:
    """The pictures with noise of size sigma in them (k-diffusion's scale)."""
    return torch.stack(list(starts)).to(noise) + noise * sigma
