"""A1111's noise: each picture draws its own, so that a batch gives the same pictures as single runs."""

import math
from collections.abc import Callable, Sequence
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from clipskip.sample.brownian import BrownianPath
from clipskip.sample.philox import normals
from clipskip.spec import Render

Latent = Float[Tensor, "pictures channels height width"]
PictureLatent = Float[Tensor, "channels height width"]
StepNoise = Callable[[float, float], Latent]
"""Normal noise of size 1 for a move from one sigma to a smaller one."""
Shape = tuple[int, int, int]

LATENT_CHANNELS = 4
LATENT_PX = 8
SEEDS = 2**64
PARALLEL = 0.9995
"""The mean cosine above which two noises are mixed in a straight line."""


@final
class PictureNoise:
    """The noise of one picture, drawn in A1111's order: first the initial latent, then once per step."""

    def __init__(self, render: Render, *, index: int = 0, shape: Shape | None = None) -> None:
        varied = render.variation_strength != 0
        self.seed = (render.seed + (0 if varied else index)) % SEEDS
        """The seed of this picture: the render's plus its index, unless a variation seed is in use."""
        self.render = render
        self._variation = (render.variation_seed + index) % SEEDS
        self._shape = shape or (LATENT_CHANNELS, render.height // LATENT_PX, render.width // LATENT_PX)
        self._draw = source(render.rng, self.seed)

    def first(self) -> PictureLatent:
        """Return the initial noise. With an eta noise seed delta, the generator is then seeded anew."""
        noise = self._draw(self._shape)
        if self.render.variation_strength:
            variation = source(self.render.rng, self._variation)(self._shape)
            noise = slerp(noise, variation, strength=self.render.variation_strength)
        if self.render.ensd:
            self._draw = source(self.render.rng, (self.seed + self.render.ensd) % SEEDS)
        return noise

    def next(self) -> PictureLatent:
        """Return the next step's noise."""
        return self._draw(self._shape)

    def path(self, low: float, high: float) -> BrownianPath:
        """Return this picture's Brownian path between two sigmas, for the SDE samplers."""
        rng, shape = self.render.rng, self._shape
        return BrownianPath(low, high, seed=self.seed, draw=lambda seed: source(rng, seed)(shape))


def source(rng: str, seed: int) -> Callable[[Shape], PictureLatent]:
    """Return a function that draws from a seeded generator: torch's for CPU, CUDA's numbers for both GPU and NV."""
    if rng == "CPU":
        generator = torch.Generator().manual_seed(seed)
        return lambda shape: torch.randn(shape, generator=generator)
    counter = iter(range(2**32))
    return lambda shape: torch.from_numpy(normals(seed, next(counter), int(np.prod(shape)))).reshape(shape)


def slerp(noise: PictureLatent, other: PictureLatent, *, strength: float) -> PictureLatent:
    """Turn the noise towards another by a share of the angle between them, column by column as in A1111.

    A1111 takes norms along dimension 1, which is the height, because its picture has no batch dimension there
    (modules/rng.py). Where the two are nearly parallel it mixes in a straight line with the shares swapped, and so do
    we.
    """
    cosine = (noise / noise.norm(dim=1, keepdim=True) * (other / other.norm(dim=1, keepdim=True))).sum(1)
    if cosine.mean() > PARALLEL:
        return noise * strength + other * (1 - strength)
    angle = torch.acos(cosine)
    ours, theirs = (torch.sin(part * angle) / torch.sin(angle) for part in (1.0 - strength, strength))
    return ours.unsqueeze(1) * noise + theirs.unsqueeze(1) * other


def step_noise(noises: Sequence[PictureNoise], *, device: torch.device) -> StepNoise:
    """Return the step noise of ancestral samplers: each picture's next draw."""
    return lambda sigma, sigma_next: torch.stack([noise.next() for noise in noises]).to(device)


def paths(noises: Sequence[PictureNoise], sigmas: Sequence[float], *, device: torch.device) -> StepNoise:
    """Return the step noise of SDE samplers: each picture's Brownian path, scaled to size 1 (k-diffusion's noise
    sampler)."""
    low, high = (float(np.float32(s)) for s in (min(s for s in sigmas if s > 0), max(sigmas)))
    walks = [noise.path(low, high) for noise in noises]

    def step(sigma: float, sigma_next: float) -> Latent:
        start, end = float(np.float32(sigma)), float(np.float32(sigma_next))
        moved = torch.stack([walk.between(start, end) for walk in walks])
        return (moved / math.sqrt(abs(end - start))).to(device)

    return step
