"""Stable Diffusion's UNet, built once from a state dict in its final dtype.

Ronneberger et al. 2015; Rombach et al. 2022, section 3. It computes what diffusers' UNet2DConditionModel computes and
has the same parameter names, by which checkpoints and LoRAs find them. It is our own because importing diffusers takes
3.7 s at every start, and its memory layout costs a quarter of every step on a CPU.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu

from clipskip.networks.attention import Memory, Text
from clipskip.networks.blocks import (
    RESNET_EPS,
    Copies,
    Downsample,
    GroupNorm,
    OtherMaps,
    Pictures,
    Resnet,
    Times,
    Transformer,
    Upsample,
    copied,
    exactly,
)
from clipskip.networks.shapes import UNetShape

Added = Float[Tensor, "batch added"]
"""A vector beside each text (SDXL: pooled vector, sizes, crop)."""
SLOWEST = 10_000
"""The longest wavelength of a noise level's embedding, in timesteps over 2 pi (Vaswani et al. 2017, section 3.5)."""


@final
class UNet(nn.Module):
    """The denoising network: from noisy latents, timestep and text to what the model was trained to predict."""

    def __init__(self, shape: UNetShape) -> None:
        super().__init__()
        self.shape = shape
        widths, first = shape.block_out_channels, shape.block_out_channels[0]
        skips = _skip_channels(shape)
        self.conv_in = nn.Conv2d(shape.in_channels, first, 3, padding=1)
        self.time_embedding = TimeEmbedding(first)
        if shape.added_width:
            self.add_embedding = AddedEmbedding(shape.added_width, 4 * first)
        self.down_blocks = nn.ModuleList(
            Level(shape, level, befores=[before] + [width] * (shape.layers_per_block - 1))
            for level, (before, width) in enumerate(pairwise((first, *widths)))
        )
        self.mid_block = Level(shape, len(widths) - 1, befores=[widths[-1]] * 2, middle=True)
        self.up_blocks = nn.ModuleList()
        for level, (before, width) in reversed(list(enumerate(zip((*widths[1:], widths[-1]), widths, strict=True)))):
            befores = [(width if layer else before) + skips.pop() for layer in range(shape.layers_per_block + 1)]
            self.up_blocks.append(Level(shape, level, befores=befores))
        for block, width in list(zip(self.down_blocks, widths, strict=True))[:-1]:
            block.downsamplers = nn.ModuleList([Downsample(width)])
        for block, width in list(zip(self.up_blocks, widths[::-1], strict=True))[:-1]:
            block.upsamplers = nn.ModuleList([Upsample(width)])
        self.conv_norm_out = GroupNorm(shape.norm_num_groups, first, eps=RESNET_EPS)
        self.conv_out = nn.Conv2d(first, shape.out_channels, 3, padding=1)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, which is that of its inputs too; outputs are in float32."""
        return self.conv_in.weight.dtype

    @property
    def device(self) -> torch.device:
        """The device that holds the weights."""
        return self.conv_in.weight.device

    def forward(
        self,
        x: Pictures,
        timestep: Float[Tensor, "*times"],
        text: Text,
        memory: Memory | None = None,
        copies: Copies | None = None,
        added: Added | None = None,
    ) -> Float[Tensor, "batch _channels height width"]:
        """Return the prediction in float32, whatever the dtype of the weights.

        `memory` keeps the text's keys and values from call to call. With `copies`, which has the picture of each text,
        there are fewer pictures than texts: all that comes before the first attention to the text, its largest
        self-attention included, is then computed once per picture, unless a vector is `added` to each text.
        """
        assert (added is None) == (not self.shape.added_width), (
            "a vector beside the text is given exactly when the shape has one"
        )
        time = self.time_embedding(timestep)
        time = silu(time if added is None else time + self.add_embedding(added))
        first = self.conv_in(x.contiguous(memory_format=torch.channels_last))
        kept = [first if copies is None else copied(first, copies)]
        for number, block in enumerate(self.down_blocks):
            if number == 0 and block.attentions and added is None:
                kept += block(first, time, text, memory, copies=copies)
            else:
                kept += block(kept[-1], time, text, memory)
        x = self.mid_block(kept[-1], time, text, memory)[-1]
        for block in self.up_blocks:
            x = block(x, time, text, memory, beside=kept)[-1]
        return exactly(self.conv_out, silu(self.conv_norm_out(x), inplace=True))


@final
class Level(nn.Module):
    """The layers of one size: resnets, each followed by a transformer where the level has attention."""

    def __init__(self, shape: UNetShape, level: int, *, befores: Sequence[int], middle: bool = False) -> None:
        super().__init__()
        width, groups = shape.block_out_channels[level], shape.norm_num_groups
        self.resnets = nn.ModuleList(
            Resnet(before, width, groups=groups, embedding=4 * shape.block_out_channels[0]) for before in befores
        )
        depth = shape.middle_attention if middle else shape.attention[level]
        attended = (1 if middle else len(befores)) if depth else 0
        self.attentions = nn.ModuleList(
            Transformer(
                width,
                text_width=shape.cross_attention_dim,
                heads=shape.attention_heads[level],
                groups=groups,
                depth=depth,
                linear_ends=shape.use_linear_projection,
            )
            for _ in range(attended)
        )
        self.downsamplers = nn.ModuleList()
        self.upsamplers = nn.ModuleList()

    def forward(
        self,
        x: Pictures,
        time: Times,
        text: Text,
        memory: Memory | None = None,
        *,
        beside: list[OtherMaps] | None = None,
        copies: Copies | None = None,
    ) -> list[OtherMaps]:
        """Return the map after each of the layers. The way up pops from the end of `beside` what the way down kept."""
        maps: list[OtherMaps] = []
        for number, resnet in enumerate(self.resnets):
            x = resnet(x if beside is None else torch.cat([x, beside.pop()], 1), time)
            if number < len(self.attentions):
                x = self.attentions[number](x, text, memory, copies)
                copies = None
            maps.append(x)
        maps += [down(x) for down in self.downsamplers]
        maps += [up(x, beside[-1].shape[2:]) for up in self.upsamplers if beside]
        return maps


@final
class TimeEmbedding(nn.Module):
    """A noise level as sinusoids of many wavelengths, through two layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.linear_1 = nn.Linear(width, 4 * width)
        self.linear_2 = nn.Linear(4 * width, 4 * width)

    def forward(self, timestep: Float[Tensor, "*times"]) -> Times:
        result: Times = self.linear_2(silu(self.linear_1(waves(timestep, self.width).to(self.linear_1.weight.dtype))))
        return result


@final
class AddedEmbedding(nn.Module):
    """The vector beside the text (SDXL) through two layers, to the width of the embedded noise level."""

    def __init__(self, added: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(added, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, added: Added) -> Times:
        result: Times = self.linear_2(silu(self.linear_1(added)))
        return result


def waves(numbers: Float[Tensor, "*numbers"], width: int) -> Float[Tensor, "count width"]:
    """Return each number as sinusoids of many wavelengths, the cosines first."""
    half = width // 2
    rates = torch.exp(torch.arange(half, device=numbers.device) * (-math.log(SLOWEST) / half))
    angles = numbers.float().reshape(-1, 1) * rates
    return torch.cat([angles.cos(), angles.sin()], 1)


def _skip_channels(shape: UNetShape) -> list[int]:
    """Return the channels of each map that the way down keeps for the way up, in order."""
    widths = shape.block_out_channels
    maps_per_level = shape.layers_per_block + 1
    return [widths[0], *(width for width in widths for _ in range(maps_per_level))][:-1]
