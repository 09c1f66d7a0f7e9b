"""The parts of Stable Diffusion's networks, named as in diffusers, for inference.

Every activation keeps its channels last in memory, so that the same numbers are pixels to a convolution and rows to a
matrix product, with no copy between them: copies were a fifth of a step on a CPU.
"""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, linear, pad, silu

from clipskip.networks.attention import Attention, Memory, Rows, Text
from clipskip.networks.fused import added, gated

Maps = Float[Tensor, "batch channels height width"]
OtherMaps = Float[Tensor, "_batch _channels _height _width"]
"""Maps whose sizes are not those of the maps that came in."""
Pictures = Float[Tensor, "pictures channels height width"]
"""Maps of which several texts may share one."""
Copies = Int[Tensor, " batch"]
"""Which picture each text is about."""
Times = Float[Tensor, "times embedding"]
"""The embedded noise level: one for all pictures, or one for each."""

RESNET_EPS, NORM_EPS = 1e-5, 1e-6
"""Of a UNet's resnets, and of everything else."""
GATE_ROWS = 2048
"""Rows of the gated feed-forward at once on a CPU: the wide middle then stays in cache, half the time at 4096 rows."""
FEW_ROWS = 2.5
"""A 3 x 3 convolution with this many times more outputs than pixels goes as one product of patches on a CPU.

oneDNN rearranges the weights at each call, 2560 x 1280 x 9 of them for 128 pixels: 39 ms, the product 11.
"""


@final
class Resnet(nn.Module):
    """Two convolutions beside a shortcut, told the noise level in a UNet (He et al. 2016; Ho et al. 2020)."""

    def __init__(self, before: int, width: int, *, groups: int, embedding: int = 0) -> None:
        super().__init__()
        eps = RESNET_EPS if embedding else NORM_EPS
        self.norm1 = nn.GroupNorm(groups, before, eps=eps)
        self.conv1 = nn.Conv2d(before, width, 3, padding=1)
        self.time_emb_proj = nn.Linear(embedding, width) if embedding else None
        self.norm2 = nn.GroupNorm(groups, width, eps=eps)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(before, width, 1) if before != width else None

    def forward(self, x: Maps, time: Times | None = None) -> OtherMaps:
        """`time` after its activation."""
        inner = convolve(self.conv1, silu(self.norm1(x), inplace=True))
        if self.time_emb_proj is not None and time is not None:
            inner += self.time_emb_proj(time)[:, :, None, None]
        inner = convolve(self.conv2, silu(self.norm2(inner), inplace=True))
        return inner.add_(x) if self.conv_shortcut is None else pointwise(self.conv_shortcut, x, onto=inner)


@final
class FeedForward(nn.Module):
    """Out to four times the width, gated, and back (Shazeer 2020, GEGLU)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([Gate(width), nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, rows: Rows, onto: Rows) -> Rows:
        """Added to `onto`."""
        flat, to = rows.flatten(0, 1), onto.flatten(0, 1)
        size = GATE_ROWS if rows.device.type == "cpu" else len(flat)
        parts = zip(torch.split(flat, size), torch.split(to, size), strict=True)
        return torch.cat([added(self.net[2], self.net[0](some), onto=own) for some, own in parts]).view_as(rows)


@final
class Gate(nn.Module):
    """A linear map times the GELU of another; both lie in one matrix."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 8 * width)

    def forward(self, rows: Float[Tensor, "rows width"]) -> Float[Tensor, "rows wide"]:
        (weight, gate), (bias, gate_bias) = self.proj.weight.chunk(2), self.proj.bias.chunk(2)
        return gated(rows, (weight, bias), (gate, gate_bias))


@final
class TransformerBlock(nn.Module):
    """Cells attend to each other, then to the text, then each is fed forward alone."""

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
        """May change `rows` in place. Where texts share a picture, `copies` has the picture of each."""
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
        self.norm = nn.GroupNorm(groups, width, eps=NORM_EPS)
        self.proj_in = nn.Linear(width, width) if linear_ends else nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(width, text_width=text_width, heads=heads) for _ in range(depth)
        )
        self.proj_out = nn.Linear(width, width) if linear_ends else nn.Conv2d(width, width, 1)

    def forward(self, x: Pictures, text: Text, memory: Memory | None = None, copies: Copies | None = None) -> Maps:
        """As many maps as texts: what comes before the text is done once for each picture, then copied."""
        out = pointwise(self.proj_in, self.norm(x))
        rows = to_rows(out)
        for number, block in enumerate(self.transformer_blocks):
            rows = block(rows, text, memory, None if number else copies)
        out = from_rows(rows, like=out)
        return pointwise(self.proj_out, out, onto=x if copies is None else copied(x, copies))


@final
class Downsample(nn.Module):
    """Half the size."""

    def __init__(self, width: int, *, padding: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=padding)

    def forward(self, x: Maps) -> OtherMaps:
        """With no padding of its own a row and a column of zeros are added at the far ends, as in a VAE."""
        if self.conv.padding[0]:
            return convolve(self.conv, x)
        out: OtherMaps = self.conv(pad(x, (0, 1, 0, 1)))
        return out


@final
class Upsample(nn.Module):
    """Twice the size, or the size that is asked for where the way down met an odd one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Maps, size: Sequence[int] | None = None) -> OtherMaps:
        return convolve(self.conv, interpolate(x, size=tuple(size or (2 * x.shape[2], 2 * x.shape[3])), mode="nearest"))


def convolve(layer: nn.Conv2d, x: Maps) -> OtherMaps:
    """The layer's 3 x 3 convolution, padded by 1; where weights outnumber pixels on a CPU, as a product of patches."""
    batch, channels, stride = *x.shape[:2], layer.stride[0]
    height, width = ((side - 1) // stride + 1 for side in x.shape[2:])
    if x.device.type != "cpu" or layer.out_channels < FEW_ROWS * batch * height * width:
        return conv2d(x, layer.weight, layer.bias, stride=stride, padding=1)
    padded = pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).contiguous()
    (one, row, cell, _), size = padded.stride(), (batch, height, width, 3, 3, channels)
    steps = (one, stride * row, stride * cell, row, cell, 1)
    patches = padded.as_strided(size, steps).reshape(batch, height * width, 9 * channels)
    rows = linear(patches, layer.weight.permute(0, 2, 3, 1).flatten(1), layer.bias)
    return rows.view(batch, height, width, -1).permute(0, 3, 1, 2)


def exactly(layer: nn.Conv2d, x: Maps) -> Float[Tensor, "batch _channels height width"]:
    """The layer's 3 x 3 convolution in float32: what a network gives is not rounded to its half precision.

    A picture in bfloat16 would be off by up to half a step of 255; guidance makes 15 of one rounding in a latent.
    """
    bias = None if layer.bias is None else layer.bias.float()
    return conv2d(x.float(), layer.weight.float(), bias, padding=1)


def pointwise(
    layer: nn.Conv2d | nn.Linear, x: Maps, onto: Float[Tensor, "batch out height width"] | None = None
) -> Float[Tensor, "batch out height width"]:
    """A 1 x 1 convolution, which is a matrix product for each cell; added to `onto` where that is given."""
    if onto is None:
        return from_rows(linear(to_rows(x), layer.weight.flatten(1), layer.bias), like=x)
    return from_rows(added(layer, to_rows(x), onto=to_rows(onto)), like=x)


def to_rows(x: Maps) -> Float[Tensor, "batch cells channels"]:
    """The map's cells one after the other; no copy when its channels are last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def from_rows(
    rows: Float[Tensor, "batch cells channels"], *, like: Float[Tensor, "_batch _channels height width"]
) -> Maps:
    """Cells as a map again, of another's height and width."""
    _, _, height, width = like.shape
    return rows.view(len(rows), height, width, -1).permute(0, 3, 1, 2)


def copied(x: Pictures, copies: Copies) -> Maps:
    """A map for each text, its channels still last."""
    return from_rows(to_rows(x)[copies], like=x)
