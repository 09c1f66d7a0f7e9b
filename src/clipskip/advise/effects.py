"""Predictions at several Clip Skips in; how much of each effect is there at each, in numbers, out.

All are ratios of lengths and projections of vectors that the UNet predicted for the same latents: means over the
views of [views, skips, numbers].
"""

from jaxtyping import Float
from torch import Tensor

from clipskip.advise.views import Answers

Curve = Float[Tensor, " skips"]
OneOrAll = Float[Tensor, "views #skips numbers"]
"""Answers at each Clip Skip, or one that stands beside all of them."""
TINY = 1e-12


def share_kept(effect: Answers, *, reference: int) -> Curve:
    """How much of the effect at the Clip Skip of column `reference` is in the effect at each: <e_s, e_r> / <e_r, e_r>.

    1 at the reference; 0 where the effect points elsewhere; negative where it points against it.
    """
    anchor = effect[:, reference : reference + 1]
    dots, own = (effect * anchor).sum(-1), anchor.square().sum(-1)
    return dots.sum(0) / own.sum(0).clamp_min(TINY)


def size_beside(effect: Answers, other: OneOrAll) -> Curve:
    """The effect's length as a share of another's, at each Clip Skip: root mean squares over the views."""
    return (effect.square().sum((0, 2)) / other.square().sum((0, 2)).clamp_min(TINY)).sqrt()


def agreement(effect: Answers, other: Answers) -> Curve:
    """The cosine between two effects at each Clip Skip: 1 they pull together, 0 apart, -1 against each other."""
    dots = (effect * other).sum(-1).sum(0)
    return dots / (effect.square().sum((0, 2)) * other.square().sum((0, 2))).sqrt().clamp_min(TINY)
