"""Builds a full-size SD 1.x single file and a kohya LoRA with random weights: real shapes, real speed, no picture worth seeing."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from clipskip.weights import read_header
from clipskip.weights.keys import TEXT_PARTS, canonical

SHAPES = Path(__file__).parents[1] / "tests" / "golden" / "sd15-single-file.json"


def random_tensor(name: str, shape: list[int], generator: torch.Generator) -> torch.Tensor:
    """Weights that keep activations near unit size: He-like matrices, norms near 1, small biases."""
    if name.endswith("position_ids"):
        return torch.arange(shape[-1]).reshape(shape)
    if not shape:
        return torch.tensor(0.0, dtype=torch.float16)
    noise = torch.randn(shape, generator=generator)
    if "embedding" in name:
        noise *= 0.02
    elif len(shape) > 1:
        noise *= 0.7 / math.sqrt(math.prod(shape[1:]))
    elif name.endswith("weight"):
        noise = 1 + 0.1 * noise
    else:
        noise *= 0.02
    return noise.half()


def build_checkpoint(path: Path, *, seed: int = 0) -> Path:
    """A complete fp16 SD 1.x checkpoint in LDM layout, 2.1 GB; kept when it is there already."""
    if not path.exists():
        generator = torch.Generator().manual_seed(seed)
        shapes = json.loads(SHAPES.read_text())["tensors"]
        partial = path.with_suffix(".partial")
        save_file({name: random_tensor(name, shape, generator) for name, shape in shapes.items()}, partial)
        partial.rename(path)
    return path


def lora_targets(checkpoint: Path) -> Iterator[tuple[str, int, int]]:
    """kohya's name, rows and columns of every matrix of the text encoder's layers and the UNet's transformer blocks."""
    parts = canonical(read_header(checkpoint).shapes)
    texts = ("lora_te1", "lora_te2") if "text_encoder_2" in parts else ("lora_te",)
    prefixes = [*zip((f"{name}_text_model_" for name in texts), TEXT_PARTS, strict=False), ("lora_unet_", "unet")]
    for prefix, part in prefixes:
        for name, source in parts[part].items():
            inside = "encoder.layers." in name or "transformer_blocks." in name
            if inside and name.endswith(".weight") and len(source.shape) == 2:
                yield prefix + name.removesuffix(".weight").replace(".", "_"), *source.shape


def build_lora(path: Path, checkpoint: Path, *, rank: int = 32, seed: int = 1) -> Path:
    """A kohya LoRA over those matrices."""
    if not path.exists():
        generator = torch.Generator().manual_seed(seed)
        tensors = {}
        for name, rows, columns in lora_targets(checkpoint):
            down, up = torch.randn(rank, columns, generator=generator), torch.randn(rows, rank, generator=generator)
            tensors[f"{name}.lora_down.weight"] = (down / math.sqrt(columns)).half()
            tensors[f"{name}.lora_up.weight"] = (0.02 * up).half()
            tensors[f"{name}.alpha"] = torch.tensor(float(rank // 2)).half()
        metadata = {"ss_network_module": "networks.lora", "ss_network_dim": str(rank), "ss_clip_skip": "2"}
        save_file(tensors, path, metadata=metadata)
    return path
