"""reForge's dynamic Clip Skip, which gives each denoiser call its own, as our schedules and back.

The rule is that of modules/processing.py and sd_samplers_cfg_denoiser.py of 2026-03: a ramp from N down to 2, one less with each
call, or values of which the last repeats; all of them lie between 2 and 12, and others are moved there.
"""

import re

from clipskip.errors import SpecError
from clipskip.spec.schedule import MOST_CALLS, EncoderSkip, StepSkips
from clipskip.spec.skip import ClipSkip, shown

LEAST, MOST = 2, 12
TWO_CALLS = frozenset({"dpm++ sde", "dpm++ 2s a", "heun", "dpm2", "dpm2 a", "restart"})
"""Samplers that call the denoiser twice in a step."""
_RAMP = re.compile(r"([0-9]{1,4})\s*->\s*2", re.ASCII)
_VALUE = re.compile(r"[+-]?[0-9]{1,4}(?:\.[0-9]{0,9})?", re.ASCII)


def is_dynamic(text: str) -> bool:
    """Whether a text is of the dynamic Clip Skip: 4->2, or values as 9,7,4."""
    return any(mark in text for mark in ("->", ",", ";"))


def read_dynamic(text: str, *, calls: int = MOST_CALLS) -> EncoderSkip:
    """Return what reForge reads at each of a picture's denoiser calls, from "4->2" or "9,7,4,3"."""
    ramp = _RAMP.fullmatch(text.strip())
    if ramp:
        values = list(range(_within(int(ramp[1])), LEAST - 1, -1))
    else:
        pieces = [piece.strip() for piece in text[: 8 * MOST_CALLS].replace(";", ",").split(",") if piece.strip()]
        if not pieces or not all(map(_VALUE.fullmatch, pieces)):
            raise SpecError(
                f"reForge's dynamic clip skip {shown(text)} cannot be read; it is as 4->2, or as 9,7,4,3",
                field="clip_skip",
            )
        values = [_within(int(float(piece))) for piece in pieces]
    return StepSkips.of([ClipSkip(value) for value in values[: max(calls, 1)]])


def _within(value: int) -> int:
    return min(max(value, LEAST), MOST)


def denoiser_calls(sampler: str, steps: int) -> int:
    """Return how often reForge calls the denoiser for a picture."""
    return steps * (2 if sampler.casefold() in TWO_CALLS else 1)


def write_dynamic(skip: EncoderSkip, *, calls: int | None = None) -> str:
    """Return the values for reForge's schedule; SpecError for a Clip Skip that it has not."""
    if calls is None:
        if not isinstance(skip, StepSkips):
            raise SpecError(
                f"reForge is told a Clip Skip for each step: say how many steps the picture has to write {skip} so",
                field="steps",
            )
        calls = len(skip.skips)
    for part in skip.parts:
        if part.fraction or not LEAST <= part.from_end <= MOST:
            raise SpecError(
                f"reForge's dynamic clip skip cannot say {part}: it has whole numbers from {LEAST} to {MOST}",
                field="clip_skip",
            )
    over = skip.over(calls)
    values = [next(layer for until, layer in over if call <= until) for call in range(calls)]
    written = StepSkips.of(values)
    return ",".join(map(str, written.skips if isinstance(written, StepSkips) else [written]))
