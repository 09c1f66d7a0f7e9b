"""One Brownian path per picture: the noise of the SDE samplers, which does not depend on the steps taken."""

import math
from collections.abc import Callable
from typing import final

import numpy as np
from jaxtyping import Float
from torch import Tensor

Draw = Callable[[int], Float[Tensor, "channels height width"]]
"""A seed's first normal numbers, in the shape of one latent."""

DIGITS = 6
"""Times are rounded to a millionth, where halving stops."""
POOL = 24
"""Words of entropy over which numpy mixes a seed."""


@final
class BrownianPath:
    """W(t) between two times, fixed by a seed: the interval is halved down to each time that is asked for.

    The virtual Brownian tree of Li et al. 2020 ("Scalable gradients for SDEs", section 4), with the seeds and so the
    numbers of torchsde's BrownianTree: A1111's SDE noise. It is our own because A1111's noise sources (CPU or NV) have
    to draw each node, which torchsde does not allow.
    """

    def __init__(self, low: float, high: float, *, seed: int, draw: Draw) -> None:
        self._ends = (round(low, DIGITS), round(high, DIGITS))
        self._seed = seed
        self._draw = draw
        whole = draw(int(np.random.SeedSequence(seed, pool_size=POOL).generate_state(1)[0]))
        self._known = {self._ends[0]: whole * 0, self._ends[1]: whole * math.sqrt(high - low)}

    def between(self, start: float, end: float) -> Float[Tensor, "channels height width"]:
        """Return W(end) - W(start); for a sampler that moves down in sigma this is the increment backwards."""
        return self._at(round(end, DIGITS)) - self._at(round(start, DIGITS))

    def _at(self, time: float) -> Float[Tensor, "channels height width"]:
        """Return W(time) by the Brownian bridge down the tree (node `key` at `depth`, keys counted within a depth)."""
        low, high = self._ends
        key = depth = 0
        time = min(max(time, low), high)
        while time not in self._known:
            middle = round((low + high) / 2, DIGITS)
            if middle not in self._known:
                self._known[middle] = self._bridge(low, middle, high, node=(key, depth))
            if time < middle:
                high, key = middle, 2 * key
            else:
                low, key = middle, 2 * key + 1
            depth += 1
        return self._known[time]

    def _bridge(
        self, low: float, middle: float, high: float, *, node: tuple[int, int]
    ) -> Float[Tensor, "channels height width"]:
        entropy = np.random.SeedSequence(self._seed, spawn_key=node, pool_size=POOL)
        fresh = self._draw(int(entropy.generate_state(1)[0]))
        left, right = middle - low, high - middle
        step = (self._known[high] - self._known[low]) * (left / (high - low))
        return self._known[low] + step + fresh * math.sqrt(left * right / (high - low))
