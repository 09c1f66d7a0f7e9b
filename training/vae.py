"""Trains the starter's VAE (f8, 4 latent channels) on rendered scenes; resumable, one checkpoint file.

    python training/vae.py --data DIR --out DIR --minutes 40
    python training/vae.py --data DIR --out DIR --minutes 40 --decoder-only DIR/latents --start FOLDER/vae
    python training/vae.py --data DIR --out DIR --minutes 5 --device cuda --workers 1 --batch 256 --micro 256

Loss: L1 + 4 MSE + 0.5 L1 of pixel differences (edges) + L1 of the means of 4 px squares (colours) + 2e-4 KL. Crops of
64 px for the first 70% of the time (on a GPU never), whole pictures after; a part holds as many pixels either way.
`--decoder-only` goes on with the decoder alone, from the latents that latents.py has cached, which stay as they are: of all
splits, since a VAE is there for every picture and knows no words. `--start` begins with the weights of an earlier training,
a checkpoint or a diffusers folder.
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
from common import autocast, load_images
from diffusers import AutoencoderKL
from torch import Tensor

CHANNELS = (32, 64, 96, 96)
GROUPS = 8
CROP, CROPS_UNTIL = 64, 0.7


def new_vae() -> AutoencoderKL:
    """The untrained network."""
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=CHANNELS,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=GROUPS,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )


def trained_vae(path: Path, decoder: Path | None = None) -> AutoencoderKL:
    """The averaged network of a checkpoint or a folder, with another checkpoint's decoder where one is given."""
    vae = AutoencoderKL.from_pretrained(path).float() if path.is_dir() else workers.weights(path, new_vae())
    return workers.weights(decoder, freeze_encoder(vae)) if decoder else vae


def freeze_encoder(vae: AutoencoderKL) -> AutoencoderKL:
    """Leaves only the decoder to be trained."""
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    return vae


def edges(x: Tensor, y: Tensor) -> Tensor:
    """L1 between neighbouring-pixel differences."""
    return (x.diff(dim=2) - y.diff(dim=2)).abs().mean() + (x.diff(dim=3) - y.diff(dim=3)).abs().mean()


def loss_of(x: Tensor, y: Tensor) -> Tensor:
    """How far the pictures y are from x."""
    colours = (F.avg_pool2d(x, 4) - F.avg_pool2d(y, 4)).abs().mean()
    return (y - x).abs().mean() + 4 * (y - x).square().mean() + 0.5 * edges(x, y) + colours


def to_floats(images: np.ndarray) -> Tensor:
    """uint8 [n, height, width, 3] to float [n, 3, height, width] in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def batch(images: np.ndarray, generator: torch.Generator, *, crop: int, count: int) -> Tensor:
    """Random crops as floats."""
    rows = torch.randint(len(images), (count,), generator=generator).tolist()
    spots = torch.randint(128 - crop + 1, (count, 2), generator=generator).tolist()
    found = [images[i, y : y + crop, x : x + crop] for i, (y, x) in zip(rows, spots, strict=True)]
    return to_floats(np.stack(found))


@torch.no_grad()
def psnr(vae: AutoencoderKL, images: np.ndarray) -> float:
    """Mean PSNR in dB of whole pictures through the VAE (8-bit range)."""
    parts = [to_floats(part).to(vae.device) for part in np.array_split(images, max(1, len(images) // 16))]
    found = [(part, vae.decode(vae.encode(part).latent_dist.mode()).sample.clamp(-1, 1)) for part in parts]
    errors = torch.cat([(x - y).square().mean(dim=(1, 2, 3)) for x, y in found])
    return float((10 * torch.log10(4 / errors)).mean())


@dataclass(frozen=True)
class Whole:
    """Encoder and decoder, on crops and then on whole pictures."""

    data: Path
    micro: int
    device: str
    start: Path | None

    def network(self) -> AutoencoderKL:
        """The VAE."""
        return trained_vae(self.start) if self.start else new_vae()

    def tune(self, network: AutoencoderKL) -> None:
        """Nothing."""

    def feed(self) -> Callable[[AutoencoderKL, torch.Generator, float], Tensor]:
        """The loss of random pictures."""
        images = load_images(self.data, "train")
        crops = (128 // CROP) ** 2 * self.micro

        def part(vae: AutoencoderKL, generator: torch.Generator, done: float) -> Tensor:
            whole = done >= CROPS_UNTIL or self.device != "cpu"
            crop, count = (128, self.micro) if whole else (CROP, crops)
            x = batch(images, generator, crop=crop, count=count).to(self.device)
            with autocast(self.device):
                found = vae.encode(x).latent_dist
                y = vae.decode(found.mean + found.std * torch.randn_like(found.mean)).sample.float()
            return loss_of(x, y) + 2e-4 * found.kl().mean() / found.mean[0].numel()

        return part

    def report(self, vae: AutoencoderKL) -> str:
        """Its PSNR."""
        return f"held-out PSNR {psnr(vae, load_images(self.data, 'heldout', limit=64)):.2f} dB"


@dataclass(frozen=True)
class Decoder:
    """The decoder alone, from cached latents."""

    data: Path
    latents: Path
    micro: int
    device: str
    start: Path

    def network(self) -> AutoencoderKL:
        """The VAE, its encoder frozen."""
        return freeze_encoder(trained_vae(self.start))

    def tune(self, network: AutoencoderKL) -> None:
        """Nothing."""

    def feed(self) -> Callable[[AutoencoderKL, torch.Generator, float], Tensor]:
        """The loss of random pictures from their latents."""
        scale = json.loads((self.latents / "scale.json").read_text())["scaling_factor"]
        paths = sorted(self.latents.glob("*.latents.pt"))
        latents = [torch.load(p, weights_only=True)["latents"].float() / scale for p in paths]
        shards = [np.load(self.data / path.name.replace(".latents.pt", ".npz"))["images"] for path in paths]
        sizes = torch.tensor([float(len(images)) for images in shards])

        def part(vae: AutoencoderKL, generator: torch.Generator, _: float) -> Tensor:
            shard = int(torch.multinomial(sizes, 1, generator=generator))  # one shard has one shape
            images = shards[shard]
            rows = torch.randint(len(images), (self.micro,), generator=generator)
            x = to_floats(images[rows.numpy()]).to(self.device)
            with autocast(self.device):
                y = vae.decode(latents[shard][rows].to(self.device)).sample.float()
            return loss_of(x, y)

        return part

    def report(self, vae: AutoencoderKL) -> str:
        """Its PSNR."""
        return f"held-out PSNR {psnr(vae, load_images(self.data, 'heldout', limit=64)):.2f} dB"


def main() -> None:
    """Trains for the given minutes in all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--start", type=Path)
    parser.add_argument("--decoder-only", type=Path, metavar="LATENTS")
    workers.add_options(parser, batch=16, micro=4, lr=0.01, adam_lr=8e-4)
    options = parser.parse_args()
    whole, decoder = options.out / "vae.pt", options.out / "decoder.pt"
    if options.decoder_only:
        task = Decoder(options.data, options.decoder_only, options.micro, options.device, options.start or whole)
        workers.train(task, decoder, options)
    else:
        workers.train(Whole(options.data, options.micro, options.device, options.start), whole, options)


if __name__ == "__main__":
    main()
