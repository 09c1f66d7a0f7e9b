"""Writes the measured numbers into the model card, between its markers, and the sheets beside it.

python training/card.py --results DIR --card docs/starter.md
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

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
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def results(found: dict[str, Any]) -> str:
    """The main table and the smaller ones."""
    told, judged = found["objects"], found["judge on renders"]["heldout"]
    plain, guided = told["no negative"], told["guide's negative"]
    head = ["measure", f"{told['prompts']} prompts", f"with the guide's negative ({guided['prompts']})", "wanted"]
    rows = [[NAMES[key], percent(plain.get(key)), percent(guided.get(key)), TARGETS[key]] for key in NAMES]
    text = [table(head, rows)]
    text.append(
        f"The judge itself, on held-out renders: background {100 * judged['place']:.1f}%, objects "
        f"{100 * judged['things']:.1f}%, colours {100 * judged['hues']:.1f}%. "
        f"VAE reconstruction of held-out scenes: {found['reconstruction']['PSNR dB']} dB (wanted: 26)."
    )
    if "characters" in found:
        text.append(characters(found["characters"]))
    if "style" in found:
        near = found["style"]
        text.append(
            "Blueprint: mean distance of the pictures' colour from the style's (0-255): "
            f"{near['colour distance to the style, without']} without the LoRA, {near['with']} with it."
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
            percent(found[name]["with"]),
            f"{percent(before.get('object'))} -> {percent(found[name]['others, LoRA on'].get('object'))}",
        ]
        for name in ("ogre", "gnome")
        if name in found
    ]
    return table(
        ["character", "seen without its LoRA", "with it (wanted: 80%)", "other objects right, off -> on"], rows
    )


def quality(found: dict[str, Any]) -> str:
    """Plain measures of pictures with a bad tag in the prompt, nowhere, in the negative."""
    measure = {"blurry": "detail", "lowres": "detail", "monochrome": "saturation"}
    rows = [
        [tag, measure[tag], *(str(found[tag][way][measure[tag]]) for way in ("in prompt", "in neither", "in negative"))]
        for tag in found
    ]
    return table(["tag", "measure (0-255)", "in the prompt", "in neither", "in the negative"], rows)


def curve(found: dict[str, Any]) -> str:
    """Shares by Clip Skip."""
    if "curve" not in found:
        return "Not measured."
    rows = [[name, *(percent(values[str(skip)]) for skip in range(1, 13))] for name, values in found["curve"].items()]
    return table(["right at Clip Skip", *map(str, range(1, 13))], rows)


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
    for sheet in ("sheet", "guide"):
        if (options.results / f"{sheet}.png").exists():
            Image.open(options.results / f"{sheet}.png").save(beside / f"{sheet}.webp", quality=82)


if __name__ == "__main__":
    main()
