"""A model that is asked about noise instead of for pictures: what it predicts, by text, layer and noise level."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clipskip.encode import TextReader, encode_layers
from clipskip.networks import UNet
from clipskip.sample import stable_diffusion
from clipskip.spec import ClipSkip
from clipskip.sweep import Model

Latent = Float[Tensor, "channels height width"]
Rows = Float[Tensor, "rows channels height width"]
Texts = Float[Tensor, "rows tokens width"]

CELLS = 2 * 64 * 64
"""Latent cells that the UNet takes at once on a CPU: more are no faster."""
GPU_CELLS = 32 * 64 * 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Noisy:
    """A latent with noise on it, as the UNet is given it."""

    latent: Latent
    """a x + s noise, a^2 + s^2 = 1."""
    timestep: float
    target: Latent
    """What a perfect model predicts of it: the noise, or v."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Probe:
    """An open model and how it reads texts at the moment, LoRAs included."""

    unet: UNet
    reader: TextReader
    prediction: str
    tell: Callable[[int], None] = lambda rows: None
    """Is told of every row that the UNet was asked for."""

    @classmethod
    def of(cls, model: Model, reader: TextReader, tell: Callable[[int], None] = lambda rows: None) -> "Probe":
        """For a model with the LoRAs that are merged now; `reader` is what `Model.with_loras` gives."""
        return cls(unet=model.unet, reader=reader, prediction=model.facts.prediction, tell=tell)

    @property
    def depth(self) -> int:
        """Layers of the text encoder."""
        return self.reader.depth

    def layers(self, text: str, skips: Sequence[int]) -> Float[Tensor, "skips tokens width"]:
        """A text at each Clip Skip; PromptError for one that only a sampler can combine."""
        wanted = [ClipSkip(skip) for skip in skips]
        found = encode_layers(self.reader, text, wanted)
        return torch.stack([found[skip] for skip in wanted])

    def add_noise(self, latent: Latent, timestep: float, *, seed: int) -> Noisy:
        """The latent at a noise level (0 to 999), with noise drawn on the CPU, and what is to be predicted of it."""
        sigma = stable_diffusion().sigma(timestep)
        kept, share = 1 / math.hypot(1, sigma), sigma / math.hypot(1, sigma)
        noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(seed)).to(latent)
        target = kept * noise - share * latent if self.prediction == "v" else noise
        return Noisy(latent=kept * latent + share * noise, timestep=timestep, target=target)

    def predict(self, latent: Latent, timestep: float, texts: Texts) -> Rows:
        """The UNet's prediction, in float32 on the CPU, of one noisy latent with each of some texts."""
        return self.predict_each(latent.expand(len(texts), *latent.shape), timestep, texts)

    def clean(self, latents: Rows, timestep: float, predicted: Rows) -> Rows:
        """The clean latents that predictions of noisy ones stand for (Ho et al. 2020, equation 15; of v, Salimans and Ho 2022)."""
        sigma = stable_diffusion().sigma(timestep)
        kept, share = 1 / math.hypot(1, sigma), sigma / math.hypot(1, sigma)
        if self.prediction == "v":
            return kept * latents - share * predicted
        return (latents - share * predicted) / kept

    @torch.no_grad()
    def predict_each(self, latents: Rows, timestep: float, texts: Texts) -> Rows:
        """The same of as many noisy latents as texts."""
        cells = CELLS if self.unet.device.type == "cpu" else GPU_CELLS
        at_once = max(1, cells // (latents.shape[-1] * latents.shape[-2]))
        time = torch.tensor(timestep, device=self.unet.device, dtype=torch.float32)
        rows = [part.to(self.unet.device, self.unet.dtype) for part in (latents, texts)]
        found = []
        for x, text in zip(*(torch.split(part, at_once) for part in rows), strict=True):
            found.append(self.unet(x, time, text).float().cpu())
            self.tell(len(x))
        return torch.cat(found)
