"""The labelled sheet."""

import numpy as np
import pytest
from PIL import ImageFont

from clipskip.image.grid import CELL_PX, PAPER, draw_grid, wrap


def flat(value: int, size: tuple[int, int] = (64, 64)) -> np.ndarray:
    return np.full((*size, 3), value, np.uint8)


@pytest.mark.parametrize("size", [(64, 64), (512, 512), (768, 512)])
def test_each_picture_stands_in_its_own_column_and_row(size: tuple[int, int]) -> None:
    values = [[10, 60], [110, 160]]
    sheet = draw_grid([[flat(v, size) for v in row] for row in values], columns=["a", "b"], rows=["x", "y"], footer="f")
    centres = {v: np.argwhere((sheet == v).all(axis=2)).mean(axis=0) for row in values for v in row}
    assert centres[10][1] < centres[60][1] and centres[10][0] < centres[110][0]
    assert abs(centres[10][0] - centres[60][0]) < 1 and abs(centres[60][1] - centres[160][1]) < 1
    areas = [(sheet == v).all(axis=2).sum() for row in values for v in row]
    assert min(areas) >= CELL_PX * CELL_PX * size[1] / size[0] * 0.99


def test_long_names_and_settings_stay_on_the_sheet() -> None:
    sheet = draw_grid([[flat(0)]], columns=["Clip Skip 1"], rows=["w" * 200], footer="word " * 300)
    assert (sheet[:, :2] == PAPER).all() and (sheet[:, -2:] == PAPER).all() and (sheet[-4:] == PAPER).all()


def test_a_missing_picture_is_said_to_be_missing() -> None:
    whole, gap = (draw_grid([[flat(0), c]], columns=["a", "b"], rows=["x"], footer="") for c in (flat(255), None))
    assert whole.shape == gap.shape and (whole != gap).any()


def test_wrapped_lines_keep_every_word_and_fit() -> None:
    font = ImageFont.load_default(16)
    text = "best quality, swamp, " + "x" * 100
    lines = wrap(text, font, 120)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(font.getlength(line) <= 120 for line in lines)
