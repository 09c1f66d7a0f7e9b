"""Stable Diffusion's VAE (Kingma and Welling 2014; Rombach et al. 2022, section 3.1), named as in diffusers."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import final

import torch
from torch import nn
from torch.nn.functional import linear, scaled_dot_product_attention, silu

from clipskip.networks.blocks import (
    NORM_EPS,
    Downsample,
    GroupNorm,
    Maps,
    OtherMaps,
    Resnet,
    Upsample,
    exactly,
    from_rows,
    to_rows,
)
from clipskip.networks.shapes import VAEShape

LOG_VARIANCES = (-30.0, 20.0)
"""The range to which the encoder's log variances are clamped (latent-diffusion's DiagonalGaussianDistribution)."""


@final
class VAE(nn.Module):
    """The autoencoder between pictures in -1..1 and latents."""

    def __init__(self, shape: VAEShape) -> None:
        super().__init__()
        self.shape = shape
        latent = shape.latent_channels
        self.encoder = Encoder(shape)
        self.quant_conv = nn.Conv2d(2 * latent, 2 * latent, 1)
        self.post_quant_conv = nn.Conv2d(latent, latent, 1)
        self.decoder = Decoder(shape)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, which is that of its inputs and outputs too."""
        return self.quant_conv.weight.dtype

    @property
    def device(self) -> torch.device:
        """The device that holds the weights."""
        return self.quant_conv.weight.device

    def encode(self, pictures: Maps) -> OtherMaps:
        """Return the mean of the latent distribution of each picture, unscaled."""
        return self.distribution(pictures)[0]

    def distribution(self, pictures: Maps) -> tuple[OtherMaps, OtherMaps]:
        """Return mean and standard deviation of the latent distribution of each picture, unscaled."""
        moments: OtherMaps = self.quant_conv(self.encoder(_last(pictures)))
        mean, log_variance = moments.chunk(2, 1)
        return mean, (log_variance.float().clamp(*LOG_VARIANCES) / 2).exp()

    def decode(self, latents: Maps) -> OtherMaps:
        """Return the pictures of unscaled latents, in float32."""
        result: OtherMaps = self.decoder(self.post_quant_conv(_last(latents)))
        return result


@final
class Encoder(nn.Module):
    """The way down, to an eighth of the picture's size."""

    def __init__(self, shape: VAEShape) -> None:
        super().__init__()
        widths, groups = shape.block_out_channels, shape.norm_num_groups
        self.conv_in = nn.Conv2d(shape.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            Stage([before] + [width] * (shape.layers_per_block - 1), width, groups=groups)
            for before, width in pairwise((widths[0], *widths))
        )
        for block, width in list(zip(self.down_blocks, widths, strict=True))[:-1]:
            block.downsamplers = nn.ModuleList([Downsample(width, padding=0)])
        self.mid_block = Stage([widths[-1]] * 2, widths[-1], groups=groups, attended=True)
        self.conv_norm_out = GroupNorm(groups, widths[-1], eps=NORM_EPS)
        self.conv_out = nn.Conv2d(widths[-1], 2 * shape.latent_channels, 3, padding=1)

    def forward(self, x: Maps) -> OtherMaps:
        x = self.conv_in(x)
        for block in (*self.down_blocks, self.mid_block):
            for layer in block.order():
                x = layer(x)
        result: OtherMaps = self.conv_out(silu(self.conv_norm_out(x), inplace=True))
        return result


@final
class Decoder(nn.Module):
    """The way up, to the picture's size."""

    def __init__(self, shape: VAEShape) -> None:
        super().__init__()
        widths, groups = shape.block_out_channels[::-1], shape.norm_num_groups
        self.conv_in = nn.Conv2d(shape.latent_channels, widths[0], 3, padding=1)
        self.mid_block = Stage([widths[0]] * 2, widths[0], groups=groups, attended=True)
        self.up_blocks = nn.ModuleList(
            Stage([before] + [width] * shape.layers_per_block, width, groups=groups)
            for before, width in pairwise((widths[0], *widths))
        )
        for block, width in list(zip(self.up_blocks, widths, strict=True))[:-1]:
            block.upsamplers = nn.ModuleList([Upsample(width)])
        self.conv_norm_out = GroupNorm(groups, widths[-1], eps=NORM_EPS)
        self.conv_out = nn.Conv2d(widths[-1], shape.in_channels, 3, padding=1)

    def forward(self, x: Maps) -> OtherMaps:
        x = self.conv_in(x)
        for block in (self.mid_block, *self.up_blocks):
            for layer in block.order():
                x = layer(x)  # one by one: a block's input is free once its first layer has read it
        return exactly(self.conv_out, silu(self.conv_norm_out(x), inplace=True))


@final
class Stage(nn.Module):
    """The resnets of one size, with attention between them in the middle, and the change to the next size."""

    def __init__(self, befores: Sequence[int], width: int, *, groups: int, attended: bool = False) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(Resnet(before, width, groups=groups) for before in befores)
        self.attentions = nn.ModuleList([CellAttention(width, groups=groups)] if attended else [])
        self.downsamplers = nn.ModuleList()
        self.upsamplers = nn.ModuleList()

    def order(self) -> Iterator[nn.Module]:
        """Yield its layers in the order in which maps go through them."""
        for number, resnet in enumerate(self.resnets):
            yield resnet
            yield from self.attentions[number : number + 1]
        yield from (*self.downsamplers, *self.upsamplers)


@final
class CellAttention(nn.Module):
    """Single-head attention of all cells to each other, with a residual connection."""

    def __init__(self, width: int, *, groups: int) -> None:
        super().__init__()
        self.group_norm = GroupNorm(groups, width, eps=NORM_EPS)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Maps) -> Maps:
        rows = to_rows(self.group_norm(x))
        q, k, v = (linear(rows, to.weight, to.bias)[:, None] for to in (self.to_q, self.to_k, self.to_v))
        return from_rows(self.to_out[0](scaled_dot_product_attention(q, k, v)[:, 0]), like=x).add_(x)


def _last(x: Maps) -> Maps:
    return x.contiguous(memory_format=torch.channels_last)
