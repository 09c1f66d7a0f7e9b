"""An upscaler model over a picture: whole, and in tiles that are held against the same computed another way."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_upscaler import esrgan, esrgan_state, expected, noise

from clipskip.errors import Busy
from clipskip.image import Enlarge, enlarge, enlarge_by_tiles, upscale_with

CPU = torch.device("cpu")


def by(state: dict[str, torch.Tensor]) -> Enlarge:
    return lambda x: esrgan(state, x)


def test_a_picture_within_a_tile_is_enlarged_whole_with_blue_first() -> None:
    state, pixels = esrgan_state(), noise(20, 30)
    found = enlarge_by_tiles(pixels, by(state), device=CPU)
    assert found.shape == (80, 120, 3)
    assert np.abs(found - expected(state, pixels)).max() <= 0.51, "rounded to whole numbers"
    assert np.abs(found - expected(state, pixels[:, :, ::-1])[:, :, ::-1]).max() > 5, "the order of colours counts"


@pytest.mark.parametrize(("height", "width"), [(40, 61), (64, 24), (25, 24), (24, 24), (30, 10)])
def test_tiles_of_a_model_that_sees_a_pixel_alone_are_the_whole(height: int, width: int) -> None:
    state, pixels = esrgan_state(reach=False), noise(height, width)
    found = enlarge_by_tiles(pixels, by(state), device=CPU, tile_px=24, overlap_px=6)
    assert np.abs(found - expected(state, pixels)).max() <= 1.01, "twice rounded to whole numbers where tiles fade"


def test_tiles_fade_into_one_another_as_a1111s_do() -> None:
    """Each tile by itself, put together by Pillow's own masks at A1111's places: 2 across 41 - 8 = 33 by steps of 16 is 3."""
    state, pixels, tile, overlap = esrgan_state(), noise(24, 41), 24, 8
    found = enlarge_by_tiles(pixels, by(state), device=CPU, tile_px=tile, overlap_px=overlap)
    whole = Image.new("RGB", (164, 96))
    ramp = (np.arange(4 * overlap) * 255 / (4 * overlap)).astype(np.uint8)
    mask = Image.fromarray(np.repeat(ramp[None], 96, axis=0))
    for x in (0, 8, 17):
        made = Image.fromarray(np.rint(expected(state, pixels[:, x : x + tile])).astype(np.uint8))
        first = made.crop((0, 0, 4 * overlap, 96))
        if x == 0:
            whole.paste(made, (0, 0))
        else:
            whole.paste(first, (4 * x, 0), mask=mask)
            whole.paste(made.crop((4 * overlap, 0, 4 * tile, 96)), (4 * (x + overlap), 0))
    assert np.abs(found.astype(int) - np.asarray(whole).astype(int)).max() <= 2, "Pillow's masks have 256 steps"


def test_a_size_that_is_not_the_models_own_is_made_by_lanczos_in_whole_blocks() -> None:
    state, pixels = esrgan_state(), noise(20, 30)
    upscale = upscale_with(by(state), device=CPU)
    found = enlarge(pixels, upscale, scale=1.5)
    fourfold = Image.fromarray(enlarge_by_tiles(pixels, by(state), device=CPU))
    assert np.array_equal(found, np.asarray(fourfold.resize((40, 24), Image.Resampling.LANCZOS)))
    assert enlarge(pixels, upscale, scale=6).shape == (120, 176, 3), "enlarged twice where once is too little"


def test_somebody_may_give_it_up() -> None:
    with pytest.raises(Busy, match="cancelled"):
        enlarge_by_tiles(noise(8, 8), by(esrgan_state()), device=CPU, given_up=lambda: True)
