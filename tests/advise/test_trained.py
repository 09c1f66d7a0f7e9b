from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from clipskip.advise.trained import HIGHEST, LEAST, Captioned, by_pictures, contest
from clipskip.encode import encode_layers
from clipskip.measures.probe import Probe
from clipskip.sample import stable_diffusion
from clipskip.spec import ClipSkip, Request
from clipskip.sweep import Model, resolve
from clipskip.weights import Library


def scores(best: int, gap: float, seed: int = 0) -> object:
    rng = np.random.default_rng(seed)

    def ask(number: int, left: Sequence[int]) -> tuple[NDArray[np.float64], int]:
        hard = rng.normal()
        return np.array([hard + gap * abs(skip - best) + 0.1 * rng.normal() for skip in left]), len(left)

    return ask


@pytest.mark.parametrize("best", [1, 2, 4])
def test_a_clear_case_ends_early_and_is_right(best: int) -> None:
    looks = list(contest(scores(best, 0.3), way="test", pictures=200, skips=(1, 2, 3, 4), flaw=0.04))  # type: ignore[arg-type]
    assert looks[-1].skip == best
    assert looks[-1].sure > 0.95
    assert LEAST <= len(looks) < 40
    assert looks[-1].rows < 4 * len(looks) or len(looks) == LEAST


def test_no_difference_is_not_sure() -> None:
    last = list(contest(scores(1, 0.0), way="test", pictures=30, skips=(1, 2, 3, 4), flaw=0.04, rounds=1))[-1]  # type: ignore[arg-type]
    assert last.sure < 0.95
    assert last.looks == 30


def test_a_picture_that_comes_again_counts_once() -> None:
    """Rounds over two pictures: however often they are asked, two pictures are all that is known of the others."""
    looks = list(contest(scores(2, 0.01), way="test", pictures=2, skips=(1, 2, 3), flaw=0.04, rounds=4))  # type: ignore[arg-type]
    assert (looks[-1].pictures, looks[-1].looks) == (2, 8)


def test_sureness_means_what_it_says() -> None:
    """Of 60 races that end at about the same sureness, as many are right as it says, up to three standard errors."""
    ends = [
        list(contest(scores(2, 0.02, seed), way="test", pictures=12, skips=(1, 2, 3), flaw=0.0, rounds=1))[-1]  # type: ignore[arg-type]
        for seed in range(60)
    ]
    right, said = np.mean([end.skip == 2 for end in ends]), np.mean([end.sure for end in ends])
    assert abs(right - said) < 3 * (said * (1 - said) / 60) ** 0.5 + 0.02


def test_the_error_is_that_of_predicting_v_from_noise_at_a_level(model: Model) -> None:
    """Against Ho et al. 2020, equation 14, with v of Salimans and Ho 2022, worked out by hand."""
    latent = torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(3))
    render, _ = resolve(Request(prompt="", seed=0), model.facts, Library(()))
    look = next(
        by_pictures(Probe.of(model, model.reader, render), [Captioned(latent=latent, caption="a frog")], skips=(1, 3))
    )
    sigma = stable_diffusion().sigma(HIGHEST * 0.5)
    a, s = 1 / (1 + sigma**2) ** 0.5, sigma / (1 + sigma**2) ** 0.5
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0))
    texts = encode_layers(model.reader, "a frog", [ClipSkip(1), ClipSkip(3)])
    errors = []
    for text in texts.values():
        said = model.unet(
            (a * latent + s * noise)[None].to(model.unet.dtype),
            torch.tensor(HIGHEST * 0.5),
            text[None].to(model.unet.dtype),
        )
        errors.append(float((said.float()[0] - (a * noise - s * latent)).square().mean().log()))
    worse = dict(look.scores)
    # the UNet may run in bfloat16, where a batch of two rounds otherwise than one row alone
    assert worse[3] - worse[1] == pytest.approx(errors[1] - errors[0], abs=2e-3)
