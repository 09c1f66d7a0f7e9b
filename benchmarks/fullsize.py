"""Builds a full-size SD 1.x single file and a kohya LoRA with random weights: real shapes, real speed, no picture worth seeing."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

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


def lora_targets(shapes: dict[str, list[int]]) -> Iterator[tuple[str, int, int]]:
    """kohya name, rows and columns of every text encoder and UNet attention matrix that a usual LoRA trains."""
    for i in range(12):
        for part in ("self_attn_q_proj", "self_attn_k_proj", "self_attn_v_proj", "self_attn_out_proj"):
            yield f"lora_te_text_model_encoder_layers_{i}_{part}", 768, 768
        yield f"lora_te_text_model_encoder_layers_{i}_mlp_fc1", 3072, 768
        yield f"lora_te_text_model_encoder_layers_{i}_mlp_fc2", 768, 3072
    for name, shape in shapes.items():
        stem = name.removeprefix("model.diffusion_model.").removesuffix(".weight")
        if (
            name.startswith("model.diffusion_model.")
            and "transformer_blocks" in stem
            and len(shape) == 2
            and "norm" not in stem
        ):
            yield "lora_unet_" + stem.replace(".", "_"), shape[0], shape[1]


def build_lora(path: Path, *, rank: int = 32, seed: int = 1) -> Path:
    """A kohya LoRA over all attention and feed-forward matrices of the text encoder and the UNet."""
    if not path.exists():
        generator = torch.Generator().manual_seed(seed)
        tensors = {}
        for name, rows, columns in lora_targets(json.loads(SHAPES.read_text())["tensors"]):
            tensors[f"{name}.lora_down.weight"] = (
                torch.randn(rank, columns, generator=generator) / math.sqrt(columns)
            ).half()
            tensors[f"{name}.lora_up.weight"] = (0.02 * torch.randn(rows, rank, generator=generator)).half()
            tensors[f"{name}.alpha"] = torch.tensor(float(rank // 2)).half()
        save_file(
            tensors,
            path,
            metadata={"ss_network_module": "networks.lora", "ss_network_dim": str(rank), "ss_clip_skip": "2"},
        )
    return path
