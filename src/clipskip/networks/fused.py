"""Matrix products fused with the operation that follows them, where torch and the processor offer that.

oneDNN adds, multiplies or applies GELU while a product is still in cache. torch exposes it only to its own compiler, as
operations whose names begin with an underscore, so each use has a plain alternative. In bfloat16 with AMX, GEGLU of
2048 x 320 rows takes 2.2 ms instead of 6.6, an addition of 8192 x 320 0.7 ms instead of 1.4; a whole step of SD 1.x
takes a tenth less.
"""

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, linear

Rows = Float[Tensor, "*batch width"]
Weights = tuple[Float[Tensor, "out width"], Float[Tensor, " out"]]
"""A matrix and its bias."""


def added(layer: nn.Module, rows: Rows, *, onto: Float[Tensor, "*batch out"]) -> Float[Tensor, "*batch out"]:
    """Return onto + layer(rows) for a linear layer or a 1 x 1 convolution; may overwrite `onto`."""
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    weight, bias = layer.weight.flatten(1), layer.bias
    if can_fuse(rows):
        out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(rows, onto.contiguous(), weight, bias, "add")
        return out
    onto += linear(rows, weight, bias)
    return onto


def gated(rows: Rows, value: Weights, gate: Weights) -> Float[Tensor, "*batch out"]:
    """Return value(rows) * gelu(gate(rows)) (Shazeer 2020, GEGLU)."""
    if can_fuse(rows):
        opened = torch.ops.mkldnn._linear_pointwise(rows, *gate, "gelu", [], "none")
        out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(rows, opened, *value, "mul")
        return out
    plain = linear(rows, *value)
    plain *= gelu(linear(rows, *gate))
    return plain


def can_fuse(rows: Tensor) -> bool:
    """Return whether the fused operations work here for these rows: in bfloat16, on a CPU that multiplies it."""
    return rows.dtype == torch.bfloat16 and rows.device.type == "cpu" and _has_fused()


@cache
def _has_fused() -> bool:
    """Return whether the fused operations run here. They are tried once, since torch may have the names without the
    library."""
    row = torch.ones(1, 16, dtype=torch.bfloat16)
    weight, bias = torch.ones(16, 16, dtype=torch.bfloat16), torch.zeros(16, dtype=torch.bfloat16)
    try:
        torch.ops.mkldnn._linear_pointwise(row, weight, bias, "gelu", [], "none")
        sum_ = torch.ops.mkldnn._linear_pointwise.binary(row, row, weight, bias, "add")
    except (AttributeError, RuntimeError):
        return False
    return bool((sum_ == 17).all())
