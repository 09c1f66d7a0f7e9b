"""A model that is asked about noise instead of for pictures: what it predicts, by text, layer and noise level."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from clipskip.encode import TextReader, TextVectors, condition_all, one_text
from clipskip.networks import UNet
from clipskip.sample import NoiseTable, trained_levels
from clipskip.spec import ClipSkip, Render
from clipskip.sweep import Model

Latent = Float[Tensor, "channels height width"]
Rows = Float[Tensor, "rows channels height width"]
OneOrRows = Float[Tensor, "#rows channels height width"]
"""A latent for each row, or one that stands beside all of them."""

CELLS = 2 * 64 * 64
"""Latent cells that the UNet takes at once on a CPU: more are no faster."""
GPU_CELLS = 32 * 64 * 64


@final
class RowCounter:
    """Counts UNet evaluations as they are done, and tells whoever follows."""

    def __init__(self, most: int, tell: Callable[[int, int], None]) -> None:
        self.rows = 0
        self._most, self._tell = most, tell

    def add(self, rows: int) -> None:
        """Count evaluations that are done."""
        self.rows += rows
        self._tell(self.rows, self._most)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextRows:
    """Texts of one length, or one text at several Clip Skips, as the UNet is given them."""

    tokens: Float[Tensor, "rows tokens width"]
    added: Float[Tensor, "rows added"] | None = None
    """What stands beside each text, where the family has it."""

    @classmethod
    def of(cls, vectors: Sequence[TextVectors]) -> "TextRows":
        """Return a row for each text."""
        beside = [text.added for text in vectors if text.added is not None]
        return cls(tokens=torch.stack([text.tokens for text in vectors]), added=torch.stack(beside) if beside else None)

    @classmethod
    def joined(cls, parts: Sequence["TextRows"]) -> "TextRows":
        """Return the rows of all parts together."""
        beside = [part.added for part in parts if part.added is not None]
        return cls(tokens=torch.cat([part.tokens for part in parts]), added=torch.cat(beside) if beside else None)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.tokens)


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
    render: Render
    """Whose sizes, emphasis, noise levels and negative prompt count."""
    prediction: str
    tell: Callable[[int], None] = lambda rows: None
    """Is told of every row that the UNet was asked for."""

    @classmethod
    def of(
        cls, model: Model, reader: TextReader, render: Render, tell: Callable[[int], None] = lambda rows: None
    ) -> "Probe":
        """Build a probe of a model with the LoRAs that are merged now; `reader` comes from `Model.with_loras`."""
        prediction = render.prediction or model.facts.prediction
        return cls(unet=model.unet, reader=reader, render=render, prediction=prediction, tell=tell)

    @property
    def depth(self) -> int:
        """The deepest Clip Skip that all text encoders have."""
        return self.reader.depth

    @property
    def levels(self) -> NoiseTable:
        """The noise levels that the model was trained at."""
        return trained_levels(self.render)

    def layers(self, text: str, skips: Sequence[int]) -> TextRows:
        """Return a prompt at each Clip Skip, as `read` gives it."""
        return self.read({"text": text}, skips)["text"]

    def read(self, prompts: Mapping[str, str], skips: Sequence[int]) -> dict[str, TextRows]:
        """Return each prompt at each Clip Skip, from one pass of each encoder; PromptError for one that only a sampler can combine."""
        for text in prompts.values():
            one_text(self.reader, text)
        made = iter(
            condition_all(self.reader, [render for text in prompts.values() for render in self._at(text, skips)])
        )
        return {name: TextRows.of([next(made).positive[0].schedule[0][1] for _ in skips]) for name in prompts}

    def negative(self, skips: Sequence[int]) -> TextRows:
        """Return the negative prompt at each Clip Skip; an empty one of SDXL is zeros, as a picture is drawn with it."""
        one_text(self.reader, self.render.negative_prompt, negative=True)
        made = condition_all(self.reader, self._at("", skips))
        return TextRows.of([conditioning.negative[0][1] for conditioning in made])

    def _at(self, prompt: str, skips: Sequence[int]) -> list[Render]:
        plain = replace(self.render, prompt=prompt, negative_clip_skip=None, phrase_skips=())
        return [replace(plain, clip_skip=ClipSkip(skip)) for skip in skips]

    def add_noise(self, latent: Latent, timestep: float, *, seed: int) -> Noisy:
        """Return the latent at a noise level (0 to 999), with noise drawn on the CPU, and what is to be predicted of it."""
        sigma = self.levels.sigma(timestep)
        kept, share = 1 / math.hypot(1, sigma), sigma / math.hypot(1, sigma)
        noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(seed)).to(latent)
        target = kept * noise - share * latent if self.prediction == "v" else noise
        return Noisy(latent=kept * latent + share * noise, timestep=timestep, target=target)

    def predict(self, latent: Latent, timestep: float, texts: TextRows) -> Rows:
        """Return the UNet's prediction, in float32 on the CPU, of one noisy latent with each of some texts."""
        return self.predict_each(latent.expand(len(texts), *latent.shape), timestep, texts)

    def clean(self, latents: OneOrRows, timestep: float, predicted: Rows) -> Rows:
        """Return the clean latents that predictions of noisy ones stand for (Ho et al. 2020, equation 15; of v, Salimans and Ho 2022)."""
        sigma = self.levels.sigma(timestep)
        kept, share = 1 / math.hypot(1, sigma), sigma / math.hypot(1, sigma)
        if self.prediction == "v":
            return kept * latents - share * predicted
        return (latents - share * predicted) / kept

    @torch.no_grad()
    def predict_each(self, latents: Rows, timestep: float, texts: TextRows) -> Rows:
        """Return the same of as many noisy latents as texts."""
        cells = CELLS if self.unet.device.type == "cpu" else GPU_CELLS
        at_once = max(1, cells // (latents.shape[-1] * latents.shape[-2]))
        time = torch.tensor(timestep, device=self.unet.device, dtype=torch.float32)
        asked = (latents, texts.tokens, texts.added)
        x, tokens, added = (None if part is None else part.to(self.unet.device, self.unet.dtype) for part in asked)
        assert x is not None and tokens is not None
        guesses = []
        for start in range(0, len(x), at_once):
            some = slice(start, start + at_once)
            beside = None if added is None else added[some]
            guesses.append(self.unet(x[some], time, tokens[some], added=beside).float().cpu())
            self.tell(len(x[some]))
        return torch.cat(guesses)
