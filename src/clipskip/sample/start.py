"""The start of a run: pure noise, or a picture with part of the noise, as in A1111's img2img and hires fix.

Sources: 1.10 modules/sd_samplers_common.py setup_img2img_steps, sample_img2img of its two kinds of sampler, and the
mask of modules/sd_samplers_cfg_denoiser.py.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clipskip.errors import SpecError
from clipskip.sample.dpm_solver import fast_between
from clipskip.sample.noise import Latent, PictureLatent
from clipskip.sample.samplers import Sampler, find_sampler
from clipskip.sample.schedules import Sigmas, unipc_between
from clipskip.sample.sigmas import TRAINED_STEPS
from clipskip.spec import Render

MOST_STRENGTH = 0.999
"""A1111 replaces a denoising strength of 1 by this, so that a run begins at the first level at the earliest."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Begin:
    """The latent that one picture begins at, instead of noise alone."""

    latent: PictureLatent
    strength: float
    """A1111's denoising strength, 0 to 1."""
    every_step: bool = False
    """Whether all steps that were asked for are made, as in a hires pass, instead of the strength's share of them."""
    noise_multiplier: float = 1.0
    """Of the noise that is added to the latent."""
    drawn: Float[Tensor, "1 height width"] | None = None
    """1 where the picture is drawn anew, 0 where it is kept; None draws all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """The noise levels of a run."""

    sigmas: Sigmas
    first: float
    """The sigma of the noise that the run begins with; for DDIM, PLMS and UniPC it differs from the first level."""
    whole: Sigmas
    """All levels of the schedule, over which SDE samplers draw their paths."""


def whole_way(sampler: Sampler, schedule: str, steps: int) -> Way:
    """Return the levels of a run from noise alone."""
    sigmas = sampler.sigmas(steps, schedule=schedule)
    return Way(sigmas=sigmas, first=sigmas[0], whole=sigmas)


def way_down(sampler: Sampler, schedule: str, steps: int, *, strength: float, every_step: bool = False) -> Way:
    """Return the levels of a run from a picture; SpecError where so few steps are left that the sampler cannot move.

    As in A1111, DDIM, PLMS and UniPC add the noise of one timestep and begin at the next.
    """
    share = min(strength, MOST_STRENGTH)
    if every_step and share > 0:
        total, kept = int(steps / share), steps
    else:
        total, kept = steps, int(share * steps) + 1
    if sampler.unit_scale:
        return _timesteps(sampler, total, kept)
    whole = sampler.levels(total, schedule=schedule)
    levels = whole[total - kept :]
    if sampler.own_times is not None:
        levels = _solver_levels(sampler, levels)
    return Way(sigmas=sampler.path(levels) if sampler.path else levels, first=levels[0], whole=whole)


def check_start(render: Render) -> None:
    """Raise SpecError for a render whose sampler cannot make a move from its picture."""
    if render.start is not None:
        sampler, schedule = find_sampler(render.sampler, render.scheduler, begun=True)
        way_down(sampler, schedule, render.steps, strength=render.start.strength)


def _timesteps(sampler: Sampler, total: int, kept: int) -> Way:
    """Return DDIM's timesteps below the one whose noise is added; UniPC has as many, evenly spaced down to 0."""
    if total > TRAINED_STEPS:
        raise _too_few(sampler)
    levels = sampler.timesteps(total)[::-1]
    first, below = levels[kept - 1], levels[: kept - 1][::-1]
    if sampler.spaced_anew:
        if not below:
            raise _too_few(sampler)
        below = unipc_between(below[0], len(below), sampler.table)
    return Way(sigmas=below, first=first, whole=levels)


def _solver_levels(sampler: Sampler, levels: Sigmas) -> Sigmas:
    """Return the levels of DPM fast and DPM adaptive, between the first level and the last above 0."""
    high, low, calls = levels[0], levels[-2], len(levels) - 1
    if high <= low:
        raise _too_few(sampler)
    return (high, low) if sampler.alone else fast_between(high, low, calls)


def _too_few(sampler: Sampler) -> SpecError:
    return SpecError(
        f"{sampler.name} cannot make a move from a picture with this denoising strength and number of steps; raise one of "
        "them, or use another sampler",
        field="denoising_strength",
    )


def noised(begins: Sequence[Begin], noise: Latent, sigma: float) -> Latent:
    """Return the pictures with noise of size sigma added (k-diffusion's scale), times their own multipliers."""
    multipliers = torch.tensor([begin.noise_multiplier for begin in begins]).to(noise)[:, None, None, None]
    return torch.stack([begin.latent for begin in begins]).to(noise) + noise * multipliers * sigma


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Kept:
    """The parts of the start pictures that masks keep."""

    start: Latent
    drawn: Float[Tensor, "pictures 1 height width"]
    before: bool
    """Whether the kept part is put in before the model's call instead of after it: DDIM, PLMS and UniPC, without noise,
    as in A1111."""

    @classmethod
    def of(cls, begins: Sequence[Begin], like: Latent, *, before: bool) -> "Kept | None":
        """Return what is kept of these pictures; None where all of them are drawn whole."""
        masks = [begin.drawn for begin in begins if begin.drawn is not None]
        if not masks:
            return None
        start = torch.stack([begin.latent for begin in begins]).to(like)
        return cls(start=start, drawn=torch.stack(masks).to(like), before=before)

    def around(self, denoise: Callable[[Latent, float], Latent], x: Latent, sigma: float) -> Latent:
        """Call the model on the pictures and return its estimate with the kept part put back."""
        if not self.before:
            return self.put_back(denoise(x, sigma))
        seen = x * self.drawn + self.start * math.hypot(1, sigma) * (1 - self.drawn)
        return denoise(seen, sigma) + (x - seen)

    def put_back(self, x: Latent) -> Latent:
        """Return the pictures with the kept part as it was."""
        return x * self.drawn + self.start * (1 - self.drawn)
