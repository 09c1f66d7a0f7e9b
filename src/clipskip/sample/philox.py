"""CUDA's random numbers on any device: Philox 4x32-10 and the Box-Muller transform."""

import math

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]

MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
WEYL = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10
LOW_WORD = 0xFFFFFFFF


def philox(counter: tuple[Words, Words, Words, Words], key: int) -> tuple[Words, Words, Words, Words]:
    """Return four random words for each counter under a 64-bit key (Salmon et al. 2011, "Parallel random numbers")."""
    a, b, c, d = counter
    low_key, high_key = key & LOW_WORD, key >> 32 & LOW_WORD
    for _ in range(ROUNDS):
        first, second = a * MULTIPLIERS[0], c * MULTIPLIERS[1]
        a, b, c, d = (
            _high(second) ^ b ^ np.uint32(low_key),
            _low(second),
            _high(first) ^ d ^ np.uint32(high_key),
            _low(first),
        )
        low_key, high_key = low_key + WEYL[0] & LOW_WORD, high_key + WEYL[1] & LOW_WORD
    return a, b, c, d


def normals(seed: int, draw: int, count: int) -> npt.NDArray[np.float32]:
    """Return the numbers of torch.randn(count) on a CUDA device, as the draw-th call (from 0) after seeding.

    Element i comes from counter (draw, 0, i, 0). For tensors too large for one CUDA launch (hundreds of thousands of
    numbers) CUDA itself counts differently; A1111's NV source counts as we do.
    """
    index = np.arange(count, dtype=np.uint32)
    zero = np.zeros(count, dtype=np.uint32)
    words = philox((zero + np.uint32(draw), zero, index, zero), seed)
    radius, angle = ((w.astype(np.float64) + 0.5) * 2.0**-32 for w in words[:2])
    drawn: npt.NDArray[np.float32] = (np.sqrt(-2 * np.log(radius)) * np.sin(2 * math.pi * angle)).astype(np.float32)
    return drawn


def _high(product: npt.NDArray[np.uint64]) -> Words:
    return (product >> np.uint64(32)).astype(np.uint32)


def _low(product: npt.NDArray[np.uint64]) -> Words:
    return product.astype(np.uint32)
