"""Noise levels: the model's table, and the schedule types over it."""

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from clipskip.errors import SpecError
from clipskip.sample import SCHEDULES, find_sampler, stable_diffusion
from clipskip.sample.schedules import Sigmas, timesteps_ddim, timesteps_unipc
from clipskip.sample.sde import ancestral
from clipskip.sample.sigmas import latent_consistency

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/sigmas.json").read_text())
TABLE = stable_diffusion()
EXACT = 1e-12
"""Both sides are float64; what differs is the order of the operations."""


def test_the_table_has_stable_diffusions_ends_and_alphas() -> None:
    assert TABLE.low == pytest.approx(GOLDEN["sigma_min"], rel=EXACT)
    assert TABLE.high == pytest.approx(GOLDEN["sigma_max"], rel=EXACT)
    for step, kept in GOLDEN["alphas_cumprod"].items():
        assert 1 / (1 + TABLE.sigmas[int(step)] ** 2) == pytest.approx(kept, rel=EXACT)


@pytest.mark.parametrize(("schedule", "golden"), [("Uniform", "default"), ("Karras", "karras")])
def test_schedules_give_the_golden_sigmas(schedule: str, golden: str) -> None:
    for steps, sigmas in GOLDEN[golden].items():
        assert SCHEDULES[schedule](int(steps), TABLE) == pytest.approx(sigmas, rel=EXACT)


def test_discarding_the_penultimate_sigma_gives_the_golden_run() -> None:
    sampler, _ = find_sampler("DPM2")
    assert sampler.sigmas(20, schedule="Uniform") == pytest.approx(GOLDEN["discard_penultimate_20"], rel=EXACT)


def test_ancestral_steps_split_the_golden_sigmas() -> None:
    for step in GOLDEN["euler_a_steps_20"]:
        down, up = ancestral(step["sigma"], step["next"])
        assert (down, up) == pytest.approx((step["down"], step["up"]), rel=1e-10)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 7, 30])
def test_every_schedule_falls_from_within_the_table_to_its_end(name: str, steps: int) -> None:
    sigmas = SCHEDULES[name](steps, TABLE)
    assert all(a > b for a, b in pairwise(sigmas))
    assert sigmas[0] <= TABLE.high * 1.0001
    assert sigmas[-1] == (pytest.approx(TABLE.low) if name == "KL Optimal" else 0)
    if name != "DDIM":
        assert len(sigmas) == steps + 1


def test_timesteps_and_sigmas_are_each_others_inverse_and_not_rounded() -> None:
    for timestep in (0.0, 0.25, 1.0, 499.5, 998.75, 999.0):
        assert TABLE.timestep(TABLE.sigma(timestep)) == pytest.approx(timestep, abs=1e-9)
    assert TABLE.timestep(20.0) == 999
    assert TABLE.timestep(0.001) == 0


def test_an_lcm_is_only_asked_at_its_own_fifty_timesteps() -> None:
    table = latent_consistency(stable_diffusion())
    assert table.timesteps == tuple(range(19, 1000, 20))
    assert [table.timestep(s) for s in (table.high, table.low, table.sigmas[3] * 1.001)] == [999, 19, 79]


def test_beta_follows_scipys_quantiles() -> None:
    expected = TABLE.low + stats.beta.ppf(np.linspace(1, 0, 30), 0.6, 0.6) * (TABLE.high - TABLE.low)
    assert SCHEDULES["Beta"](30, TABLE)[:-1] == pytest.approx(expected, rel=1e-9)


def at(*timesteps: int) -> Sigmas:
    return tuple(TABLE.sigmas[t] for t in timesteps)


def test_schedules_over_timesteps_visit_those_that_a1111_visits() -> None:
    assert SCHEDULES["Simple"](4, TABLE) == (*at(999, 749, 499, 249), 0)
    assert SCHEDULES["Turbo"](4, TABLE) == pytest.approx((*at(999, 749, 499, 249), 0), rel=EXACT)
    assert SCHEDULES["DDIM"](4, TABLE) == (*at(751, 501, 251, 1), 0)
    assert SCHEDULES["SGM Uniform"](3, TABLE) == pytest.approx((*at(999, 666, 333), 0), rel=EXACT)
    assert timesteps_ddim(4, TABLE) == pytest.approx(at(751, 501, 251, 1), rel=EXACT)
    assert timesteps_unipc(9, TABLE)[::3] == pytest.approx(
        (
            *at(999),
            *timesteps_unipc(9, TABLE)[3::3],
        ),
        rel=EXACT,
    )


def test_unipc_interpolates_log_alpha() -> None:
    sigmas = timesteps_unipc(4, TABLE)
    kept = [0.5 * (math.log1p(TABLE.sigmas[t] ** 2) + math.log1p(TABLE.sigmas[t + 1] ** 2)) for t in (499,)]
    assert sigmas[2] == pytest.approx(math.sqrt(math.expm1(kept[0])), rel=1e-9)
    assert (sigmas[0], sigmas[-1]) == pytest.approx((TABLE.high, TABLE.low), rel=1e-9)


def test_align_your_steps_at_eleven_steps_is_the_published_list() -> None:
    assert SCHEDULES["Align Your Steps"](11, TABLE)[:3] == pytest.approx((14.615, 6.475, 3.861))


def test_kl_optimal_is_even_in_atan_sigma() -> None:
    steps = torch.tensor(SCHEDULES["KL Optimal"](10, TABLE), dtype=torch.float64).atan().diff()
    assert torch.allclose(steps, steps[0].expand(10), rtol=1e-9)


def test_ddim_refuses_a_schedule_type_that_would_change_nothing() -> None:
    with pytest.raises(SpecError, match="its own timesteps"):
        find_sampler("DDIM")[0].sigmas(20, schedule="Karras")


def test_ddim_refuses_a_single_step() -> None:
    with pytest.raises(SpecError, match="use 2 steps or more"):
        find_sampler("DDIM")[0].sigmas(1)


def test_zero_terminal_snr_has_the_sigmas_that_a1111_gives_it() -> None:
    usual, zero = stable_diffusion().sigmas, stable_diffusion(zero_terminal_snr=True).sigmas
    golden = {0: 0.0291671582, 499: 1.7680802029, 998: 2254.2379783371, 999: 4518.7636986559}
    assert all(zero[place] == pytest.approx(sigma, rel=1e-6) for place, sigma in golden.items())
    golden = {0: 0.0291671582, 499: 1.6128861943, 999: 14.6146412293}
    assert all(usual[place] == pytest.approx(sigma, rel=1e-6) for place, sigma in golden.items())


def test_align_your_steps_has_its_own_levels_for_sdxl() -> None:
    euler = replace(find_sampler("Euler")[0], trained=stable_diffusion(sdxl=True))
    levels = euler.sigmas(11, schedule="Align Your Steps")
    assert levels[1:3] == pytest.approx((6.315, 3.771)) and levels[-1] == 0
