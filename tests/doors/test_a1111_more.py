"""A1111's img2img on a tiny random model, as its clients send it."""

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from clipskip.doors.http import build_app
from clipskip.image import decode_on_device, encode
from clipskip.spec import parse_infotext
from clipskip.sweep import Model, Studio
from clipskip.weights import Library

BODY = {
    "prompt": "a red frog",
    "steps": 4,
    "width": 64,
    "height": 64,
    "seed": 5,
    "sampler_name": "Euler",
    "override_settings": {"sd_model_checkpoint": "tiny"},
}


@pytest.fixture(scope="module")
def studio(library: Library, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    found = Studio(tmp_path_factory.mktemp("out"), library)
    yield found
    found.close()


@pytest.fixture(scope="module")
def client(studio: Studio) -> TestClient:
    return TestClient(build_app(studio), base_url="http://127.0.0.1:7861")


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
    [("resize_mode", 1), ("mask", FROG), ("latent_mask", FROG), ("initial_noise_multiplier", 0.5), ("init_images", []),
     ("init_images", [FROG, FROG]), ("init_images", ["https://example.org/a.png"]), ("init_images", ["Zm9v"]),
     ("denoising_strength", 1.5), ("denoising_strength", -0.1), ("sampler_name", "DDIM"), ("script_name", "loopback")],
)  # fmt: skip
def test_what_img2img_cannot_do_is_refused_by_name(client: TestClient, name: str, value: Any) -> None:
    answer = post(client, "img2img", **{"init_images": [FROG], name: value})
    assert (answer.status_code, answer.json()["field"]) == (422, name)


def test_txt2img_takes_no_picture(client: TestClient) -> None:
    answer = post(client, "txt2img", init_images=[FROG])
    assert (answer.status_code, answer.json()["field"]) == (422, "init_images")
