"""Pictures to one labelled sheet: Clip Skip across, LoRAs down, the shared settings once underneath."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]
"""uint8 [height, width, 3]"""

CELL_PX = 256
"""Smaller pictures are enlarged to at least this height, so that labels and pictures can be read together."""
FRAME_MS = 700
"""The time that an animation shows each picture, in milliseconds."""
PAPER, INK, FAINT = (255, 255, 255), (20, 20, 24), (90, 90, 98)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def _draw_cell(
    sheet: Image.Image,
    cell: Pixels | None,
    place: tuple[int, int],
    *,
    size: tuple[int, int],
    font: Font,
) -> None:
    """Put a picture on the sheet, or a frame where it is missing; `place` is its upper left corner, `size` in px."""
    (x, y), (width, height) = place, size
    if cell is None:
        pen = ImageDraw.Draw(sheet)
        pen.rectangle((x, y, x + width, y + height), outline=FAINT)
        pen.text((x + width // 2, y + height // 2), "not drawn", FAINT, font, anchor="mm")
    else:
        sheet.paste(Image.fromarray(cell).resize(size, Image.Resampling.LANCZOS), place)


def draw_grid(
    cells: Sequence[Sequence[Pixels | None]],
    *,
    columns: Sequence[str],
    rows: Sequence[str],
    footer: str,
    gap_px: int = 0,
) -> Pixels:
    """Return the sheet of `cells[row][column]`, where None is a missing picture; all pictures have one size.

    `gap_px` is the least gap between two pictures.
    """
    size = next(cell.shape for row in cells for cell in row if cell is not None)
    scale = max(1, -(-CELL_PX // size[0]))
    height, width = size[0] * scale, size[1] * scale
    label_px = max(16, height // 14)
    font, small = ImageFont.load_default(label_px), ImageFont.load_default(max(13, int(label_px * 0.72)))
    gap, line = max(4, height // 64, gap_px), int(label_px * 1.35)
    names = [wrap(name, font, width * 3 // 4) for name in rows]
    left = max((font.getlength(text) for name in names for text in name), default=0.0)
    x0, y0 = int(left) + 3 * gap, 2 * line
    notes = wrap(footer, small, x0 + len(columns) * (width + gap) - 4 * gap)
    below = y0 + len(rows) * (height + gap) + gap
    sheet = Image.new("RGB", (x0 + len(columns) * (width + gap) + gap, below + len(notes) * line + 2 * gap), PAPER)
    pen = ImageDraw.Draw(sheet)
    for i, name in enumerate(columns):
        pen.text((x0 + i * (width + gap) + width // 2, y0 // 2), name, INK, font, anchor="mm")
    for j, row in enumerate(cells):
        top = y0 + j * (height + gap)
        for k, text in enumerate(names[j]):
            pen.text(
                (x0 - 2 * gap, top + height // 2 + (k - (len(names[j]) - 1) / 2) * line), text, INK, font, anchor="rm"
            )
        for i, cell in enumerate(row):
            _draw_cell(sheet, cell, (x0 + i * (width + gap), top), size=(width, height), font=small)
    for k, text in enumerate(notes):
        pen.text((2 * gap, below + k * line), text, FAINT, small)
    return np.asarray(sheet)


def wrap(text: str, font: Font, width_px: int) -> list[str]:
    """Break the text into lines no wider than `width_px`; a word wider than that is broken too."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split():
            if font.getlength(f"{line} {word}".strip()) <= width_px:
                line = f"{line} {word}".strip()
                continue
            if line:
                lines.append(line)
            while font.getlength(word) > width_px and len(word) > 1:
                cut = max(1, int(len(word) * width_px / font.getlength(word)))
                lines.append(word[:cut])
                word = word[cut:]
            line = word
        lines.append(line)
    return lines


def animation(paths: Sequence[Path]) -> bytes:
    """Return the pictures in sequence as a lossless animated WebP that repeats for ever."""
    frames = []
    for path in paths:
        with Image.open(path) as picture:
            frames.append(picture.convert("RGB"))
    stored = io.BytesIO()
    frames[0].save(stored, "WEBP", save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0, lossless=True)
    return stored.getvalue()
