"""What the training scripts share: moving averages, shards, logs, files that are whole or absent."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clipskip.networks import best_dtype


def fast_dtype(device: str | torch.device) -> torch.dtype:
    """The dtype to multiply in: bfloat16, or float32 on a CPU that multiplies it slower (without instructions for it 300 times)."""
    where = torch.device(device)
    return best_dtype(where) if where.type == "cpu" else torch.bfloat16


def autocast(device: str | torch.device) -> torch.autocast:
    """A block in which matrices multiply in `fast_dtype`."""
    where = torch.device(device)
    return torch.autocast(where.type, torch.bfloat16, enabled=fast_dtype(where) == torch.bfloat16)


class Ema:
    """An exponential moving average of a network's weights."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.count = decay, 0
        self.shadow = {name: value.detach().clone().float() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Moves the average towards the weights; faster at first, as (1 + n) / (10 + n)."""
        self.count += 1
        rate = 1 - min(self.decay, (1 + self.count) / (10 + self.count))
        for name, value in model.state_dict().items():
            self.shadow[name].lerp_(value.float(), rate) if value.is_floating_point() else self.shadow[name].copy_(
                value
            )

    @torch.no_grad()
    def swap(self, model: nn.Module) -> None:
        """Exchanges average and weights; twice is neutral."""
        for name, value in model.state_dict().items():
            kept = value.clone()
            value.copy_(self.shadow[name])
            self.shadow[name] = kept.float()

    def state(self) -> dict[str, Tensor]:
        """The average."""
        return self.shadow

    def load(self, state: dict[str, Tensor]) -> None:
        """Goes on from a saved average."""
        for name, value in state.items():
            self.shadow[name].copy_(value)
        self.count = 10**6


def shards(data: Path, split: str) -> list[Path]:
    """The finished shards of a split."""
    found = sorted(path for path in data.glob(f"{split}-*.npz") if "partial" not in path.name)
    if not found:
        raise SystemExit(f"no {split} shards in {data}; run training/render.py first")
    return found


def load_images(data: Path, split: str, *, limit: int | None = None) -> np.ndarray:
    """uint8 [n, 128, 128, 3]"""
    return np.concatenate([np.load(path)["images"][:limit] for path in shards(data, split)])[:limit]


def load_words(data: Path, split: str) -> tuple[list[list[str]], list[str], list[dict[str, Any]]]:
    """Captions, hard negatives and scenes, in the order of the images."""
    captions, negatives, scenes = [], [], []
    for path in shards(data, split):
        with np.load(path) as shard:
            captions += json.loads(str(shard["captions"]))
            negatives += json.loads(str(shard["negatives"]))
            scenes += json.loads(str(shard["scenes"]))
    return captions, negatives, scenes


def log(folder: Path, line: str) -> None:
    """Adds a line to the folder's log and shows it."""
    print(line, flush=True)
    with (folder / "log.txt").open("a") as file:
        file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")


def save(path: Path, value: object) -> None:
    """Writes with torch, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    torch.save(value, partial)
    partial.rename(path)
