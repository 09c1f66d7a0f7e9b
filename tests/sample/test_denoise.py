"""Guidance and the loop: which text at which call, how predictions are put together, batches, cancelling."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from sample.conftest import conditioning, text
from torch import Tensor

from clipskip.encode.conditioning import Conditioning, TextVectors, WeightedSchedule
from clipskip.errors import SpecError
from clipskip.sample import SAMPLERS, Denoiser, Picture, Step, sample, stable_diffusion

Build = Callable[..., Picture]
TABLE = stable_diffusion()
BATCHED = 2e-5
"""Of the largest number: float32 products over other batch sizes sum in another order."""


class Recorder:
    """A UNet that answers with a number made of its text, and notes what it was asked."""

    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self) -> None:
        self.texts: list[Tensor] = []
        self.times: list[float] = []

    def __call__(
        self, x: Tensor, timestep: Tensor, text: Tensor, memory: object, copies: Tensor | None, added: None
    ) -> Tensor:
        self.texts.append(text)
        self.times.append(timestep.item())
        return text.mean((1, 2)).view(-1, 1, 1, 1).expand_as(x if copies is None else x[copies])


def flat(value: float, tokens: int = 7) -> TextVectors:
    return TextVectors(tokens=torch.full((tokens, 16), value))


def plain(*parts: tuple[float, float], negative: TextVectors | None = None) -> Conditioning:
    """A conditioning whose texts are constants: (weight, value) of each AND part."""
    built = tuple(WeightedSchedule(weight=weight, schedule=((1000, flat(value)),)) for weight, value in parts)
    return Conditioning(positive=built, negative=((1000, flat(0.5) if negative is None else negative),))


def denoiser(unet: Any, pictures: Sequence[Picture], prediction: str = "epsilon", rows: int | None = None) -> Denoiser:
    return Denoiser(unet, pictures, table=TABLE, prediction=prediction, rows=rows)


def last(unet: Any, *pictures: Picture, **options: Any) -> Tensor:
    steps = list(sample(unet, pictures, **options))
    return steps[-1].latent


X = torch.linspace(-1, 1, 256).reshape(1, 4, 8, 8)


def test_guidance_is_uncond_plus_each_weighted_difference(picture: Build) -> None:
    model = denoiser(Recorder(), [picture(plain((1.0, 2.0), (0.5, 3.0)), cfg_scale=7)])
    eps = 0.5 + 7 * 1.0 * (2.0 - 0.5) + 7 * 0.5 * (3.0 - 0.5)
    assert torch.allclose(model(X, 2.0), X - 2.0 * eps, rtol=1e-5)


def test_v_prediction_is_turned_into_the_picture(picture: Build) -> None:
    # v = alpha eps - sigma x0 at unit variance (Salimans and Ho 2022, appendix D), with alpha = 1 / sqrt(1 + sigma^2).
    sigma, v = 2.0, 2.0
    alpha, size = 1 / (1 + sigma**2) ** 0.5, sigma / (1 + sigma**2) ** 0.5
    expected = alpha * (X * alpha) - size * v
    model = denoiser(Recorder(), [picture(plain((1.0, v)), cfg_scale=1)], prediction="v")
    assert torch.allclose(model(X, sigma), expected, atol=1e-6)


def test_an_unknown_prediction_is_an_error(picture: Build) -> None:
    with pytest.raises(SpecError, match="epsilon, v"):
        denoiser(Recorder(), [picture()], prediction="flow")


def test_the_unet_sees_unit_variance_and_an_unrounded_timestep(picture: Build) -> None:
    unet = Recorder()
    denoiser(unet, [picture()])(X, 1.0)
    assert unet.times == [pytest.approx(TABLE.timestep(1.0))]
    assert unet.times[0] % 1 > 0.01


def test_texts_of_one_length_go_together_and_others_apart(picture: Build) -> None:
    unet = Recorder()
    denoiser(unet, [picture(plain((1.0, 2.0)))])(X, 1.0)
    denoiser(unet, [picture(plain((1.0, 2.0), (1.0, 3.0), negative=flat(0.5, tokens=14)))])(X, 1.0)
    assert [tuple(texts.shape[:2]) for texts in unet.texts] == [(2, 7), (2, 7), (1, 14)]


def test_no_more_rows_go_together_than_asked(picture: Build) -> None:
    unet = Recorder()
    pictures = [picture(plain((1.0, value))) for value in (1.0, 2.0, 3.0)]
    whole, parts = (denoiser(unet, pictures, rows=rows)(X.repeat(3, 1, 1, 1), 1.0) for rows in (None, 4))
    assert [len(texts) for texts in unet.texts] == [6, 4, 2]
    assert torch.allclose(whole, parts)


def test_at_a_guidance_of_one_the_negative_prompt_is_not_run(picture: Build) -> None:
    unet = Recorder()
    result = denoiser(unet, [picture(plain((1.0, 2.0)), cfg_scale=1)])(X, 1.0)
    assert [len(texts) for texts in unet.texts] == [1]
    assert torch.allclose(result, X - 2.0)


def test_prompt_editing_switches_after_the_call_that_a1111_switches_after(picture: Build) -> None:
    # "[a:b:3]" of 6 steps is [(3, a), (6, b)]: calls 0 to 3 take a, four of them.
    unet = Recorder()
    part = WeightedSchedule(weight=1.0, schedule=((3, flat(1.0)), (6, flat(2.0))))
    given = Conditioning(positive=(part,), negative=((1, flat(3.0)), (6, flat(4.0))))
    list(sample(unet, [picture(given, steps=6, sampler="Euler")]))
    assert [texts[:, 0, 0].tolist() for texts in unet.texts] == [[1, 3], [1, 3], [1, 4], [1, 4], [2, 4], [2, 4]]


def test_prompt_editing_counts_denoiser_calls_and_not_steps(picture: Build) -> None:
    unet = Recorder()
    part = WeightedSchedule(weight=1.0, schedule=((3, flat(1.0)), (12, flat(2.0))))
    given = Conditioning(positive=(part,), negative=((12, flat(3.0)),))
    list(sample(unet, [picture(given, steps=6, sampler="Heun")]))
    assert [texts[0, 0, 0].item() for texts in unet.texts] == [1] * 4 + [2] * 7


def test_the_same_texts_are_the_same_tensor_to_the_unet_again(picture: Build) -> None:
    unet = Recorder()
    a, b = flat(1.0), flat(2.0)
    part = WeightedSchedule(weight=1.0, schedule=((0, a), (1, b), (2, a), (3, b)))
    list(sample(unet, [picture(Conditioning(positive=(part,), negative=((4, flat(3.0)),)), sampler="Euler")]))
    assert unet.texts[0] is unet.texts[2]
    assert unet.texts[1] is unet.texts[3]


@torch.no_grad()
def test_remembering_keys_and_values_changes_no_bit_of_the_picture(tiny: Any, picture: Build) -> None:
    class Forgetful:
        dtype, device = torch.float32, torch.device("cpu")

        def __call__(
            self, x: Tensor, timestep: Tensor, text: Tensor, memory: object, copies: Tensor | None, added: None
        ) -> Any:
            return tiny.ours(x, timestep, text, None, copies)

    assert torch.equal(last(tiny.ours, picture()), last(Forgetful(), picture()))


@torch.no_grad()
def test_every_layer_computes_a_fixed_texts_keys_once_per_render(tiny: Any, picture: Build) -> None:
    calls = []
    hooks = [
        module.register_forward_hook(lambda *_: calls.append(1))
        for name, module in tiny.ours.named_modules()
        if name.endswith("attn2.to_k")
    ]
    list(sample(tiny.ours, [picture(steps=5)]))
    [hook.remove() for hook in hooks]
    assert len(calls) == len(hooks) > 0


@pytest.mark.parametrize("sampler", [s.name for s in SAMPLERS if not s.alone])
def test_pictures_drawn_together_are_those_drawn_alone(tiny: Any, picture: Build, sampler: str) -> None:
    long = Conditioning(positive=conditioning(3).positive, negative=((1000, TextVectors(tokens=text(9, tokens=14))),))
    pictures = [
        picture(sampler=sampler, steps=2, seed=1),
        picture(conditioning(7), sampler=sampler, steps=2, seed=2, cfg_scale=3.5),
        picture(long, sampler=sampler, steps=2, seed=2, index=1, rng="NV"),
    ]
    together = last(tiny.ours, *pictures)
    alone = torch.cat([last(tiny.ours, one, rows=2) for one in pictures])
    assert torch.allclose(together, alone, atol=BATCHED * alone.abs().max().item())
    assert not torch.allclose(alone[0], alone[1], atol=0.1)


def test_steps_are_counted_and_show_what_the_model_sees(tiny: Any, picture: Build) -> None:
    steps = list(sample(tiny.ours, [picture(sampler="Euler a")]))
    assert [(step.number, step.total) for step in steps] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert torch.allclose(steps[-1].latent, steps[-1].denoised, atol=1e-5)
    assert steps[0].latent.shape == (1, 4, 8, 8)


def test_a_run_that_nobody_goes_on_with_stops(picture: Build) -> None:
    unet = Recorder()
    steps = sample(unet, [picture(steps=50, sampler="Euler")])
    first: Step = next(steps)
    steps.close()
    assert first.number == 1
    assert len(unet.texts) == 1


def test_pictures_of_different_sizes_are_not_drawn_together(tiny: Any, picture: Build) -> None:
    with pytest.raises(SpecError, match="must have the same width"):
        next(sample(tiny.ours, [picture(), picture(width=72)]))


def test_no_picture_is_an_error(tiny: Any) -> None:
    with pytest.raises(SpecError, match="at least one"):
        next(sample(tiny.ours, []))
