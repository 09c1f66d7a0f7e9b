"""Writes the measured numbers into the model card, between its markers, and the sheets beside it.

python training/card.py --results DIR --card docs/starter.md
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from PIL import Image

TARGETS = {"place": "90%", "object": "92%", "position": "-", "colour": "90%"}
NAMES = {
    "place": "background right",
    "object": "object right (top 1 of all its objects), one object asked for",
    "position": "at the place that the prompt says, where the object is there",
    "colour": "in the colour that the prompt says, where the object is right",
}


def percent(value: float | None) -> str:
    """0.5 as 50%; a dash where there was nothing to count."""
    return "-" if value is None else f"{100 * value:.0f}%"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def results(found: dict[str, Any]) -> str:
    """The main table and the smaller ones."""
    told, judged = found["objects"], found["judge on renders"]["heldout"]
    plain, guided = told["no negative"], told["guide's negative"]
    head = ["measure", f"{told['prompts']} prompts", f"with the guide's negative ({guided['prompts']})", "wanted"]
    pairs = found["pairs"]
    rows = [[NAMES[key], percent(plain.get(key)), percent(guided.get(key)), TARGETS[key]] for key in NAMES]
    two = f"two objects asked for ({pairs['prompts']} prompts), both right and no third"
    rows.insert(2, [two, percent(pairs["two objects"]), "-", "70%"])
    if "places" in found:
        empty = [found["places"][key]["no object"] for key in ("no negative", "guide's negative")]
        rows.append(["nothing but a place asked for: no object there", *map(percent, empty), "90%"])
    text = [table(head, rows)]
    text.append(
        f"The judge itself, on held-out renders: background {100 * judged['place']:.1f}%, objects "
        f"{100 * judged['things']:.1f}%, colours {100 * judged['hues']:.1f}%; on blueprints: objects "
        f"{100 * found['judge on renders']['blueprint']['things']:.1f}%. "
        f"VAE reconstruction of held-out scenes: {found['reconstruction']['PSNR dB']} dB (wanted: 29)."
    )
    if "sizes" in found:
        wide, tall = (found["sizes"][shape] for shape in ("wide", "tall"))
        text.append(
            f"192x128 and 128x192 ({found['sizes']['prompts']} prompts each; the judge sees them squeezed): background right "
            f"{percent(wide['place'])} and {percent(tall['place'])}, object right {percent(wide['object'])} and "
            f"{percent(tall['object'])}."
        )
    if "characters" in found:
        text.append(characters(found["characters"]))
    if "style" in found:
        off, on = found["style"]["without"], found["style"]["with"]
        text.append(
            f"Blueprint: {percent(off['in it'])} of {off['prompts']} pictures are in the style without its LoRA, "
            f"{percent(on['in it'])} of {on['prompts']} with it (their mean colour is nearer to that of renders in it than to that of "
            f"plain ones); mean distance of that colour from the style's (0-255): {off['colour distance']} and "
            f"{on['colour distance']}. Where one object is asked for, the judge sees it in "
            f"{percent(off['object'])} without the LoRA and in {percent(on['object'])} with it (wanted: 75%)."
        )
    if "quality" in found:
        text.append(quality(found["quality"]))
    return "\n\n".join(text)


def characters(found: dict[str, Any]) -> str:
    """Recognised with and without each LoRA, and the other objects with it on."""
    before = found["others, no LoRA"]
    rows = [
        [
            name,
            percent(found[name]["without"]),
            f"{percent(found[name]['with'])} of {found[name]['prompts']}",
            f"{percent(before.get('object'))} -> {percent(found[name]['others, LoRA on'].get('object'))}",
        ]
        for name in ("ogre", "gnome")
        if name in found
    ]
    return table(
        ["character", "seen without its LoRA", "with it (wanted: 95%)", "other objects right, off -> on"], rows
    )


def quality(found: dict[str, Any]) -> str:
    """Plain measures of pictures with a bad tag in the prompt, nowhere, in the negative, and how sure the differences are."""
    measure = {"blurry": "detail", "lowres": "detail", "monochrome": "saturation"}
    ways = ("in prompt", "in neither", "in negative")
    rows = []
    for tag in found:
        sure = found[tag][f"less {measure[tag]} in standard errors"]
        values = [f"{found[tag][way][measure[tag]]} ({percent(found[tag][way]['judged so'])})" for way in ways]
        rows.append([tag, measure[tag], *values, *(str(one) for one in sure.values())])
    head = ["tag", "measure (0-255)", "in the prompt", "in neither", "in the negative"]
    note = (
        "In brackets: how many the judge, at 64 pixels, calls so. The last two columns: paired differences in standard "
        "errors; 2 is a difference that chance hardly makes."
    )
    return f"{table([*head, 'prompt below neither', 'neither below negative'], rows)}\n\n{note}"


def curve(found: dict[str, Any]) -> str:
    """Shares by Clip Skip."""
    if "curve" not in found:
        return "Not measured."
    rows = [[name, *(percent(values[str(skip)]) for skip in range(1, 13))] for name, values in found["curve"].items()]
    return table(["right at Clip Skip", *map(str, range(1, 13))], rows) + "\n\n![The curves](starter/curve.svg)"


COLOURS = {"no LoRA": "#555555", "ogre": "#2ca02c", "gnome": "#d62728", "blueprint": "#1f77b4"}


def plot(found: dict[str, dict[str, float]]) -> str:
    """The curves as a picture, in SVG."""
    left, top, wide, high = 46, 12, 520, 220
    x, y = (lambda skip: left + (skip - 1) * wide / 11), (lambda share: top + high * (1 - share))
    size = f"{left + wide + 190} {top + high + 44}"
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" font-family="sans-serif" font-size="12">']
    lines.append('<rect width="100%" height="100%" fill="white"/>')
    for share in (0, 0.25, 0.5, 0.75, 1):
        lines.append(f'<path d="M{left} {y(share):.0f}h{wide}" stroke="#ddd"/>')
        lines.append(f'<text x="{left - 6}" y="{y(share) + 4:.0f}" text-anchor="end">{share:.0%}</text>')
    for skip in range(1, 13):
        lines.append(f'<text x="{x(skip):.0f}" y="{top + high + 18}" text-anchor="middle">{skip}</text>')
    lines.append(f'<text x="{left + wide / 2:.0f}" y="{top + high + 38}" text-anchor="middle">Clip Skip</text>')
    below, places = top + high + 14.0, {}
    for share, name in sorted((values["12"], name) for name, values in found.items()):
        below = places[name] = min(y(share), below - 14)
    for name, values in found.items():
        colour = next(colour for word, colour in COLOURS.items() if word in name)
        dash = "" if "its LoRA" in name else ' stroke-dasharray="2 3"' if "place" in name else ' stroke-dasharray="7 4"'
        path = " ".join(f"{'L' if skip > 1 else 'M'}{x(skip):.1f} {y(values[str(skip)]):.1f}" for skip in range(1, 13))
        lines.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
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
    for sheet in ("sheet", "guide", "guide-seeds"):
        if (options.results / f"{sheet}.png").exists():
            Image.open(options.results / f"{sheet}.png").save(beside / f"{sheet}.webp", quality=82)


if __name__ == "__main__":
    main()
