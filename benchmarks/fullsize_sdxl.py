"""Builds SDXL at its full size with random weights: a diffusers folder and the same as one file, fp16, 6.9 GB each."""

import json
import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from fullsize import random_tensor
from safetensors.torch import load_file
from torch import Tensor

from clipskip.networks import Shape, TextShape, UNetShape, VAEShape, tensors_of

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from tiny_sdxl import Parts, single_file  # the layout of single files, which tests have for tiny models

SHAPES: Mapping[str, Shape] = {
    "text_encoder": TextShape(depth=12, width=768, heads=12, mlp_width=3072),
    "text_encoder_2": TextShape(
        depth=32, width=1280, heads=20, mlp_width=5120, activation="gelu", projection=1280
    ),
    "unet": UNetShape(
        block_out_channels=(320, 640, 1280), layers_per_block=2, cross_attention_dim=2048, attention=(0, 2, 10),
        middle_attention=10, attention_heads=(5, 10, 20), use_linear_projection=True, added_width=2816,
        sample_size=128,
    ),
    "vae": VAEShape(block_out_channels=(128, 256, 512, 512), layers_per_block=2, scaling_factor=0.13025),
}  # fmt: skip
CLASSES = {
    "text_encoder": ("transformers", "CLIPTextModel"),
    "text_encoder_2": ("transformers", "CLIPTextModelWithProjection"),
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
    "scheduler": ("diffusers", "EulerDiscreteScheduler"),
}
SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000, "prediction_type": "epsilon", "steps_offset": 1, "timestep_spacing": "leading",
}  # fmt: skip


def build_sdxl(folder: Path) -> tuple[Path, Path]:
    """Return SDXL as a diffusers folder and as one file; kept when they are there already."""
    file = folder.with_suffix(".safetensors")
    if not (folder / "model_index.json").exists():
        for number, (part, shape) in enumerate(SHAPES.items()):
            write_part(folder / part, part, shape, seed=number)
        (folder / "scheduler").mkdir(exist_ok=True)
        (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
        index = {"_class_name": "StableDiffusionXLPipeline"} | {part: list(kind) for part, kind in CLASSES.items()}
        (folder / "model_index.json").write_text(json.dumps(index))
    if not file.exists():
        states = {part: canonical_state(folder / part) for part in SHAPES}
        tensors = single_file(Parts(states=states, shapes=SHAPES))
        partial = file.with_suffix(".partial")
        write_tensors(partial, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, tensors.values())
        partial.rename(file)
    return folder, file


def write_part(folder: Path, part: str, shape: Shape, *, seed: int) -> None:
    """Write a network's random weights, one tensor after another, and the config that diffusers builds it from."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes, kind = tensors_of(shape), CLASSES[part][1]
    config = {"_class_name": kind} if CLASSES[part][0] == "diffusers" else {"architectures": [kind]}
    (folder / "config.json").write_text(json.dumps(config | shape.config()))
    generator = torch.Generator().manual_seed(seed)
    tensors = (random_tensor(name, list(size), generator) for name, size in sizes.items())
    weights = "diffusion_pytorch_model" if CLASSES[part][0] == "diffusers" else "model"
    write_tensors(folder / f"{weights}.safetensors", {stored(part, name): s for name, s in sizes.items()}, tensors)


def stored(part: str, name: str) -> str:
    """Return a tensor's name in a folder: transformers has all but the projection inside `text_model`."""
    inside = part.startswith("text") and not name.startswith("text_projection")
    return f"text_model.{name}" if inside else name


def canonical_state(folder: Path) -> dict[str, Tensor]:
    """Return a part of the folder under our names, mapped from the disk."""
    state = load_file(next(folder.glob("*.safetensors")))
    return {name.removeprefix("text_model."): tensor for name, tensor in state.items()}


def write_tensors(path: Path, sizes: Mapping[str, tuple[int, ...]], tensors: Iterable[Tensor]) -> None:
    """Write fp16 tensors as a safetensors file, holding one at a time."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, size in sizes.items():
        end = place + 2 * math.prod(size)
        header[name] = {"dtype": "F16", "shape": list(size), "data_offsets": [place, end]}
        place = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors:
            file.write(tensor.half().contiguous().numpy().data)
