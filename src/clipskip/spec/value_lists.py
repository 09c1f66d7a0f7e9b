"""Lists of values as users of A1111's plot and SwarmUI's grid write them, for Clip Skips and for every other axis."""

import math
from collections.abc import Sequence

GAP = ".."
"""SwarmUI: 1, 2, .., 10 goes on in the distance of the two numbers before it."""
_SKIP = "SKIP:"
"""SwarmUI: a value that is left out."""


def split_values(text: str) -> list[str]:
    """Return the values between commas, or between || where they hold commas, without those marked SKIP:."""
    parts = (part.strip(" \t\r\n") for part in text.split("||" if "||" in text else ","))
    return [part for part in parts if not part.startswith(_SKIP)]


def fill_gap(before: Sequence[float], end: float, *, most: int) -> list[float]:
    """Return what lies between two numbers and the next one, in steps of their distance; ValueError where that never
    gets there or are too many."""
    first, start = before
    step = start - first
    if not step or (end - start) / step < 0:
        raise ValueError(f"{GAP} cannot go from {start:g} to {end:g} in steps of {step:g}; correct the numbers")
    if (count := math.ceil((end - start) / step - 1e-9)) > most:
        raise ValueError(f"{GAP} from {start:g} to {end:g} stands for more than {most:,} values; use fewer")
    return [start + step * i for i in range(1, count)]


def last_digit(*numbers: str) -> float:
    """Return the step of 0.2..1.0, its last digit: 0.1."""
    return 10.0 ** -max(len(number.partition(".")[2]) for number in numbers)
