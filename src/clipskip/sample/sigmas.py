"""The noise levels that a model was trained at, and the conversion between sigmas and timesteps."""

import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

TRAINED_STEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012
NEARLY_NOTHING = 4.8973451890853435e-08
"""The last cumulated alpha under a zero terminal signal-to-noise ratio; 0 would be an infinite sigma."""
LCM_STRIDE = 20
"""An LCM was distilled on every 20th timestep: 19, 39, ... 999 (Luo et al. 2023, 50 steps)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseTable:
    """The sigma of each timestep that the model knows, rising.

    Sigma is sqrt((1 - a) / a) with a the cumulated alpha: the size of the noise relative to a picture of size 1 (Karras
    et al. 2022, "variance exploding"). Sigmas are Python floats, because samplers need them one at a time on the CPU.
    """

    sigmas: tuple[float, ...]
    timesteps: tuple[int, ...]
    quantized: bool = False
    """Whether the model is only ever asked at its own timesteps (LCM)."""
    sdxl: bool = False
    """Whether Align Your Steps uses SDXL's noise levels."""
    comfyui: bool = False
    """Whether a model of these levels is sampled as ComfyUI samples it: first noise, timesteps, some schedules."""

    @property
    def low(self) -> float:
        """The smallest sigma: 0.0292 for Stable Diffusion."""
        return self.sigmas[0]

    @property
    def high(self) -> float:
        """The largest sigma: 14.6146 for Stable Diffusion."""
        return self.sigmas[-1]

    def timestep(self, sigma: float) -> float:
        """Return the timestep of a sigma, interpolated in log sigma as in k-diffusion; not rounded."""
        last = len(self.sigmas) - 1
        below = min(max(bisect_right(self.sigmas, sigma) - 1, 0), last - 1)
        low, high = math.log(self.sigmas[below]), math.log(self.sigmas[below + 1])
        part = min(max((math.log(sigma) - low) / (high - low), 0.0), 1.0)
        if self.quantized or self.comfyui:  # comfy/model_sampling.py timestep
            return float(self.timesteps[below + (part > 0.5)])
        return self.timesteps[below] + part * (self.timesteps[below + 1] - self.timesteps[below])

    def gone(self, sigma: float) -> float:
        """Return the share of the levels that lie behind a sigma, counted as in A1111 by the model's nearest level."""
        nearest = min(range(len(self.sigmas)), key=lambda place: abs(self.sigmas[place] - sigma))
        return (TRAINED_STEPS - 1 - self.timesteps[nearest]) / TRAINED_STEPS

    def sigma(self, timestep: float) -> float:
        """Return the sigma of a timestep, interpolated in log sigma."""
        return float(np.exp(np.interp(timestep, self.timesteps, np.log(self.sigmas))))


@cache
def stable_diffusion(*, zero_terminal_snr: bool = False, sdxl: bool = False) -> NoiseTable:
    """Return the 1000 noise levels of SD 1.x, 2.x and SDXL: betas linear in their square root ("scaled linear").

    With a zero terminal signal-to-noise ratio the roots of the cumulated alphas are rescaled to end at nearly 0 (Lin et
    al. 2024, algorithm 1, with A1111's last value).
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
    """Return the 50 of a model's noise levels at which LCM samples."""
    every = slice(LCM_STRIDE - 1, None, LCM_STRIDE)
    return replace(table, sigmas=table.sigmas[every], timesteps=table.timesteps[every], quantized=True)
