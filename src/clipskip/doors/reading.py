"""The command that shows how a prompt is read: no torch, so it answers at once."""

import dataclasses
import json

from clipskip.prompt import describe, report_lines


def read_aloud(text: str, *, steps: int, negative: bool, as_json: bool) -> str:
    """How a prompt is read, as lines or JSON."""
    report = describe(text, steps=steps, negative=negative)
    if as_json:
        return json.dumps(dataclasses.asdict(report), indent=2, ensure_ascii=False)
    return "\n".join(report_lines(report))
