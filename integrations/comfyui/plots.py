"""Curves over Clip Skip as a picture."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP = 60, 20, 56
LINE = 20
PAPER, INK, FAINT = (255, 255, 255), (20, 20, 24), (205, 210, 216)
COLOURS = ((29, 111, 216), (192, 57, 43), (34, 139, 87), (150, 90, 170), (200, 130, 20), (90, 90, 98))


def curves(title: str, skips: Sequence[int], lines: Mapping[str, Sequence[float]], *, chosen: int | None) -> np.ndarray:
    """Shares [height, width, 3]: a line for each name, Clip Skips across, the chosen one marked."""
    bottom = HEIGHT - 34 - LINE * -(-len(lines) // 2)
    sheet = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    pen, font, small = ImageDraw.Draw(sheet), ImageFont.load_default(15), ImageFont.load_default(12)
    values = [value for line in lines.values() for value in line]
    low, high = min(0.0, *values), max(1.0, *values)
    across = (WIDTH - LEFT - RIGHT) / max(1, len(skips) - 1)

    def place(column: int, value: float) -> tuple[float, float]:
        return LEFT + column * across, bottom - (value - low) / (high - low) * (bottom - TOP)

    pen.text((LEFT, 14), title[:76], INK, font)
    for value in sorted({low, 0.0, 1.0, high}):
        y = place(0, value)[1]
        pen.line((LEFT, y, WIDTH - RIGHT, y), FAINT)
        pen.text((LEFT - 8, y), f"{value:.0%}", INK, small, anchor="rm")
    for column, skip in enumerate(skips):
        x = place(column, 0)[0]
        if skip == chosen:
            pen.line((x, TOP, x, bottom), INK, 2)
        pen.text((x, bottom + 12), str(skip), INK, font if skip == chosen else small, anchor="mm")
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = [place(column, value) for column, value in enumerate(line)]
        if len(points) > 1:
            pen.line(points, colour, 2)
        for x, y in points:
            pen.ellipse((x - 4, y - 4, x + 4, y + 4), colour)
        x, y = LEFT + (WIDTH - LEFT) // 2 * (number % 2), bottom + 32 + LINE * (number // 2)
        pen.line((x, y, x + 18, y), colour, 3)
        pen.text((x + 26, y), name[:38], INK, small, anchor="lm")
    return np.asarray(sheet)
