"""The vector beside the text, which tells SDXL's UNet about the whole text and the picture's sizes."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from clipskip.networks import SIZE_WAVES, waves


def added_vector(pooled: Float[Tensor, " pooled"], numbers: Sequence[float]) -> Float[Tensor, " added"]:
    """Return the pooled vector followed by each number as 256 sinusoids, in A1111's order.

    SDXL's six numbers are the picture's height and width, the crop's top and left, and the target's height and width
    (Podell et al. 2023, section 2.2); A1111 and diffusers put the picture's own size first and last.
    """
    spread = waves(torch.tensor(numbers, dtype=torch.float32, device=pooled.device), SIZE_WAVES)
    return torch.cat([pooled, spread.flatten()])
