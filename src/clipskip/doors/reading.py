"""The command that shows how a prompt is read: no torch, so it answers at once."""

import dataclasses
import json

from clipskip.prompt import describe, report_lines
from clipskip.spec import ClipSkip, parse_skip


def read_aloud(text: str, *, steps: int, negative: bool, clip_skip: str | None, as_json: bool) -> str:
    """How a prompt is read, and at which Clip Skip each step reads it, as lines or JSON."""
    report = describe(text, steps=steps, negative=negative)
    stretches = read_skip(clip_skip, steps=steps) if clip_skip else ()
    if as_json:
        skips = [{"clip_skip": one.from_end, "steps": (first, last)} for first, last, one in stretches]
        return json.dumps(dataclasses.asdict(report) | {"clip_skips": skips}, indent=2, ensure_ascii=False)
    lines = [f"steps {first}-{last}: Clip Skip {one}" for first, last, one in stretches]
    return "\n".join([*lines, *report_lines(report)])


def read_skip(text: str, *, steps: int) -> tuple[tuple[int, int, ClipSkip], ...]:
    """First and last step, counted from 1, of each Clip Skip that was typed."""
    ends = [(min(until + 1, steps), one) for until, one in parse_skip(text).over(steps)]
    firsts = [1, *(end + 1 for end, _ in ends)]
    return tuple((first, end, one) for first, (end, one) in zip(firsts, ends, strict=False) if first <= end)
