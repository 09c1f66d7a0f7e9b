"""The trainer's kernels in C against torch in float64."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parents[2] / "training"))

pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="the kernels are compiled by gcc")
ROUNDING = 2**-7
"""bfloat16 keeps 8 bits; inputs are exact in it, so that only results are rounded, and weights' gradients once more."""


def close(ours: Tensor, exact: Tensor) -> bool:
    return float((ours.detach().double() - exact.detach()).abs().max() / exact.detach().abs().max()) < ROUNDING


@pytest.mark.parametrize("silu", [True, False])
def test_a_fused_norm_is_group_norm_and_silu_forward_and_back(silu: bool) -> None:
    from fused import FusedNorm

    torch.manual_seed(0)
    norm = nn.GroupNorm(8, 48).bfloat16()
    nn.init.normal_(norm.weight, 1)
    nn.init.normal_(norm.bias)
    fused = FusedNorm(norm, silu=silu)
    x = (3 * torch.randn(3, 48, 6, 5) + 1).bfloat16().to(memory_format=torch.channels_last).requires_grad_()
    grad = torch.randn(3, 48, 6, 5).bfloat16()
    y = fused(x)
    y.backward(grad)
    exact = [value.detach().double().requires_grad_() for value in (x, norm.weight, norm.bias)]
    normal = F.group_norm(exact[0], 8, exact[1], exact[2], norm.eps)
    wanted = F.silu(normal) if silu else normal
    wanted.backward(grad.double())
    assert close(y, wanted)
    assert all(close(ours.grad, theirs.grad) for ours, theirs in zip((x, norm.weight, norm.bias), exact, strict=True))


def test_a_fused_gate_is_geglu_forward_and_back() -> None:
    from diffusers.models.activations import GEGLU
    from fused import FusedGate

    torch.manual_seed(0)
    gate = GEGLU(16, 24).bfloat16()
    fused = FusedGate(gate)
    x = torch.randn(2, 7, 16).bfloat16().requires_grad_()
    grad = torch.randn(2, 7, 24).bfloat16()
    fused(x).backward(grad)
    both = gate.proj(x).detach().double().requires_grad_()
    values, gates = both.chunk(2, dim=-1)
    wanted = values * F.gelu(gates)
    wanted.backward(grad.double())
    assert close(fused(x), wanted)
    assert close(x.grad, both.grad @ gate.proj.weight.double())


def test_a_fused_vae_is_as_near_the_exact_one_as_a_plain_one() -> None:
    """Rounding to bfloat16 after each of some fifty layers adds up; the reference for how much is torch's own bfloat16."""
    from diffusers.models.resnet import ResnetBlock2D
    from fused import FusedNorm, fuse
    from vae import new_vae

    plain, fused = new_vae().bfloat16(), new_vae().bfloat16()
    exact = new_vae()
    exact.load_state_dict({name: value.float() for name, value in plain.state_dict().items()})
    fuse(fused)
    norms = [name for name, module in fused.named_modules() if isinstance(module, nn.GroupNorm)]
    assert all("attentions" in name for name in norms), norms
    resnets = sum(isinstance(module, ResnetBlock2D) for module in fused.modules())
    assert sum(isinstance(module, FusedNorm) for module in fused.modules()) == 2 * resnets + 2
    x = torch.rand(1, 3, 32, 32).bfloat16().to(memory_format=torch.channels_last)
    grad = torch.randn(1, 3, 32, 32).bfloat16()
    drawn = []
    for vae in (exact, plain, fused):
        y = vae(x.to(vae.dtype)).sample
        y.backward(grad.to(vae.dtype))
        drawn.append(y.detach().float())
    assert float((drawn[2] - drawn[0]).norm()) < 1.2 * float((drawn[1] - drawn[0]).norm())
    wanted = {name: value.grad for name, value in exact.named_parameters() if not name.endswith("to_k.bias")}
    given = {name: value.grad.float() for name, value in fused.named_parameters()}  # of a key's bias it is zero
    assert all(torch.cosine_similarity(given[n].ravel(), wanted[n].ravel(), dim=0) > 0.98 for n in wanted)
