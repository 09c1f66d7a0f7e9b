"""Building networks from weights: which tensors each one needs, and a check that the given ones are exactly those."""

import math
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
"""How many tensors an error message names."""


@cache
def tensors_of(shape: Shape) -> Sizes:
    """Return the name and size of every tensor in a network of this shape."""
    return MappingProxyType({name: tuple(tensor.shape) for name, tensor in _empty(shape).state_dict().items()})


def parameters_of(shape: Shape) -> int:
    """Return how many numbers the weights of a network of this shape are."""
    return sum(math.prod(size) for size in tensors_of(shape).values())


def lacking(tensors: Sizes, shape: Shape) -> list[str]:
    """List the tensors that a network of this shape needs and that are missing here, or are of another size."""
    needed = tensors_of(shape)
    absent = [name for name in needed if name not in tensors]
    return absent + [
        f"{name} of shape {list(size)} (it has {list(tensors[name])})"
        for name, size in needed.items()
        if name in tensors and tensors[name] != size
    ]


def build_text_encoder(state: Mapping[str, Tensor], shape: TextShape) -> TextEncoder:
    """Return the encoder with these weights, which are not copied."""
    _check_weights(state, shape, "text encoder")
    encoder = _empty(shape)
    assert isinstance(encoder, TextEncoder)
    encoder.load_state_dict(dict(state), assign=True)
    return encoder.eval().requires_grad_(False)


def build_unet(state: dict[str, Tensor], shape: UNetShape, *, dtype: torch.dtype, device: torch.device | str) -> UNet:
    """Return the UNet with these weights, for inference.

    Empties `state`: each tensor moves into the UNet, so that none is held twice. A tensor that already has the right
    dtype, device and layout becomes the UNet's own without a copy.
    """
    _check_weights(state, shape, "UNet")
    unet = _empty(shape)
    assert isinstance(unet, UNet)
    moved = {name: _placed(state.pop(name).to(device=device, dtype=dtype)) for name in list(state)}
    unet.load_state_dict(moved, assign=True)
    return unet.eval().requires_grad_(False)


def build_vae(state: Mapping[str, Tensor], shape: VAEShape) -> VAE:
    """Return the VAE with these weights, in their own dtype and on their own device; only convolutions are copied."""
    _check_weights(state, shape, "VAE")
    vae = _empty(shape)
    assert isinstance(vae, VAE)
    vae.load_state_dict({name: _placed(value) for name, value in state.items()}, assign=True)
    return vae.eval().requires_grad_(False)


def _empty(shape: Shape) -> nn.Module:
    """Return the network without weights, on the meta device."""
    with torch.device("meta"):
        if isinstance(shape, TextShape):
            return TextEncoder(shape)
        return UNet(shape) if isinstance(shape, UNetShape) else VAE(shape)


def _check_weights(state: Mapping[str, Tensor], shape: Shape, network: str) -> None:
    """Raise DamagedFile for weights that are not exactly this network's, naming what is wrong."""
    unknown = sorted(state.keys() - tensors_of(shape).keys())
    problems = {
        "lacks": lacking({name: tuple(tensor.shape) for name, tensor in state.items()}, shape),
        "has unknown": unknown,
    }
    faults = [f"{kind} {'; '.join(names[:SHOWN])} ({len(names)} in all)" for kind, names in problems.items() if names]
    if faults:
        raise DamagedFile(f"the model's {network} {' and '.join(faults)}; download the model again")


def _placed(tensor: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return the tensor; a convolution's weights with their channels last, which CPUs and GPUs both run faster."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
