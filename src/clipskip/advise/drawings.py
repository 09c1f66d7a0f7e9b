"""The trained Clip Skip without pictures: where the model's own predictions agree best with each other.

A denoiser's guess of the clean picture is a mean, so it cannot drift: the mean of the guesses one noise level lower is
the guess itself (Daras et al. 2023, "Consistent diffusion models", equation 4; de Bortoli et al. call it a martingale).
Training teaches that only for the texts that training showed, as they come from one Clip Skip; texts from another layer
leave the network to improvise, and its guesses drift. The drift's square is estimated without bias as the product of
two guesses from independent noise.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from clipskip.advise.probe import Latent, Probe, TextRows
from clipskip.advise.trained import Trained, contest
from clipskip.encode import condition
from clipskip.sample import Picture, sample
from clipskip.spec import ClipSkip, Render

CANDIDATES = (1, 2, 3, 4)
LEVELS = (200.0, 400.0, 600.0)
"""Noise levels at which guesses are compared with those at three quarters of the level."""
LOWER = 0.75
STEPS = 12
"""Of a drawing: without guidance, so one UNet evaluation each."""
ROWS = STEPS + 3 * len(CANDIDATES) * len(LEVELS)
"""UNet evaluations for one drawing, at most."""
DRAWINGS = 48
DRAWINGS_FLAW = 0.5
"""It tells a long training, and nothing of a short one after it: right on two of five models (docs/advise.md)."""


def by_drawings(probe: Probe, renders: Sequence[Render], *, skips: Sequence[int] = CANDIDATES) -> Iterator[Trained]:
    """The test on pictures that the model draws of some prompts, at the candidates by turns."""
    known = [skip for skip in skips if skip <= probe.depth]

    def ask(number: int, left: Sequence[int]) -> tuple[NDArray[np.float64], int]:
        render = renders[number % len(renders)]
        latent = drawing(probe, render, skip=known[number % len(known)])
        probe.tell(STEPS)
        texts = probe.layers(render.prompt, left)
        drifts = [drift(probe, latent, level, texts, seed=render.seed + 7919 * n) for n, level in enumerate(LEVELS)]
        return np.mean(drifts, axis=0), STEPS + 3 * len(left) * len(LEVELS)

    return contest(ask, way="its own drawings", pictures=len(renders), skips=known, flaw=DRAWINGS_FLAW, rounds=1)


def drawing(probe: Probe, render: Render, *, skip: int) -> Latent:
    """A picture's latent, without guidance."""
    plain = replace(
        render, clip_skip=ClipSkip(skip), negative_clip_skip=None, cfg_scale=1.0, steps=STEPS, sampler="Euler a",
        scheduler="Automatic",
    )  # fmt: skip
    picture = Picture(render=plain, conditioning=condition(probe.reader, plain))
    latent = None
    for step in sample(probe.unet, [picture], prediction=probe.prediction):
        latent = step.latent[0]
    assert latent is not None
    return latent.cpu()


def drift(probe: Probe, latent: Latent, level: float, texts: TextRows, *, seed: int) -> NDArray[np.float64]:
    """[skips]: the square of each text's drift from a noise level to a lower one, as a share of the guesses' spread."""
    table = probe.levels
    high, low = table.sigma(level), table.sigma(LOWER * level)
    generator = torch.Generator().manual_seed(seed)
    noises = [torch.randn(latent.shape, generator=generator) for _ in range(3)]
    x = latent + high * noises[0]
    first = _guesses(probe, x.expand(len(texts), *x.shape), high, texts)
    share = (low / high) ** 2
    spread = low * math.sqrt(1 - share)
    moved = [_guesses(probe, first + share * (x - first) + spread * noise, low, texts) - first for noise in noises[1:]]
    squares = (moved[0] * moved[1]).mean(dim=(1, 2, 3)).double().numpy()
    scale = float((moved[0] - moved[1]).square().mean()) / 2
    return np.asarray(squares / max(scale, 1e-12))


def _guesses(
    probe: Probe,
    x: Float[Tensor, "skips channels height width"],
    sigma: float,
    texts: TextRows,
) -> Float[Tensor, "skips channels height width"]:
    """The clean picture that each text makes of its latent."""
    scaled, timestep = x / math.hypot(1, sigma), probe.levels.timestep(sigma)
    return probe.clean(scaled, timestep, probe.predict_each(scaled, timestep, texts))
