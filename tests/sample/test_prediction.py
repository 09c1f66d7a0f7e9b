"""A first look tells a UNet that predicts v from one that predicts epsilon."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from clipskip.networks import UNet
from clipskip.sample.prediction_check import agreement_with_noise, prediction_doubt
from clipskip.sweep import Model, open_model


@pytest.fixture(scope="module")
def starter() -> Iterator[Model]:
    yield open_model("starter")


class AsEpsilon(nn.Module):
    """The starter's UNet, its answer turned from v into epsilon: epsilon = alpha v + sigma x (Salimans and Ho 2022)."""

    def __init__(self, unet: UNet) -> None:
        super().__init__()
        self.unet, self.shape, self.device, self.dtype = unet, unet.shape, unet.device, unet.dtype

    def forward(self, x: Tensor, time: Tensor, text: Tensor) -> Tensor:
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
        alpha = (1 - betas).cumprod(0)[int(time)]
        out: Tensor = alpha.sqrt() * self.unet(x, time, text) + (1 - alpha).sqrt() * x
        return out


def test_the_starter_predicts_v_and_is_not_doubted(starter: Model) -> None:
    assert abs(agreement_with_noise(starter.unet)) < 0.2
    assert starter.facts.prediction == "v" and starter.doubt is None


def test_the_same_model_taken_for_the_other_kind_is_doubted(starter: Model) -> None:
    said = prediction_doubt(starter.unet, prediction="epsilon", name="starter")
    assert said is not None and "--prediction v" in said


def test_a_model_that_predicts_epsilon_agrees_with_the_noise(starter: Model) -> None:
    unet = AsEpsilon(starter.unet)
    assert agreement_with_noise(unet) > 0.9  # type: ignore[arg-type]  # it has what is asked of a UNet
    assert prediction_doubt(unet, prediction="epsilon", name="x") is None  # type: ignore[arg-type]  # likewise
    doubt = prediction_doubt(unet, prediction="v", name="x")  # type: ignore[arg-type]  # likewise
    assert doubt is not None and "--prediction epsilon" in doubt
