"""Pictures of the emphasis ComfyUI are drawn as ComfyUI draws them, held against its formulas written down again."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import beta
from torch import Tensor

from clipskip.sample import Picture, find_sampler, sample, stable_diffusion
from clipskip.sample.denoise import first_scale, trained_levels

TABLE = stable_diffusion()
COMFY = replace(TABLE, comfyui=True)
SIGMAS = torch.tensor(TABLE.sigmas, dtype=torch.float64)


def comfy_levels(scheduler: str, steps: int) -> list[float]:
    """comfy/samplers.py: its schedules over the model's sigmas."""
    table = TABLE.sigmas
    if scheduler == "Normal":
        at = np.linspace(999, 0, steps)
    elif scheduler == "SGM Uniform":
        at = np.linspace(999, 0, steps + 1)[:-1]
    elif scheduler == "Simple":
        return [*(table[-(1 + int(x * len(table) / steps))] for x in range(steps)), 0.0]
    elif scheduler == "DDIM":
        return [*table[1 :: len(table) // steps][::-1], 0.0]
    elif scheduler == "Beta":
        at = np.unique(np.rint(beta.ppf(1 - np.linspace(0, 1, steps, endpoint=False), 0.6, 0.6) * 999))[::-1]
    else:  # KL Optimal
        part = np.arange(steps) / (steps - 1)
        return [*np.tan(part * math.atan(table[0]) + (1 - part) * math.atan(table[-1])), 0.0]
    return [*np.exp(np.interp(at, np.arange(1000), np.log(table))), 0.0]


@pytest.mark.parametrize("scheduler", ["Normal", "SGM Uniform", "Simple", "DDIM", "Beta", "KL Optimal"])
@pytest.mark.parametrize("steps", [5, 20])
def test_schedules_have_comfyuis_levels(scheduler: str, steps: int) -> None:
    sampler = replace(find_sampler("Euler")[0], trained=COMFY)
    ours = sampler.sigmas(steps, schedule=scheduler)
    assert ours == pytest.approx(comfy_levels(scheduler, steps), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "discards"),
    [("DPM2", True), ("DPM2 a", True), ("UniPC bh2", True), ("DPM++ 3M SDE", False), ("Euler", False)],
)
def test_the_level_before_the_last_is_left_out_where_comfyui_does(name: str, discards: bool) -> None:
    levels = replace(find_sampler(name)[0], trained=COMFY).levels(9, schedule="Normal")
    whole = comfy_levels("Normal", 9 + discards)
    assert levels == pytest.approx([*whole[:-2], whole[-1]] if discards else whole, rel=1e-6)


def test_noise_begins_at_the_models_own_scale_only_at_its_largest_sigma() -> None:
    euler = find_sampler("Euler")[0]
    high, below = TABLE.high, TABLE.sigmas[-20]
    assert first_scale(replace(euler, trained=COMFY), high) == pytest.approx(math.hypot(1, high))
    assert first_scale(replace(euler, trained=COMFY), below) == below
    assert first_scale(replace(euler, trained=TABLE), high) == high


@torch.inference_mode()
def comfyui(tiny: Any, picture: Picture, scheduler: str, steps: int) -> Tensor:
    """Euler as ComfyUI's KSampler runs it: comfy/model_sampling.py EPS and ModelSamplingDiscrete, sample.py prepare_noise."""
    levels = comfy_levels(scheduler, steps)
    noise = torch.randn([1, 4, 8, 8], generator=torch.manual_seed(picture.render.seed))
    whole = math.isclose(levels[0], TABLE.high, rel_tol=1e-5)
    x = noise * (math.sqrt(1 + levels[0] ** 2) if whole else levels[0])
    part = picture.conditioning
    texts = [part.negative[0][1].tokens, part.positive[0].schedule[0][1].tokens]
    for now, then in pairwise(levels):
        time = (math.log(now) - SIGMAS.log()).abs().argmin()
        seen = x / math.sqrt(1 + now**2)
        below, above = (x - now * tiny.theirs(seen, time, encoder_hidden_states=text[None]).sample for text in texts)
        denoised = below + (above - below) * picture.render.cfg_scale
        x = x + (x - denoised) / now * (then - now)
    return x[0]


@pytest.mark.parametrize("scheduler", ["Normal", "DDIM", "Beta"])
def test_a_picture_is_comfyuis(tiny: Any, picture: Callable[..., Picture], scheduler: str) -> None:
    asked = picture(sampler="Euler", scheduler=scheduler, steps=6, emphasis="ComfyUI")
    *_, step = sample(tiny.ours, [asked])
    expected = comfyui(tiny, asked, scheduler, 6)
    # float32, six guided steps from sigma 14.6, whose rounding grows with the latent.
    assert torch.allclose(step.latent[0], expected, rtol=0, atol=2e-4 * float(expected.abs().max()))
    *_, plain = sample(tiny.ours, [picture(sampler="Euler", scheduler=scheduler, steps=6)])
    same = scheduler == "DDIM"  # whole timesteps below the largest sigma, where both do the same
    assert torch.allclose(plain.latent[0], expected, rtol=0, atol=2e-3) is same


def test_only_that_emphasis_is_sampled_so(picture: Callable[..., Picture]) -> None:
    found = {
        emphasis: trained_levels(picture(emphasis=emphasis).render).comfyui for emphasis in ("Original", "ComfyUI")
    }
    assert found == {"Original": False, "ComfyUI": True}
