"""Trains the starter's UNet on cached latents and cached conditioning at Clip Skip 2; resumable, one checkpoint file.

    python training/unet.py --data DIR --latents DIR --out DIR --minutes 60
    python training/unet.py --data DIR --latents DIR --out DIR --minutes 15 --device cuda --workers 1 --batch 1024 \
        --micro 1024

v-prediction (Salimans and Ho 2022, section 4), SD's betas, uniform timesteps, one caption in ten empty; scenes with two
objects are drawn twice as often as they were rendered, blurry and low-resolution ones three times. On a CPU:
bfloat16 autocast and diffusers' plain attention (on small heads twice as fast as torch's fused kernel).
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import workers
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from world import Scene, scene_of

CHANNELS, CONTEXT, HEADS = (64, 128, 192, 128), 128, 4
ALPHAS = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, dim=0).float()
EMPTY = 0.1


def new_unet() -> UNet2DConditionModel:
    """The untrained network, in SD 1.x's layout."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16, block_out_channels=CHANNELS, layers_per_block=2, cross_attention_dim=CONTEXT,
        attention_head_dim=HEADS, norm_num_groups=32,
    )  # fmt: skip
    unet.set_attn_processor(AttnProcessor())
    return unet


def v_loss(
    unet: UNet2DConditionModel, latent: Tensor, context: Tensor, *, generator: torch.Generator | None = None
) -> Tensor:
    """Mean squared error of v at random timesteps; the generator lives on the CPU."""
    t = torch.randint(0, 1000, (len(latent),), generator=generator)
    noise = torch.randn(latent.shape, generator=generator).to(latent.device)
    alphas = ALPHAS[t].to(latent.device)[:, None, None, None]
    a, s = alphas.sqrt(), (1 - alphas).sqrt()
    with torch.autocast(latent.device.type, torch.bfloat16):
        v = unet(a * latent + s * noise, t.to(latent.device), context).sample
    return F.mse_loss(v.float(), a * noise - s * latent)


class Pairs:
    """Cached latents with their captions' conditioning, read from mapped files."""

    def __init__(self, folder: Path, data: Path, split: str = "train") -> None:
        stems = [p.name.removesuffix(".latents.pt") for p in sorted(folder.glob(f"{split}-*.latents.pt"))]
        self.stems = [stem for stem in stems if (folder / f"{stem}.text.pt").exists()]
        if not self.stems:
            raise SystemExit(f"nothing encoded for {split} in {folder}; run training/latents.py first")
        images = [torch.load(folder / f"{s}.latents.pt", weights_only=True)["latents"] for s in self.stems]
        texts = [torch.load(folder / f"{s}.text.pt", weights_only=True, mmap=True) for s in self.stems]
        self.latents, self.contexts = torch.cat(images).float(), [t["contexts"] for t in texts]
        self.where = [
            (shard, row)
            for shard, stem in enumerate(self.stems)
            for row, scene in enumerate(_scenes(data / f"{stem}.npz"))
            for _ in range(_share(scene))
        ]
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


def _scenes(path: Path) -> list[Scene]:
    with np.load(path) as shard:
        return [scene_of(one) for one in json.loads(str(shard["scenes"]))]


def _share(scene: Scene) -> int:
    return 3 if scene.quality in {"blurry", "lowres"} else len(scene.items)


@dataclass(frozen=True)
class Denoising:
    """The UNet on a split's latents and captions."""

    latents: Path
    data: Path
    micro: int
    device: str

    def network(self) -> UNet2DConditionModel:
        """The UNet."""
        return new_unet()

    def feed(self) -> Callable[[UNet2DConditionModel, torch.Generator, float], Tensor]:
        """The loss of random latents with their captions."""
        pairs = Pairs(self.latents, self.data)

        def part(unet: UNet2DConditionModel, generator: torch.Generator, _: float) -> Tensor:
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
    parser.add_argument("--data", type=Path, required=True, help="the rendered shards, for what each scene holds")
    workers.add_options(parser, batch=64, micro=16, lr=0.02, adam_lr=8e-4)
    options = parser.parse_args()
    workers.train(
        Denoising(options.latents, options.data, options.micro, options.device), options.out / "unet.pt", options
    )


if __name__ == "__main__":
    main()
