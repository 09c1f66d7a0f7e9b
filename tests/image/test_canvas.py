"""Pictures brought to size and masked, against Pillow's and NumPy's own steps written out, and by what must hold."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from clipskip.errors import SpecError
from clipskip.image import prepare, read_mask
from clipskip.image.canvas import blurred, resize
from clipskip.spec import Mask, Start
from clipskip.spec.table import INPAINT_AREAS, MASK_EDGES, MASK_MODES, RESIZE_MODES

Pixels = NDArray[np.uint8]
HASH = "ab" * 16


def noise(width: int, height: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def masked(width: int, height: int, box: tuple[int, int, int, int]) -> Pixels:
    mask = np.zeros((height, width, 3), np.uint8)
    left, top, right, bottom = box
    mask[top:bottom, left:right] = 255
    return mask


def start(resize_mode: int = 0, **mask: object) -> Start:
    return Start(hash=HASH, resize_mode=RESIZE_MODES[resize_mode], mask=Mask(hash=HASH, **mask) if mask else None)  # type: ignore[arg-type]  # named below


def test_just_resize_stretches() -> None:
    found = prepare(start(0), noise(64, 32), None, size=(40, 40)).pixels
    assert np.array_equal(found, np.array(Image.fromarray(noise(64, 32)).resize((40, 40), Image.Resampling.LANCZOS)))


def test_crop_and_resize_keeps_the_middle() -> None:
    found = prepare(start(1), noise(64, 32), None, size=(40, 40)).pixels
    larger = Image.fromarray(noise(64, 32)).resize((80, 40), Image.Resampling.LANCZOS)
    assert np.array_equal(found, np.array(larger.crop((20, 0, 60, 40))))


def test_resize_and_fill_goes_on_with_the_outermost_lines() -> None:
    picture = np.repeat(noise(64, 1), 32, 0)
    found = prepare(start(2), picture, None, size=(40, 40)).pixels
    fitted = np.array(Image.fromarray(picture).resize((40, 20), Image.Resampling.LANCZOS))
    assert np.array_equal(found[10:30], fitted)
    assert (found[:10] == fitted[0]).all() and (found[30:] == fitted[-1]).all()


def test_latent_resize_leaves_the_picture_as_it_is() -> None:
    assert np.array_equal(prepare(start(3), noise(64, 32), None, size=(40, 40)).pixels, noise(64, 32))


def test_latent_resize_refuses_what_makes_no_latent() -> None:
    prepare(start(3), noise(8, 8), None, size=(40, 40))
    with pytest.raises(SpecError, match=r"64 x 7; .* needs 8 pixels"):
        prepare(start(3), noise(64, 7), None, size=(40, 40))


def test_a_masks_blur_is_a_gaussian_over_its_kernels_reach() -> None:
    grey = np.zeros((41, 41), np.uint8)
    grey[20, 20] = 255
    found = blurred(np.full((41, 41), 200, np.uint8), 4, 4)
    assert (found == 200).all(), "what is even stays even, at the edges too"
    line = np.zeros((1, 61), np.uint8)
    line[0, 30:] = 255
    steps = blurred(np.repeat(line, 30, 0), 4, 4)[15].astype(int)
    kernel = np.exp(-(np.arange(-10, 11) ** 2) / 32)
    expected = [255 * kernel[: max(0, min(21, i - 19))].sum() / kernel.sum() for i in range(61)]
    assert np.abs(steps - np.rint(expected)).max() <= 1


def test_a_mask_may_be_blurred_otherwise_across_than_up_and_down() -> None:
    mask = masked(64, 64, (24, 24, 40, 40))
    across, down = (
        prepare(start(0, blur=x, blur_y=y), noise(64, 64), mask, size=(64, 64)).mask for x, y in ((6, 0), (0, 6))
    )
    assert across is not None and down is not None and np.array_equal(across, down.T)
    assert 0 < across[32, 23] < 255 and across[23, 32] == 0
    assert np.array_equal(blurred(mask[..., 0], 6, 0), across)


def test_a_soft_mask_keeps_as_much_of_a_cell_as_it_has_grey() -> None:
    mask = np.full((64, 64, 3), 64, np.uint8)
    hard, soft = (
        prepare(start(0, blur=0, edge=edge), noise(64, 64), mask, size=(64, 64)).drawn((8, 8)) for edge in MASK_EDGES
    )
    assert hard is not None and not hard.any()
    assert soft is not None and np.allclose(soft, 64 / 255)


def test_a_masks_transparency_counts_whole_or_softly() -> None:
    file = io.BytesIO()
    Image.fromarray(np.array([[[9, 9, 9, 0], [9, 9, 9, 100], [9, 9, 9, 200]]], np.uint8)).save(file, "PNG")
    assert read_mask(file.getvalue(), field="mask")[0, :, 0].tolist() == [0, 0, 255]
    assert read_mask(file.getvalue(), field="mask", soft=True)[0, :, 0].tolist() == [0, 100, 200]


def test_the_kept_part_comes_back_and_the_masked_does_not() -> None:
    picture, mask = noise(64, 64), masked(64, 64, (32, 0, 64, 64))
    canvas = prepare(start(0, blur=0), picture, mask, size=(64, 64))
    result = canvas.finish(np.full((64, 64, 3), 7, np.uint8))
    assert np.array_equal(result[:, :32], picture[:, :32]) and (result[:, 32:] == 7).all()
    drawn = canvas.drawn((8, 8))
    assert drawn is not None and np.array_equal(drawn, np.repeat([[0.0] * 4 + [1.0] * 4], 8, 0))


def test_a_mask_of_another_size_is_stretched_to_the_picture() -> None:
    picture = noise(64, 64)
    small, whole = masked(32, 16, (16, 0, 32, 16)), masked(64, 64, (32, 0, 64, 64))
    results = [prepare(start(0, blur=0), picture, mask, size=(64, 64)) for mask in (small, whole)]
    drawn = [canvas.finish(np.full((64, 64, 3), 7, np.uint8)) for canvas in results]
    assert np.array_equal(drawn[0][:, :24], picture[:, :24]) and (drawn[0][:, 40:] == 7).all(), (
        "but for the stretched edge"
    )
    assert np.array_equal(drawn[1][:, :32], picture[:, :32]) and (drawn[1][:, 32:] == 7).all()


def test_an_inverted_mask_draws_what_is_black() -> None:
    canvas = prepare(
        start(0, blur=0, mode=MASK_MODES[1]), noise(64, 64), masked(64, 64, (32, 0, 64, 64)), size=(64, 64)
    )
    drawn = canvas.drawn((8, 8))
    assert drawn is not None and np.array_equal(drawn, np.repeat([[1.0] * 4 + [0.0] * 4], 8, 0))


def test_only_masked_draws_what_surrounds_the_mask_at_the_full_size_and_puts_it_back() -> None:
    picture, mask = noise(128, 96), masked(128, 96, (40, 40, 56, 48))
    canvas = prepare(start(0, blur=0, area=INPAINT_AREAS[1], padding=4), picture, mask, size=(64, 64))
    assert canvas.box == (36, 32, 24, 24), "24 x 16 with its padding, made square"
    larger = Image.fromarray(picture).crop((36, 32, 60, 56)).resize((64, 64), Image.Resampling.LANCZOS)
    assert np.array_equal(canvas.pixels, np.array(larger))
    result = canvas.finish(np.full((64, 64, 3), 7, np.uint8))
    inside = np.zeros((96, 128), bool)
    inside[40:48, 40:56] = True
    assert (
        result.shape == (96, 128, 3)
        and (result[inside] == 7).all()
        and np.array_equal(result[~inside], picture[~inside])
    )


def test_a_region_at_the_edge_stays_in_the_picture() -> None:
    canvas = prepare(
        start(0, blur=0, area=INPAINT_AREAS[1], padding=0),
        noise(128, 96),
        masked(128, 96, (120, 0, 128, 60)),
        size=(64, 64),
    )
    assert canvas.box == (68, 0, 60, 60)


def test_masked_content_is_filled_with_the_colours_around_it() -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, :] = (200, 40, 40)
    picture[24:40, 24:40] = (0, 0, 255)
    filled = prepare(start(0, blur=0, content="fill"), picture, masked(64, 64, (20, 20, 44, 44)), size=(64, 64)).pixels
    assert np.array_equal(filled[:18, :18], picture[:18, :18])
    assert np.abs(filled[32, 32].astype(int) - (200, 40, 40)).max() <= 4


def test_a_mask_without_white_is_an_error_where_only_it_is_drawn() -> None:
    with pytest.raises(SpecError, match="no white"):
        prepare(start(0, area=INPAINT_AREAS[1]), noise(64, 64), masked(64, 64, (0, 0, 0, 0)), size=(64, 64))


def test_a_masks_transparency_counts_where_it_has_any() -> None:
    shaped = np.zeros((8, 8, 4), np.uint8)
    shaped[:4, :, 3] = 200
    file = io.BytesIO()
    Image.fromarray(shaped).save(file, "PNG")
    assert np.array_equal(read_mask(file.getvalue(), field="mask")[:, :, 0], np.where(shaped[..., 3] > 128, 255, 0))


@pytest.mark.parametrize("mode", range(3))
def test_a_picture_of_the_right_size_is_not_touched(mode: int) -> None:
    picture = Image.fromarray(noise(64, 32))
    assert np.array_equal(np.array(resize(picture, (64, 32), RESIZE_MODES[mode])), noise(64, 32))


def test_a_mask_with_the_latent_resize_mode_at_another_size_is_an_error() -> None:
    with pytest.raises(SpecError, match=r"64 x 64.*40 x 40"):
        prepare(start(3, blur=0), noise(64, 64), masked(64, 64, (0, 0, 8, 8)), size=(40, 40))
