"""The vector beside the text: what SDXL's UNet is told of a whole text and of the picture's sizes."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from clipskip.networks import SIZE_WAVES, waves


def added_vector(pooled: Float[Tensor, " pooled"], numbers: Sequence[float]) -> Float[Tensor, " added"]:
    """The pooled vector and each number spread over 256 waves, in A1111's order.

    SDXL's six are the picture's height and width, the crop's top and left, the target's height and width (Podell et al.
    2023, section 2.2); A1111 and diffusers take the picture's own size for the first and the last two.
    """
    spread = waves(torch.tensor(numbers, dtype=torch.float32, device=pooled.device), SIZE_WAVES)
    return torch.cat([pooled, spread.flatten()])
