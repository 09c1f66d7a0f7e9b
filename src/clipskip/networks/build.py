"""Networks from weights: which tensors each has, by its own account, and a check that given ones are exactly those."""

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clipskip.errors import DamagedFile
from clipskip.networks.autoencoder import VAE
from clipskip.networks.clip import TextEncoder
from clipskip.networks.shapes import Shape, TextShape, UNetShape, VAEShape
from clipskip.networks.unet import UNet

Sizes = Mapping[str, tuple[int, ...]]
SHOWN = 3
"""Tensors that an error names."""


@cache
def tensors_of(shape: Shape) -> Sizes:
    """Every tensor of a network of this shape, by name, and its size."""
    return MappingProxyType({name: tuple(tensor.shape) for name, tensor in _empty(shape).state_dict().items()})


def lacking(tensors: Sizes, shape: Shape) -> list[str]:
    """What these tensors lack to be a network of this shape: names that are not there or are of another size."""
    needed = tensors_of(shape)
    absent = [name for name in needed if name not in tensors]
    return absent + [
        f"{name} of shape {list(size)} (it has {list(tensors[name])})"
        for name, size in needed.items()
        if name in tensors and tensors[name] != size
    ]


def build_text_encoder(state: Mapping[str, Tensor], shape: TextShape) -> TextEncoder:
    """The encoder with these weights, not copied."""
    _check(state, shape, "text encoder")
    encoder = _empty(shape)
    assert isinstance(encoder, TextEncoder)
    encoder.load_state_dict(dict(state), assign=True)
    return encoder.eval().requires_grad_(False)


def build_unet(state: dict[str, Tensor], shape: UNetShape, *, dtype: torch.dtype, device: torch.device | str) -> UNet:
    """The UNet of these weights, for inference.

    Empties `state`: each tensor moves into the UNet, so that none is held twice. A tensor that already has the
    dtype, device and layout becomes the UNet's own, uncopied.
    """
    _check(state, shape, "UNet")
    unet = _empty(shape)
    assert isinstance(unet, UNet)
    moved = {name: _placed(state.pop(name).to(device=device, dtype=dtype)) for name in list(state)}
    unet.load_state_dict(moved, assign=True)
    return unet.eval().requires_grad_(False)


def build_vae(state: Mapping[str, Tensor], shape: VAEShape) -> VAE:
    """The VAE with these weights, in their own dtype and on their own device; only convolutions are copied."""
    _check(state, shape, "VAE")
    vae = _empty(shape)
    assert isinstance(vae, VAE)
    vae.load_state_dict({name: _placed(value) for name, value in state.items()}, assign=True)
    return vae.eval().requires_grad_(False)


def _empty(shape: Shape) -> nn.Module:
    """The network without weights."""
    with torch.device("meta"):
        if isinstance(shape, TextShape):
            return TextEncoder(shape)
        return UNet(shape) if isinstance(shape, UNetShape) else VAE(shape)


def _check(state: Mapping[str, Tensor], shape: Shape, network: str) -> None:
    """Nothing, or DamagedFile for weights that are not exactly this network's, naming what is wrong."""
    unknown = sorted(state.keys() - tensors_of(shape).keys())
    problems = {
        "lacks": lacking({name: tuple(tensor.shape) for name, tensor in state.items()}, shape),
        "has unknown": unknown,
    }
    told = [f"{kind} {'; '.join(names[:SHOWN])} ({len(names)} in all)" for kind, names in problems.items() if names]
    if told:
        raise DamagedFile(f"the model's {network} {' and '.join(told)}; download the model again")


def _placed(tensor: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Convolutions with their channels last, which CPUs and GPUs both run faster."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
