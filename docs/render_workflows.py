"""Draws each example workflow of the ComfyUI pack as X.jpg beside X.json, where ComfyUI's template browser looks for it.

    python docs/render_workflows.py [RESULTS]

RESULTS is a folder with X.png, what the workflow gave, which is shown in its Preview Image.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

WORKFLOWS = Path(__file__).parents[1] / "integrations/comfyui/example_workflows"
PAPER, BOX, TITLE, FIELD, INK, FAINT = "#202225", "#353535", "#2a2c30", "#222222", "#dddddd", "#9a9a9a"
COLOURS = {
    "MODEL": "#b39ddb",
    "CLIP": "#ffd500",
    "VAE": "#ff6e6e",
    "CONDITIONING": "#ffa931",
    "LATENT": "#ff9cf9",
    "IMAGE": "#64b5f6",
}
HEAD, ROW, FIELD_ROW, TEXT_ROW, MARGIN = 30, 22, 26, 96, 30


def places(node: dict[str, Any]) -> tuple[list[dict[str, Any]], list[tuple[str, Any, int]]]:
    """A node's sockets, and its fields: name, value and height, which is larger for texts."""
    sockets = [one for one in node["inputs"] if "widget" not in one]
    names = [one["name"] for one in node["inputs"] if "widget" in one]
    values = [value for value in node["widgets_values"] if value != "fixed"]  # what follows a seed has no name
    tall = {"text", "positive", "negative", "settings"}
    return sockets, [
        (name, value, TEXT_ROW if name in tall else FIELD_ROW) for name, value in zip(names, values, strict=True)
    ]


def socket_place(node: dict[str, Any], side: str, number: int) -> tuple[float, float]:
    """The middle of an input's dot ("in") or of an output's."""
    (x, y), width = node["pos"], node["size"][0]
    return (x if side == "in" else x + width, y + HEAD + 6 + ROW * (number + 0.5))


def links(graph: dict[str, Any]) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    """The type of each link, and its curve: Bézier's of third order, level at both ends."""
    by_id = {node["id"]: node for node in graph["nodes"]}
    for _, source, slot, target, place, kind in graph["links"]:
        (x0, y0), (x1, y1) = socket_place(by_id[source], "out", slot), socket_place(by_id[target], "in", place)
        reach = max(40.0, abs(x1 - x0) / 2)
        shares = [step / 24 for step in range(25)]
        weights = [((1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3) for t in shares]
        yield (
            kind,
            [
                (a * x0 + b * (x0 + reach) + c * (x1 - reach) + d * x1, (a + b) * y0 + (c + d) * y1)
                for a, b, c, d in weights
            ],
        )


def draw(graph: dict[str, Any], result: Image.Image | None) -> Image.Image:
    """The graph as ComfyUI shows it, in few strokes."""
    nodes = graph["nodes"]
    size = [int(max(node["pos"][i] + node["size"][i] for node in nodes) + MARGIN) for i in (0, 1)]
    sheet = Image.new("RGB", (size[0], size[1]), PAPER)
    pen, font, small = ImageDraw.Draw(sheet), ImageFont.load_default(15), ImageFont.load_default(12)
    for kind, curve in links(graph):
        pen.line(curve, COLOURS.get(kind, FAINT), 3)
    for node in nodes:
        (x, y), (width, height) = node["pos"], node["size"]
        pen.rounded_rectangle((x, y, x + width, y + height), 8, BOX)
        pen.rounded_rectangle((x, y, x + width, y + HEAD), 8, TITLE)
        pen.text((x + 12, y + HEAD / 2), node["title"], INK, font, anchor="lm")
        sockets, fields = places(node)
        for side, row in (("in", sockets), ("out", node["outputs"])):
            for number, socket in enumerate(row):
                at = socket_place(node, side, number)
                pen.ellipse((at[0] - 5, at[1] - 5, at[0] + 5, at[1] + 5), COLOURS.get(socket["type"], FAINT))
                inside, anchor = (at[0] + 12, "lm") if side == "in" else (at[0] - 12, "rm")
                pen.text((inside, at[1]), socket["name"], INK, small, anchor=anchor)
        down = y + HEAD + 10 + ROW * max(len(sockets), len(node["outputs"]))
        for name, value, tall in fields:
            pen.rounded_rectangle((x + 10, down + 2, x + width - 10, down + tall - 4), 6, FIELD)
            pen.text((x + 18, down + 6), name, FAINT, small)
            at, anchor = ((x + 18, down + 28), "la") if tall == TEXT_ROW else ((x + width - 18, down + 6), "ra")
            pen.text(at, str(value)[:44], INK, small, anchor=anchor)
            down += tall
        if node["type"] == "PreviewImage" and result is not None:
            picture = result.copy()
            picture.thumbnail((width - 20, height - HEAD - 36))
            sheet.paste(picture, (x + 10, y + HEAD + 30))
    return sheet


def main() -> None:
    """Draws all of them."""
    results = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    for path in sorted(WORKFLOWS.glob("*.json")):
        shown = results / f"{path.stem}.png" if results else None
        result = Image.open(shown).convert("RGB") if shown and shown.exists() else None
        draw(json.loads(path.read_text()), result).save(path.with_suffix(".jpg"), quality=82, optimize=True)


if __name__ == "__main__":
    main()
