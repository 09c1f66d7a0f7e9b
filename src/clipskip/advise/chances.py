"""Paired losses in; how sure they make us that one column is the lowest."""

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
    """The number-th point, from 0, of a sequence in 0..1 that is even wherever it is cut (van der Corput, base 2)."""
    point, share = 0.0, 0.5
    while number:
        point += share * (number & 1)
        number >>= 1
        share /= 2
    return point
