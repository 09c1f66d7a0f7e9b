"""A1111's img2img on a tiny random model, as its clients send them; and sd-backend-client, unmodified."""

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from sd_backend_client import A1111Webservice, DiffusionRequestBody, connect_to_backend
from served import served

from clipskip.doors.http import build_app
from clipskip.image import decode_on_device, encode
from clipskip.spec import parse_infotext
from clipskip.sweep import Model, Studio

BODY = {
    "prompt": "a red frog",
    "steps": 4,
    "width": 64,
    "height": 64,
    "seed": 5,
    "sampler_name": "Euler",
    "override_settings": {"sd_model_checkpoint": "tiny"},
}


def picture(seed: int = 0, size: tuple[int, int] = (16, 16), mode: str = "RGB") -> Image.Image:
    colours = np.random.default_rng(seed).integers(0, 256, (*size[::-1], len(mode)), dtype=np.uint8)
    return Image.fromarray(colours, mode)


def sent(image: Image.Image, *, kind: str = "PNG") -> str:
    file = io.BytesIO()
    image.save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


FROG = sent(picture())


def post(client: TestClient, path: str, **changes: Any) -> Any:
    return client.post(f"/sdapi/v1/{path}", json=BODY | changes)


def img2img(client: TestClient, **changes: Any) -> dict[str, Any]:
    answer = post(client, "img2img", **{"init_images": [FROG]} | changes)
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


def pixels(png: str) -> Any:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))).astype(int)


def test_img2img_begins_at_the_picture(client: TestClient) -> None:
    one, other = (img2img(client, init_images=[sent(picture(seed))], denoising_strength=0.3) for seed in (1, 2))
    assert not np.array_equal(pixels(one["images"][0]), pixels(other["images"][0]))


def test_less_strength_leaves_more_of_the_picture(client: TestClient, model: Model) -> None:
    latent = encode(model.vae, pixels(FROG).astype(np.uint8)[None])
    kept = decode_on_device(model.vae, latent)[0].numpy().astype(int)
    away = [
        np.abs(pixels(img2img(client, denoising_strength=strength, cfg_scale=1)["images"][0]) - kept).mean()
        for strength in (0, 0.5, 1)
    ]
    assert away[0] < away[1] < away[2]


def test_img2img_notes_its_strength_and_the_picture(client: TestClient) -> None:
    found = img2img(client, denoising_strength=0.55)
    info = json.loads(found["info"])
    fields = parse_infotext(info["infotexts"][0]).fields
    assert (info["denoising_strength"], fields["Denoising strength"], fields["Clip skip"]) == (0.55, "0.55", "1")
    assert list(fields).index("Denoising strength") == list(fields).index("Clip skip") - 1
    assert len(fields["Init image hash"]) == 32
    read = client.post("/sdapi/v1/png-info", json={"image": found["images"][0]}).json()
    assert read["parameters"]["Denoising strength"] == "0.55"


def test_img2img_reads_at_the_clip_skip_that_is_asked_for(client: TestClient) -> None:
    settings = {"sd_model_checkpoint": "tiny", "CLIP_stop_at_last_layers": 2}
    first, second = img2img(client), img2img(client, override_settings=settings)
    assert json.loads(second["info"])["clip_skip"] == 2
    assert not np.array_equal(pixels(first["images"][0]), pixels(second["images"][0]))


def test_a_batch_of_img2img_counts_its_seeds_up(client: TestClient) -> None:
    three = img2img(client, batch_size=3)["images"]
    assert np.array_equal(pixels(three[2]), pixels(img2img(client, seed=7)["images"][0]))


def test_a_data_url_is_the_same_picture(client: TestClient) -> None:
    plain, url = img2img(client), img2img(client, init_images=[f"data:image/png;base64,{FROG}"])
    assert plain["images"] == url["images"]


def test_the_picture_is_stretched_to_the_size_that_is_asked_for(client: TestClient) -> None:
    wide = picture(4, (40, 12))
    fitted = wide.resize((16, 16), Image.Resampling.LANCZOS)
    one, other = img2img(client, init_images=[sent(wide)]), img2img(client, init_images=[sent(fitted)])
    assert np.array_equal(pixels(one["images"][0]), pixels(other["images"][0]))


def test_what_lets_light_through_stands_on_white(client: TestClient) -> None:
    clear, white = Image.new("RGBA", (16, 16), (9, 9, 9, 0)), Image.new("RGB", (16, 16), "white")
    one, other = img2img(client, init_images=[sent(clear)]), img2img(client, init_images=[sent(white)])
    assert np.array_equal(pixels(one["images"][0]), pixels(other["images"][0]))


@pytest.mark.parametrize("include", [True, False])
def test_the_sent_picture_comes_back_only_when_it_is_asked_for(client: TestClient, include: bool) -> None:
    assert ("init_images" in img2img(client, include_init_images=include)["parameters"]) is include


@pytest.mark.parametrize(
    ("name", "value"),
    [("resize_mode", 4), ("latent_mask", FROG), ("initial_noise_multiplier", 1.6), ("init_images", []),
     ("init_images", [FROG, FROG]), ("init_images", ["https://example.org/a.png"]), ("init_images", ["Zm9v"]),
     ("denoising_strength", 1.5), ("denoising_strength", -0.1), ("script_name", "loopback")],
)  # fmt: skip
def test_what_img2img_cannot_do_is_refused_by_name(client: TestClient, name: str, value: Any) -> None:
    answer = post(client, "img2img", **{"init_images": [FROG], name: value})
    assert (answer.status_code, answer.json()["field"]) == (422, name)


@pytest.mark.parametrize("mode", [1, 2])
def test_a_resize_mode_counts_only_where_the_shape_differs(client: TestClient, mode: int) -> None:
    assert img2img(client, resize_mode=mode)["images"] == img2img(client)["images"]
    wide = [sent(picture(0, (16, 8)))]
    assert img2img(client, init_images=wide, resize_mode=mode)["images"] != img2img(client, init_images=wide)["images"]


MASK = sent(picture(7))


@pytest.mark.parametrize(
    ("name", "value"),
    [("mask_blur", 65), ("mask_blur_x", 65), ("inpainting_fill", 4), ("inpainting_mask_invert", 2),
     ("inpaint_full_res_padding", -1), ("mask", "Zm9v")],
)  # fmt: skip
def test_what_a_mask_cannot_have_is_refused_by_name(client: TestClient, name: str, value: Any) -> None:
    answer = post(client, "img2img", **{"init_images": [FROG], "mask": MASK, name: value})
    assert (answer.status_code, answer.json()["field"]) == (422, name)
    if name != "mask":
        assert img2img(client, **{name: value})["images"] == img2img(client)["images"]


def fields_of(answer: dict[str, Any]) -> dict[str, str]:
    return dict(parse_infotext(json.loads(answer["info"])["infotexts"][0]).fields)


def test_a_mask_may_have_a_soft_edge_and_a_blur_of_each_direction(client: TestClient) -> None:
    masked = {"mask": MASK, "inpaint_full_res": False}
    usual = img2img(client, **masked)
    assert usual["images"] == img2img(client, **masked, mask_blur_x=4, mask_blur_y=4, mask_round="true")["images"]
    assert usual["images"] == img2img(client, **masked, mask_blur=4, mask_blur_x=9)["images"], "mask_blur is both"
    soft, wide = img2img(client, **masked, mask_round=False), img2img(client, **masked, mask_blur_x=9, mask_blur_y=0)
    assert len({one["images"][0] for one in (usual, soft, wide)}) == 3
    assert fields_of(soft)["Mask edge"] == "Soft"
    assert (fields_of(wide)["Mask blur"], fields_of(wide)["Mask blur Y"]) == ("9", "0")


def test_the_first_noise_has_a_size_by_field_and_by_option(client: TestClient) -> None:
    usual, less = img2img(client), img2img(client, initial_noise_multiplier=0.5)
    assert usual["images"] != less["images"]
    assert fields_of(less)["Noise multiplier"] == "0.5"
    override = BODY["override_settings"] | {"initial_noise_multiplier": 0.5, "inpainting_mask_weight": 0.3}
    assert img2img(client, override_settings=override)["images"] == less["images"]
    assert img2img(client, override_settings=override, initial_noise_multiplier=1)["images"] == usual["images"]
    masked = img2img(client, override_settings=override, mask=MASK)
    assert fields_of(masked)["Conditional mask weight"] == "0.3"


def test_a_batch_may_begin_at_a_picture_each(client: TestClient) -> None:
    other = sent(picture(3))
    two = img2img(client, init_images=[FROG, other], batch_size=2)["images"]
    assert two == [img2img(client)["images"][0], img2img(client, init_images=[other], seed=6)["images"][0]]


def test_txt2img_takes_no_picture(client: TestClient) -> None:
    answer = post(client, "txt2img", init_images=[FROG])
    assert json.loads(answer.json()["info"])["clipskip_ignored"] == ["init_images"]


@pytest.fixture(scope="module")
def backend(studio: Studio) -> Iterator[A1111Webservice]:
    with served(build_app(studio)) as address:
        found = connect_to_backend(address)
        assert isinstance(found, A1111Webservice)
        yield found
        found.disconnect()


def asked(skip: int, **changes: Any) -> DiffusionRequestBody:
    settings = {"sd_model_checkpoint": "tiny", "CLIP_stop_at_last_layers": skip}
    plain: dict[str, Any] = {"prompt": "a red frog", "steps": 2, "width": 64, "height": 64, "seed": 5}
    return DiffusionRequestBody(override_settings=settings, **plain | changes)


def test_sd_backend_client_draws_at_two_clip_skips_and_reads_the_settings_back(backend: A1111Webservice) -> None:
    drawn = [backend.submit_txt2img(asked(skip)).wait(timeout=120, poll_interval=0.05) for skip in (1, 2)]
    first, second = (np.asarray(one.images[0].convert("RGB")) for one in drawn)
    assert not np.array_equal(first, second)
    assert [one.raw_info.clip_skip for one in drawn] == [1, 2]
    assert drawn[0].seeds == [5]
    file = base64.b64encode(_png(drawn[1].images[0])).decode()
    read = backend.post("/sdapi/v1/png-info", {"image": file}).json()
    assert read["parameters"]["Clip skip"] == "2"


def test_sd_backend_client_begins_at_a_picture(backend: A1111Webservice) -> None:
    body = asked(2, init_images=[picture()], denoising_strength=0.5)
    drawn = backend.submit_img2img(body).wait(timeout=120, poll_interval=0.05)
    assert drawn.raw_info.denoising_strength == 0.5
    assert "Denoising strength: 0.5, Clip skip: 2" in drawn.raw_info.infotexts[0]


def test_sd_backend_client_finds_what_it_lists(backend: A1111Webservice) -> None:
    scripts = [script.name for script in backend.get_script_info()]
    assert scripts == ["x/y/z plot"]


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    text = PngInfo()
    text.add_text("parameters", image.info["parameters"])
    image.save(file, "PNG", pnginfo=text)
    return file.getvalue()
