"""oneDNN's fused operations against the plain ones, where this machine has them."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear

from clipskip.networks import fused
from clipskip.networks.fused import added, can_fuse, gated

ROWS, WIDTH, OUT = 96, 64, 80
needs_fused = pytest.mark.skipif(
    not can_fuse(torch.ones(1, 1, dtype=torch.bfloat16)), reason="this torch or processor fuses nothing in bfloat16"
)


def numbers() -> list[Tensor]:
    torch.manual_seed(0)
    shapes = ((ROWS, WIDTH), (OUT, WIDTH), (OUT,), (OUT, WIDTH), (OUT,), (ROWS, OUT))
    return [torch.randn(shape).bfloat16() for shape in shapes]


@needs_fused
def test_a_fused_product_is_as_near_to_float32_as_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, value, bias, gate, gate_bias, onto = numbers()
    layer = nn.Linear(WIDTH, OUT)
    layer.weight.data, layer.bias.data = value, bias
    exact = [one.float() for one in (rows, value, bias, gate, gate_bias, onto)]
    true_gated = linear(exact[0], exact[1], exact[2]) * gelu(linear(exact[0], exact[3], exact[4]))
    true_added = exact[5] + linear(exact[0], exact[1], exact[2])
    with torch.no_grad():
        ours = gated(rows, (value, bias), (gate, gate_bias)), added(layer, rows, onto=onto.clone())
        monkeypatch.setattr(fused, "can_fuse", lambda _: False)
        plain = gated(rows, (value, bias), (gate, gate_bias)), added(layer, rows, onto=onto.clone())
    for one, other, true in zip(ours, plain, (true_gated, true_added), strict=True):
        # fused rounds once where the plain way rounds twice or thrice
        assert (one.float() - true).square().mean() <= 1.05 * (other.float() - true).square().mean()


def test_float32_takes_the_plain_way_and_adds_a_1_x_1_convolution_as_a_matrix() -> None:
    layer, rows, onto = nn.Conv2d(WIDTH, OUT, 1), torch.randn(2, ROWS, WIDTH), torch.randn(2, ROWS, OUT)
    expected = onto + linear(rows, layer.weight.flatten(1), layer.bias)
    with torch.no_grad():
        assert torch.allclose(added(layer, rows, onto=onto.clone()), expected, atol=1e-6)
