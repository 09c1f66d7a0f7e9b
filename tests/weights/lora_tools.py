"""Tiny models with real module names, and files to try on them."""

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import tiny_sdxl
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from clipskip.networks import TextShape, UNetShape, build_text_encoder, build_unet
from clipskip.spec import Family
from clipskip.weights.lora import Lora, load_lora, merged

Q = "text_encoder.encoder.layers.0.self_attn.q_proj"
MLP = "text_encoder.encoder.layers.11.mlp.fc1"
TEXT_NORM = "text_encoder.encoder.layers.3.layer_norm1"
TO_K = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
TO_OUT = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"
PROJ = "unet.up_blocks.1.attentions.2.proj_in"
CONV = "unet.down_blocks.1.resnets.1.conv2"
GROUP_NORM = "unet.up_blocks.0.resnets.0.norm1"


def tiny_models() -> dict[str, nn.Module]:
    """A text encoder of 12 layers x 32 and a UNet with SD 1.x's blocks, both random."""
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=99,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=12,
        num_attention_heads=4,
        projection_dim=32,
        bos_token_id=0,
        eos_token_id=1,
    )
    unet = UNet2DConditionModel(
        block_out_channels=(32, 64, 96, 96),
        cross_attention_dim=32,
        norm_num_groups=8,
        attention_head_dim=8,
        sample_size=8,
    )
    models: dict[str, nn.Module] = {"text_encoder": CLIPTextModel(config), "unet": unet}
    with torch.no_grad():
        for model in models.values():
            for parameter in model.parameters():
                parameter.copy_(torch.randn(parameter.shape) * 0.2)  # norms too: their ones would hide mistakes
    return models


def module_of(models: Mapping[str, nn.Module], name: str) -> nn.Module:
    """The module with this canonical full name."""
    part, _, local = name.partition(".")
    return models[part].get_submodule(local)


def weight_of(models: Mapping[str, nn.Module], name: str) -> Tensor:
    """A copy of its weight."""
    weight = module_of(models, name).weight
    assert isinstance(weight, Tensor)
    return weight.detach().clone()


def family_models(family: Family) -> dict[str, nn.Module]:
    """Tiny networks of a family, random."""
    if family is Family.SD1:
        return tiny_models()
    parts = tiny_sdxl.sdxl() if family is Family.SDXL else tiny_sdxl.sd2()
    models: dict[str, nn.Module] = {}
    for part, shape in parts.shapes.items():
        if isinstance(shape, TextShape):
            models[part] = build_text_encoder(parts.states[part], shape)
        elif isinstance(shape, UNetShape):
            models[part] = build_unet(dict(parts.states[part]), shape, dtype=torch.float32, device="cpu")
    return models


def kohya(name: str, family: Family = Family.SD1) -> str:
    """How kohya's trainer spells a module."""
    part, _, local = name.partition(".")
    first = "lora_te1_" if family is Family.SDXL else "lora_te_"
    prefix = {"text_encoder": f"{first}text_model_", "text_encoder_2": "lora_te2_text_model_", "unet": "lora_unet_"}
    return prefix[part] + local.replace(".", "_")


def low_rank(weight: Tensor, rank: int, *, seed: int = 1) -> dict[str, Tensor]:
    """Random kohya parts of a LoRA for this weight."""
    generator = torch.Generator().manual_seed(seed)
    out, inputs, *kernel = weight.shape
    return {
        "lora_up.weight": torch.randn(out, rank, *[1] * len(kernel), generator=generator) * 0.3,
        "lora_down.weight": torch.randn(rank, inputs, *kernel, generator=generator) * 0.3,
    }


def write(path: Path, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None) -> Path:
    """A safetensors file."""
    safetensors.torch.save_file(
        {k: v.clone().contiguous() for k, v in tensors.items()}, path, metadata=dict(metadata or {})
    )
    return path


def write_kohya(path: Path, modules: Mapping[str, Mapping[str, Tensor]], **options: Mapping[str, str]) -> Path:
    """A file in kohya's layout: canonical module -> part -> tensor."""
    tensors = {f"{kohya(name)}.{part}": value for name, parts in modules.items() for part, value in parts.items()}
    return write(path, tensors, **options)


def merge_once(models: Mapping[str, nn.Module], lora: Lora | Path, name: str, *, strength: float = 1.0) -> Tensor:
    """A module's weight with the LoRA in it."""
    loaded = load_lora(lora) if isinstance(lora, Path) else lora
    with merged(models, [(loaded, strength, strength)]):
        return weight_of(models, name)


def relative(ours: Tensor, reference: Tensor, base: Tensor) -> float:
    """The largest difference, relative to the largest change that the reference makes."""
    change = (reference.double() - base.double()).abs().max()
    return float((ours.double() - reference.double()).abs().max() / change)
