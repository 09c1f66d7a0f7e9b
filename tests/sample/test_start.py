"""Runs that begin at a picture, against k-diffusion's Euler loop and A1111's count of steps, written out anew."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from sample.conftest import Tiny
from torch import Tensor

from clipskip.errors import SpecError
from clipskip.sample import Denoiser, Picture, PictureNoise, sample, stable_diffusion
from clipskip.sample.start import first_level
from clipskip.spec import Start

Build = Callable[..., Picture]
TABLE = stable_diffusion()


def begun(picture: Picture, strength: float, seed: int = 3) -> tuple[Picture, Tensor]:
    latent = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(seed))
    render = replace(picture.render, start=Start(hash=str(seed), strength=strength))
    return replace(picture, render=render, start=latent), latent


@pytest.mark.parametrize(("strength", "moves"), [(0.0, 1), (0.2, 2), (0.5, 4), (0.75, 6), (0.99, 7), (1.0, 7)])
def test_a_run_from_a_picture_is_eulers_loop_over_the_last_levels(
    tiny: Tiny, picture: Build, strength: float, moves: int
) -> None:
    one, latent = begun(picture(steps=7, sampler="Euler", cfg_scale=3), strength)
    found = list(sample(tiny.ours, [one]))
    times = torch.linspace(999, 0, 7)
    logs = torch.tensor(TABLE.sigmas, dtype=torch.float64).log()
    low = times.long()
    share = (times - low).double()
    sigmas = [*(logs[low] * (1 - share) + logs[(low + 1).clamp(max=999)] * share).exp().tolist(), 0.0][7 - moves :]
    model = Denoiser(tiny.ours, [one], table=TABLE, prediction="epsilon")
    x = latent[None] + PictureNoise(one.render).first()[None] * sigmas[0]
    for i in range(len(sigmas) - 1):
        d = (x - model(x, sigmas[i])) / sigmas[i]
        x = x + d * (sigmas[i + 1] - sigmas[i])
    assert len(found) == found[0].total == moves
    assert torch.allclose(found[-1].latent, x, atol=1e-4)  # the levels are interpolated in float32 here, not there


@pytest.mark.parametrize("steps", range(1, 151))
def test_there_is_always_a_first_level(steps: int) -> None:
    counted = [steps - first_level(steps, strength / 200) for strength in range(201)]
    assert counted == sorted(counted)
    assert counted[0] == 1
    assert counted[-1] == steps


def test_a_batch_gives_what_single_runs_give(tiny: Tiny, picture: Build) -> None:
    pictures = [begun(picture(seed=seed, steps=5, sampler="DPM++ 2M SDE"), 0.6, seed)[0] for seed in (1, 2)]
    together = list(sample(tiny.ours, pictures))[-1].latent
    alone = torch.cat([list(sample(tiny.ours, [one]))[-1].latent for one in pictures])
    assert torch.allclose(together, alone, atol=1e-4)


@pytest.mark.parametrize("sampler", ["DDIM", "PLMS", "UniPC", "DPM fast", "DPM adaptive", "Restart"])
def test_a_sampler_that_cannot_begin_at_a_picture_is_refused_by_name(tiny: Tiny, picture: Build, sampler: str) -> None:
    with pytest.raises(SpecError, match=f"{sampler} cannot begin at a picture.*Euler a"):
        next(sample(tiny.ours, [begun(picture(sampler=sampler), 0.5)[0]]))


def test_pictures_of_different_strengths_are_not_drawn_together(tiny: Tiny, picture: Build) -> None:
    with pytest.raises(SpecError, match="denoising strength"):
        next(sample(tiny.ours, [begun(picture(), 0.5)[0], begun(picture(), 0.6)[0]]))


def test_a_render_that_begins_at_a_picture_needs_its_latent(tiny: Tiny, picture: Build) -> None:
    with pytest.raises(SpecError, match="go together"):
        next(sample(tiny.ours, [replace(begun(picture(), 0.5)[0], start=None)]))
