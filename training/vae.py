"""Trains the starter's VAE (f8, 4 latent channels) on rendered scenes; resumable, one checkpoint file.

    python training/vae.py --data DIR --out DIR --minutes 40
    python training/vae.py --data DIR --out DIR --minutes 40 --decoder-only DIR/latents
    python training/vae.py --data DIR --out DIR --minutes 5 --device cuda --batch 256

Loss: L1 + 2 MSE + 0.5 L1 of pixel differences (edges) + 5e-4 KL. Crops of 64 px for the first 70% of the time (on a GPU
never), whole pictures after. `--decoder-only` goes on with the decoder alone, from the latents that latents.py has cached, which
stay as they are; there matrices move by orthogonalised momentum (muon.py).
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from common import Ema, load_images, log, save
from diffusers import AutoencoderKL
from muon import orthogonal
from torch import Tensor, nn

CHANNELS = (32, 64, 96, 96)
GROUPS = 8


def new_vae() -> AutoencoderKL:
    """The untrained network."""
    return AutoencoderKL(
        block_out_channels=CHANNELS,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=GROUPS,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )


def edges(x: Tensor, y: Tensor) -> Tensor:
    """L1 between neighbouring-pixel differences."""
    return (x.diff(dim=2) - y.diff(dim=2)).abs().mean() + (x.diff(dim=3) - y.diff(dim=3)).abs().mean()


def to_floats(images: np.ndarray) -> Tensor:
    """uint8 [n, height, width, 3] to float [n, 3, height, width] in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def batch(images: np.ndarray, rng: np.random.Generator, *, crop: int, count: int) -> Tensor:
    """Random crops as floats."""
    found = []
    for i in rng.integers(len(images), size=count):
        y, x = rng.integers(128 - crop + 1, size=2)
        found.append(images[i, y : y + crop, x : x + crop])
    return to_floats(np.stack(found))


@torch.no_grad()
def psnr(vae: AutoencoderKL, images: np.ndarray) -> float:
    """Mean PSNR in dB of whole pictures through the VAE (8-bit range)."""
    parts = [to_floats(part).to(vae.device) for part in np.array_split(images, max(1, len(images) // 16))]
    found = [(part, vae.decode(vae.encode(part).latent_dist.mode()).sample.clamp(-1, 1)) for part in parts]
    errors = torch.cat([(x - y).square().mean(dim=(1, 2, 3)) for x, y in found])
    return float((10 * torch.log10(4 / errors)).mean())


class Pairs:
    """Whole pictures with their cached latents (unscaled again)."""

    def __init__(self, data: Path, latents: Path) -> None:
        scale = json.loads((latents / "scale.json").read_text())["scaling_factor"]
        self.images, self.latents = [], []
        for path in sorted(latents.glob("*.latents.pt")):
            self.latents.append(torch.load(path, weights_only=True)["latents"].float() / scale)
            self.images.append(np.load(data / path.name.replace(".latents.pt", ".npz"))["images"])
        self.sizes = [len(part) for part in self.images]

    def batch(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
        """Pictures as floats and their latents."""
        shards = rng.choice(len(self.sizes), size=count, p=np.array(self.sizes) / sum(self.sizes))
        rows = [(shard, int(rng.integers(self.sizes[shard]))) for shard in shards]
        images = to_floats(np.stack([self.images[shard][row] for shard, row in rows]))
        return images, torch.stack([self.latents[shard][row] for shard, row in rows])


class Muon:
    """Moves matrices by orthogonalised momentum (Jordan 2024)."""

    def __init__(self, matrices: list[nn.Parameter], lr: float) -> None:
        self.matrices, self.lr = matrices, lr
        self.momenta = [torch.zeros_like(matrix) for matrix in matrices]

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """One step at a share of the rate."""
        for matrix, momentum in zip(self.matrices, self.momenta, strict=True):
            if matrix.grad is None:
                continue
            momentum.lerp_(matrix.grad, 0.05)
            move = matrix.grad.lerp(momentum, 0.95).flatten(1)
            scale = max(1.0, move.shape[0] / move.shape[1]) ** 0.5
            matrix.add_(orthogonal(move).view_as(matrix), alpha=-self.lr * factor * scale)


class Run:
    """A training that can stop and go on: network, average, optimizer, clock."""

    def __init__(self, out: Path, *, decoder_only: bool, lr: float, device: str) -> None:
        self.out, self.decoder_only, self.lr, self.device = out, decoder_only, lr, device
        self.path = out / ("decoder.pt" if decoder_only else "vae.pt")
        self.vae, self.step, self.spent = new_vae(), 0, 0.0
        resumed = self.path.exists()
        if resumed or decoder_only:
            state = torch.load(self.path if resumed else out / "vae.pt", weights_only=True, map_location=device)
            self.vae.load_state_dict(state["model"] if resumed else state["ema"])
        self.vae.to(device)
        if decoder_only:
            self.vae.encoder.requires_grad_(False)
            self.vae.quant_conv.requires_grad_(False)
        self.trained = {name: p for name, p in self.vae.named_parameters() if p.requires_grad}
        matrices = [n for n, p in self.trained.items() if decoder_only and p.ndim > 1 and "conv_out" not in n]
        self.muon = Muon([self.trained[name] for name in matrices], 0.01)
        loose = [p for name, p in self.trained.items() if name not in matrices]
        self.optimizer = torch.optim.AdamW(loose, lr=lr, betas=(0.9, 0.99), weight_decay=1e-4)
        self.ema = Ema(self.vae, 0.998)
        if resumed:
            self.ema.load(state["ema"])
            self.step, self.spent = state["step"], state["spent"]
            optimizers = torch.load(self.path.with_suffix(".opt"), weights_only=True, map_location=device)
            self.optimizer.load_state_dict(optimizers["adam"])
            self.muon.momenta = optimizers["muon"]

    def loss(self, x: Tensor, latent: Tensor | None) -> tuple[Tensor, Tensor]:
        """The loss and the mean squared error of pictures, from their latents or through the encoder."""
        x = x.to(self.device)
        with torch.autocast(self.vae.device.type, torch.bfloat16):
            kl = torch.zeros((), device=x.device)
            if latent is None:
                found = self.vae.encode(x).latent_dist
                latent, kl = found.sample(), found.kl().mean() / found.mean[0].numel()
            y = self.vae.decode(latent.to(x.device)).sample.float()
        error = (y - x).square().mean()
        return (y - x).abs().mean() + 2 * error + 0.5 * edges(x, y) + 5e-4 * kl, error

    def update(self, x: Tensor, latent: Tensor | None, *, done: float) -> tuple[float, float]:
        """One step at a share of the time; its loss and PSNR."""
        factor = min(1, (self.step + 1) / 100) * (0.02 + 0.98 * (0.5 + 0.5 * float(np.cos(np.pi * min(1, done)))))
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * factor
        loss, error = self.loss(x, latent)
        self.vae.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.trained.values(), 1.0)
        self.optimizer.step()
        self.muon.step(factor)
        self.ema.update(self.vae)
        self.step += 1
        return float(loss.detach()), float(10 * torch.log10(4 / error.detach()))

    def keep(self, held: np.ndarray) -> None:
        """Saves the state and logs the average's PSNR on held-out pictures."""
        state = {"model": self.vae.state_dict(), "ema": self.ema.state(), "step": self.step, "spent": self.spent}
        save(self.path, state)
        save(self.path.with_suffix(".opt"), {"adam": self.optimizer.state_dict(), "muon": self.muon.momenta})
        self.ema.swap(self.vae)
        log(self.out, f"step {self.step} held-out PSNR {psnr(self.vae, held):.2f} dB")
        self.ema.swap(self.vae)


def main() -> None:
    """Trains for the given minutes in all, on a CPU of its own processor time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=5, help="whole pictures a step; three times as many crops")
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--decoder-only", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    options.out.mkdir(parents=True, exist_ok=True)
    run = Run(options.out, decoder_only=options.decoder_only is not None, lr=options.lr, device=options.device)
    pairs = Pairs(options.data, options.decoder_only) if options.decoder_only else None
    held = load_images(options.data, "heldout", limit=64)
    images = held if pairs else load_images(options.data, "train")
    clock = time.process_time if options.device == "cpu" else time.time
    rng, saved, total = np.random.default_rng(run.step), time.time(), 60 * options.minutes
    while run.spent < total:
        began, done = clock(), run.spent / total
        if pairs:
            loss, quality = run.update(*pairs.batch(rng, options.batch), done=done)
        else:
            whole = done >= 0.7 or options.device != "cpu"
            crop, count = (128, options.batch) if whole else (64, 3 * options.batch)
            x = batch(images, rng, crop=crop, count=count)
            loss, quality = run.update(x, None, done=done)
        run.spent += clock() - began
        if run.step % 50 == 0:
            log(options.out, f"step {run.step} {run.spent / 60:.1f} min loss {loss:.4f} PSNR {quality:.2f}")
        if time.time() - saved > 170 or run.spent >= total:
            saved = time.time()
            run.keep(held)


if __name__ == "__main__":
    main()
