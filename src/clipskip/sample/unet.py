"""diffusers' UNet from a state dict, built once in its final dtype and with our attention."""

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from clipskip.errors import DamagedFile
from clipskip.sample.attention import Attention, prefers_chunks
from clipskip.weights import UNetShape

SHOWN = 3
"""Names of tensors that an error lists."""


def build_unet(
    state: dict[str, Tensor], shape: UNetShape, *, dtype: torch.dtype, device: torch.device | str
) -> UNet2DConditionModel:
    """The UNet of these weights, for inference.

    Empties `state`: each tensor moves into the UNet, so that none is held twice. A tensor that already has the
    dtype, device and layout becomes the UNet's own, uncopied.
    """
    device = torch.device(device)
    with torch.device("meta"):
        unet = UNet2DConditionModel(**shape.config())
    _check_keys(state, unet)
    moved = {key: _placed(state.pop(key), dtype=dtype, device=device) for key in list(state)}
    unet.load_state_dict(moved, assign=True)
    unet.set_attn_processor(Attention(chunked=prefers_chunks(device, dtype)))
    return unet.requires_grad_(False).eval()


def _check_keys(state: dict[str, Tensor], unet: UNet2DConditionModel) -> None:
    """An error for a state dict that is not exactly this UNet's, naming what is missing, extra or misshapen."""
    expected = {key: tuple(tensor.shape) for key, tensor in unet.state_dict().items()}
    problems = {
        "lacks": sorted(expected.keys() - state.keys()),
        "has unknown": sorted(state.keys() - expected.keys()),
        "has misshapen": sorted(k for k in expected.keys() & state.keys() if tuple(state[k].shape) != expected[k]),
    }
    found = [f"{kind} {', '.join(keys[:SHOWN])} ({len(keys)} in all)" for kind, keys in problems.items() if keys]
    if found:
        raise DamagedFile(f"the model's UNet {' and '.join(found)}; download the model again")


def _placed(tensor: Tensor, *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The tensor where it is used; convolutions with their channels last, which CPUs and GPUs both run faster."""
    placed = tensor.to(device=device, dtype=dtype)
    return placed.contiguous(memory_format=torch.channels_last) if placed.ndim == 4 else placed
