"""Trains the starter's UNet on cached latents and cached conditioning at Clip Skip 2; resumable, one checkpoint file.

    python training/unet.py --latents DIR --out DIR --minutes 60 [--start FOLDER/unet]
    python training/unet.py --latents DIR --out DIR --minutes 15 --device cuda --workers 1 --batch 1024 --micro 1024

v-prediction (Salimans and Ho 2022, section 4), SD's betas, a quarter of the timesteps uniform and the rest logit-normal
(Esser et al. 2024, section 3.1) about 570, where objects take shape; one caption in ten empty. Weights are cast to
bfloat16 once a step, blocks are fused (fused.py). Without bfloat16, attention is diffusers' plain one (on small heads twice
as fast as torch's fused kernel).
"""

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import workers
from common import autocast
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from fused import fuse
from safetensors.torch import load_file
from torch import Tensor
from world import BASE

CHANNELS, CONTEXT, HEADS = (64, 128, 192, 128), 128, 4
ALPHAS = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, dim=0).float()
EMPTY = 0.1
UNIFORM, CENTRE = 0.25, 0.3


def new_unet(start: Path | None = None) -> UNet2DConditionModel:
    """The network in SD 1.x's layout, untrained or with the weights of a folder (export.py --read)."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16, block_out_channels=CHANNELS, layers_per_block=2, cross_attention_dim=CONTEXT,
        attention_head_dim=HEADS, norm_num_groups=32,
    )  # fmt: skip
    unet.set_attn_processor(AttnProcessor())
    if start:
        unet.load_state_dict(load_file(start / "diffusion_pytorch_model.safetensors"))
    return unet


def v_loss(
    unet: UNet2DConditionModel, latent: Tensor, context: Tensor, *, generator: torch.Generator | None = None
) -> Tensor:
    """Mean squared error of v at random timesteps; the generator lives on the CPU."""
    t = timesteps(len(latent), generator)
    noise = torch.randn(latent.shape, generator=generator).to(latent.device)
    alphas = ALPHAS[t].to(latent.device)[:, None, None, None]
    a, s = alphas.sqrt(), (1 - alphas).sqrt()
    noisy = (a * latent + s * noise).to(unet.dtype, memory_format=torch.channels_last)
    with autocast(latent.device) if unet.dtype == torch.float32 else nullcontext():
        v = unet(noisy, t.to(latent.device), context.to(unet.dtype)).sample
    return F.mse_loss(v.float(), a * noise - s * latent)


def timesteps(count: int, generator: torch.Generator | None = None) -> Tensor:
    """Random timesteps, more of them in the middle."""
    draws = torch.rand(2, count, generator=generator)
    middle = torch.sigmoid(CENTRE + torch.randn(count, generator=generator))
    return (1000 * torch.where(draws[0] < UNIFORM, draws[1], middle)).long().clamp(max=999)


class Pairs:
    """Cached latents with their captions' conditioning, read from mapped files."""

    def __init__(self, folder: Path, split: str = "train") -> None:
        stems = [p.name.removesuffix(".latents.pt") for p in sorted(folder.glob(f"{split}-*.latents.pt"))]
        self.stems = [stem for stem in stems if (folder / f"{stem}.text.pt").exists()]
        if not self.stems:
            raise SystemExit(f"nothing encoded for {split} in {folder}; run training/latents.py first")
        images = [torch.load(folder / f"{s}.latents.pt", weights_only=True)["latents"] for s in self.stems]
        texts = [torch.load(folder / f"{s}.text.pt", weights_only=True, mmap=True) for s in self.stems]
        self.latents, self.contexts = torch.cat(images).float(), [t["contexts"] for t in texts]
        self.where = [(shard, row) for shard, part in enumerate(images) for row in range(len(part))]
        self.first = [0, *np.cumsum([len(part) for part in images]).tolist()]
        self.empty: Tensor = texts[0]["empty"].float()

    def batch(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Random latents and, for each, one of its captions or (one time in ten) the empty prompt."""
        context, latents = [], []
        for i in torch.randint(len(self.where), (count,), generator=generator).tolist():
            shard, row = self.where[i]
            latents.append(self.latents[self.first[shard] + row])
            said = self.contexts[shard][row]
            which = int(torch.randint(len(said), (1,), generator=generator))
            dropped = float(torch.rand(1, generator=generator)) < EMPTY
            context.append(self.empty if dropped else said[which].float())
        return torch.stack(latents), torch.stack(context)


@dataclass(frozen=True)
class Denoising:
    """The UNet on a split's latents and captions."""

    latents: Path
    micro: int
    device: str
    start: Path | None

    def network(self) -> UNet2DConditionModel:
        """The UNet."""
        return new_unet(self.start)

    def tune(self, network: UNet2DConditionModel) -> None:
        """Fused kernels where the CPU multiplies bfloat16."""
        fuse(network)

    def feed(self) -> Callable[[UNet2DConditionModel, torch.Generator, float], Tensor]:
        """The loss of random latents with their captions, of one shape in a part."""
        shaped = [Pairs(self.latents, split) for split in BASE if any(self.latents.glob(f"{split}-*.text.pt"))]
        sizes = torch.tensor([float(len(pairs.where)) for pairs in shaped])

        def part(unet: UNet2DConditionModel, generator: torch.Generator, _: float) -> Tensor:
            pairs = shaped[int(torch.multinomial(sizes, 1, generator=generator))]
            latent, context = (x.to(self.device) for x in pairs.batch(self.micro, generator))
            return v_loss(unet, latent, context, generator=generator)

        return part

    def report(self, _: UNet2DConditionModel) -> str:
        """Nothing but the loss."""
        return ""


def main() -> None:
    """Trains for the given minutes, in all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latents", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="a folder with the weights to begin with")
    workers.add_options(parser, batch=96, micro=48, lr=0.02, adam_lr=8e-4)
    options = parser.parse_args()
    task = Denoising(options.latents, options.micro, options.device, options.start)
    workers.train(task, options.out / "unet.pt", options)


if __name__ == "__main__":
    main()
