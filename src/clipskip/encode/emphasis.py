"""Weights on vectors: what `(a cat:1.3)` does to what was read, after the final norm (A1111 sd_emphasis.py)."""

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
    """The vectors times their weights; "Original" restores their mean, "No norm" does not.

    The mean is over all the texts that one prompt's schedule holds, chunk by chunk: A1111 encodes them as one batch, in
    which a text that comes back at `counts` steps is there that many times.
    """
    weighted = vectors * weights[..., None].to(vectors)
    if not restore_mean:
        return weighted
    ratio = _mean(vectors, counts) / _mean(weighted, counts)
    if not torch.isfinite(ratio).all():
        if not torch.isfinite(vectors).all():
            raise SpecError(
                "the text encoder reads this prompt as vectors that are no numbers (NaN or infinite); LoRAs that are too "
                "strong do that: lower them",
                field="lora",
            )
        raise PromptError(
            "the weights of this prompt leave vectors whose mean is 0, so it cannot be restored; "
            'use other weights, or the emphasis "No norm"',
            field="emphasis",
        )
    return weighted * ratio[:, None, None]


def stretch(
    vectors: Float[Tensor, "texts chunks tokens width"],
    weights: Float[Tensor, "texts chunks tokens"],
    *,
    counts: Sequence[int],
) -> float:
    """What restoring the mean multiplies by in the chunk where that is farthest from 1.

    Vectors that have been through a norm have a mean well away from 0, and this stays near 1. SDXL's have not: their mean
    is near 0, and weights can move it across.
    """
    ratios = (_mean(vectors, counts) / _mean(vectors * weights[..., None].to(vectors), counts)).cpu().tolist()
    return float(max(ratios, key=lambda ratio: abs(math.log(ratio)) if ratio > 0 else math.inf))


def from_empty(
    vectors: Float[Tensor, "texts chunks tokens width"],
    weights: Float[Tensor, "texts chunks tokens"],
    empty: Float[Tensor, "1 1 tokens width"],
) -> Float[Tensor, "texts chunks tokens width"]:
    """ComfyUI's weights: each vector so many times as far from the empty prompt's at its place (sd1_clip.py
    encode_token_weights); those of weight 1 stay as they are, to the bit."""
    factors = weights[..., None].to(vectors)
    return torch.where(factors == 1, vectors, (vectors - empty) * factors + empty)


def _mean(vectors: Float[Tensor, "texts chunks tokens width"], counts: Sequence[int]) -> Float[Tensor, " chunks"]:
    """The mean of each chunk over all texts, each as often as it is counted."""
    often = torch.tensor(counts, dtype=vectors.dtype, device=vectors.device)
    return often @ vectors.mean(dim=(2, 3)) / often.sum()
