"""A tiny UNet with random weights, in our hands and in diffusers' own, and texts to condition it on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from clipskip.encode.conditioning import Conditioning, TextVectors, WeightedSchedule
from clipskip.networks import UNetShape, build_unet
from clipskip.sample import Picture
from clipskip.spec import FileRef, Render

WIDTH = 16
SHAPE = UNetShape(
    block_out_channels=(16, 32),
    layers_per_block=1,
    cross_attention_dim=WIDTH,
    attention=(True, False),
    attention_heads=(4, 4),
    norm_num_groups=8,
    sample_size=8,
)


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """The same weights twice."""

    ours: Any
    theirs: Any


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    torch.manual_seed(0)
    theirs = UNet2DConditionModel(**SHAPE.config()).eval().requires_grad_(False)
    state = {key: tensor.clone() for key, tensor in theirs.state_dict().items()}
    return Tiny(ours=build_unet(state, SHAPE, dtype=torch.float32, device="cpu"), theirs=theirs)


def text(seed: int, tokens: int = 7) -> Tensor:
    return torch.randn(tokens, WIDTH, generator=torch.Generator().manual_seed(seed))


def conditioning(seed: int = 1) -> Conditioning:
    part = WeightedSchedule(weight=1.0, schedule=((1000, TextVectors(tokens=text(seed))),))
    return Conditioning(positive=(part,), negative=((1000, TextVectors(tokens=text(seed + 1))),))


@pytest.fixture
def picture() -> Callable[..., Picture]:
    def build(given: Conditioning | None = None, *, index: int = 0, **settings: Any) -> Picture:
        base: dict[str, Any] = {"width": 64, "height": 64, "steps": 4, "seed": 5}
        render = Render(prompt="a", model=FileRef(name="tiny"), **base | settings)
        return Picture(render=render, conditioning=given or conditioning(), index=index)

    return build
