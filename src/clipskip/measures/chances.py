"""Paired numbers in; how sure they make us, out: that one column is the lowest, or that a difference is more than chance."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

DRAWS = 4000
"""Of the bootstrap: a chance of 0.99 is then known to 0.002."""


def chances(losses: Float[NDArray[np.float64], "pictures skips"], *, seed: int = 0) -> NDArray[np.float64]:
    """[skips]: how probable it is that each column's mean is the lowest of all pictures like these.

    The Bayesian bootstrap (Rubin 1981): every picture counts by a random share, Dirichlet(1, ..., 1), 4000 times. The
    rows stay whole, so what pictures differ in for all columns alike (easy or hard ones) does not matter.
    """
    shares = np.random.default_rng(seed).dirichlet(np.ones(len(losses)), DRAWS)
    lowest = (shares @ losses).argmin(axis=1)
    return np.bincount(lowest, minlength=losses.shape[1]) / DRAWS


def spread_out(number: int) -> float:
    """Return the number-th point, from 0, of a sequence in 0..1 that is even wherever it is cut (van der Corput, base 2)."""
    point, share = 0.0, 0.5
    while number:
        point += share * (number & 1)
        number >>= 1
        share /= 2
    return point


def paired_p(differences: Sequence[float]) -> float:
    """Return the two-sided p of Student's paired t-test (Student 1908): how often a mean this far from 0 comes by chance.

    Differences that are all alike have no spread to go by: then it is the sign test's, 2 of the 2^n ways to choose signs.
    """
    count = len(differences)
    assert count > 1, "one difference says nothing of chance"
    mean = math.fsum(differences) / count
    squares = math.fsum((difference - mean) ** 2 for difference in differences)
    if mean == 0:
        return 1.0
    if squares <= (1e-9 * mean) ** 2:
        return 2.0 ** (1 - count)
    from scipy.special import stdtr  # here, because it takes 0.2 s and only sweeps with seeds ask for it

    t = mean / math.sqrt(squares / (count - 1) / count)
    return 2 * float(stdtr(count - 1, -abs(t)))


def holm(chances: Sequence[float]) -> list[float]:
    """Return each p corrected for how many there are (Holm 1979): called less than a level together, at most that share of
    the times is any of them chance."""
    order, highest = sorted(range(len(chances)), key=chances.__getitem__), 0.0
    corrected = [0.0] * len(chances)
    for rank, at in enumerate(order):
        highest = max(highest, min(1.0, (len(chances) - rank) * chances[at]))
        corrected[at] = highest
    return corrected
