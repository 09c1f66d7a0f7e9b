"""Dimensions are deduced from tensors alone, and name exactly the tensors of diffusers' and transformers' classes."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from clipskip.errors import DamagedFile, WrongKind
from clipskip.networks import TextShape, UNetShape, VAEShape, tensors_of
from clipskip.weights.container import Header
from clipskip.weights.shape_reader import native_px, text_shape, unet_shape, vae_shape

SD1_TEXT = TextShape(depth=12, width=768, heads=12, mlp_width=3072)
SD1_UNET = UNetShape(
    block_out_channels=(320, 640, 1280, 1280),
    layers_per_block=2,
    cross_attention_dim=768,
    attention=(True, True, True, False),
    attention_heads=(8, 8, 8, 8),
)
SD1_VAE = VAEShape(block_out_channels=(128, 256, 512, 512), layers_per_block=2)
STARTER_UNET = UNetShape(
    block_out_channels=(64, 128, 192, 192),
    layers_per_block=2,
    cross_attention_dim=128,
    attention=(True, True, True, False),
    attention_heads=(4, 4, 4, 4),
    sample_size=16,
)
STARTER_VAE = VAEShape(block_out_channels=(32, 64, 64, 64), layers_per_block=1, norm_num_groups=8, scaling_factor=0.31)
SD2_UNET = UNetShape(
    block_out_channels=(64, 128),
    layers_per_block=1,
    cross_attention_dim=1024,
    attention=(False, True),
    attention_heads=(1, 2),
    use_linear_projection=True,
    in_channels=9,
)
UNETS = [SD1_UNET, STARTER_UNET, SD2_UNET]
VAES = [SD1_VAE, STARTER_VAE]
STARTER_FACTS = {
    "clipskip.unet.attention_heads": "4",
    "clipskip.unet.norm_num_groups": "32",
    "clipskip.vae.norm_num_groups": "8",
    "clipskip.vae.scaling_factor": "0.31",
    "modelspec.resolution": "128x128",
}


def header(metadata: dict[str, str] | None = None, **configs: dict[str, object]) -> Header:
    return Header(path=Path("model.safetensors"), size=0, tensors={}, metadata=metadata or {}, configs=configs)


def shapes(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("shape", UNETS)
def test_a_unets_tensors_are_those_of_diffusers_class(shape: UNetShape) -> None:
    with torch.device("meta"):
        assert tensors_of(shape) == shapes(UNet2DConditionModel(**shape.config()))


@pytest.mark.parametrize("shape", VAES)
def test_a_vaes_tensors_are_those_of_diffusers_class(shape: VAEShape) -> None:
    with torch.device("meta"):
        assert tensors_of(shape) == shapes(AutoencoderKL(**shape.config()))


def test_a_text_encoders_tensors_are_those_of_transformers_class() -> None:
    with torch.device("meta"):
        assert tensors_of(SD1_TEXT) == shapes(CLIPTextModel(CLIPTextConfig(**SD1_TEXT.config())))


def test_sd1s_dimensions_are_read_off_its_tensors() -> None:
    assert unet_shape(tensors_of(SD1_UNET), header()) == SD1_UNET
    assert vae_shape(tensors_of(SD1_VAE), header()) == SD1_VAE
    assert text_shape(tensors_of(SD1_TEXT), header()) == SD1_TEXT


def test_what_shapes_cannot_tell_comes_from_our_own_metadata() -> None:
    assert unet_shape(tensors_of(STARTER_UNET), header(STARTER_FACTS)) == STARTER_UNET
    assert vae_shape(tensors_of(STARTER_VAE), header(STARTER_FACTS)) == STARTER_VAE


def test_what_shapes_cannot_tell_comes_from_a_folders_configs() -> None:
    unet = {"attention_head_dim": [1, 2], "norm_num_groups": 32, "sample_size": 64, "down_block_types": ["DownBlock2D"]}
    assert unet_shape(tensors_of(SD2_UNET), header(unet=unet)) == SD2_UNET
    vae = {"norm_num_groups": 8, "scaling_factor": 0.31}
    assert vae_shape(tensors_of(STARTER_VAE), header(vae=vae)) == STARTER_VAE
    gelu = text_shape(tensors_of(SD1_TEXT), header(text_encoder={"hidden_act": "gelu", "num_attention_heads": 6}))
    assert (gelu.activation, gelu.heads) == ("gelu", 6)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"clipskip.unet.attention_heads": "5"}, "cannot be divided"),
        ({"clipskip.unet.attention_heads": "0"}, "cannot be divided"),
        ({"clipskip.unet.attention_heads": "-4"}, "is not a whole number"),
        ({"clipskip.unet.attention_heads": "9" * 30}, "is not a whole number"),
        ({"clipskip.unet.norm_num_groups": "48"}, "cannot divide channels"),
    ],
)
def test_metadata_that_cannot_be_true_is_refused(metadata: dict[str, str], words: str) -> None:
    with pytest.raises((WrongKind, DamagedFile), match=words):
        unet_shape(tensors_of(STARTER_UNET), header(metadata))


@pytest.mark.parametrize("scale", ["nan", "inf", "-1", "0.0", "x", "1e400"])
def test_a_scaling_factor_is_a_positive_number(scale: str) -> None:
    with pytest.raises(DamagedFile, match="not a positive number"):
        vae_shape(tensors_of(SD1_VAE), header({"clipskip.vae.scaling_factor": scale}))


def test_blocks_that_stable_diffusion_has_not_are_refused() -> None:
    config: dict[str, object] = {"down_block_types": ["SimpleCrossAttnDownBlock2D"]}
    with pytest.raises(WrongKind, match="SimpleCrossAttnDownBlock2D"):
        unet_shape(tensors_of(SD1_UNET), header(unet=config))


def test_an_unusual_width_needs_its_number_of_heads() -> None:
    tensors = tensors_of(TextShape(depth=1, width=32, heads=4, mlp_width=128))
    with pytest.raises(WrongKind, match=r"clipskip\.text\.attention_heads"):
        text_shape(tensors, header())
    assert text_shape(tensors, header({"clipskip.text.attention_heads": "4"})).heads == 4


@pytest.mark.parametrize(
    ("metadata", "sample_size", "expected"),
    [
        ({}, None, 512),
        ({"modelspec.resolution": "128x128"}, 64, 128),
        ({}, 96, 768),
        ({"modelspec.resolution": "?"}, 0, 512),
    ],
)
def test_the_size_it_was_trained_at(metadata: dict[str, str], sample_size: int | None, expected: int) -> None:
    assert native_px(header(metadata, unet={"sample_size": sample_size})) == expected
