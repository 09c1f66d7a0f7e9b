"""Prompt weights applied to vectors: what `(a cat:1.3)` does after the final norm (A1111 sd_emphasis.py)."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from clipskip.errors import PromptError, SpecError


def emphasise(
    vectors: Float[Tensor, "texts chunks tokens width"],
    weights: Float[Tensor, "texts chunks tokens"],
    *,
    counts: Sequence[int],
    restore_mean: bool,
) -> Float[Tensor, "texts chunks tokens width"]:
    """Return the vectors times their weights; "Original" restores their mean, "No norm" does not.

    The mean is taken chunk by chunk over all texts of one prompt's schedule: A1111 encodes them as one batch, in which
    a text that is used at `counts` steps stands that many times.
    """
    weighted = vectors * weights[..., None].to(vectors)
    if not restore_mean:
        return weighted
    ratio = _mean(vectors, counts) / _mean(weighted, counts)
    if not torch.isfinite(ratio).all():
        if not torch.isfinite(vectors).all():
            raise SpecError(
                "the text encoder's vectors for this prompt contain NaN or infinity, which LoRAs that are too strong cause; "
                "lower their weights",
                field="lora",
            )
        raise PromptError(
            "this prompt's weights bring the mean of its vectors to 0, so the mean cannot be restored; "
            'use other weights, or the emphasis "No norm"',
            field="emphasis",
        )
    return weighted * ratio[:, None, None]


def apply_weights(
    vectors: Float[Tensor, "texts chunks tokens width"],
    weights: Float[Tensor, "texts chunks tokens"],
    *,
    counts: Sequence[int],
) -> float:
    """Return the factor by which restoring the mean scales the chunk where that factor is farthest from 1.

    Vectors after a norm have a mean well away from 0, and the factor stays near 1. SDXL's vectors have no norm: their
    mean is near 0, and weights can change its sign.
    """
    ratios = (_mean(vectors, counts) / _mean(vectors * weights[..., None].to(vectors), counts)).cpu().tolist()
    return float(max(ratios, key=lambda ratio: abs(math.log(ratio)) if ratio > 0 else math.inf))


def from_empty(
    vectors: Float[Tensor, "texts chunks tokens width"],
    weights: Float[Tensor, "texts chunks tokens"],
    empty: Float[Tensor, "1 1 tokens width"],
) -> Float[Tensor, "texts chunks tokens width"]:
    """Apply ComfyUI's weights: scale each vector's distance from the empty prompt's at its position.

    Source: sd1_clip.py encode_token_weights. Vectors of weight 1 stay the same bit for bit.
    """
    factors = weights[..., None].to(vectors)
    return torch.where(factors == 1, vectors, (vectors - empty) * factors + empty)


def _mean(vectors: Float[Tensor, "texts chunks tokens width"], counts: Sequence[int]) -> Float[Tensor, " chunks"]:
    """Return the mean of each chunk over all texts, each text counted `counts` times."""
    often = torch.tensor(counts, dtype=vectors.dtype, device=vectors.device)
    return often @ vectors.mean(dim=(2, 3)) / often.sum()
