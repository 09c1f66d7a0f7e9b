"""Trains the starter's VAE (f8, 4 latent channels) on rendered scenes; resumable, one checkpoint file.

    python training/vae.py --data DIR --out DIR --minutes 40
    python training/vae.py --data DIR --out DIR --minutes 40 --hold DIR/latents --start FOLDER/vae
    python training/vae.py --data DIR --out DIR --minutes 5 --device cuda --workers 1 --batch 256 --micro 256

Loss: L1 + 8 MSE + 0.5 L1 of pixel differences (edges) + L1 of the means of 4 px squares (colours) + 2e-4 KL. Crops of
64 px for the first 70% of the time (on a GPU never), whole pictures after; a part holds as many pixels either way.
`--start` begins with the weights of an earlier training, a checkpoint or a diffusers folder. `--hold` goes on with whole
pictures of all splits that latents.py has encoded, since a VAE is there for every picture and knows no words; 0.3 times the
mean square distance to those latents (divided by their variance) joins the loss, so that a UNet trained on them stays right.
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
from common import load_images
from diffusers import AutoencoderKL
from fused import fuse
from torch import Tensor

CHANNELS = (32, 64, 96, 96)
GROUPS = 8
CROP, CROPS_UNTIL = 64, 0.7
HOLD = 0.3
Pictures = Callable[[torch.Generator, float], tuple[Tensor, Tensor | None]]
"""Of a generator and the share of the time done: pictures [n, 3, height, width], and their former latents if these are held."""


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


def trained_vae(path: Path) -> AutoencoderKL:
    """The averaged network of a checkpoint or a folder."""
    return AutoencoderKL.from_pretrained(path).float() if path.is_dir() else workers.weights(path, new_vae())


def edges(x: Tensor, y: Tensor) -> Tensor:
    """L1 between neighbouring-pixel differences."""
    return (x.diff(dim=2) - y.diff(dim=2)).abs().mean() + (x.diff(dim=3) - y.diff(dim=3)).abs().mean()


def loss_of(x: Tensor, y: Tensor) -> Tensor:
    """How far the pictures y are from x."""
    colours = (F.avg_pool2d(x, 4) - F.avg_pool2d(y, 4)).abs().mean()
    return (y - x).abs().mean() + 8 * (y - x).square().mean() + 0.5 * edges(x, y) + colours


def distance(latents: Tensor, former: Tensor) -> Tensor:
    """Mean square distance, in units of the former latents' variance."""
    return (latents - former).square().mean() / former.var()


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


def crops(data: Path, micro: int, *, whole: bool) -> Pictures:
    """Pictures of the split train: 64 px crops until CROPS_UNTIL unless `whole`, as many pixels either way; no latents."""
    images = load_images(data, "train")
    many = (128 // CROP) ** 2 * micro

    def draw(generator: torch.Generator, done: float) -> tuple[Tensor, None]:
        crop, count = (128, micro) if whole or done >= CROPS_UNTIL else (CROP, many)
        return batch(images, generator, crop=crop, count=count), None

    return draw


def encoded(data: Path, folder: Path, micro: int) -> Pictures:
    """Whole pictures of every split in a folder of cached latents, with these latents as the VAE gave them."""
    scale = json.loads((folder / "scale.json").read_text())["scaling_factor"]
    paths = sorted(folder.glob("*.latents.pt"))
    latents = [torch.load(p, weights_only=True)["latents"].float() / scale for p in paths]
    shards = [np.load(data / path.name.replace(".latents.pt", ".npz"))["images"] for path in paths]
    sizes = torch.tensor([float(len(images)) for images in shards])

    def draw(generator: torch.Generator, _: float) -> tuple[Tensor, Tensor]:
        shard = int(torch.multinomial(sizes, 1, generator=generator))  # one shard has one shape
        rows = torch.randint(len(shards[shard]), (micro,), generator=generator)
        return to_floats(shards[shard][rows.numpy()]), latents[shard][rows]

    return draw


@dataclass(frozen=True)
class Autoencoding:
    """Encoder and decoder, on one split, or on every picture whose latents are held."""

    data: Path
    micro: int
    device: str
    start: Path | None
    held: Path | None

    def network(self) -> AutoencoderKL:
        """The VAE."""
        return trained_vae(self.start) if self.start else new_vae()

    def tune(self, network: AutoencoderKL) -> None:
        """Fused kernels where the CPU multiplies bfloat16."""
        fuse(network)

    def feed(self) -> Callable[[AutoencoderKL, torch.Generator, float], Tensor]:
        """The loss of random pictures."""
        whole = self.device != "cpu"
        draw = encoded(self.data, self.held, self.micro) if self.held else crops(self.data, self.micro, whole=whole)

        def part(vae: AutoencoderKL, generator: torch.Generator, done: float) -> Tensor:
            x, former = draw(generator, done)
            x = x.to(self.device)
            found = vae.encode(x.to(vae.dtype, memory_format=torch.channels_last)).latent_dist
            y = vae.decode(found.mean + found.std * torch.randn_like(found.mean)).sample.float()
            loss = loss_of(x, y) + 2e-4 * found.kl().mean() / found.mean[0].numel()
            return loss if former is None else loss + HOLD * distance(found.mean.float(), former.to(self.device))

        return part

    def report(self, vae: AutoencoderKL) -> str:
        """Its PSNR."""
        return f"held-out PSNR {psnr(vae, load_images(self.data, 'heldout', limit=64)):.2f} dB"


def main() -> None:
    """Trains for the given minutes in all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--start", type=Path)
    parser.add_argument("--hold", type=Path, metavar="LATENTS")
    workers.add_options(parser, batch=16, micro=4, lr=0.01, adam_lr=8e-4)
    options = parser.parse_args()
    task = Autoencoding(options.data, options.micro, options.device, options.start, options.hold)
    workers.train(task, options.out / "vae.pt", options)


if __name__ == "__main__":
    main()
