"""Random SDXL, SDXL refiner and SD 2.x checkpoints of a few hundred kilobytes, whole in every part."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny_sd1 import random_state
from torch import Tensor

from clipskip.networks import Shape, TextShape, UNetShape, VAEShape, tensors_of
from clipskip.weights.keys import ldm_names, openclip_modules, rename

L = TextShape(depth=12, width=32, heads=2, mlp_width=64)
G = TextShape(depth=32, width=40, heads=2, mlp_width=80, activation="gelu", projection=40)
H = TextShape(depth=24, width=48, heads=2, mlp_width=96, activation="gelu")
PX = 64
UNET = UNetShape(
    block_out_channels=(32, 64, 64),
    layers_per_block=2,
    cross_attention_dim=L.width + G.width,
    attention=(0, 2, 3),
    middle_attention=3,
    attention_heads=(2, 4, 4),
    norm_num_groups=8,
    use_linear_projection=True,
    added_width=G.projection + 6 * 256,
    sample_size=PX // 8,
)
REFINER_UNET = UNetShape(
    block_out_channels=(32, 64, 64, 64),
    layers_per_block=2,
    cross_attention_dim=G.width,
    attention=(0, 2, 2, 0),
    middle_attention=2,
    attention_heads=(2, 4, 4, 4),
    norm_num_groups=8,
    use_linear_projection=True,
    added_width=G.projection + 5 * 256,
    sample_size=PX // 8,
)
SD2_UNET = UNetShape(
    block_out_channels=(32, 64),
    layers_per_block=1,
    cross_attention_dim=H.width,
    attention=(1, 0),
    attention_heads=(2, 4),
    norm_num_groups=8,
    use_linear_projection=True,
    sample_size=PX // 8,
)
VAE = VAEShape(block_out_channels=(16, 32, 32, 32), layers_per_block=1, norm_num_groups=8, scaling_factor=0.13025)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Weights under canonical names, by part, and their shapes."""

    states: Mapping[str, dict[str, Tensor]]
    shapes: Mapping[str, Shape]


def make(seed: int = 0, **shapes: Shape) -> Parts:
    return Parts(
        states={part: random_state(tensors_of(shape), seed=seed + n) for n, (part, shape) in enumerate(shapes.items())},
        shapes=shapes,
    )


def sdxl(seed: int = 0) -> Parts:
    return make(seed, text_encoder=L, text_encoder_2=G, unet=UNET, vae=VAE)


def refiner(seed: int = 10) -> Parts:
    return make(seed, text_encoder_2=G, unet=REFINER_UNET, vae=VAE)


def sd2(seed: int = 20) -> Parts:
    return make(seed, text_encoder=H, unet=SD2_UNET, vae=VAE)


def metadata(parts: Parts) -> dict[str, str]:
    """What shapes alone do not say."""
    told = {
        "modelspec.resolution": f"{PX}x{PX}",
        "clipskip.vae.norm_num_groups": "8",
        "clipskip.vae.scaling_factor": "0.13025",
    }
    for part, shape in parts.shapes.items():
        if isinstance(shape, TextShape):
            told[f"clipskip.text{'_2' if part.endswith('_2') else ''}.attention_heads"] = str(shape.heads)
        if isinstance(shape, UNetShape):
            told["clipskip.unet.attention_heads"] = ",".join(map(str, shape.attention_heads))
            told["clipskip.unet.norm_num_groups"] = str(shape.norm_num_groups)
    return told


def openclip(state: Mapping[str, Tensor], prefix: str, depth: int) -> dict[str, Tensor]:
    """A text encoder under OpenCLIP's names: q, k and v in one matrix, the projection the other way round."""
    table = {ours: theirs for theirs, ours in openclip_modules(depth).items()}
    named = {}
    for name, tensor in state.items():
        if ".self_attn." in name and ".out_proj." not in name:
            continue
        if name == "embeddings.position_embedding.weight":
            named[f"{prefix}positional_embedding"] = tensor
        elif name == "text_projection.weight":
            named[f"{prefix}text_projection"] = tensor.T.contiguous()
        else:
            named[f"{prefix}{rename(name, table)}"] = tensor
    for layer in range(depth):
        for end in ("weight", "bias"):
            joint = [state[f"encoder.layers.{layer}.self_attn.{letter}_proj.{end}"] for letter in "qkv"]
            named[f"{prefix}transformer.resblocks.{layer}.attn.in_proj_{end}"] = torch.cat(joint)
    return named


def single_file(parts: Parts) -> dict[str, Tensor]:
    """The tensors of a single file as Stability lays it out."""
    state: dict[str, Tensor] = {}
    for part in ("unet", "vae"):
        names = ldm_names(part, {name: tuple(tensor.shape) for name, tensor in parts.states[part].items()})
        for name, tensor in parts.states[part].items():
            conv = part == "vae" and ".attentions." in name and tensor.dim() == 2
            state[names[name]] = tensor[:, :, None, None] if conv else tensor
    text, text_2 = parts.states.get("text_encoder"), parts.states.get("text_encoder_2")
    if text_2 is not None:
        place = 0 if text is None else 1
        state |= openclip(text_2, f"conditioner.embedders.{place}.model.", G.depth)
        if text is not None:
            state |= {f"conditioner.embedders.0.transformer.text_model.{name}": tensor for name, tensor in text.items()}
    elif text is not None:
        state |= openclip(text, "cond_stage_model.model.", H.depth)
    return state


def write(parts: Parts, path: Path, *, dtype: torch.dtype = torch.float32, **extra: Tensor) -> Path:
    state = {name: tensor.to(dtype).contiguous() for name, tensor in single_file(parts).items()}
    save_file(state | extra, path, metadata=metadata(parts))
    return path
