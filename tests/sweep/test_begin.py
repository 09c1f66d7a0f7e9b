"""Pictures that begin at others, from a request to pixels: A1111's img2img and inpainting on a tiny model."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from PIL import Image
from sweep.test_hires import CELL_PX, levels, noise, pixels_of, went_down
from tiny_sd1 import tiny_checkpoint

from clipskip.doors.http import build_app
from clipskip.encode import condition
from clipskip.errors import SpecError
from clipskip.image import hash_pixels
from clipskip.networks import tensors_of
from clipskip.spec import Hires, Mask, Render, Request, Start, parse_skips, render_infotext, request_from_text
from clipskip.spec.table import INPAINT_AREAS, RESIZE_MODES
from clipskip.sweep import Drawn, Extras, Model, Studio, SweepFolder, draw_missing, plan_sweep, resolve
from clipskip.sweep.begin import Openings
from clipskip.weights import Library

Pixels = NDArray[np.uint8]
PICTURE = np.random.default_rng(3).integers(0, 256, (12 * CELL_PX, 8 * CELL_PX, 3), dtype=np.uint8)
MASK = np.zeros_like(PICTURE)
MASK[:, 4 * CELL_PX :] = 255
PICTURES: Mapping[str, Pixels] = {hash_pixels(PICTURE): PICTURE, hash_pixels(MASK): MASK}
START = Start(hash=hash_pixels(PICTURE), strength=0.7)
ASKED = Request(
    prompt="swamp, reeds", negative_prompt="blurry", steps=6, seed=5, width=64, height=96, sampler="Euler", cfg_scale=3,
    start=START,
)  # fmt: skip


def masked(**settings: Any) -> Request:
    return replace(ASKED, start=replace(START, mask=Mask(hash=hash_pixels(MASK), blur=0, **settings)))


def drawn(asked: Request, model: Model, library: Library, pictures: Mapping[str, Pixels] = PICTURES) -> Pixels:
    render, extras = resolve(asked, model.facts, library, pictures=pictures)
    (found,) = (event for event in model.draw([render], extras) if isinstance(event, Drawn))
    return found.pixels


def texts(model: Model) -> Any:
    plain = Render(
        prompt="swamp, reeds", negative_prompt="blurry", model=model.facts.ref, clip_skip=model.facts.default_clip_skip
    )
    return condition(model.reader, plain)


@torch.no_grad()
def encoded(model: Model, whole: torch.Tensor) -> torch.Tensor:
    mean, log_variance = model.vae.quant_conv(model.vae.encoder(whole.to(model.vae.dtype))).float().chunk(2, 1)
    return (mean + (log_variance / 2).exp() * noise(*mean.shape[2:])) * model.vae.shape.scaling_factor


def test_a_picture_is_one_drawn_from_its_latents_distribution_and_goes_down(model: Model, library: Library) -> None:
    whole = torch.from_numpy(PICTURE).permute(2, 0, 1)[None].float() / 127.5 - 1
    sigmas = levels(6)[6 - int(0.7 * 6) - 1 :]
    latent = encoded(model, whole) + noise(12, 8) * sigmas[0]
    expected = pixels_of(model, went_down(model, texts(model), latent, sigmas, cfg=3))
    # Whole values of 255, cut off: what is 1e-4 apart may fall on two sides of one.
    assert np.abs(drawn(ASKED, model, library).astype(int) - expected.astype(int)).max() <= 1


def test_what_the_mask_keeps_is_the_picture_to_the_last_value(model: Model, library: Library) -> None:
    found = drawn(masked(), model, library)
    assert np.array_equal(found[:, : 4 * CELL_PX], PICTURE[:, : 4 * CELL_PX])
    assert not np.array_equal(found[:, 4 * CELL_PX :], PICTURE[:, 4 * CELL_PX :])


def test_each_masked_content_begins_otherwise(model: Model, library: Library) -> None:
    contents = ("fill", "original", "latent noise", "latent nothing")
    found = [drawn(masked(content=content), model, library)[:, 4 * CELL_PX :] for content in contents]
    assert all(not np.array_equal(one, other) for i, one in enumerate(found) for other in found[:i])


def test_masked_content_of_noise_and_of_nothing_is_in_the_latent_under_the_mask(model: Model) -> None:
    def latent(content: str) -> torch.Tensor:
        start = masked(content=content).start
        render = Render(prompt="", model=model.facts.ref, seed=5, width=64, height=96, start=start)
        opening = Openings(model.vae, PICTURES, channels=4).of(render)
        assert opening.begin
        return opening.begin.latent

    assert torch.equal(latent("latent noise")[:, :, 4:], noise(12, 8)[0][:, :, 4:])
    assert not latent("latent nothing")[:, :, 4:].any()
    assert torch.equal(latent("latent noise")[:, :, :4], latent("latent nothing")[:, :, :4])


def test_only_masked_gives_the_picture_at_its_own_size(model: Model, library: Library) -> None:
    large = np.asarray(Image.fromarray(PICTURE).resize((40, 60)))
    mask = np.zeros_like(large)
    mask[20:30, 10:20] = 255
    pictures = {hash_pixels(large): large, hash_pixels(mask): mask}
    own = Mask(hash=hash_pixels(mask), blur=0, area=INPAINT_AREAS[1], padding=2)
    found = drawn(replace(ASKED, start=Start(hash=hash_pixels(large), mask=own)), model, library, pictures)
    assert found.shape == large.shape
    assert np.array_equal(found[mask == 0], large[mask == 0]) and not np.array_equal(found, large)


@pytest.mark.parametrize("mode", RESIZE_MODES)
def test_every_resize_mode_draws_the_size_that_was_asked(model: Model, library: Library, mode: str) -> None:
    asked = replace(ASKED, width=96, height=64, start=replace(START, resize_mode=mode))
    assert drawn(asked, model, library).shape == (8 * CELL_PX, 12 * CELL_PX, 3)


def test_settings_of_a_masked_picture_come_back_from_its_text(model: Model, library: Library) -> None:
    asked = masked(content="latent noise", area=INPAINT_AREAS[0], blur_y=3, edge="Soft", weight=0.25)
    assert asked.start
    asked = replace(asked, start=replace(asked.start, noise_multiplier=0.75))
    render, _ = resolve(asked, model.facts, library, pictures=PICTURES)
    again, _ = resolve(request_from_text(render_infotext(render)), model.facts, library, pictures=PICTURES)
    assert again == render


def test_a_soft_mask_is_seen_by_an_inpainting_model_as_it_is() -> None:
    own = inpainting_model()
    grey = np.full_like(PICTURE, 64)
    start = replace(START, mask=Mask(hash=hash_pixels(grey), blur=0, edge="Soft"))
    render = Render(prompt="", model=own.facts.ref, seed=5, width=64, height=96, start=start)
    found = Openings(own.vae, {**PICTURES, hash_pixels(grey): grey}, channels=9).of(render)
    assert found.beside is not None and torch.allclose(found.beside[0], torch.tensor(64 / 255))
    assert found.begin and found.begin.drawn is not None and torch.allclose(found.begin.drawn, torch.tensor(64 / 255))


def test_a_schedule_type_counts_for_dpm_fast_from_a_picture_and_comes_back_from_the_text(
    model: Model, library: Library
) -> None:
    asked = replace(ASKED, sampler="DPM fast", scheduler="karras")
    render, _ = resolve(asked, model.facts, library, pictures=PICTURES)
    assert render.scheduler == "Karras"
    again, _ = resolve(request_from_text(render_infotext(render)), model.facts, library, pictures=PICTURES)
    assert again == render
    plain, _ = resolve(replace(asked, start=None), model.facts, library)
    assert plain.scheduler == "Automatic"


def test_a_sweep_begins_every_cell_at_the_picture(model: Model, library: Library, tmp_path: Path) -> None:
    sweep, extras = plan_sweep(masked(), parse_skips("1-3"), model.facts, library, pictures=PICTURES)
    folder = SweepFolder.create(tmp_path, sweep)
    list(draw_missing(model, folder, extras))
    assert all(folder.has(0, column) for column in range(3))


def test_a_sweep_keeps_the_pictures_it_begins_at_and_a_server_goes_on_with_it(
    library: Library, tmp_path: Path, model: Model
) -> None:
    sweep, extras = plan_sweep(masked(), parse_skips("1-3"), model.facts, library, pictures=PICTURES)
    folder = SweepFolder.create(tmp_path / f"sweep-{sweep.key}", sweep, model=model.facts)
    list(draw_missing(model, folder, extras))
    folder.finish()
    before = folder.place(0, 1).read_bytes()
    folder.place(0, 1).unlink()
    studio = Studio(tmp_path, library)
    client = TestClient(build_app(studio), base_url="http://127.0.0.1:7861")
    assert client.post(f"/v1/sweeps/{sweep.key}/resume").status_code == 202
    while client.get(f"/v1/sweeps/{sweep.key}").json()["state"] in ("queued", "running"):
        time.sleep(0.01)
    assert folder.place(0, 1).read_bytes() == before
    answer = client.delete(f"/v1/sweeps/{sweep.key}/folder", params={"confirm": sweep.key})
    assert (answer.status_code, folder.path.exists()) == (200, False), answer.text
    studio.close()


def test_a_mask_that_is_not_there_is_an_error(model: Model, library: Library) -> None:
    with pytest.raises(SpecError, match="--mask"):
        resolve(masked(), model.facts, library, pictures={hash_pixels(PICTURE): PICTURE})


def inpainting_model() -> Model:
    """The tiny model with a UNet that also sees the mask and the rest of the picture."""
    plain = tiny_checkpoint(vocabulary=49408, layers=12)
    shape = replace(plain.facts.unet, in_channels=9)
    torch.manual_seed(2)
    state = {name: torch.randn(size).mul(0.05).half() for name, size in tensors_of(shape).items()}
    checkpoint = replace(plain, facts=replace(plain.facts, unet=shape), unet=state)
    return Model(checkpoint, device=torch.device("cpu"), dtype=torch.float32)


@pytest.mark.parametrize("how", ["from noise", "from a picture", "within a mask", "within a mask of less weight"])
def test_an_inpainting_model_sees_the_mask_and_the_rest_of_the_picture(how: str) -> None:
    """1.10 modules/processing.py inpainting_image_conditioning and txt2img_image_conditioning."""
    own = inpainting_model()
    weight = 0.25 if how.endswith("weight") else 1.0
    within = how.startswith("within")
    hole = torch.from_numpy(MASK[..., 0] > 0).float()[None, None] if within else torch.ones(1, 1, 24, 16)
    whole = torch.from_numpy(PICTURE).permute(2, 0, 1)[None].float() / 127.5 - 1
    beside = torch.cat(
        [hole[:, :, ::CELL_PX, ::CELL_PX], encoded(own, torch.lerp(whole, whole * (1 - hole), weight))], dim=1
    )
    start = masked(weight=weight).start if within else {"from noise": None, "from a picture": START}[how]
    render = Render(prompt="", model=own.facts.ref, seed=5, width=64, height=96, start=start)
    found = Openings(own.vae, PICTURES, channels=9).of(render).beside
    assert found is not None and torch.allclose(found, beside[0], atol=1e-4)  # float16 weights, read once and twice


def test_an_inpainting_model_draws_both_passes() -> None:
    own = inpainting_model()
    render = Render(
        prompt="swamp",
        model=own.facts.ref,
        steps=2,
        width=64,
        height=64,
        sampler="Euler",
        hires=Hires(scale=1.5, steps=2),
    )
    (found,) = (event for event in own.draw([render], Extras(loras={})) if isinstance(event, Drawn))
    assert found.pixels.shape == (12 * CELL_PX, 12 * CELL_PX, 3)
