"""Norms, GELU gates and attention as single passes in C over channels-last bfloat16, for training on a CPU.

`fuse(network)` puts them into the blocks of diffusers' UNet or VAE; its parameters stay the objects they are. Given
channels-last maps, all of its maps are so.
"""

import ctypes
import hashlib
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ModelMixin
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

SOURCE = Path(__file__).with_name("fused.c")
FLAGS = (
    "-O3", "-march=native", "-shared", "-fPIC",
    # what -ffast-math stands for, without its start-up code: that would flush small numbers to zero in the whole process
    "-fno-math-errno", "-fno-signed-zeros", "-fno-trapping-math", "-fassociative-math", "-freciprocal-math", "-ffinite-math-only",
)  # fmt: skip


def _library() -> ctypes.CDLL:
    """The compiled kernels, built on first use under a name that holds their source's hash."""
    digest = hashlib.sha256(SOURCE.read_bytes() + " ".join(FLAGS).encode()).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / f"clipskip-training-{digest}.so"
    if not path.exists():
        made = path.with_suffix(f".{id(path)}.partial")
        subprocess.run(["gcc", *FLAGS, str(SOURCE), "-o", str(made), "-lm"], check=True)
        made.rename(path)
    return ctypes.CDLL(str(path))


LIBRARY = _library()


def _pointer(x: Tensor | None, first: int = 0) -> ctypes.c_void_p:
    """The address of the number `first` of a tensor."""
    return ctypes.c_void_p(None if x is None else x.data_ptr() + first * x.element_size())


def _longs(*numbers: int) -> tuple[ctypes.c_long, ...]:
    return tuple(map(ctypes.c_long, numbers))


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:  # type: ignore[override]
        x, more, weight, bias, norm = given
        x = x.contiguous(memory_format=torch.channels_last)
        y, (images, channels, height, width) = torch.empty_like(x), x.shape
        stats = torch.empty(images, norm.num_groups, 2)
        ctx.sizes = _longs(images, height * width, channels, norm.num_groups)
        ctx.silu = ctypes.c_int(norm.silu)
        arrays = map(_pointer, (x, more, weight, bias, y, stats))
        LIBRARY.norm_forward(*arrays, *ctx.sizes, ctypes.c_float(norm.eps), ctx.silu)
        ctx.save_for_backward(x, more, weight, bias, stats)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, more, weight, bias, stats = ctx.saved_tensors
        grad, dx = grad.contiguous(memory_format=torch.channels_last), torch.empty_like(x)
        dmore = None if more is None else torch.empty(more.shape)
        dweight, dbias = torch.zeros(2, len(weight))
        arrays = map(_pointer, (grad, x, more, weight, bias, stats, dx, dmore, dweight, dbias))
        LIBRARY.norm_backward(*arrays, *ctx.sizes, ctx.silu)
        return dx, None if dmore is None else dmore.to(x.dtype), dweight.to(x.dtype), dbias.to(x.dtype), None


class FusedNorm(nn.Module):
    """A group norm, with SiLU after it where asked; the parameters are the given norm's."""

    def __init__(self, norm: nn.GroupNorm, *, silu: bool) -> None:
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias
        self.num_groups, self.eps, self.silu = norm.num_groups, norm.eps, silu

    def forward(self, x: Tensor, more: Tensor | None = None) -> Tensor:
        """The normalised maps, channels last; `more`, [images, channels], is added to x first."""
        y: Tensor = _Norm.apply(x, more, self.weight, self.bias, self)  # type: ignore[no-untyped-call]
        return y


class FusedResnet(nn.Module):
    """diffusers' block of two convolutions, without resampling."""

    def __init__(self, block: ResnetBlock2D) -> None:
        super().__init__()
        self.norm1, self.norm2 = FusedNorm(block.norm1, silu=True), FusedNorm(block.norm2, silu=True)
        self.conv1, self.conv2, self.conv_shortcut = block.conv1, block.conv2, block.conv_shortcut
        self.time_emb_proj = block.time_emb_proj

    def forward(self, x: Tensor, temb: Tensor | None) -> Tensor:
        """The block's maps, channels last."""
        more = None if temb is None else self.time_emb_proj(F.silu(temb))
        y: Tensor = self.conv2(self.norm2(self.conv1(self.norm1(x)), more))
        return y + (x if self.conv_shortcut is None else _maps(_pointwise(_rows(x), self.conv_shortcut)))


def _rows(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def _maps(rows: Tensor) -> Tensor:
    return rows.permute(0, 3, 1, 2)


def _pointwise(rows: Tensor, layer: nn.Conv2d) -> Tensor:
    """A 1 x 1 convolution as a product of matrices, which takes less than half the time, forward and back."""
    return F.linear(rows, layer.weight.flatten(1), layer.bias)


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        x, y, beside, norm, weight, bias = given
        y, h, n = y.contiguous(), torch.empty_like(y), torch.empty_like(y)
        stats = torch.empty(y.numel() // len(bias), 2)
        ctx.sizes, ctx.first = _longs(len(stats), len(bias)), x is None
        arrays = map(_pointer, (x, y, beside, weight, bias, h, n, stats))
        LIBRARY.add_norm_forward(*arrays, *ctx.sizes, ctypes.c_float(norm.eps))
        ctx.save_for_backward(h, weight, stats)
        return h, n

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        h, weight, stats = ctx.saved_tensors
        gh, gn = (grad.contiguous() for grad in grads)
        dx, (dbeside, dweight, dbias) = torch.empty_like(h), torch.zeros(3, len(weight))
        arrays = map(_pointer, (gh, gn, h, weight, stats, dx, dbeside, dweight, dbias))
        LIBRARY.add_norm_backward(*arrays, *ctx.sizes)
        return (None if ctx.first else dx), dx, dbeside.to(h.dtype), None, dweight.to(h.dtype), dbias.to(h.dtype)


def add_norm(x: Tensor | None, y: Tensor, beside: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """The sum x + y + beside and its layer norm; `beside` is a layer's bias."""
    h, n = _AddNorm.apply(x, y, beside, norm, norm.weight, norm.bias)  # type: ignore[no-untyped-call]
    return h, n


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, both: Tensor, bias: Tensor) -> Tensor:  # type: ignore[override]
        both = both.contiguous()
        y = both.new_empty(*both.shape[:-1], both.shape[-1] // 2)
        ctx.sizes = _longs(y.numel() // y.shape[-1], y.shape[-1])
        LIBRARY.gate_forward(*map(_pointer, (both, bias, y)), *ctx.sizes)
        ctx.save_for_backward(both, bias)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        both, bias = ctx.saved_tensors
        grad, dboth, dbias = grad.contiguous(), torch.empty_like(both), torch.zeros(len(bias))
        LIBRARY.gate_backward(*map(_pointer, (grad, both, bias, dboth, dbias)), *ctx.sizes)
        return dboth, dbias.to(bias.dtype)


def gate(x: Tensor, layer: nn.Linear) -> Tensor:
    """A layer's values times GELU of its gates."""
    y: Tensor = _Gate.apply(F.linear(x, layer.weight), layer.bias)  # type: ignore[no-untyped-call]
    return y


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:  # type: ignore[override]
        mine, theirs, heads = given
        mine, others = mine.contiguous(), None if theirs is None else theirs.contiguous()
        width = mine.shape[-1] // (3 if others is None else 1)
        (images, queries), keys = mine.shape[:2], (mine if others is None else others).shape[1]
        y, logs = mine.new_empty(images, queries, width), torch.empty(images, heads, queries)
        steps = mine.shape[-1], (mine if others is None else others).shape[-1]
        ctx.width, ctx.sizes = width, _longs(images, heads, queries, keys, width // heads, *steps)
        LIBRARY.attention_forward(*_parts(mine, others, width), *map(_pointer, (y, logs)), *ctx.sizes)
        ctx.save_for_backward(mine, others, logs)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        mine, others, logs = ctx.saved_tensors
        grad, dmine = grad.contiguous(), torch.empty_like(mine)
        dothers = None if others is None else torch.empty_like(others)
        arrays = *_parts(mine, others, ctx.width), _pointer(logs), *_parts(dmine, dothers, ctx.width)
        LIBRARY.attention_backward(_pointer(grad), *arrays, *ctx.sizes)
        return dmine, dothers, None


def _parts(mine: Tensor, others: Tensor | None, width: int) -> tuple[ctypes.c_void_p, ...]:
    """Where queries, keys and values begin."""
    if others is None:
        return _pointer(mine), _pointer(mine, width), _pointer(mine, 2 * width)
    return _pointer(mine), _pointer(others), _pointer(others, width)


def attend(layer: Attention, rows: Tensor, others: Tensor | None = None) -> Tensor:
    """What rows gather from others, or from each other, without the last layer's bias; a head's width is a multiple of 16."""
    q, k, v = layer.to_q.weight, layer.to_k.weight, layer.to_v.weight
    if others is None:
        mine, theirs = F.linear(rows, torch.cat([q, k, v])), None
    else:
        mine, theirs = F.linear(rows, q), F.linear(others, torch.cat([k, v]))
    y: Tensor = _Attend.apply(mine, theirs, layer.heads)  # type: ignore[no-untyped-call]
    return F.linear(y, layer.to_out[0].weight)


class FusedTransformer(nn.Module):
    """diffusers' transformer between two 1 x 1 convolutions, of one block, as SD 1.x has it."""

    def __init__(self, transformer: Transformer2DModel) -> None:
        super().__init__()
        self.norm = FusedNorm(transformer.norm, silu=False)
        self.proj_in, self.proj_out = transformer.proj_in, transformer.proj_out
        self.transformer_blocks = transformer.transformer_blocks

    def forward(self, x: Tensor, encoder_hidden_states: Tensor, **_: Any) -> tuple[Tensor]:
        """The transformer's maps, channels last."""
        rows = _rows(self.norm(x))
        h, y, bias = None, F.linear(rows.flatten(1, 2), self.proj_in.weight.flatten(1)), self.proj_in.bias
        block: BasicTransformerBlock
        for block in self.transformer_blocks:
            h, n = add_norm(h, y, bias, block.norm1)
            h, n = add_norm(h, attend(block.attn1, n), block.attn1.to_out[0].bias, block.norm2)
            h, n = add_norm(h, attend(block.attn2, n, encoder_hidden_states), block.attn2.to_out[0].bias, block.norm3)
            y, bias = F.linear(gate(n, block.ff.net[0].proj), block.ff.net[2].weight), block.ff.net[2].bias
        h = h + (y + bias)
        return (x + _maps(_pointwise(h, self.proj_out).view_as(rows)),)


FUSED = {ResnetBlock2D: FusedResnet, Transformer2DModel: FusedTransformer}


def fuse(network: ModelMixin) -> None:
    """Fuses the blocks of a UNet or VAE, if it is in bfloat16 and on the CPU."""
    if network.device.type != "cpu" or network.dtype != torch.bfloat16:
        return
    for module in list(network.modules()):
        for name, inner in list(module.named_children()):
            if type(inner) in FUSED:
                setattr(module, name, FUSED[type(inner)](inner))
        if isinstance(getattr(module, "conv_norm_out", None), nn.GroupNorm):
            module.conv_norm_out, module.conv_act = FusedNorm(module.conv_norm_out, silu=True), nn.Identity()
