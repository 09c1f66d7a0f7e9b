"""Headers alone tell what fits, and say the same as using it does."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_sd1 import single_file, tiny_checkpoint
from torch import Tensor

from clipskip.weights import FileKind, Library, read_header
from clipskip.weights.container import Header
from clipskip.weights.fit import fit

Q = "lora_te_text_model_encoder_layers_{}_self_attn_q_proj"
K = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Header:
    """A checkpoint with a text encoder of 3 layers, 64 wide."""
    tensors, metadata = single_file(tiny_checkpoint())
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    save_file(tensors, path, metadata=metadata)
    return read_header(path)


def header(tmp_path: Path, tensors: dict[str, tuple[int, ...]]) -> Header:
    save_file({name: torch.zeros(size) for name, size in tensors.items()}, tmp_path / "file.safetensors")
    return read_header(tmp_path / "file.safetensors")


def lora(head: str, rank: int, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{head}.lora_down.weight": (rank, inputs), f"{head}.lora_up.weight": (outputs, rank)}


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        (lora(Q.format(0), 4, 64, 64), ""),
        (lora(K, 4, 64, 32), ""),
        ({f"{Q.format(0)}.diff_b": (64,)}, ""),
        ({f"{K}.on_input": (1,), f"{K}.weight": (64,)}, ""),
        (lora(K, 4, 768, 320), "attn2.to_k has down [4, 768], up [320, 4], where the model's weight is [32, 64]"),
        (lora(Q.format(0), 4, 96, 96), "q_proj has down [4, 96], up [96, 4], where the model's weight is [64, 64]"),
        (lora(Q.format(5), 4, 64, 64), "this model has no text_encoder.encoder.layers.5.self_attn.q_proj"),
        ({f"{Q.format(0)}.diff_b": (65,)}, "has diff_b [65]"),
        ({f"{K}.on_input": (1,), f"{K}.weight": (63,)}, "has on_input [1], weight [63]"),
        (lora("lora_te2_text_model_encoder_layers_0_mlp_fc1", 4, 1280, 5120), "it is for SDXL"),
        (lora("lora_unet_double_blocks_0_img_attn_qkv", 4, 3072, 9216), "it is for Flux"),
        ({"emb_params": (3, 64)}, ""),
        ({"emb_params": (3, 768)}, "its vectors are 768 wide (SD 1.x), this model reads 64"),
        ({"clip_l": (1, 768), "clip_g": (1, 1280)}, "it is for SDXL (clip_l and clip_g)"),
    ],
)
def test_a_header_tells_whether_a_file_fits(
    tmp_path: Path, tiny: Header, tensors: dict[str, tuple[int, ...]], reason: str
) -> None:
    found = fit(header(tmp_path, tensors), tiny)
    assert found.fits is (not reason), found
    assert reason in found.reason


def test_the_starters_loras_fit_it_and_no_other(tiny: Header) -> None:
    library = Library.of_user()
    starter = read_header(library.find("starter", FileKind.CHECKPOINT))
    for name in ("ogre", "gnome", "blueprint"):
        file = read_header(library.find(name, FileKind.LORA))
        assert fit(file, starter).fits is True
        assert fit(file, tiny).fits is False
    assert fit(starter, tiny).fits is False and "not a LoRA" in fit(starter, tiny).reason


def test_a_vae_fits_where_its_decoder_has_the_same_tensors(tmp_path: Path, tiny: Header) -> None:
    state: dict[str, Tensor] = single_file(tiny_checkpoint())[0]
    vae = {name: tensor for name, tensor in state.items() if name.startswith("first_stage_model.")}
    save_file(vae, tmp_path / "vae.safetensors")
    assert fit(read_header(tmp_path / "vae.safetensors"), tiny).fits is True
    wide = {name: tensor[..., None].repeat_interleave(2, 0)[..., 0] for name, tensor in vae.items()}
    save_file({name: tensor.contiguous() for name, tensor in wide.items()}, tmp_path / "wide.safetensors")
    found = fit(read_header(tmp_path / "wide.safetensors"), tiny)
    assert found.fits is False and "this model's is" in found.reason
