"""Noise sources, seeds, variations and Brownian paths."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from clipskip.sample import Picture, PictureNoise
from clipskip.sample.brownian import BrownianPath
from clipskip.sample.noise import paths, slerp, source, step_noise
from clipskip.sample.philox import normals

FOLDER = Path(__file__).parents[1] / "golden"
PHILOX = json.loads((FOLDER / "noise.json").read_text())["philox"]
BROWNIAN = json.loads((FOLDER / "samplers.json").read_text())["brownian"]["paths"]
Build = Callable[..., Picture]
CPU = torch.device("cpu")


def noise(picture: Picture) -> PictureNoise:
    return PictureNoise(picture.render, index=picture.index)


@pytest.mark.parametrize("case", PHILOX, ids=lambda case: case["seed"])
def test_philox_draws_cudas_numbers(case: dict) -> None:
    # CUDA's float32 sine and logarithm are up to 3 units off ours, which are float64, rounded once: 5e-7 at size 2.6.
    for number, golden in enumerate(case["draws"]):
        assert normals(case["seed"], number, 4096)[: len(golden)] == pytest.approx(np.array(golden), abs=5e-7)


def test_philox_is_normal() -> None:
    drawn = normals(2**63 + 7, 0, 200_000)
    assert abs(drawn.mean()) < 0.01
    assert abs(drawn.std() - 1) < 0.01


def test_gpu_and_nv_are_the_same_numbers_and_cpu_is_torchs() -> None:
    shape = (4, 8, 8)
    assert torch.equal(source("GPU", 5)(shape), source("NV", 5)(shape))
    assert torch.equal(source("CPU", 5)(shape), torch.randn(shape, generator=torch.Generator().manual_seed(5)))


@pytest.mark.parametrize("rng", ["CPU", "NV"])
def test_step_noises_follow_the_first_from_one_generator(picture: Build, rng: str) -> None:
    drawn, alone = noise(picture(rng=rng)), source(rng, 5)
    for got in (drawn.first(), drawn.next(), drawn.next()):
        assert torch.equal(got, alone((4, 8, 8)))


def test_the_index_is_added_to_the_seed(picture: Build) -> None:
    assert torch.equal(noise(picture(seed=5, index=3)).first(), noise(picture(seed=8)).first())


def test_the_largest_seed_wraps_around(picture: Build) -> None:
    assert torch.equal(noise(picture(seed=2**64 - 1, index=1)).first(), noise(picture(seed=0)).first())


def test_with_a_variation_the_index_is_added_to_the_variation_seed_instead(picture: Build) -> None:
    varied = noise(picture(seed=5, variation_seed=9, variation_strength=0.3, index=2))
    expected = slerp(source("CPU", 5)((4, 8, 8)), source("CPU", 11)((4, 8, 8)), strength=0.3)
    assert varied.seed == 5
    assert torch.equal(varied.first(), expected)
    assert torch.equal(varied.next(), noise_after_first(5))


def noise_after_first(seed: int) -> torch.Tensor:
    drawn = source("CPU", seed)
    drawn((4, 8, 8))
    return drawn((4, 8, 8))


def test_slerp_turns_each_column_by_a_share_of_the_angle() -> None:
    a, b = source("CPU", 1)((4, 8, 8)).double(), source("CPU", 2)((4, 8, 8)).double()
    turned = slerp(a, b, strength=0.25)
    u, v = a[1, :, 3], b[1, :, 3]
    angle = torch.acos(u @ v / (u.norm() * v.norm()))
    expected = (torch.sin(0.75 * angle) * u + torch.sin(0.25 * angle) * v) / torch.sin(angle)
    assert torch.allclose(turned[1, :, 3], expected, rtol=1e-12)


def test_nearly_parallel_noises_are_mixed_with_a1111s_swapped_shares() -> None:
    a = source("CPU", 1)((4, 8, 8))
    assert torch.allclose(slerp(a, a * 2, strength=0.25), a * 0.25 + a * 2 * 0.75)


def test_ensd_changes_the_step_noises_and_not_the_first(picture: Build) -> None:
    drawn = noise(picture(ensd=31337))
    assert torch.equal(drawn.first(), noise(picture()).first())
    assert torch.equal(drawn.next(), source("CPU", 5 + 31337)((4, 8, 8)))


def test_a_batchs_step_noise_is_each_pictures_own(picture: Build) -> None:
    both = step_noise([noise(picture(seed=1)), noise(picture(seed=2))], device=CPU)(1.0, 0.5)
    assert torch.equal(both[1], noise(picture(seed=2)).next())


@pytest.mark.parametrize("case", BROWNIAN, ids=lambda case: case["seed"])
def test_brownian_paths_are_torchsdes(case: dict) -> None:
    # float32 sums over 24 levels in another order: 2e-6 of increments of size 3.
    ends = [move[0] for move in case["moves"]] + [case["moves"][-1][1]]
    path = BrownianPath(min(ends), max(ends), seed=case["seed"], draw=lambda seed: source("CPU", seed)((4, 8, 8)))
    for start, end, golden in case["moves"]:
        assert torch.allclose(path.between(start, end).flatten()[:4], torch.tensor(golden), atol=4e-6)


def test_a_brownian_path_does_not_depend_on_who_asks_when(picture: Build) -> None:
    first, second = (noise(picture()).path(0.03, 14.6) for _ in range(2))
    coarse = first.between(10.0, 1.0)
    fine = second.between(10.0, 4.0) + second.between(4.0, 1.0)
    assert torch.allclose(coarse, fine, atol=1e-5)


def test_brownian_step_noise_has_size_one_and_is_each_pictures_own(picture: Build) -> None:
    sigmas = (14.6, 5.0, 1.0, 0.3, 0.0)
    pictures = [noise(picture(width=512, height=512, seed=s)) for s in (1, 2)]
    both = paths(pictures, sigmas, device=CPU)(5.0, 1.0)
    assert both.std().item() == pytest.approx(1, abs=0.02)
    assert torch.equal(both[1:], paths(pictures[1:], sigmas, device=CPU)(5.0, 1.0))
