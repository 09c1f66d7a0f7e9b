"""Whole runs against diffusers: its pipeline, its schedulers, its attention, on the same weights, texts and noise.

Where diffusers visits other noise levels than k-diffusion (it interpolates sigma where k-diffusion interpolates its
logarithm, and rounds timesteps) the settings are chosen so that both visit the same ones.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    StableDiffusionPipeline,
    UniPCMultistepScheduler,
)
from sample.conftest import text
from torch import Tensor

from clipskip.sample import Denoiser, Picture, find_sampler, ode, sample, sde, stable_diffusion

# diffusers' schedulers hand tensors to numpy in a way that numpy 2 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Build = Callable[..., Picture]
TABLE = stable_diffusion()
TRAINED = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
}
CFG = 7.0


def close(drawn: Tensor, expected: Tensor) -> bool:
    """Equal to 1e-5 of the largest number, five times what 30 guided steps were seen to differ by.

    float32 sums in another order and sigmas of float32 there, float64 here, make 2e-6; a wrong step makes over 1e-2.
    """
    return torch.allclose(drawn, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def ours(tiny: Any, picture: Picture) -> Tensor:
    *_, step = sample(tiny.ours, [picture])
    return step.latent


def noise(seed: int = 5) -> tuple[torch.Generator, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return generator, torch.randn(1, 4, 8, 8, generator=generator)


def pipeline(tiny: Any, scheduler: Any, steps: int, ends: Callable[..., Any] | None = None) -> Tensor:
    """The latents that StableDiffusionPipeline ends with, given our texts and noise."""
    pipe = StableDiffusionPipeline(
        vae=None,
        text_encoder=None,
        tokenizer=None,
        unet=tiny.theirs,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    generator, latents = noise()
    return pipe(
        prompt_embeds=text(1)[None],
        negative_prompt_embeds=text(2)[None],
        latents=latents,
        generator=generator,
        guidance_scale=CFG,
        num_inference_steps=steps,
        height=64,
        width=64,
        output_type="latent",
        callback_on_step_end=ends,
    ).images


def test_thirty_steps_of_euler_a_are_the_pipelines(tiny: Any, picture: Build) -> None:
    # "trailing" timesteps 999, 966, ... are whole, and those of schedule type Turbo.
    scheduler = EulerAncestralDiscreteScheduler(**TRAINED, timestep_spacing="trailing")
    expected = pipeline(tiny, scheduler, 30)
    drawn = ours(tiny, picture(sampler="Euler a", scheduler="Turbo", steps=30, cfg_scale=CFG))
    assert close(drawn, expected)


def test_euler_a_at_its_own_noise_levels_is_the_pipelines(tiny: Any, picture: Build) -> None:
    # 10 steps from 999 to 0 are 111 apart: whole timesteps, so that both take the same sigmas.
    scheduler = EulerAncestralDiscreteScheduler(**TRAINED, timestep_spacing="linspace")
    expected = pipeline(tiny, scheduler, 10)
    assert close(ours(tiny, picture(sampler="Euler a", steps=10, cfg_scale=CFG)), expected)


def test_euler_is_the_pipelines(tiny: Any, picture: Build) -> None:
    scheduler = EulerDiscreteScheduler(**TRAINED, timestep_spacing="linspace")
    expected = pipeline(tiny, scheduler, 10)
    assert close(ours(tiny, picture(sampler="Euler", steps=10, cfg_scale=CFG)), expected)


def test_ddim_is_the_pipelines_but_for_the_move_that_a1111_leaves_out(tiny: Any, picture: Build) -> None:
    after: list[Tensor] = []

    def keep(pipe: Any, step: int, timestep: Tensor, given: dict[str, Tensor]) -> dict[str, Tensor]:
        after.append(given["latents"])
        return {}

    scheduler = DDIMScheduler(**TRAINED, clip_sample=False, timestep_spacing="leading")
    pipeline(tiny, scheduler, 20, keep)
    drawn = ours(tiny, picture(sampler="DDIM", steps=20, cfg_scale=CFG))
    assert close(drawn, after[18])


@torch.no_grad()
def test_dpmpp_2m_karras_is_diffusers_at_the_same_timesteps(tiny: Any, picture: Build) -> None:
    # diffusers rounds Karras' timesteps; given ours for the UNet, its multistep solver is ours.
    scheduler = DPMSolverMultistepScheduler(**TRAINED, use_karras_sigmas=True, algorithm_type="dpmsolver++")
    scheduler.set_timesteps(10)
    x = noise()[1]
    for rounded, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        timestep = torch.tensor(TABLE.timestep(sigma.item()), dtype=torch.float32)
        both = tiny.theirs(x.repeat(2, 1, 1, 1), timestep, torch.stack([text(2), text(1)])).sample
        x = scheduler.step(both[0:1] + CFG * (both[1:] - both[0:1]), rounded, x).prev_sample
    scale = (1 + TABLE.high**2) ** 0.5 / TABLE.high
    # k-diffusion starts at noise times sigma; diffusers at unit variance, 0.2% smaller.
    drawn = run_from(tiny, picture(sampler="DPM++ 2M Karras", steps=10, cfg_scale=CFG), scale)
    assert close(drawn, x)


def run_from(tiny: Any, one: Picture, scale: float) -> Tensor:
    """Our run of a picture whose initial noise is that much larger."""
    sampler, schedule = find_sampler(one.render.sampler)
    sigmas = sampler.sigmas(one.render.steps, schedule=schedule)
    model = Denoiser(tiny.ours, [one], table=TABLE, prediction="epsilon")
    *_, (latent, _) = sampler.solve(model, noise()[1] * sigmas[0] * scale, sigmas, lambda *_: torch.zeros(1, 4, 8, 8))
    return latent


def curved(x: Tensor, sigma: float) -> Tensor:
    """A denoiser that no solver follows exactly."""
    return torch.tanh(x / (sigma**2 + 1)) * 1.5


def through(scheduler: Any, start: Tensor, **options: Any) -> Tensor:
    """A run of a scheduler that works at unit variance, on the same denoiser."""
    x = start
    for timestep in scheduler.timesteps:
        sigma = TABLE.sigmas[int(timestep)]
        wide = x * (1 + sigma**2) ** 0.5
        x = scheduler.step((wide - curved(wide, sigma)) / sigma, timestep, x, **options).prev_sample
    return x


@pytest.mark.parametrize("kind", ["bh1", "bh2"])
def test_unipc_is_diffusers_at_a1111s_settings(kind: str) -> None:
    # 26 steps give A1111's UniPC 27 moves, 37 timesteps each: whole ones.
    scheduler = UniPCMultistepScheduler(
        **TRAINED,
        solver_order=3,
        solver_type=kind,
        final_sigmas_type="sigma_min",
        timestep_spacing="linspace",
    )
    scheduler.set_timesteps(27)
    start = noise()[1]
    expected = through(scheduler, start)
    sigmas = find_sampler("UniPC")[0].sigmas(26)
    solve = {"bh1": ode.unipc_bh1, "bh2": ode.unipc_bh2}[kind]
    *_, (latent, _) = solve(curved, start * (1 + sigmas[0] ** 2) ** 0.5, sigmas, lambda *_: start)
    # diffusers solves its order conditions in float32.
    assert torch.allclose(latent / (1 + sigmas[-1] ** 2) ** 0.5, expected, atol=1e-4)
    if kind == "bh1":
        *_, (own, _) = ode.unipc(curved, start * (1 + sigmas[0] ** 2) ** 0.5, sigmas, lambda *_: start)
        assert torch.allclose(own, expected, atol=1e-4)


def test_lcm_is_diffusers_at_the_same_timesteps() -> None:
    scheduler = LCMScheduler(**TRAINED, clip_sample=False)
    scheduler.set_timesteps(timesteps=[999, 759, 499, 259])
    generator, start = noise()
    expected = through(scheduler, start, generator=generator)
    sigmas = (*(TABLE.sigmas[t] for t in (999, 759, 499, 259)), 0.0)
    again = noise()[0]
    *_, (latent, _) = sde.lcm(
        curved, start * (1 + sigmas[0] ** 2) ** 0.5, sigmas, lambda *_: torch.randn(start.shape, generator=again)
    )
    # The boundary condition, which the denoiser adds and not the sampler, is 4e-8 at timestep 259.
    assert torch.allclose(latent, expected, atol=1e-5)
