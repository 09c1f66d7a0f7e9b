"""The building blocks of Stable Diffusion's networks for inference, named as in diffusers.

Every activation keeps its channels last in memory. A convolution then reads the same numbers as pixels that a matrix
product reads as rows, without a copy in between; copies were a fifth of a step on a CPU.
"""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import conv2d, group_norm, interpolate, linear, pad, silu

from clipskip.networks.attention import Attention, Memory, Rows, Text
from clipskip.networks.fused import added, gated

Maps = Float[Tensor, "batch channels height width"]
OtherMaps = Float[Tensor, "_batch _channels _height _width"]
"""Maps of other sizes than the maps that came in."""
Pictures = Float[Tensor, "pictures channels height width"]
"""Maps, one of which may serve several texts."""
Copies = Int[Tensor, " batch"]
"""For each text, the index of its picture."""
Times = Float[Tensor, "times embedding"]
"""The embedded noise level: one for all pictures, or one each."""

RESNET_EPS, NORM_EPS = 1e-5, 1e-6
"""The norms' epsilon in a UNet's resnets, and everywhere else."""
GATE_ROWS = 2048
"""Rows of the gated feed-forward computed at once on a CPU, so that the wide middle stays in cache: half the time at
4096 rows."""
FEW_ROWS = 2.5
"""A 3 x 3 convolution with this many times more outputs than pixels runs as one product of patches on a CPU.

oneDNN reorders the weights at each call: for 128 pixels and 2560 x 1280 x 9 weights that takes 39 ms, the product 11
ms.
"""


SMALL_MAP = 1024
"""Cells below which torch's group norm in bfloat16 on a CPU reads number by number: on 16 x 16 it then takes four times
as long as in float32, both conversions included."""


@final
class GroupNorm(nn.GroupNorm):
    """Group normalization (Wu and He 2018), of small maps on a CPU computed in float32."""

    def forward(self, input: Maps) -> Maps:
        """Return the normalized maps in their own dtype."""
        if input.dtype != torch.bfloat16 or input.device.type != "cpu" or input.shape[2] * input.shape[3] >= SMALL_MAP:
            return super().forward(input)
        weight, bias = self.weight.float(), self.bias.float()
        return group_norm(input.float(), self.num_groups, weight, bias, self.eps).to(input.dtype)


@final
class Resnet(nn.Module):
    """Two convolutions with a shortcut; a UNet's also take the noise level (He et al. 2016; Ho et al. 2020)."""

    def __init__(self, before: int, width: int, *, groups: int, embedding: int = 0) -> None:
        super().__init__()
        eps = RESNET_EPS if embedding else NORM_EPS
        self.norm1 = GroupNorm(groups, before, eps=eps)
        self.conv1 = nn.Conv2d(before, width, 3, padding=1)
        self.time_emb_proj = nn.Linear(embedding, width) if embedding else None
        self.norm2 = GroupNorm(groups, width, eps=eps)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(before, width, 1) if before != width else None

    def forward(self, x: Maps, time: Times | None = None) -> OtherMaps:
        """Return the output for `x`. `time` is the embedded noise level after its activation."""
        inner = convolve(self.conv1, silu(self.norm1(x), inplace=True))
        if self.time_emb_proj is not None and time is not None:
            inner += self.time_emb_proj(time)[:, :, None, None]
        inner = convolve(self.conv2, silu(self.norm2(inner), inplace=True))
        return inner.add_(x) if self.conv_shortcut is None else pointwise(self.conv_shortcut, x, onto=inner)


@final
class FeedForward(nn.Module):
    """The gated feed-forward layer: out to four times the width and back (Shazeer 2020, GEGLU)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([Gate(width), nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, rows: Rows, onto: Rows) -> Rows:
        """Return `onto` plus the layer's output."""
        flat, to = rows.flatten(0, 1), onto.flatten(0, 1)
        size = GATE_ROWS if rows.device.type == "cpu" else len(flat)
        parts = zip(torch.split(flat, size), torch.split(to, size), strict=True)
        return torch.cat([added(self.net[2], self.net[0](chunk), onto=sums) for chunk, sums in parts]).view_as(rows)


@final
class Gate(nn.Module):
    """A linear map times the GELU of another; both share one matrix."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 8 * width)

    def forward(self, rows: Float[Tensor, "rows width"]) -> Float[Tensor, "rows wide"]:
        (weight, gate), (bias, gate_bias) = self.proj.weight.chunk(2), self.proj.bias.chunk(2)
        return gated(rows, (weight, bias), (gate, gate_bias))


@final
class TransformerBlock(nn.Module):
    """Self-attention, attention to the text, then a feed-forward layer."""

    def __init__(self, width: int, *, text_width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.attn1 = Attention(width, heads=heads)
        self.attn2 = Attention(width, text_width=text_width, heads=heads)
        self.ff = FeedForward(width)

    def forward(
        self,
        rows: Float[Tensor, "pictures tokens width"],
        text: Text,
        memory: Memory | None = None,
        copies: Copies | None = None,
    ) -> Rows:
        """Return the rows after the block, for each text; may overwrite `rows`.

        Where texts share a picture, `copies` has the index of each text's picture.
        """
        rows = self.attn1(self.norm1(rows), onto=rows)
        rows = rows if copies is None else rows[copies]
        rows = self.attn2(self.norm2(rows), text, memory, onto=rows)
        out: Rows = self.ff(self.norm3(rows), rows)
        return out


@final
class Transformer(nn.Module):
    """Transformer blocks over a map's cells, between two projections (Rombach et al. 2022, appendix E.2.1)."""

    def __init__(
        self, width: int, *, text_width: int, heads: int, groups: int, depth: int = 1, linear_ends: bool
    ) -> None:
        super().__init__()
        self.norm = GroupNorm(groups, width, eps=NORM_EPS)
        self.proj_in = nn.Linear(width, width) if linear_ends else nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(width, text_width=text_width, heads=heads) for _ in range(depth)
        )
        self.proj_out = nn.Linear(width, width) if linear_ends else nn.Conv2d(width, width, 1)

    def forward(self, x: Pictures, text: Text, memory: Memory | None = None, copies: Copies | None = None) -> Maps:
        """Return a map for each text. What comes before the text is computed once per picture, then copied."""
        out = pointwise(self.proj_in, self.norm(x))
        rows = to_rows(out)
        for number, block in enumerate(self.transformer_blocks):
            rows = block(rows, text, memory, None if number else copies)
        out = from_rows(rows, like=out)
        return pointwise(self.proj_out, out, onto=x if copies is None else copied(x, copies))


@final
class Downsample(nn.Module):
    """A convolution that halves the size."""

    def __init__(self, width: int, *, padding: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=padding)

    def forward(self, x: Maps) -> OtherMaps:
        """Return the smaller map. Without padding of its own, a row and a column of zeros are added at the far ends, as
        in a VAE."""
        if self.conv.padding[0]:
            return convolve(self.conv, x)
        out: OtherMaps = self.conv(pad(x, (0, 1, 0, 1)))
        return out


@final
class Upsample(nn.Module):
    """A convolution at twice the size, or at a given size where the way down met an odd one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Maps, size: Sequence[int] | None = None) -> OtherMaps:
        return convolve(self.conv, interpolate(x, size=tuple(size or (2 * x.shape[2], 2 * x.shape[3])), mode="nearest"))


def convolve(layer: nn.Conv2d, x: Maps) -> OtherMaps:
    """Return the layer's 3 x 3 convolution, padded by 1; on a CPU a product of patches where weights outnumber pixels."""
    batch, channels, stride = *x.shape[:2], layer.stride[0]
    height, width = ((side - 1) // stride + 1 for side in x.shape[2:])
    if x.device.type != "cpu" or layer.out_channels < FEW_ROWS * batch * height * width:
        return conv2d(x, layer.weight, layer.bias, stride=stride, padding=1)
    padded = pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).contiguous()
    (item, row, cell, _), size = padded.stride(), (batch, height, width, 3, 3, channels)
    steps = (item, stride * row, stride * cell, row, cell, 1)
    patches = padded.as_strided(size, steps).reshape(batch, height * width, 9 * channels)
    rows = linear(patches, layer.weight.permute(0, 2, 3, 1).flatten(1), layer.bias)
    return rows.view(batch, height, width, -1).permute(0, 3, 1, 2)


def exactly(layer: nn.Conv2d, x: Maps) -> Float[Tensor, "batch _channels height width"]:
    """Return the layer's 3 x 3 convolution in float32, so that a network's output is not rounded to half precision.

    In bfloat16 a picture would be off by up to half a step of 255, and guidance multiplies a latent's rounding error by
    15.
    """
    bias = None if layer.bias is None else layer.bias.float()
    return conv2d(x.float(), layer.weight.float(), bias, padding=1)


def pointwise(
    layer: nn.Conv2d | nn.Linear, x: Maps, onto: Float[Tensor, "batch out height width"] | None = None
) -> Float[Tensor, "batch out height width"]:
    """Return a 1 x 1 convolution, computed as a matrix product; added to `onto` where that is given."""
    if onto is None:
        return from_rows(linear(to_rows(x), layer.weight.flatten(1), layer.bias), like=x)
    return from_rows(added(layer, to_rows(x), onto=to_rows(onto)), like=x)


def to_rows(x: Maps) -> Float[Tensor, "batch cells channels"]:
    """Return the map's cells as rows; no copy when the channels are last in memory."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def from_rows(
    rows: Float[Tensor, "batch cells channels"], *, like: Float[Tensor, "_batch _channels height width"]
) -> Maps:
    """Return rows as a map again, of the height and width of `like`."""
    _, _, height, width = like.shape
    return rows.view(len(rows), height, width, -1).permute(0, 3, 1, 2)


def copied(x: Pictures, copies: Copies) -> Maps:
    """Return a map for each text, with its channels still last."""
    return from_rows(to_rows(x)[copies], like=x)
