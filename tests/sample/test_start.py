"""Runs that begin at a picture, against k-diffusion's Euler loop and A1111's count of steps, written out anew."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from sample.conftest import Tiny
from torch import Tensor

from clipskip.errors import SpecError
from clipskip.sample import SAMPLERS, Begin, Denoiser, Picture, PictureNoise, find_sampler, sample, stable_diffusion
from clipskip.sample.schedules import timesteps_ddim
from clipskip.sample.start import way_down
from clipskip.spec import Start

Build = Callable[..., Picture]
TABLE = stable_diffusion()


def begun(picture: Picture, strength: float, seed: int = 3) -> tuple[Picture, Tensor]:
    latent = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(seed))
    render = replace(picture.render, start=Start(hash=str(seed), strength=strength))
    return replace(picture, render=render, start=Begin(latent=latent, strength=strength)), latent


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


@pytest.mark.parametrize("steps", [*range(1, 13), 20, 33, 50, 100, 150])
def test_there_is_always_a_first_level(steps: int) -> None:
    euler, _ = find_sampler("Euler")
    counted = [
        len(way_down(euler, "Automatic", steps, strength=strength / 200).sigmas) - 1 for strength in range(0, 201, 20)
    ]
    assert counted == sorted(counted)
    assert counted[0] == 1
    assert counted[-1] == steps


def test_a_batch_gives_what_single_runs_give(tiny: Tiny, picture: Build) -> None:
    pictures = [begun(picture(seed=seed, steps=5, sampler="DPM++ 2M SDE"), 0.6, seed)[0] for seed in (1, 2)]
    together = list(sample(tiny.ours, pictures))[-1].latent
    alone = torch.cat([list(sample(tiny.ours, [one]))[-1].latent for one in pictures])
    assert torch.allclose(together, alone, atol=1e-4)


@pytest.mark.parametrize(("strength", "moves"), [(0.1, 1), (0.4, 3), (0.75, 6), (1.0, 8)])
def test_ddim_begins_one_timestep_below_the_noise_as_in_a1111(
    tiny: Tiny, picture: Build, strength: float, moves: int
) -> None:
    one, latent = begun(picture(steps=10, sampler="DDIM", cfg_scale=3), strength)
    found = list(sample(tiny.ours, [one]))
    alphas = [1 / (1 + sigma**2) for sigma in reversed(timesteps_ddim(10, TABLE))]  # rising timesteps
    into = int(min(strength, 0.999) * 10)
    x = latent[None] * alphas[into] ** 0.5 + PictureNoise(one.render).first()[None] * (1 - alphas[into]) ** 0.5
    model = Denoiser(tiny.ours, [one], table=TABLE, prediction="epsilon")
    for index in range(into - 1, 0, -1):
        a, a_next = alphas[index], alphas[index - 1]
        guessed = model(x / a**0.5, (1 / a - 1) ** 0.5)
        eps = (x - a**0.5 * guessed) / (1 - a) ** 0.5
        x = a_next**0.5 * guessed + (1 - a_next) ** 0.5 * eps
    assert len(found) == found[0].total == moves
    assert torch.allclose(found[-1].latent, x, atol=1e-4)  # float32 on both sides


def test_unipc_spaces_its_timesteps_anew_from_where_it_begins() -> None:
    unipc, _ = find_sampler("UniPC")
    way = way_down(unipc, "Automatic", 10, strength=0.5)
    times = [TABLE.timestep(sigma) for sigma in way.sigmas]
    # Timesteps 1, 101, ... 901: noise of 501 goes in, and 5 moves lead from 401 to 0.
    assert TABLE.timestep(way.first) == pytest.approx(501, abs=0.01)
    assert times == pytest.approx([401, 320.8, 240.6, 160.4, 80.2, 0], abs=0.1)


def test_dpm_fast_goes_between_the_first_level_and_the_last_above_0() -> None:
    fast, _ = find_sampler("DPM fast")
    way = way_down(fast, "Automatic", 10, strength=0.5)
    uniform = find_sampler("Euler")[0].sigmas(10)[4:]
    assert (way.sigmas[0], way.sigmas[-1], len(way.sigmas)) == (uniform[0], uniform[-2], len(uniform))


@pytest.mark.parametrize("sampler", ["DPM fast", "DPM adaptive"])
def test_from_a_picture_dpm_solvers_go_between_levels_of_the_schedule_type(
    tiny: Tiny, picture: Build, sampler: str
) -> None:
    """1.10 modules/sd_samplers_kdiffusion.py sample_img2img: sigma_max is the first level left, sigma_min the last above 0."""
    solver, schedule = find_sampler(sampler, "karras", begun=True)
    karras = find_sampler("Euler")[0].sigmas(10, schedule="Karras")[4:]
    way = way_down(solver, schedule, 10, strength=0.5)
    assert (schedule, way.sigmas[0], way.sigmas[-1]) == ("Karras", karras[0], karras[-2])
    assert find_sampler(sampler, "karras")[1] == "Automatic"
    built = picture(steps=10, sampler=sampler, cfg_scale=3)
    begun_at = [
        begun(replace(built, render=replace(built.render, scheduler=scheduler)), 0.5)[0]
        for scheduler in ("Karras", "Automatic")
    ]
    ends = [list(sample(tiny.ours, [one]))[-1].latent for one in begun_at]
    assert not torch.allclose(*ends, atol=1e-3)


@pytest.mark.parametrize("sampler", [one.name for one in SAMPLERS if one.name != "LCM"])
def test_every_sampler_begins_at_a_picture_and_at_little_noise_stays_near_it(
    tiny: Tiny, picture: Build, sampler: str
) -> None:
    one, latent = begun(picture(steps=20, sampler=sampler, cfg_scale=1), 0.12)
    found = list(sample(tiny.ours, [one]))[-1].latent[0]
    assert found.isfinite().all() and 1e-3 < (found - latent).abs().mean() < 0.6


@pytest.mark.parametrize("sampler", ["UniPC", "DPM fast", "DPM adaptive"])
def test_a_sampler_that_has_no_move_left_is_refused_by_name(tiny: Tiny, picture: Build, sampler: str) -> None:
    with pytest.raises(SpecError, match=f"{sampler} cannot make a move.*raise"):
        next(sample(tiny.ours, [begun(picture(sampler=sampler), 0.01)[0]]))


def test_a_second_pass_makes_all_the_steps_that_were_asked_for() -> None:
    euler, _ = find_sampler("Euler")
    for steps, strength in ((10, 0.7), (20, 0.5), (3, 0.3), (7, 1.0)):
        way = way_down(euler, "Automatic", steps, strength=strength, every_step=True)
        total = int(steps / min(strength, 0.999))
        assert way.sigmas == euler.sigmas(total)[total - steps :] and len(way.sigmas) == steps + 1


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M", "DDIM", "UniPC"])
def test_a_mask_keeps_what_is_black_in_it(tiny: Tiny, picture: Build, sampler: str) -> None:
    one, latent = begun(picture(steps=6, sampler=sampler), 0.7)
    drawn = (torch.arange(8) >= 4).float().expand(1, 8, 8)
    masked = replace(one, start=Begin(latent=latent, strength=0.7, drawn=drawn))
    found = list(sample(tiny.ours, [masked]))[-1].latent[0]
    assert torch.equal(found[:, :, :4], latent[:, :, :4])
    assert (found[:, :, 4:] - latent[:, :, 4:]).abs().mean() > 0.1


@pytest.mark.parametrize("soft", [False, True])
def test_a_mask_is_euler_with_the_picture_put_back_into_every_guess(tiny: Tiny, picture: Build, soft: bool) -> None:
    one, latent = begun(picture(steps=5, sampler="Euler", cfg_scale=3), 0.8)
    drawn = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(1))
    drawn = drawn if soft else (drawn > 0.5).float()
    found = list(sample(tiny.ours, [replace(one, start=Begin(latent=latent, strength=0.8, drawn=drawn))]))[-1].latent
    sigmas = find_sampler("Euler")[0].sigmas(5)[0:]
    model = Denoiser(tiny.ours, [one], table=TABLE, prediction="epsilon")
    x = latent[None] + PictureNoise(one.render).first()[None] * sigmas[0]
    for i in range(5):
        guessed = latent * (1 - drawn) + model(x, sigmas[i]) * drawn
        x = x + (x - guessed) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
    assert torch.allclose(found, latent * (1 - drawn) + x * drawn, atol=1e-4)  # float32, summed in another order


@pytest.mark.parametrize("multiplier", [0.0, 0.5, 1.2])
def test_the_noise_that_a_picture_begins_with_has_a_size(tiny: Tiny, picture: Build, multiplier: float) -> None:
    """1.10 modules/processing.py: the first noise is multiplied, and nothing else."""
    one, latent = begun(picture(steps=5, sampler="Euler", cfg_scale=3), 0.8)
    start = Begin(latent=latent, strength=0.8, noise_multiplier=multiplier)
    found = list(sample(tiny.ours, [replace(one, start=start)]))[-1].latent
    sigmas = find_sampler("Euler")[0].sigmas(5)
    model = Denoiser(tiny.ours, [one], table=TABLE, prediction="epsilon")
    x = latent[None] + multiplier * PictureNoise(one.render).first()[None] * sigmas[0]
    for i in range(5):
        x = x + (x - model(x, sigmas[i])) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
    assert torch.allclose(found, x, atol=1e-4)  # float32 on both sides


def test_a_mask_with_ddim_looks_at_the_kept_part_without_noise(tiny: Tiny, picture: Build) -> None:
    one, latent = begun(picture(steps=10, sampler="DDIM", cfg_scale=3), 0.8)
    drawn = (torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    found = list(sample(tiny.ours, [replace(one, start=Begin(latent=latent, strength=0.8, drawn=drawn))]))[-1].latent
    alphas = [1 / (1 + sigma**2) for sigma in reversed(timesteps_ddim(10, TABLE))]
    x = latent[None] * alphas[8] ** 0.5 + PictureNoise(one.render).first()[None] * (1 - alphas[8]) ** 0.5
    model = Denoiser(tiny.ours, [one], table=TABLE, prediction="epsilon")
    for index in range(7, 0, -1):
        a, a_next = alphas[index], alphas[index - 1]
        seen = latent * (1 - drawn) + x * drawn
        eps = (seen - a**0.5 * model(seen / a**0.5, (1 / a - 1) ** 0.5)) / (1 - a) ** 0.5
        x = a_next**0.5 * (x - (1 - a) ** 0.5 * eps) / a**0.5 + (1 - a_next) ** 0.5 * eps
    assert torch.allclose(found, latent * (1 - drawn) + x * drawn, atol=1e-4)


def test_pictures_of_different_strengths_are_not_drawn_together(tiny: Tiny, picture: Build) -> None:
    with pytest.raises(SpecError, match="denoising strength"):
        next(sample(tiny.ours, [begun(picture(), 0.5)[0], begun(picture(), 0.6)[0]]))


def test_a_render_that_begins_at_a_picture_needs_its_latent(tiny: Tiny, picture: Build) -> None:
    with pytest.raises(SpecError, match="without that picture's latent"):
        next(sample(tiny.ours, [replace(begun(picture(), 0.5)[0], start=None)]))
