import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from clipskip.advise.prompted import Question, measure
from clipskip.measures.effects import broken_from, change, conditioning_distance, contrast, detail
from clipskip.measures.probe import Probe
from clipskip.spec import Request
from clipskip.sweep import Model, open_model, resolve
from clipskip.weights import Library

CELLS = (4, 16, 16)
"""Channels, height and width of a guess."""


def guesses(*skips: torch.Tensor) -> torch.Tensor:
    """One view of these guesses."""
    return torch.stack(skips)[None]


def some(seed: int) -> torch.Tensor:
    return torch.randn(CELLS, generator=torch.Generator().manual_seed(seed))


def test_a_conditioning_moves_in_units_of_its_distance_from_the_negative_prompt() -> None:
    rng = np.random.default_rng(0)
    prompt, negative = (rng.normal(size=(3, 5, 8)).astype(np.float32) for _ in range(2))
    found = conditioning_distance(torch.from_numpy(prompt), torch.from_numpy(negative), reference=1)
    apart = np.linalg.norm(prompt[1] - negative[1])
    assert found.numpy() == pytest.approx([np.linalg.norm(one - prompt[1]) / apart for one in prompt], abs=1e-6)


def test_a_negative_prompt_of_more_chunks_is_compared_over_the_tokens_of_both() -> None:
    prompt, negative = torch.zeros(2, 4, 8), torch.ones(2, 8, 8)
    prompt[1] += 2
    assert conditioning_distance(prompt, negative, reference=0).tolist() == [0, 2]


def test_a_stretched_guess_has_more_contrast_and_detail() -> None:
    one = some(0)
    found = guesses(one, 2 * one + 3)
    assert contrast(found, reference=0).tolist() == pytest.approx([1, 2], rel=1e-5)
    assert detail(found, reference=0).tolist() == pytest.approx([1, 2], rel=1e-5)


def test_a_softened_guess_loses_more_detail_than_contrast() -> None:
    one = some(0)
    found = guesses(one, (one + one.roll(1, dims=-1)) / 2)
    assert float(detail(found, reference=0)[1]) < float(contrast(found, reference=0)[1]) < 1


def test_change_is_of_what_there_was_to_see() -> None:
    one = some(0)
    spread = float((one - one.mean((1, 2), keepdim=True)).square().mean().sqrt())
    assert change(guesses(one, one, one + 1), reference=0).tolist() == pytest.approx([0, 0, 1 / spread], rel=1e-5)


def test_guesses_that_have_nothing_to_do_with_each_other_are_the_root_of_two_apart() -> None:
    # 4096 independent numbers: the mean square is off by about sqrt(2 / 4096) = 2%
    found = torch.stack([guesses(some(n), some(100 + n))[0] for n in range(4)])
    assert float(change(found, reference=0)[1]) == pytest.approx(2**0.5, rel=0.05)


@pytest.mark.parametrize(
    ("kept", "moved", "changed", "found"),
    [
        ((1.0, 0.9, 0.8, 0.6), (0.0, 0.5, 0.8, 1.2), (0.0, 0.5, 0.8, 0.9), None),
        ((1.0, 0.9, 0.4, 0.3), (0.0, 0.5, 1.1, 1.2), (0.0, 0.5, 0.8, 0.9), 3),
        ((1.0, 0.9, 0.8, 0.7), (0.0, 1.1, 1.2, 1.3), (0.0, 1.1, 1.2, 1.3), 2),
        ((1.0, 0.4, 0.8, 0.4), (0.0, 1.1, 0.8, 1.3), (0.0, 1.1, 0.9, 1.3), 4),
        ((0.4, 0.4, 0.4, 0.9), (1.1, 1.1, 1.1, 0.2), (1.1, 1.1, 1.1, 0.2), None),
    ],
    ids=["one sign is not enough", "two are", "any two", "once sound again", "sound to the end"],
)
def test_a_picture_is_broken_from_where_two_signs_stay(
    kept: tuple[float, ...], moved: tuple[float, ...], changed: tuple[float, ...], found: int | None
) -> None:
    curves = {"kept": torch.tensor(kept), "moved": torch.tensor(moved), "changed": torch.tensor(changed)}
    assert broken_from((1, 2, 3, 4), **curves) == found
    backwards = {name: curve.flip(0) for name, curve in curves.items()}
    assert broken_from((4, 3, 2, 1), **backwards) == found


@pytest.mark.parametrize(("prediction", "theirs"), [("epsilon", "epsilon"), ("v", "v_prediction")])
def test_the_clean_picture_of_a_prediction_is_that_of_diffusers(model: Model, prediction: str, theirs: str) -> None:
    render, _ = resolve(Request(prompt="", seed=0), model.facts, Library(()))
    probe = Probe(unet=model.unet, reader=model.reader, render=render, prediction=prediction)
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, prediction_type=theirs
    )
    scheduler.set_timesteps(1000)
    noisy, said = some(1)[None], some(2)[None]
    wanted = scheduler.step(said, 600, noisy).pred_original_sample
    # diffusers sums its table in float32
    assert probe.clean(noisy, 600.0, said).numpy() == pytest.approx(wanted.numpy(), rel=1e-4, abs=1e-4)


@pytest.mark.slow
def test_the_starter_s_pictures_fall_apart_where_the_judge_sees_them_fall_apart() -> None:
    """At 9 and beyond fewer than half as many objects are right as at the best (docs/starter.md)."""
    starter = open_model(None)
    render, extras = resolve(Request(prompt="a red car, forest, moon", seed=0), starter.facts, Library(()))

    def asked(*skips: int) -> Question:
        return Question(render=render, extras=extras, skips=skips, reference=2, lora_references={})

    near, far = measure(starter, asked(1, 2, 3)), measure(starter, asked(2, 8, 10, 11, 12))
    assert near.broken_from is None
    assert far.broken_from in (8, 10, 11)
    assert (far.conditioning_distance[0], far.change[0], far.contrast[0], far.detail[0]) == (0, 0, 1, 1)
    assert list(far.conditioning_distance) == sorted(far.conditioning_distance)
