"""Building the UNet: diffusers' numbers, no tensor held twice, no key overlooked."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from sample.conftest import SHAPE, text
from torch import Tensor, nn
from torch.nn.functional import group_norm

from clipskip.errors import DamagedFile
from clipskip.networks import UNetShape, build_unet
from clipskip.networks.blocks import GroupNorm, convolve


def build(state: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> Any:
    return build_unet(state, SHAPE, dtype=dtype, device="cpu")


def weights(tiny: Any) -> dict[str, Tensor]:
    return {key: tensor.clone() for key, tensor in tiny.theirs.state_dict().items()}


@torch.no_grad()
def test_it_predicts_what_diffusers_predicts(tiny: Any) -> None:
    x, texts = torch.randn(2, 4, 8, 8), torch.stack([text(1), text(2)])
    ours = tiny.ours(x, torch.tensor(17.25), texts)
    theirs = tiny.theirs(x, torch.tensor(17.25), encoder_hidden_states=texts).sample
    # float32, sums in another order (channels last).
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_tensors_move_in_and_none_is_held_twice(tiny: Any) -> None:
    state = weights(tiny)
    place = state["time_embedding.linear_1.weight"].data_ptr()
    unet = build(state)
    assert state == {}
    assert unet.time_embedding.linear_1.weight.data_ptr() == place
    assert all(not p.is_meta and not p.requires_grad for p in unet.parameters())


def test_tensors_take_the_asked_dtype_and_convolutions_their_channels_last(tiny: Any) -> None:
    unet = build(weights(tiny), torch.bfloat16)
    assert {p.dtype for p in unet.parameters()} == {torch.bfloat16}
    assert unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_missing_an_extra_and_a_misshapen_tensor_are_named(tiny: Any) -> None:
    state = weights(tiny)
    del state["conv_in.bias"]
    state["extra.weight"] = state["conv_out.bias"]
    state["conv_out.bias"] = torch.zeros(3)
    with pytest.raises(DamagedFile, match=r"lacks conv_in\.bias; conv_out\.bias of shape .*has unknown extra\.weight"):
        build(state)
    assert "conv_out.bias" in state


@pytest.mark.parametrize(
    "shape",
    [
        replace(SHAPE, block_out_channels=(16, 32, 48), layers_per_block=2, attention=(True, True, False)),
        replace(SHAPE, use_linear_projection=True, attention=(True, True), attention_heads=(2, 8)),
        replace(SHAPE, attention=(False, True)),
    ],
    ids=["three levels", "linear projections", "attention inside"],
)
@pytest.mark.parametrize("size", [(8, 8), (7, 10), (2, 2)])
@torch.no_grad()
def test_every_shape_and_size_is_diffusers(shape: UNetShape, size: tuple[int, int]) -> None:
    shape = replace(shape, attention_heads=shape.attention_heads + (4,) * (len(shape.attention) - 2))
    torch.manual_seed(0)
    theirs = UNet2DConditionModel(**shape.config()).eval()
    state = {key: tensor.clone() for key, tensor in theirs.state_dict().items()}
    ours = build_unet(state, shape, dtype=torch.float32, device="cpu")
    x, texts, times = torch.randn(2, 4, *size), torch.randn(2, 7, 16), torch.tensor([3.0, 961.5])
    # float32, sums in another order; the smallest size takes the way of patches where weights outnumber pixels.
    assert torch.allclose(ours(x, times, texts), theirs(x, times, encoder_hidden_states=texts).sample, atol=2e-5)


@torch.no_grad()
def test_a_convolution_by_patches_is_the_convolution() -> None:
    layer, x = nn.Conv2d(5, 64, 3, padding=1), torch.randn(2, 5, 3, 4)
    assert torch.allclose(convolve(layer, x), layer(x), atol=1e-6)


def test_texts_that_share_a_picture_are_answered_as_if_each_had_its_own(tiny: Any) -> None:
    unet = build(weights(tiny))
    x, text = torch.randn(2, 4, 8, 8), torch.randn(5, 9, unet.shape.cross_attention_dim)
    copies = torch.tensor([0, 0, 1, 1, 0])
    apart = unet(x[copies], torch.tensor(300.0), text)
    # the same sums over batches of another size: float32 rounding
    assert torch.allclose(unet(x, torch.tensor(300.0), text, None, copies), apart, atol=1e-5)


@pytest.mark.parametrize("size", [(4, 6), (16, 16), (32, 32)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-8)])
@torch.no_grad()
def test_a_group_norm_is_torchs_in_float64(size: tuple[int, int], dtype: torch.dtype, tolerance: float) -> None:
    """Both sides of the size from which torch's own is used. bfloat16 rounds a result of up to 4 by 2^-7 at most; over
    all numbers that is less than 2^-8 of them."""
    torch.manual_seed(0)
    norm = GroupNorm(32, 64, eps=1e-5).to(dtype)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    maps = (3 * torch.randn(2, 64, *size) + 1).to(dtype).contiguous(memory_format=torch.channels_last)
    exact = group_norm(maps.double(), 32, norm.weight.double(), norm.bias.double(), eps=1e-5)
    ours = norm(maps)
    assert ours.dtype == dtype and ours.is_contiguous(memory_format=torch.channels_last)
    assert (ours - exact).norm() / exact.norm() < tolerance
