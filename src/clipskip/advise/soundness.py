"""Conditionings and guesses at several Clip Skips in; how far each is from what the model was trained on, out.

Three things are looked at: the conditioning, the guidance, and the guess of the clean picture that a sampler would make
from it (Ho et al. 2020, equation 15). All are ratios to the reference, the Clip Skip that the model was trained at.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipskip.advise.effects import TINY, Curve

LEAST_KEPT, MOST_MOVED, MOST_CHANGED = 0.5, 1.0, 1.0
SIGNS = 2
"""How many of them make a broken picture: one alone warns of more broken ones, and of more sound ones (docs/advise.md)."""

Texts = Float[Tensor, "skips tokens width"]
Others = Float[Tensor, "skips other_tokens width"]
"""Texts of another length."""
Guesses = Float[Tensor, "views skips channels height width"]


def distance(one: Texts, other: Others) -> Curve:
    """Between two conditionings, over the tokens that both have: the length of their difference, on the CPU."""
    tokens = min(one.shape[1], other.shape[1])
    return (one[:, :tokens] - other[:, :tokens]).square().sum((1, 2)).sqrt().cpu()


def conditioning_distance(prompt: Texts, negative: Others, *, reference: int) -> Curve:
    """How far the prompt's conditioning is from that of column `reference`, as a share of how far the negative prompt's
    is from it there: |c_s - c_r| / |c_r - n_r|. At 1 the layer has moved the prompt as far as leaving it out would."""
    anchor, apart = prompt[reference : reference + 1], negative[reference : reference + 1]
    return distance(prompt, anchor.expand_as(prompt)) / distance(anchor, apart).clamp_min(TINY)


def contrast(guesses: Guesses, *, reference: int) -> Curve:
    """How far the guesses spread about their own means, over that at the reference: 1 there."""
    return _beside(_spread(guesses), reference)


def detail(guesses: Guesses, *, reference: int) -> Curve:
    """How far neighbouring cells of the guesses differ, over that at the reference: 1 there."""
    steps = torch.stack([guesses.diff(dim=dim).square().mean((2, 3, 4)) for dim in (-1, -2)]).mean(0)
    return _beside(steps, reference)


def change(guesses: Guesses, *, reference: int) -> Curve:
    """How far the guesses are from those at the reference, over how far those spread about their own means: 0 there, 1 where
    as much has changed as there was to see, 1.4 between pictures that have nothing to do with each other."""
    anchor = guesses[:, reference : reference + 1]
    moved = (guesses - anchor).square().mean((2, 3, 4))
    return (moved.mean(0) / _spread(anchor).mean(0).clamp_min(TINY)).sqrt()


def signs(*, kept: Curve, moved: Curve, changed: Curve) -> Int[Tensor, " skips"]:
    """How many of the three signs of a broken picture hold at each Clip Skip."""
    return torch.stack([kept < LEAST_KEPT, moved > MOST_MOVED, changed > MOST_CHANGED]).sum(0)


def broken_from(skips: Sequence[int], *, kept: Curve, moved: Curve, changed: Curve) -> int | None:
    """The Clip Skip from which on the picture is likely to fall apart, to the deepest of `skips`; None for nowhere.

    So it is where at least two of three hold: less than half of the guidance is kept, the conditioning has moved farther
    than the negative prompt is away, more of the guessed picture has changed than there was to see in it.
    """
    counts = signs(kept=kept, moved=moved, changed=changed).tolist()
    found = None
    for skip, count in sorted(zip(skips, counts, strict=True), reverse=True):
        if count < SIGNS:
            return found
        found = skip
    return found


def _spread(guesses: Guesses) -> Float[Tensor, "views skips"]:
    return (guesses - guesses.mean((3, 4), keepdim=True)).square().mean((2, 3, 4))


def _beside(squares: Float[Tensor, "views skips"], reference: int) -> Curve:
    whole = squares.mean(0)
    return (whole / whole[reference].clamp_min(TINY)).sqrt()
