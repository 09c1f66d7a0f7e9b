"""reForge's dynamic Clip Skip, which gives each denoiser call its own, to and from our schedules.

The rule is that of modules/processing.py and sd_samplers_cfg_denoiser.py of 2026-03: a ramp from N down to 2, one less
with each call, or a list of values of which the last repeats; all are moved into the range 2 to 12.
"""

import re

from clipskip.errors import SpecError
from clipskip.spec.skip import ClipSkip, shown
from clipskip.spec.skip_schedule import MOST_CALLS, EncoderSkip, StepSkips

LEAST, MOST = 2, 12
TWO_CALLS = frozenset({"dpm++ sde", "dpm++ 2s a", "heun", "dpm2", "dpm2 a", "restart"})
"""Samplers with two denoiser calls per step."""
_RAMP = re.compile(r"([0-9]{1,4})\s*->\s*2", re.ASCII)
_VALUE = re.compile(r"[+-]?[0-9]{1,4}(?:\.[0-9]{0,9})?", re.ASCII)


def is_dynamic(text: str) -> bool:
    """Return whether a text is a dynamic Clip Skip: 4->2, or values like 9,7,4."""
    return any(mark in text for mark in ("->", ",", ";"))


def read_dynamic(text: str, *, calls: int = MOST_CALLS) -> EncoderSkip:
    """Return the Clip Skip that reForge uses at each of a picture's denoiser calls, from "4->2" or "9,7,4,3"."""
    ramp = _RAMP.fullmatch(text.strip())
    if ramp:
        values = list(range(_within(int(ramp[1])), LEAST - 1, -1))
    else:
        pieces = [piece.strip() for piece in text[: 8 * MOST_CALLS].replace(";", ",").split(",") if piece.strip()]
        if not pieces or not all(map(_VALUE.fullmatch, pieces)):
            raise SpecError(
                f"reForge's dynamic clip skip {shown(text)} cannot be read; write it like 4->2 or 9,7,4,3",
                field="clip_skip",
            )
        values = [_within(int(float(piece))) for piece in pieces]
    return StepSkips.of([ClipSkip(value) for value in values[: max(calls, 1)]])


def _within(value: int) -> int:
    return min(max(value, LEAST), MOST)


def reforge_calls(sampler: str, steps: int) -> int:
    """Return how often reForge calls the denoiser for a picture."""
    return steps * (2 if sampler.casefold() in TWO_CALLS else 1)


def write_dynamic(skip: EncoderSkip, *, calls: int | None = None) -> str:
    """Return the values for reForge's schedule; SpecError for a Clip Skip that it does not have."""
    if calls is None:
        if not isinstance(skip, StepSkips):
            raise SpecError(
                f"reForge takes a Clip Skip for each step: give the picture's number of steps to convert {skip}",
                field="steps",
            )
        calls = len(skip.skips)
    for part in skip.parts:
        if part.fraction or not LEAST <= part.from_end <= MOST:
            raise SpecError(
                f"reForge's dynamic clip skip has no {part}; use whole numbers from {LEAST} to {MOST}",
                field="clip_skip",
            )
    over = skip.over(calls)
    values = [next(layer for until, layer in over if call <= until) for call in range(calls)]
    written = StepSkips.of(values)
    return ",".join(map(str, written.skips if isinstance(written, StepSkips) else [written]))
