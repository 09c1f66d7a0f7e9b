"""The trainer's kernels in C against torch in float64."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parents[2] / "training"))

pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="the kernels are compiled by gcc")
ROUNDING = 2**-7
"""bfloat16 keeps 8 bits; inputs are exact in it, so that only results are rounded, and weights' gradients once more."""


def close(ours: Tensor, exact: Tensor) -> bool:
    return float((ours.detach().double() - exact.detach()).abs().max() / exact.detach().abs().max()) < ROUNDING


def exactly(*values: Tensor) -> list[Tensor]:
    return [value.detach().double().requires_grad_() for value in values]


def random(*shape: int) -> Tensor:
    return torch.randn(shape).bfloat16().requires_grad_()


def all_close(ours: tuple[Tensor, ...], exact: list[Tensor]) -> bool:
    return all(close(x.grad, y.grad) for x, y in zip(ours, exact, strict=True))


@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("shifted", [True, False])
def test_a_fused_norm_is_group_norm_and_silu_forward_and_back(silu: bool, shifted: bool) -> None:
    from fused import FusedNorm

    torch.manual_seed(0)
    norm = nn.GroupNorm(8, 48).bfloat16()
    nn.init.normal_(norm.weight, 1)
    nn.init.normal_(norm.bias)
    fused = FusedNorm(norm, silu=silu)
    x = (3 * torch.randn(3, 48, 6, 5) + 1).bfloat16().to(memory_format=torch.channels_last).requires_grad_()
    grad = torch.randn(3, 48, 6, 5).bfloat16()
    more = random(3, 48)
    fused(x, more if shifted else None).backward(grad)
    ours = (x, norm.weight, norm.bias, *([more] if shifted else []))
    exact = exactly(*ours)
    normal = F.group_norm(exact[0] + (exact[3][:, :, None, None] if shifted else 0), 8, exact[1], exact[2], norm.eps)
    wanted = F.silu(normal) if silu else normal
    wanted.backward(grad.double())
    assert close(fused(x, more if shifted else None), wanted)
    assert all_close(ours, exact)


@pytest.mark.parametrize("first", [True, False])
def test_a_sum_and_its_layer_norm_forward_and_back(first: bool) -> None:
    from fused import add_norm

    torch.manual_seed(0)
    norm = nn.LayerNorm(48).bfloat16()
    nn.init.normal_(norm.weight, 1)
    nn.init.normal_(norm.bias)
    y, beside, x = random(2, 7, 48), random(48), random(2, 7, 48)
    on, normal = add_norm(None if first else x, y, beside, norm)
    grads = random(2, 7, 48), random(2, 7, 48)
    torch.autograd.backward([on, normal], list(grads))
    ours = (y, beside, norm.weight, norm.bias, *([] if first else [x]))
    exact = exactly(*ours)
    total = exact[0] + exact[1] + (0 if first else exact[4])
    wanted = total, F.layer_norm(total, (48,), exact[2], exact[3], norm.eps)
    torch.autograd.backward(list(wanted), [grad.double() for grad in grads])
    assert close(on, wanted[0])
    assert close(normal, wanted[1])
    assert all_close(ours, exact)


def test_a_fused_gate_is_geglu_forward_and_back() -> None:
    from fused import gate

    torch.manual_seed(0)
    layer = nn.Linear(16, 48).bfloat16()
    with torch.no_grad():
        layer.weight.copy_(torch.eye(48, 16))  # so that the product is exact, and only the gate rounds
    x, grad = random(2, 7, 16), random(2, 7, 24)
    y = gate(x, layer)
    y.backward(grad)
    exact = exactly(x, layer.weight, layer.bias)
    values, gates = F.linear(*exact).chunk(2, dim=-1)
    wanted = values * F.gelu(gates)
    wanted.backward(grad.double())
    assert close(y, wanted)
    assert all_close((x, layer.weight, layer.bias), exact)


@pytest.mark.parametrize(
    ("queries", "keys", "width"),
    [(256, None, 16), (256, 77, 16), (64, None, 32), (6, 77, 48), (6, None, 48), (24, None, 16)],
)
def test_fused_attention_forward_and_back(queries: int, keys: int | None, width: int) -> None:
    """Of each other's rows where keys is None. Counts that fill no block of queries or keys are among them."""
    from fused import _Attend

    torch.manual_seed(0)
    size = 4 * width
    mine = random(2, queries, size * (1 if keys else 3))
    theirs = random(2, keys, 2 * size) if keys else None
    grad = random(2, queries, size)
    y = _Attend.apply(mine, theirs, 4)
    y.backward(grad)
    ours = (mine,) if theirs is None else (mine, theirs)
    exact = exactly(*ours)
    parts = torch.cat(exact, dim=-1).chunk(3, dim=-1) if theirs is None else (exact[0], *exact[1].chunk(2, dim=-1))
    heads = [part.unflatten(-1, (4, width)).transpose(1, 2) for part in parts]
    wanted = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
    wanted.backward(grad.double())
    assert close(y, wanted)
    assert all_close(ours, exact)


def drawn(networks: list[nn.Module], draw: Callable[[nn.Module], Tensor]) -> list[Tensor]:
    """What each draws, after one way back with the same gradients."""
    found = []
    for network in networks:
        y = draw(network)
        y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype))
        found.append(y.detach().float())
    return found


def check_fused(networks: list[nn.Module], draw: Callable[[nn.Module], Tensor]) -> None:
    """Rounding to bfloat16 after each of some fifty layers adds up; the reference for how much is torch's own bfloat16."""
    from fused import fuse

    exact, plain, fused = networks
    exact.load_state_dict({name: value.float() for name, value in plain.state_dict().items()})
    fuse(fused)
    assert not any(isinstance(module, ResnetBlock2D | Transformer2DModel) for module in fused.modules())
    found = drawn(networks, draw)
    assert float((found[2] - found[0]).norm()) < 1.2 * float((found[1] - found[0]).norm())
    wanted = {name: value.grad for name, value in exact.named_parameters() if not name.endswith("to_k.bias")}
    given = {name: value.grad.float() for name, value in fused.named_parameters()}  # of a key's bias it is zero
    assert all(torch.cosine_similarity(given[n].ravel(), wanted[n].ravel(), dim=0) > 0.98 for n in wanted)


def test_a_fused_vae_is_as_near_the_exact_one_as_a_plain_one() -> None:
    from vae import new_vae

    x = torch.rand(1, 3, 32, 32).bfloat16().to(memory_format=torch.channels_last)
    check_fused([new_vae(), new_vae().bfloat16(), new_vae().bfloat16()], lambda vae: vae(x.to(vae.dtype)).sample)


@pytest.mark.parametrize("size", [(16, 16), (16, 24)])
def test_a_fused_unet_is_as_near_the_exact_one_as_a_plain_one(size: tuple[int, int]) -> None:
    from unet import new_unet

    torch.manual_seed(0)
    x, context = torch.randn(2, 4, *size).bfloat16(), torch.randn(2, 77, 128).bfloat16()
    x = x.to(memory_format=torch.channels_last)
    check_fused(
        [new_unet(), new_unet().bfloat16(), new_unet().bfloat16()],
        lambda unet: unet(x.to(unet.dtype), torch.tensor([20, 700]), context.to(unet.dtype)).sample,
    )
