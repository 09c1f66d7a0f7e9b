"""Writes the measured numbers into the model card, between its markers, and the sheets beside it.

python training/card.py --results DIR --card docs/starter.md
"""

import argparse
import json
import re
from pathlib import Path

from PIL import Image

TARGETS = {"place": "90%", "object": "70%", "two objects": "40%", "position": "-", "colour": "-"}
NAMES = {
    "place": "background right",
    "object": "object right (top 1 of all its objects), one object asked for",
    "two objects": "two objects, both right and no third",
    "position": "at the place that the prompt says, where the object is there",
    "colour": "in the colour that the prompt says, where the object is right",
}


def percent(value: float | None) -> str:
    """0.5 as 50%; a dash where there was nothing to count."""
    return "-" if value is None else f"{100 * value:.0f}%"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    size = f"{left + wide + 130} {top + high + 44}"
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" font-family="sans-serif" font-size="12">']
    lines.append('<rect width="100%" height="100%" fill="white"/>')
    for share in (0, 0.25, 0.5, 0.75, 1):
        lines.append(f'<path d="M{left} {y(share):.0f}h{wide}" stroke="#ddd"/>')
        lines.append(f'<text x="{left - 6}" y="{y(share) + 4:.0f}" text-anchor="end">{share:.0%}</text>')
    for skip in range(1, 13):
        lines.append(f'<text x="{x(skip):.0f}" y="{top + high + 18}" text-anchor="middle">{skip}</text>')
    lines.append(f'<text x="{left + wide / 2:.0f}" y="{top + high + 38}" text-anchor="middle">Clip Skip</text>')
    ends = sorted(((values["12"], name) for name, values in found.items()), reverse=True)
    places = {name: max(y(share), top + 14 * at + 8) for at, (share, name) in enumerate(ends)}
    lowest = top + high
    for at, (_, name) in enumerate(reversed(ends)):
        places[name] = min(places[name], lowest - 14 * at)
    for colour, (name, values) in zip(COLOURS, found.items(), strict=False):
        path = " ".join(f"{'L' if skip > 1 else 'M'}{x(skip):.1f} {y(values[str(skip)]):.1f}" for skip in range(1, 13))
        lines.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        lines.append(f'<text x="{left + wide + 8}" y="{places[name] + 4:.0f}" fill="{colour}">{name}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def main() -> None:
    """Fills in the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--card", type=Path, required=True)
    options = parser.parse_args()
    found = json.loads((options.results / "evaluation.json").read_text())
    text = options.card.read_text()
    for name, filled in (("results", results(found)), ("curve", curve(found))):
        marks = f"<!-- {name} -->", f"<!-- /{name} -->"
        text = re.sub(f"{marks[0]}.*?{marks[1]}", lambda _, m=marks, f=filled: f"{m[0]}\n{f}\n{m[1]}", text, flags=re.S)  # type: ignore[misc]
    options.card.write_text(text)
    beside = options.card.with_suffix("")
    beside.mkdir(exist_ok=True)
    (beside / "evaluation.json").write_text(json.dumps(found, indent=1) + "\n")
    if "curve" in found:
        (beside / "curve.svg").write_text(plot(found["curve"]))
    for sheet in ("sheet", "guide"):
        if (options.results / f"{sheet}.png").exists():
            Image.open(options.results / f"{sheet}.png").save(beside / f"{sheet}.webp", quality=82)


if __name__ == "__main__":
    main()
