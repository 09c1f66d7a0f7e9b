"""Samplers: names, k-diffusion's own numbers, order of convergence, and the spread of what they draw."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from clipskip.errors import SpecError
from clipskip.sample import SAMPLERS, Sampler, find_sampler, ode

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/samplers.json").read_text())
DATA = 0.7
"""Standard deviation of the pictures in the Gaussian world, where everything is known in closed form."""


def named(name: str) -> Sampler:
    return find_sampler(name)[0]


def silence(sigma: float, sigma_next: float) -> Tensor:
    return torch.zeros(1, 1, 1, 1)


def last(name: str, model: ode.Model, x: Tensor, sigmas: tuple[float, ...], noise: ode.StepNoise = silence) -> Tensor:
    *_, (latent, _) = named(name).solve(model, x, sigmas, noise)
    return latent


@pytest.mark.parametrize("name", GOLDEN["latents"])
def test_samplers_give_k_diffusions_numbers(name: str) -> None:
    calls = iter(range(1, 100))

    def model(x: Tensor, sigma: float) -> Tensor:
        return torch.tanh(x / (sigma**2 + 1)) * 1.5 + 0.1 * torch.sin(x)

    def noise(sigma: float, sigma_next: float) -> Tensor:
        k = next(calls)
        return torch.sin(torch.arange(8, dtype=torch.float64) * 1.7 * k + k).reshape(1, 1, 1, 8)

    sigmas = tuple(GOLDEN["sigmas"])
    start = torch.cos(torch.arange(8, dtype=torch.float64)).reshape(1, 1, 1, 8) * sigmas[0]
    # Both float64; k-diffusion integrates LMS's shares numerically, to 1e-4 of their size at worst.
    golden = torch.tensor(GOLDEN["latents"][name], dtype=torch.float64)
    assert torch.allclose(last(name, model, start, sigmas, noise).flatten(), golden, rtol=1e-9, atol=1e-11)


def gaussian(x: Tensor, sigma: float) -> Tensor:
    return x * (DATA**2 / (DATA**2 + sigma**2))


def error(name: str, steps: int) -> float:
    """How far a run from sigma 10 to 0.5 ends from the flow's exact end."""
    sigmas = tuple(10 * (0.05 ** (i / steps)) for i in range(steps + 1))
    x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    scale = math.hypot(1, sigmas[-1]) if named(name).unit_scale else 1
    exact = math.sqrt((DATA**2 + sigmas[-1] ** 2) / (DATA**2 + sigmas[0] ** 2))
    return abs(last(name, gaussian, x, sigmas).item() * scale - exact)


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("Euler", 1),
        ("DDIM", 1),
        ("Heun", 2),
        ("DPM2", 2),
        ("DPM++ 2M", 2),
        ("LMS", 2),
        ("UniPC", 2),
        ("UniPC bh1", 2),
        ("UniPC bh2", 2),
        ("Restart", 2),
    ],
)
def test_halving_the_steps_shrinks_the_error_by_the_samplers_order(name: str, order: int) -> None:
    assert math.log2(error(name, 64) / error(name, 128)) > order - 0.15


@pytest.mark.parametrize("name", [s.name for s in SAMPLERS if s.solve.__module__.endswith("sde") and s.name != "LCM"])
def test_samplers_with_noise_draw_the_datas_spread(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(1, 1, 200, 200, generator=generator)
    sigmas = named(name).sigmas(240, schedule="Karras")

    def noise(sigma: float, sigma_next: float) -> Tensor:
        return torch.randn(start.shape, generator=generator)

    # 40000 numbers tell the spread to 0.4%; 240 steps leave up to 1.5% (Euler a, of order 1).
    if name == "DPM++ SDE":
        noise = Consistent(start, sigmas, generator)
    assert last(name, gaussian, start * sigmas[0], sigmas, noise).std().item() == pytest.approx(DATA, rel=0.03)


class Consistent:
    """Noise of one Brownian motion for a sampler that looks at half moves first."""

    def __init__(self, like: Tensor, sigmas: tuple[float, ...], generator: torch.Generator) -> None:
        self.like, self.generator, self.half = like, generator, (0.0, 0.0, like)

    def __call__(self, sigma: float, sigma_next: float) -> Tensor:
        fresh = torch.randn(self.like.shape, generator=self.generator)
        start, middle, moved = self.half
        if start != sigma:
            self.half = (sigma, sigma_next, fresh * math.sqrt(sigma - sigma_next))
            return fresh
        whole = moved + fresh * math.sqrt(middle - sigma_next)
        return whole / math.sqrt(sigma - sigma_next)


def test_lcm_jumps_to_the_picture_and_adds_the_next_sigmas_noise() -> None:
    sigmas = (10.0, 3.0, 0.0)
    x = torch.ones(1, 1, 1, 1)
    moves = list(named("LCM").solve(gaussian, x, sigmas, lambda sigma, sigma_next: torch.full((1, 1, 1, 1), 2.0)))
    assert moves[0][0].item() == pytest.approx(gaussian(x, 10.0).item() + 6)
    assert torch.equal(moves[1][0], moves[1][1])


@pytest.mark.parametrize("sampler", [s for s in SAMPLERS if not s.alone], ids=lambda s: s.name)
def test_a_sampler_calls_the_denoiser_order_times_per_step_at_most(sampler: Sampler) -> None:
    calls = []

    def model(x: Tensor, sigma: float) -> Tensor:
        calls.append(sigma)
        return gaussian(x, sigma)

    sigmas = sampler.sigmas(6)
    list(sampler.solve(model, torch.ones(1, 1, 1, 1), sigmas, silence))
    moves = len(sigmas) - 1
    # PLMS looks ahead in its first move.
    assert len(calls) == moves * sampler.order - (sampler.order - 1) + (sampler.name == "PLMS")


@pytest.mark.parametrize(
    ("typed", "name", "schedule"),
    [
        ("Euler a", "Euler a", "Automatic"),
        ("euler A", "Euler a", "Automatic"),
        ("k_euler_a", "Euler a", "Automatic"),
        ("DPM++ 2M Karras", "DPM++ 2M", "Karras"),
        ("DPM++ 2M Automatic", "DPM++ 2M", "Automatic"),
        ("k_dpmpp_2m_ka", "DPM++ 2M", "Karras"),
        ("DPM++ 2M SDE Exponential", "DPM++ 2M SDE", "Exponential"),
        ("DPM++ 2M SDE Heun Karras", "DPM++ 2M SDE Heun", "Karras"),
        ("DPM++ 2S a SGM Uniform", "DPM++ 2S a", "SGM Uniform"),
        ("LMS Karras", "LMS", "Karras"),
    ],
)
def test_a1111s_spellings_name_sampler_and_schedule(typed: str, name: str, schedule: str) -> None:
    sampler, found = find_sampler(typed)
    assert (sampler.name, found) == (name, schedule)


def test_an_unknown_sampler_is_an_error_that_lists_ours() -> None:
    with pytest.raises(SpecError, match=r"'DDIM CFG\+\+'.*Euler a.*UniPC"):
        find_sampler("DDIM CFG++")


def test_an_unknown_schedule_type_is_an_error_that_lists_ours() -> None:
    with pytest.raises(SpecError, match=r"'linear'.*Automatic.*Karras"):
        find_sampler("Euler", "linear")


def test_a_name_and_a_schedule_type_that_disagree_are_an_error() -> None:
    with pytest.raises(SpecError, match="names another schedule type"):
        find_sampler("DPM++ 2M Karras", "Beta")


@pytest.mark.parametrize(
    ("name", "schedule"),
    [("Euler a", "Uniform"), ("DPM++ 2M", "Karras"), ("DPM++ 2M SDE", "Exponential"), ("DPM++ SDE", "Karras")],
)
def test_automatic_is_the_samplers_own_schedule(name: str, schedule: str) -> None:
    assert named(name).sigmas(9) == named(name).sigmas(9, schedule=schedule)
