"""DPM fast, DPM adaptive, Restart and PLMS: k-diffusion's own numbers, or the papers' formulas written out again."""

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from clipskip.errors import SpecError
from clipskip.sample import SCHEDULES, find_sampler, stable_diffusion
from clipskip.sample.schedules import Sigmas, with_restarts

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/samplers.json").read_text())
TABLE = stable_diffusion()
EXACT = {"rtol": 1e-9, "atol": 1e-11}
"""Both sides are float64; what differs is the order of the operations."""


def curved(x: Tensor, sigma: float) -> Tensor:
    return torch.tanh(x / (sigma**2 + 1)) * 1.5 + 0.1 * torch.sin(x)


class Waves:
    """Noise that anybody can draw again: the k-th draw is a sine."""

    def __init__(self) -> None:
        self.k = 0

    def __call__(self, sigma: float, sigma_next: float) -> Tensor:
        self.k += 1
        return torch.sin(torch.arange(8, dtype=torch.float64) * 1.7 * self.k + self.k).reshape(1, 1, 1, 8)


def start(sigma: float) -> Tensor:
    return torch.cos(torch.arange(8, dtype=torch.float64)).reshape(1, 1, 1, 8) * sigma


def moves(name: str, sigmas: Sigmas) -> list[tuple[Tensor, Tensor]]:
    return list(find_sampler(name)[0].solve(curved, start(sigmas[0]), sigmas, Waves()))


@pytest.mark.parametrize("steps", [1, 2, 3, 6, 7, 20])
def test_dpm_fast_gives_k_diffusions_numbers(steps: int) -> None:
    made = moves("DPM fast", find_sampler("DPM fast")[0].sigmas(steps))
    golden = torch.tensor(GOLDEN["dpm_solver"][f"DPM fast {steps}"], dtype=torch.float64)
    assert len(made) == steps
    assert torch.allclose(made[-1][0].flatten(), golden, **EXACT)


def test_dpm_adaptive_gives_k_diffusions_numbers() -> None:
    made = moves("DPM adaptive", find_sampler("DPM adaptive")[0].sigmas(20))
    golden = torch.tensor(GOLDEN["dpm_solver"]["DPM adaptive"], dtype=torch.float64)
    assert torch.allclose(made[-1][0].flatten(), golden, **EXACT)


def test_dpm_adaptive_draws_one_picture_at_a_time() -> None:
    with pytest.raises(SpecError, match="one by one"):
        next(find_sampler("DPM adaptive")[0].solve(curved, torch.ones(2, 1, 1, 1), (10.0, 1.0), Waves()))


def test_dpm_adaptive_gives_up_when_its_moves_lead_nowhere() -> None:
    def noise(x: Tensor, sigma: float) -> Tensor:
        return torch.randn(x.shape, generator=torch.Generator().manual_seed(int(sigma * 1e9) % 2**31)) * 1e6

    with pytest.raises(SpecError, match="did not finish"):
        list(find_sampler("DPM adaptive")[0].solve(noise, torch.ones(1, 1, 1, 4), (14.6, 0.03), lambda *_: 0))


def test_plms_is_the_papers_multistep_over_alphas() -> None:
    sigmas = find_sampler("PLMS")[0].sigmas(10)
    kept = [1 / (1 + sigma**2) for sigma in sigmas]

    def eps(x: Tensor, at: int) -> Tensor:
        wide = x / math.sqrt(kept[at])
        return (wide - curved(wide, sigmas[at])) / sigmas[at]

    def moved(x: Tensor, e: Tensor, at: int) -> Tensor:
        picture = (x - math.sqrt(1 - kept[at]) * e) / math.sqrt(kept[at])
        return math.sqrt(kept[at + 1]) * picture + math.sqrt(1 - kept[at + 1]) * e

    x, past = start(1.0), list[Tensor]()
    for at in range(len(sigmas) - 1):
        past.append(eps(x, at))
        match past[-4:]:
            case [a]:
                mean = (a + eps(moved(x, a, at), at + 1)) / 2
            case [a, b]:
                mean = (3 * b - a) / 2
            case [a, b, c]:
                mean = (23 * c - 16 * b + 5 * a) / 12
            case [a, b, c, d]:
                mean = (55 * d - 59 * c + 37 * b - 9 * a) / 24
        x = moved(x, mean, at)
    unit = start(1.0) * math.hypot(1, sigmas[0])
    *_, (latent, _) = find_sampler("PLMS")[0].solve(curved, unit, sigmas, Waves())
    assert torch.allclose(latent, x, **EXACT)


def karras(high: float, low: float, count: int) -> list[float]:
    """Equation 5 of the paper, term by term."""
    share = [i / (count - 1) for i in range(count)]
    return [(high ** (1 / 7) + s * (low ** (1 / 7) - high ** (1 / 7))) ** 7 for s in share]


@pytest.mark.parametrize(("steps", "again", "times"), [(20, 9, 1), (30, 9, 1), (36, 9, 2), (50, 12, 2)])
def test_restart_spends_its_steps_as_a1111_does(steps: int, again: int, times: int) -> None:
    path = find_sampler("Restart")[0].sigmas(steps)
    falls = [(a, b) for a, b in pairwise(path) if b < a]
    jumps = [(a, b) for a, b in pairwise(path) if b > a]
    first = [*karras(TABLE.high, TABLE.low, steps - again * times), 0.0]
    low = min(first, key=lambda sigma: abs(sigma - 0.1))
    high = min(first, key=lambda sigma: abs(sigma - 2))
    assert len(falls) == steps
    assert jumps == [(pytest.approx(low), pytest.approx(high))] * times
    back = karras(high, low, again + 1)
    at = first.index(low)
    assert path == pytest.approx([*first[: at + 1], *back * times, *first[at + 1 :]], rel=1e-12)


def test_restart_below_20_steps_is_heun() -> None:
    levels = SCHEDULES["Karras"](19, TABLE)
    assert with_restarts(levels) == levels
    assert torch.equal(moves("Restart", levels)[-1][0], moves("Heun", levels)[-1][0])


def test_restart_adds_the_noise_that_leads_up() -> None:
    path = find_sampler("Restart")[0].sigmas(20)
    noise, x = Waves(), start(path[0])
    for sigma, after in pairwise(path):
        if after > sigma:
            x = x + noise(sigma, after) * math.sqrt(after**2 - sigma**2)
            continue
        d = (x - curved(x, sigma)) / sigma
        if after > 0:
            ahead = x + d * (after - sigma)
            d = (d + (ahead - curved(ahead, after)) / after) / 2
        x = x + d * (after - sigma)
    assert torch.allclose(moves("Restart", path)[-1][0], x, **EXACT)
