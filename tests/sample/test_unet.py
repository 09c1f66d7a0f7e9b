"""Building the UNet: diffusers' numbers, no tensor held twice, no key overlooked."""

from typing import Any

import pytest
import torch
from sample.conftest import SHAPE, text
from torch import Tensor

from clipskip.errors import DamagedFile
from clipskip.sample import build_unet


def build(state: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> Any:
    return build_unet(state, SHAPE, dtype=dtype, device="cpu")


def weights(tiny: Any) -> dict[str, Tensor]:
    return {key: tensor.clone() for key, tensor in tiny.theirs.state_dict().items()}


@torch.no_grad()
def test_it_predicts_what_diffusers_predicts(tiny: Any) -> None:
    x, texts = torch.randn(2, 4, 8, 8), torch.stack([text(1), text(2)])
    ours, theirs = (
        unet(x, torch.tensor(17.25), encoder_hidden_states=texts).sample for unet in (tiny.ours, tiny.theirs)
    )
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
    with pytest.raises(
        DamagedFile, match=r"lacks conv_in\.bias .*has unknown extra\.weight .*misshapen conv_out\.bias"
    ):
        build(state)
    assert "conv_out.bias" in state
