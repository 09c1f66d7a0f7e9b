"""Drift against cases that can be worked out: pictures of independent normal numbers, whose best guess is known."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from clipskip.advise.trained import drift
from clipskip.measures.probe import Probe, TextRows
from clipskip.networks import UNet
from clipskip.sample import stable_diffusion
from clipskip.spec import Request
from clipskip.sweep import Model, resolve
from clipskip.weights import Library


@dataclass
class Known:
    """A UNet that predicts the noise of data N(0, 1): the guess is x / (1 + sigma^2), times a factor by text."""

    factor: Callable[[Tensor], Tensor]
    device = torch.device("cpu")
    dtype = torch.float32

    def __call__(self, x: Tensor, time: Tensor, text: Tensor, added: None = None) -> Tensor:
        sigma = stable_diffusion().sigma(float(time))
        whole = x * (1 + sigma**2) ** 0.5
        guess = whole / (1 + sigma**2) * self.factor(text)[:, None, None, None]
        return (whole - guess) / sigma


def probe_of(model: Model, factor: Callable[[Tensor], Tensor]) -> Probe:
    render, _ = resolve(Request(prompt="", seed=0), model.facts, Library(()))
    return replace(Probe.of(model, model.reader, render), unet=cast(UNet, Known(factor)), prediction="epsilon")


def test_the_best_guess_does_not_drift(model: Model) -> None:
    latent = torch.randn(4, 64, 64, generator=torch.Generator().manual_seed(0))
    probe = probe_of(model, lambda text: torch.ones(len(text)))
    found = drift(probe, latent, 400.0, TextRows(tokens=torch.zeros(2, 77, 8)), seed=1)
    # a product of independent noises over 16384 numbers: its error is 1 / 128 of the spread
    assert np.abs(found).max() < 0.03


def test_a_guess_that_is_wrong_by_a_factor_drifts_as_far_as_that_makes_it(model: Model) -> None:
    latent = torch.randn(4, 64, 64, generator=torch.Generator().manual_seed(0))
    wrong = 0.6
    probe = probe_of(model, lambda text: torch.tensor([1.0, wrong]).expand(len(text)))
    found = drift(probe, latent, 400.0, TextRows(tokens=torch.zeros(2, 77, 8)), seed=1)
    table = stable_diffusion()
    high, low = table.sigma(400.0), table.sigma(300.0)
    share = (low / high) ** 2
    # E[x' | x] = first + share (x - first); the second guess is its share of it, wrong by the factor again
    x = 1 + high**2  # the mean square of the latent with noise
    first = wrong / (1 + high**2)
    bias = wrong * (first + share * (1 - first)) / (1 + low**2) - first
    spread = [(one / (1 + low**2)) ** 2 * low**2 * (1 - share) for one in (1.0, wrong)]
    assert found[1] - found[0] == pytest.approx(bias**2 * x / np.mean(spread), rel=0.1, abs=0.03)
