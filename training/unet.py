"""Trains the starter's UNet on cached latents and cached conditioning at Clip Skip 2; resumable, one checkpoint file.

    python training/unet.py --latents DIR --out DIR --minutes 60 [--workers 2 | --device cuda --batch 1024 --micro 1024]

v-prediction (Salimans and Ho 2022, section 4), SD's betas, uniform timesteps, one caption in ten empty. Matrices move
by orthogonalised momentum (Muon, Jordan 2024), the rest by Adam; the rate is level for half the time and then falls to
nothing. On a CPU: bfloat16 autocast, diffusers' plain attention (on small heads twice as fast as torch's fused kernel)
and one single-threaded worker a core; the workers share the weights' memory and take parts of each batch as they come
free, so that a busy core costs only its own time.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp
import torch.nn.functional as F
from common import log, save
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from muon import Flat, orthogonal_step
from torch import Tensor

CHANNELS, CONTEXT, HEADS = (64, 128, 192, 128), 128, 4
ALPHAS = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, dim=0).float()
EMPTY = 0.1
COUNTERS = {"step": "q", "spent": "d", "seen": "q", "mean": "d"}


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

    def __init__(self, folder: Path, split: str = "train") -> None:
        stems = [p.name.removesuffix(".latents.pt") for p in sorted(folder.glob(f"{split}-*.latents.pt"))]
        self.stems = [stem for stem in stems if (folder / f"{stem}.text.pt").exists()]
        if not self.stems:
            raise SystemExit(f"nothing encoded for {split} in {folder}; run training/latents.py first")
        images = [torch.load(folder / f"{s}.latents.pt", weights_only=True)["latents"] for s in self.stems]
        texts = [torch.load(folder / f"{s}.text.pt", weights_only=True, mmap=True) for s in self.stems]
        self.latents, self.contexts = torch.cat(images).float(), [t["contexts"] for t in texts]
        self.where = [(shard, i) for shard, part in enumerate(images) for i in range(len(part))]
        self.empty: Tensor = texts[0]["empty"].float()

    def batch(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Random latents and, for each, one of its captions or (one time in ten) the empty prompt."""
        chosen = torch.randint(len(self.where), (count,), generator=generator)
        context = []
        for i in chosen.tolist():
            shard, row = self.where[i]
            said = self.contexts[shard][row]
            which = int(torch.randint(len(said), (1,), generator=generator))
            dropped = float(torch.rand(1, generator=generator)) < EMPTY
            context.append(self.empty if dropped else said[which].float())
        return self.latents[chosen], torch.stack(context)


def rate(done: float, step: int) -> float:
    """The learning rate's factor: up over 30 steps, level to half time, then straight down to 2%."""
    return min(1, (step + 1) / 30) * min(1, 0.02 + 0.98 * (1 - done) / 0.5)


def work(rank: int, shared: dict[str, Any], options: argparse.Namespace) -> None:
    """One worker: takes micro-batches until the step is full, then moves its share of the weights."""
    torch.set_num_threads(options.threads)
    device, flat, state = torch.device(options.device), shared["flat"], shared["state"]
    unet = new_unet().to(device)
    flat.attach(unet, rank)
    pairs, generator = Pairs(options.latents), torch.Generator()
    saved, logged = time.time(), time.time()
    parts, total = options.batch // options.micro, 60 * options.minutes
    while state["spent"].value < total:
        began, step = time.time(), int(state["step"].value)
        flat.grads[rank].zero_()
        if step % 100 == 99:
            pairs = Pairs(options.latents)
        while (part := _take(state["part"], (step + 1) * parts)) is not None:
            generator.manual_seed(part)
            latent, context = (x.to(device) for x in pairs.batch(options.micro, generator))
            loss = v_loss(unet, latent, context, generator=generator) / parts
            loss.backward()
            state["loss"][part % parts] = float(loss.detach())
        shared["barrier"].wait()
        factor = rate(state["spent"].value / total, step)
        orthogonal_step(flat, rank, lr=options.lr * factor, adam_lr=options.adam_lr * factor, step=step)
        shared["barrier"].wait()
        if rank == 0:
            state["step"].value = step + 1
            state["spent"].value += time.time() - began
            state["seen"].value += options.batch
            loss_now = sum(state["loss"][:parts])
            state["mean"].value += (loss_now - state["mean"].value) * max(0.02, 1 / (step + 1))
            kept = {name: state[name].value for name in COUNTERS}
            if (step + 1) % 50 == 0:
                log(options.out, f"{_said(kept)} last 50 steps in {time.time() - logged:.0f} s")
                logged = time.time()
            if time.time() - saved > 170 or kept["spent"] >= total:
                saved = time.time()
                save(options.out / "unet.pt", {**flat.state(), **kept})
        shared["barrier"].wait()


def _said(kept: dict[str, float]) -> str:
    return f"step {kept['step']} {kept['spent'] / 60:.1f} min {kept['seen']} samples loss {kept['mean']:.4f}"


def _take(counter: Any, end: int) -> int | None:
    with counter.get_lock():
        if counter.value >= end:
            return None
        counter.value += 1
        return int(counter.value) - 1


def weights(path: Path, which: str = "ema") -> dict[str, Tensor]:
    """The network's state dict out of a checkpoint: its average ("ema") or the weights as they are ("weights")."""
    found = torch.load(path, weights_only=True)
    flat = Flat(new_unet(), workers=1)
    return flat.unpack(found[which])


def main() -> None:
    """Trains for the given minutes, in all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latents", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--micro", type=int, default=16)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--adam-lr", type=float, default=8e-4)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    context = mp.get_context("spawn")
    flat = Flat(new_unet(), workers=options.workers, device=options.device)
    path, kept = options.out / "unet.pt", dict.fromkeys(COUNTERS, 0)
    if path.exists():
        found = torch.load(path, weights_only=True)
        flat.load(found)
        kept |= {name: found[name] for name in COUNTERS}
    flat.share()
    parts = options.batch // options.micro
    state: dict[str, Any] = {name: context.Value(kind, kept[name]) for name, kind in COUNTERS.items()}
    state |= {"part": context.Value("q", kept["step"] * parts), "loss": context.Array("d", parts)}
    shared = {"flat": flat, "state": state, "barrier": context.Barrier(options.workers)}
    if options.workers == 1:
        work(0, shared, options)
        return
    mp.spawn(work, args=(shared, options), nprocs=options.workers)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
