"""Clip Skip: from the number that a user types to the layer that it selects."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clipskip.spec import ClipSkip

States = Sequence[Float[Tensor, "batch tokens width"]] | Mapping[int, Float[Tensor, "batch tokens width"]]


def last_layer_needed(skips: Iterable[ClipSkip], *, depth: int) -> int:
    """Return the k of the last h[k] that any of these skips reads; SkipOutOfRange where the depth is too small."""
    return max(layer_indices(skips, depth=depth))


def layer_indices(skips: Iterable[ClipSkip], *, depth: int) -> tuple[int, ...]:
    """Return the k of each h[k] that any of these skips reads, in rising order."""
    checked = [skip.check(depth) for skip in skips]
    return tuple(sorted({depth + 1 - n for skip in checked for n in (skip.shallow, skip.deep)}))


def read_layer(
    states: States, skip: ClipSkip, *, depth: int, final_norm: nn.Module | None
) -> Float[Tensor, "batch tokens width"]:
    """Return h[depth + 1 - skip] through the final norm, or without it as in SDXL; `states[k]` is h[k].

    A whole skip gives the layer bit for bit. A fraction mixes two layers before the norm, as SD.Next does
    (prompt_parser_diffusers.py): 1.25 is three quarters of the last layer and a quarter of the one before it.
    """
    skip.check(depth)
    state = states[depth + 1 - skip.shallow]
    if skip.fraction:
        state = torch.lerp(state, states[depth + 1 - skip.deep], skip.fraction)
    return state if final_norm is None else final_norm(state)
