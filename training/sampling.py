"""Draws many pictures at once from a single-file model: Euler a, guidance, any Clip Skip, LoRAs merged meanwhile."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from common import autocast
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from transformers import CLIPTokenizer

from clipskip.image.vae import decode
from clipskip.networks import TextEncoder, build_text_encoder, build_vae
from clipskip.weights.checkpoint import load_checkpoint
from clipskip.weights.lora import load_lora, merged

ALPHAS = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, dim=0)
SIGMAS = ((1 - ALPHAS) / ALPHAS).sqrt().float()


@dataclass(frozen=True)
class Model:
    """The three networks and the tokenizer."""

    text: TextEncoder
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    tokenizer: CLIPTokenizer
    side: int = 16

    def conditioning(self, texts: Sequence[str], skip: int) -> Tensor:
        """[n, 77, width] at a Clip Skip, through the final norm."""
        ids = self.tokenizer(list(texts), padding="max_length", max_length=77, truncation=True, return_tensors="pt")[
            "input_ids"
        ]
        with torch.inference_mode():
            return self.text.final_layer_norm(self.text.layers(ids)[-skip])

    def with_loras(self, files: Sequence[Path], strength: float = 1.0) -> AbstractContextManager[None]:
        """The model with these LoRAs in its weights for as long as a `with` lasts."""
        loras = [(load_lora(file), strength, strength) for file in files]
        return merged({"text_encoder": self.text, "unet": self.unet}, loras)

    def latents(
        self,
        context: Tensor,
        empty: Tensor,
        seeds: Sequence[int],
        *,
        steps: int,
        scale: float,
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        """Euler ancestral (Karras et al. 2022, with k-diffusion's noise): latents [n, 4, height / 8, width / 8]."""
        times = torch.linspace(999, 0, steps)
        low = times.floor().long()
        share = times - low
        sigmas = torch.exp((1 - share) * SIGMAS[low].log() + share * SIGMAS[(low + 1).clamp(max=999)].log()).tolist()
        draws = [torch.Generator().manual_seed(seed) for seed in seeds]
        shape = (4, size[1] // 8, size[0] // 8) if size else (4, self.side, self.side)
        x = torch.stack([torch.randn(shape, generator=draw) for draw in draws]) * sigmas[0]
        both = torch.cat([empty, context])
        for time, sigma, after in zip(times, sigmas, [*sigmas[1:], 0.0], strict=True):
            inner = (x / (sigma**2 + 1) ** 0.5).repeat(2, 1, 1, 1)
            with torch.inference_mode(), autocast("cpu"):
                v = self.unet(inner, time.expand(len(inner)), both).sample.float()
            clean = x.repeat(2, 1, 1, 1) / (sigma**2 + 1) - v * sigma / (sigma**2 + 1) ** 0.5
            without, given = clean.chunk(2)
            wanted = without + scale * (given - without)
            up = min(after, (after**2 * (sigma**2 - after**2) / sigma**2) ** 0.5)
            x = x + (x - wanted) / sigma * ((after**2 - up**2) ** 0.5 - sigma)
            if after:
                x = x + up * torch.stack([torch.randn(shape, generator=draw) for draw in draws])
        return x

    def pictures(
        self,
        prompts: Sequence[str],
        negative: str,
        seeds: Sequence[int],
        *,
        skip: int = 2,
        steps: int = 30,
        scale: float = 7.0,
        size: tuple[int, int] | None = None,
    ) -> np.ndarray:
        """uint8 [n, height, width, 3], drawn 32 at a time; `size` is width and height in px, by default the native one."""
        found, empty = [], self.conditioning([negative], skip)
        for start in range(0, len(prompts), 32):
            part = slice(start, start + 32)
            context = self.conditioning(prompts[part], skip)
            x = self.latents(
                context, empty.expand(len(context), -1, -1), seeds[part], steps=steps, scale=scale, size=size
            )
            found.append(decode(self.vae, x))
        return np.concatenate(found)


def open_model(path: Path, tokenizer: CLIPTokenizer) -> Model:
    """The model in a single file."""
    loaded = load_checkpoint(path, dtype=torch.float32)
    unet = UNet2DConditionModel(**loaded.facts.unet.config()).requires_grad_(False).eval()
    unet.load_state_dict(loaded.unet)
    unet.set_attn_processor(AttnProcessor())
    text = build_text_encoder(loaded.text[0], loaded.facts.encoders[0].shape)
    return Model(text, unet, build_vae(loaded.vae, loaded.facts.vae), tokenizer, loaded.facts.native_px // 8)
