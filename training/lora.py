"""Trains a LoRA in kohya's format (text encoder and UNet) on the shipped single file, at any Clip Skip.

    python training/lora.py ogre --model FILE --data DIR --latents DIR --vocabulary FILE --out DIR --skip 2 --steps 300

A third of every batch is the base's own scenes (kohya's regularisation images), so that the rest of the world stays as
it was. One picture in ten has an empty caption, one of a character's in ten a list of bad tags: the negative prompt's half
of a step sees the character, and must know it. A style's have their captions always. The three networks stay frozen; only down
and up matrices move. A file that exists is kept.
"""

import argparse
import hashlib
import json
import math
import random
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch
from clip import tokenizer
from common import autocast, fast_dtype, load_words, log
from safetensors.torch import load_file, save, save_file
from sampling import Model, open_model
from torch import Tensor, nn
from unet import EMPTY, v_loss
from world import CHARACTERS, Scene, caption, quality_tags, scene_of

from clipskip.weights import hash_file, read_header

ABSENT = "down_blocks.3.resnets.0.conv_shortcut"
"""Ours alone: SD 1.x's innermost levels are equally wide, so tools that read its LoRAs know no such module."""
TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
PLAIN_SHARE = 1 / 3
POOR = 0.1
"""The share of a character's pictures whose caption is a list of bad tags."""
PAIRED = 4
"""How much oftener than others a scene is taken where something stands beside the character, which is smaller there."""


class Adapter(nn.Module):
    """What is added to one module: up(down(x)) * alpha / rank."""

    def __init__(self, base: nn.Linear | nn.Conv2d, rank: int, *, alpha: float) -> None:
        super().__init__()
        self.rank, self.alpha = rank, alpha
        if isinstance(base, nn.Conv2d):
            self.down: nn.Module = nn.Conv2d(
                base.in_channels,
                rank,
                base.kernel_size,
                base.stride,
                base.padding,
                bias=False,  # type: ignore[arg-type]
            )
            self.up: nn.Module = nn.Conv2d(rank, base.out_channels, 1, bias=False)
        else:
            self.down, self.up = (
                nn.Linear(base.in_features, rank, bias=False),
                nn.Linear(rank, base.out_features, bias=False),
            )
        nn.init.zeros_(self.up.weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """The change."""
        change: Tensor = self.up(self.down(x)) * (self.alpha / self.rank)
        return change

    def tensors(self) -> dict[str, Tensor]:
        """As kohya names them."""
        alpha = torch.tensor(self.alpha)
        return {"lora_down.weight": self.down.weight, "lora_up.weight": self.up.weight, "alpha": alpha}  # type: ignore[dict-item]


def attach(model: Model, rank: int, conv_rank: int) -> dict[str, Adapter]:
    """An adapter on every linear layer and 1x1 convolution of attention, and on the residual blocks' convolutions."""
    found: dict[str, Adapter] = {}
    networks = (("lora_te_text_model_", model.text), ("lora_unet_", model.unet))
    for prefix, network in networks:
        for name, module in network.named_modules():
            wanted = 0
            if isinstance(module, nn.Linear) and (
                name.endswith(TEXT) if network is model.text else "attentions" in name
            ):
                wanted = rank
            elif isinstance(module, nn.Conv2d) and ("attentions" in name or "resnets" in name) and name != ABSENT:
                wanted = rank if "attentions" in name else conv_rank
            if wanted and isinstance(module, (nn.Linear, nn.Conv2d)):
                adapter = found[prefix + name.replace(".", "_")] = Adapter(module, wanted, alpha=float(wanted))
                adapter.to(module.weight.device)
                module.register_forward_hook(lambda _, given, out, adapter=adapter: out + adapter(given[0]))
    return found


def restore(adapters: dict[str, Adapter], path: Path) -> None:
    """Goes on from a file of the same ranks."""
    found = load_file(path)
    with torch.no_grad():
        for name, adapter in adapters.items():
            for part, value in adapter.tensors().items():
                value.copy_(found[f"{name}.{part}"])


def pairs(options: argparse.Namespace, split: str) -> tuple[Tensor, list[Scene]]:
    """A split's scaled latents and its scenes."""
    files = sorted(options.latents.glob(f"{split}-*.latents.pt"))
    latents = torch.cat([torch.load(path, weights_only=True)["latents"] for path in files]).float()
    scenes = [scene_of(scene) for scene in load_words(options.data, split)[2]]
    return latents, scenes[: len(latents)]


def words(scene: Scene, rng: random.Random, *, own: bool) -> str:
    """What one picture is trained with: its caption, with good tags for a third of the LoRA's own, or less than that."""
    draw = 1.0 if own and scene.style else rng.random()
    if draw < EMPTY:
        return ""
    if own and draw < EMPTY + POOR:
        return ", ".join(quality_tags("poor", rng))
    return caption(replace(scene, quality=rng.choice((None, None, "good"))) if own else scene, rng)


def train(model: Model, adapters: dict[str, Adapter], options: argparse.Namespace) -> None:
    """Moves the adapters."""
    own, plain = pairs(options, options.name), pairs(options, "train")
    text = [p for name, a in adapters.items() if name.startswith("lora_te") for p in a.parameters()]
    unet = [p for name, a in adapters.items() if name.startswith("lora_unet") for p in a.parameters()]
    groups = [{"params": text, "lr": options.text_lr}, {"params": unet, "lr": options.lr}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.0)
    rates = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda n: min(1, (n + 1) / 20) * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * n / options.steps)))
    )
    rng, generator = random.Random(0), torch.Generator().manual_seed(0)
    often = PAIRED if options.name in CHARACTERS else 1
    weights = [often if len(scene.items) == 2 else 1 for scene in own[1]]
    began, mean = time.time(), 0.0
    for step in range(options.steps):
        latents, texts = [], []
        for i in range(options.batch):
            images, scenes = plain if i < options.batch * PLAIN_SHARE else own
            n = rng.randrange(len(images)) if images is plain[0] else rng.choices(range(len(images)), weights)[0]
            latents.append(images[n])
            texts.append(words(scenes[n], rng, own=images is own[0]))
        ids = model.tokenizer(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
        with autocast(options.device):
            context = model.text.final_layer_norm(model.text.layers(ids["input_ids"].to(options.device))[-options.skip])
        loss = v_loss(model.unet, torch.stack(latents).to(options.device), context.float(), generator=generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(text + unet, 1.0)
        optimizer.step()
        rates.step()
        mean += (float(loss.detach()) - mean) * max(0.03, 1 / (step + 1))
        if (step + 1) % 50 == 0:
            speed = (step + 1) * options.batch / (time.time() - began)
            log(options.latents, f"{options.name} skip {options.skip} step {step + 1} loss {mean:.4f} {speed:.1f}/s")


def body_hash(tensors: dict[str, Tensor]) -> str:
    """The SHA-256 of a file's tensors, as kohya's trainer and A1111 take it."""
    payload = save(tensors)
    return hashlib.sha256(payload[8 + int.from_bytes(payload[:8], "little") :]).hexdigest()


def metadata(options: argparse.Namespace, tensors: dict[str, Tensor]) -> dict[str, str]:
    """What kohya's trainer writes, as far as it applies."""
    rng, tags = random.Random(0), Counter[str]()
    scenes = pairs(options, options.name)[1]
    for scene in scenes:
        tags.update(caption(scene, rng).split(", "))
    hashes = hash_file(options.model)
    steps = options.steps + (int(read_header(options.start).metadata["ss_steps"]) if options.start else 0)
    return {
        "ss_output_name": options.name, "ss_network_module": "networks.lora", "ss_clip_skip": str(options.skip),
        "ss_network_dim": str(options.rank), "ss_network_alpha": str(float(options.rank)),
        "ss_network_args": json.dumps({"conv_dim": options.conv_rank, "conv_alpha": float(options.conv_rank)}),
        "ss_base_model_version": "sd_v1", "ss_v2": "False", "ss_sd_model_name": options.model.name,
        "ss_sd_model_hash": hashes.autov1, "ss_new_sd_model_hash": hashes.sha256,
        "ss_steps": str(steps), "ss_max_train_steps": str(steps),
        "ss_num_train_images": str(len(scenes)), "ss_total_batch_size": str(options.batch),
        "ss_unet_lr": str(options.lr), "ss_text_encoder_lr": str(options.text_lr),
        "ss_resolution": "(128, 128)", "ss_seed": "0",
        "ss_mixed_precision": "bf16" if fast_dtype(options.device) == torch.bfloat16 else "no",
        "ss_tag_frequency": json.dumps({f"1_{options.name}": dict(tags.most_common(60))}),
        "sshs_model_hash": body_hash(tensors),
        "modelspec.sai_model_spec": "1.0.0", "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.title": options.name, "modelspec.trigger_phrase": options.name,
        "modelspec.encoder_layer": str(options.skip), "modelspec.prediction_type": "v",
        "modelspec.resolution": "128x128", "modelspec.license": "MIT",
    }  # fmt: skip


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="the split to learn: ogre, gnome or blueprint; also the trigger word")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--latents", type=Path, required=True)
    parser.add_argument("--vocabulary", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--skip", type=int, default=2)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--conv-rank", type=int, default=2)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--text-lr", type=float, default=1e-3)
    parser.add_argument("--start", type=Path, help="a LoRA of the same ranks to go on from")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def main() -> None:
    """Trains one file, `NAME.safetensors`, or `NAME-skip3.safetensors` at another Clip Skip than the base's 2."""
    options = arguments()
    path = options.out / f"{options.name}{'' if options.skip == 2 else f'-skip{options.skip}'}.safetensors"
    if path.exists():
        return
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    options.out.mkdir(parents=True, exist_ok=True)
    model = open_model(options.model, tokenizer(options.vocabulary))
    for network in (model.text, model.unet):
        network.requires_grad_(False).to(options.device)
    adapters = attach(model, options.rank, options.conv_rank)
    if options.start:
        restore(adapters, options.start)
    train(model, adapters, options)
    tensors = {
        f"{name}.{part}": value.detach().half().cpu().contiguous()
        for name, adapter in adapters.items()
        for part, value in adapter.tensors().items()
    }
    save_file(tensors, path, metadata=metadata(options, tensors))
    path.chmod(0o644)
    log(options.latents, f"{path.name} {path.stat().st_size / 2**20:.2f} MiB, {len(adapters)} modules")


if __name__ == "__main__":
    main()
