"""Eta, churn and the noise's size: k-diffusion's own numbers, DDIM's formula written out again, and A1111's choice of who
takes what."""

import json
import math
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from sample.conftest import Tiny
from sample.test_rarer_samplers import Waves, curved, start

from clipskip.sample import SAMPLERS, Denoiser, Picture, PictureNoise, find_sampler, sample, stable_diffusion
from clipskip.sample.ode import AddedNoise, StepNoise
from clipskip.sample.schedules import timesteps_ddim

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/samplers.json").read_text())
EXACT = {"rtol": 1e-9, "atol": 1e-11}
"""Both sides are float64; what differs is the order of the operations."""
TABLE = stable_diffusion()


def sized(size: float) -> StepNoise:
    waves = Waves()
    return lambda sigma, sigma_next: waves(sigma, sigma_next) * size


@pytest.mark.parametrize("case", GOLDEN["eta"])
def test_eta_and_the_noises_size_give_k_diffusions_numbers(case: str) -> None:
    match = re.fullmatch(r"(.+?)(?: (\d+))? eta (.+) noise (.+)", case)
    assert match is not None
    sampler, calls = find_sampler(match[1])[0], match[2]
    sigmas = sampler.sigmas(int(calls or 20)) if sampler.own_times else tuple(GOLDEN["sigmas"])
    added = AddedNoise(eta=float(match[3]))
    *_, (latent, _) = sampler.solve(curved, start(sigmas[0]), sigmas, sized(float(match[4])), added)
    assert torch.allclose(latent.flatten(), torch.tensor(GOLDEN["eta"][case], dtype=torch.float64), **EXACT)


@pytest.mark.parametrize("case", GOLDEN["churn"])
def test_churn_gives_k_diffusions_numbers(case: str) -> None:
    match = re.fullmatch(r"(.+) churn (.+) tmin (.+) tmax (.+) noise (.+)", case)
    assert match is not None
    churn, low, high, size = (float(match[i]) for i in range(2, 6))
    sigmas = tuple(GOLDEN["sigmas"])
    added = AddedNoise(churn=churn, tmin=low, tmax=high or math.inf)
    *_, (latent, _) = find_sampler(match[1])[0].solve(curved, start(sigmas[0]), sigmas, sized(size), added)
    assert torch.allclose(latent.flatten(), torch.tensor(GOLDEN["churn"][case], dtype=torch.float64), **EXACT)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_with_eta_is_the_papers_formula(tiny: Tiny, picture: object, eta: float) -> None:
    one = picture(sampler="DDIM", steps=6, cfg_scale=3, eta=eta)  # type: ignore[operator]  # the fixture builds
    found = list(sample(tiny.ours, [one]))[-1].latent
    alphas = [1 / (1 + sigma**2) for sigma in timesteps_ddim(6, TABLE)]
    noise = PictureNoise(one.render)
    x = noise.first()[None].double()
    model = Denoiser(tiny.ours, [one], table=TABLE, prediction="epsilon")
    for a, a_next in pairwise(alphas):
        scaled = (x / math.sqrt(a)).float()
        guessed = model(scaled, math.sqrt(1 / a - 1)).double()
        eps = (x - math.sqrt(a) * guessed) / math.sqrt(1 - a)
        size = eta * math.sqrt((1 - a_next) / (1 - a)) * math.sqrt(1 - a / a_next)
        x = math.sqrt(a_next) * guessed + math.sqrt(1 - a_next - size**2) * eps
        x = x + size * noise.next() if eta else x
    # The network runs in float32 on both sides, on inputs that differ in their last bits.
    assert torch.allclose(found.double(), x, atol=1e-4)


def test_a_run_passes_eta_churn_and_size_on(tiny: Tiny, picture: object) -> None:
    def drawn(**settings: object) -> torch.Tensor:
        one: Picture = picture(cfg_scale=3, **settings)  # type: ignore[operator]  # the fixture builds
        return list(sample(tiny.ours, [one]))[-1].latent

    assert torch.equal(drawn(sampler="Euler a", eta=1.0), drawn(sampler="Euler a"))
    assert torch.allclose(drawn(sampler="Euler a", eta=0.0), drawn(sampler="Euler"), atol=1e-4)
    assert not torch.allclose(drawn(sampler="Euler a", eta=0.5), drawn(sampler="Euler a"), atol=1e-2)
    assert not torch.allclose(drawn(sampler="Heun", s_churn=5.0), drawn(sampler="Heun"), atol=1e-2)
    assert torch.equal(drawn(sampler="Heun", s_churn=5.0, s_tmin=100.0), drawn(sampler="Heun"))
    assert not torch.allclose(drawn(sampler="DPM2 a", s_noise=1.1), drawn(sampler="DPM2 a"), atol=1e-2)


def test_who_takes_what_is_as_in_a1111() -> None:
    """1.10 modules/sd_samplers_kdiffusion.py sampler_extra_params, and whose function has an eta."""
    assert {one.name for one in SAMPLERS if one.churns} == {"Euler", "Heun", "DPM2"}
    scaled = {"DPM fast", "DPM2 a", "DPM++ 2S a", "DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE"}
    assert {one.name for one in SAMPLERS if one.scales_noise} == scaled
    etas = {one.name: one.eta for one in SAMPLERS if one.eta is not None}
    assert etas == dict.fromkeys([*scaled, "Euler a", "DPM adaptive"], 1.0) | {"DDIM": 0.0}
