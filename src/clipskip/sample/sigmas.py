"""The noise levels that a model was trained at, and the way between a sigma and its timestep."""

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cache

import numpy as np

TRAINED_STEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012
NEARLY_NOTHING = 4.8973451890853435e-08
"""The last cumulated alpha of a zero terminal signal-to-noise ratio, which as 0 would be an infinite sigma."""
LCM_STRIDE = 20
"""An LCM was distilled on every 20th timestep: 19, 39, ... 999 (Luo et al. 2023, 50 steps)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseTable:
    """Sigma at each timestep that the model knows, rising.

    Sigma is sqrt((1 - a) / a) with a the cumulated alpha: the noise's size beside a picture of size 1
    (Karras et al. 2022, "variance exploding"). Plain floats: samplers need them one at a time, on the CPU.
    """

    sigmas: tuple[float, ...]
    timesteps: tuple[int, ...]
    quantized: bool = False
    """The model is only ever asked at its own timesteps (LCM)."""
    sdxl: bool = False
    """Whose noise levels Align Your Steps takes."""

    @property
    def low(self) -> float:
        """The smallest sigma: 0.0292 for Stable Diffusion."""
        return self.sigmas[0]

    @property
    def high(self) -> float:
        """The largest sigma: 14.6146 for Stable Diffusion."""
        return self.sigmas[-1]

    def timestep(self, sigma: float) -> float:
        """The timestep of a sigma, between two of the model's by log sigma, as k-diffusion does; not rounded."""
        last = len(self.sigmas) - 1
        below = min(max(bisect_right(self.sigmas, sigma) - 1, 0), last - 1)
        low, high = math.log(self.sigmas[below]), math.log(self.sigmas[below + 1])
        part = min(max((math.log(sigma) - low) / (high - low), 0.0), 1.0)
        if self.quantized:
            return float(self.timesteps[below + (part > 0.5)])
        return self.timesteps[below] + part * (self.timesteps[below + 1] - self.timesteps[below])

    def gone(self, sigma: float) -> float:
        """The share of the levels that lie behind one, as A1111 counts it: by the nearest level of the model's."""
        nearest = min(range(len(self.sigmas)), key=lambda place: abs(self.sigmas[place] - sigma))
        return (TRAINED_STEPS - 1 - self.timesteps[nearest]) / TRAINED_STEPS

    def sigma(self, timestep: float) -> float:
        """The sigma of a timestep, by log sigma between two of the model's."""
        return float(np.exp(np.interp(timestep, self.timesteps, np.log(self.sigmas))))


@cache
def stable_diffusion(*, zero_terminal_snr: bool = False, sdxl: bool = False) -> NoiseTable:
    """The 1000 noise levels of SD 1.x, 2.x and SDXL: betas linear in their square root ("scaled linear").

    With a zero terminal signal-to-noise ratio the roots of the cumulated alphas are stretched to end at nearly nothing
    (Lin et al. 2024, algorithm 1, with A1111's last value).
    """
    betas = np.linspace(BETA_START**0.5, BETA_END**0.5, TRAINED_STEPS) ** 2
    kept = np.cumprod(1 - betas)
    if zero_terminal_snr:
        root = np.sqrt(kept)
        kept = ((root - root[-1]) * (root[0] / (root[0] - root[-1]))) ** 2
        kept[-1] = NEARLY_NOTHING
    sigmas = np.sqrt((1 - kept) / kept)
    return NoiseTable(sigmas=tuple(sigmas.tolist()), timesteps=tuple(range(TRAINED_STEPS)), sdxl=sdxl)


@cache
def latent_consistency(table: NoiseTable) -> NoiseTable:
    """The 50 of a model's noise levels that LCM samples at."""
    every = slice(LCM_STRIDE - 1, None, LCM_STRIDE)
    return NoiseTable(sigmas=table.sigmas[every], timesteps=table.timesteps[every], quantized=True, sdxl=table.sdxl)
