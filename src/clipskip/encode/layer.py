"""Clip Skip: the number a user types, and the layer that it reads."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clipskip.spec import ClipSkip


def last_layer_needed(skips: Iterable[ClipSkip], *, depth: int) -> int:
    """The k of the last h[k] that any of these read; SkipOutOfRange when this depth has not all of them."""
    return depth + 1 - min(skip.check(depth).shallow for skip in skips)


def read_layer(
    states: Sequence[Float[Tensor, "batch tokens width"]], skip: ClipSkip, *, depth: int, final_norm: nn.Module | None
) -> Float[Tensor, "batch tokens width"]:
    """h[depth + 1 - skip] through the final norm, whose absence is SDXL's; `states` starts at h[0].

    A whole skip is the layer bit for bit. A fraction mixes two layers before the norm, as SD.Next does
    (prompt_parser_diffusers.py): 1.25 is three quarters of the last layer and one of the one before it.
    """
    skip.check(depth)
    state = states[depth + 1 - skip.shallow]
    if skip.fraction:
        state = torch.lerp(state, states[depth + 1 - skip.deep], skip.fraction)
    return state if final_norm is None else final_norm(state)
