"""Group norm with SiLU and GELU gates as single passes in C over channels-last bfloat16, for training on a CPU.

`fuse(network)` puts them where diffusers' UNet or VAE has norm, activation and gate apart; its parameters stay the objects
they are. Given channels-last maps, all of its maps are so.
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
from diffusers.models.activations import GEGLU
from diffusers.models.resnet import ResnetBlock2D
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


def _pointer(x: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(x.data_ptr())


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, norm: "FusedNorm") -> Tensor:  # type: ignore[override]
        x = x.contiguous(memory_format=torch.channels_last)
        y, (images, channels, height, width) = torch.empty_like(x), x.shape
        stats = torch.empty(images, norm.num_groups, 2)
        ctx.sizes = tuple(map(ctypes.c_long, (images, height * width, channels, norm.num_groups)))
        ctx.silu = ctypes.c_int(norm.silu)
        arrays = [_pointer(a) for a in (x, weight, bias, y, stats)]
        LIBRARY.norm_forward(*arrays, *ctx.sizes, ctypes.c_float(norm.eps), ctx.silu)
        ctx.save_for_backward(x, weight, bias, stats)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # type: ignore[override]
        x, weight, bias, stats = ctx.saved_tensors
        grad, dx = grad.contiguous(memory_format=torch.channels_last), torch.empty_like(x)
        dweight, dbias = torch.zeros(len(weight)), torch.zeros(len(bias))
        arrays = [_pointer(a) for a in (grad, x, weight, bias, stats, dx, dweight, dbias)]
        LIBRARY.norm_backward(*arrays, *ctx.sizes, ctx.silu)
        return dx, dweight.to(weight.dtype), dbias.to(bias.dtype), None


class FusedNorm(nn.Module):
    """A group norm, with SiLU after it where asked; the parameters are the given norm's."""

    def __init__(self, norm: nn.GroupNorm, *, silu: bool) -> None:
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias
        self.num_groups, self.eps, self.silu = norm.num_groups, norm.eps, silu

    def forward(self, x: Tensor) -> Tensor:
        """The normalised maps, channels last."""
        y: Tensor = _Norm.apply(x, self.weight, self.bias, self)  # type: ignore[no-untyped-call]
        return y


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:  # type: ignore[override]
        both = both.contiguous()
        y = both.new_empty(*both.shape[:-1], both.shape[-1] // 2)
        ctx.sizes = ctypes.c_long(y.numel() // y.shape[-1]), ctypes.c_long(y.shape[-1])
        LIBRARY.gate_forward(_pointer(both), _pointer(y), *ctx.sizes)
        ctx.save_for_backward(both)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (both,) = ctx.saved_tensors
        grad, dboth = grad.contiguous(), torch.empty_like(both)
        LIBRARY.gate_backward(_pointer(grad), _pointer(both), _pointer(dboth), *ctx.sizes)
        return dboth


class FusedGate(nn.Module):
    """diffusers' GEGLU with one pass for GELU and product."""

    def __init__(self, gate: GEGLU) -> None:
        super().__init__()
        self.proj = gate.proj

    def forward(self, x: Tensor) -> Tensor:
        """Values times GELU of gates."""
        y: Tensor = _Gate.apply(self.proj(x))  # type: ignore[no-untyped-call]
        return y


def fuse(network: ModelMixin) -> None:
    """Replaces norms, activations and gates of a UNet or VAE by the fused ones, if it is in bfloat16 and on the CPU."""
    if network.device.type != "cpu" or network.dtype != torch.bfloat16:
        return
    for module in list(network.modules()):
        if isinstance(module, ResnetBlock2D):
            module.norm1, module.norm2 = (FusedNorm(n, silu=True) for n in (module.norm1, module.norm2))
            module.nonlinearity = nn.Identity()
            if module.time_emb_proj is not None:
                module.time_emb_proj.register_forward_pre_hook(lambda _, given: (F.silu(given[0]),))
        elif isinstance(getattr(module, "norm", None), nn.GroupNorm):
            module.norm = FusedNorm(module.norm, silu=False)
        if isinstance(getattr(module, "conv_norm_out", None), nn.GroupNorm):
            module.conv_norm_out, module.conv_act = FusedNorm(module.conv_norm_out, silu=True), nn.Identity()
        if isinstance(getattr(module, "net", None), nn.ModuleList) and isinstance(module.net[0], GEGLU):
            module.net[0] = FusedGate(module.net[0])
