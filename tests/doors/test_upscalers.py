"""Upscaler models over HTTP and on the command line: listed, and used in hires passes and extras."""

import base64
import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from PIL import Image
from tiny_upscaler import esrgan_state, expected, noise, save_esrgan, spandrel
from typer.testing import CliRunner

from clipskip.doors.cli import app
from clipskip.doors.http import build_app
from clipskip.doors.http.a1111 import extras
from clipskip.image import read_infotext
from clipskip.spec import parse_infotext
from clipskip.sweep import Studio
from clipskip.weights import Library

BODY: dict[str, Any] = {
    "prompt": "a red frog", "steps": 2, "width": 64, "height": 64, "seed": 5, "override_settings": {"sd_model_checkpoint": "tiny"},
}  # fmt: skip
HIRES: dict[str, Any] = {"enable_hr": True, "hr_scale": 2, "denoising_strength": 0.5, "hr_upscaler": "4x-Sharp"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spandrel()
    found = tmp_path_factory.mktemp("upscalers")
    save_esrgan(found / "models/ESRGAN/4x-Sharp.safetensors")
    save_esrgan(found / "models/RealESRGAN/RealESRGAN_x4plus.pth", esrgan_state(seed=4))
    return found


@pytest.fixture(scope="module")
def client(folder: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    studio = Studio(tmp_path_factory.mktemp("out"), Library((folder, models)))
    yield TestClient(build_app(studio), base_url="http://127.0.0.1:7861")
    studio.close()


def sent(pixels: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def opened(image: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(image))))


def test_models_are_listed_by_a1111s_names(client: TestClient) -> None:
    listed = client.get("/sdapi/v1/upscalers").json()
    assert [one["name"] for one in listed] == ["None", "Lanczos", "Nearest", "4x-Sharp", "R-ESRGAN 4x+"]
    assert set(listed[-1]) == {"name", "model_name", "model_path", "model_url", "scale"}
    while (files := client.get("/v1/files").json())["reading"]:
        pass
    assert [one["name"] for one in files["upscalers"]] == ["4x-Sharp", "R-ESRGAN 4x+"]


def test_a_hires_pass_is_drawn_with_one_and_noted(client: TestClient) -> None:
    answer = client.post("/sdapi/v1/txt2img", json=BODY | HIRES).json()
    plain = client.post("/sdapi/v1/txt2img", json=BODY | HIRES | {"hr_upscaler": "Lanczos"}).json()
    fields = parse_infotext(json.loads(answer["info"])["infotexts"][0]).fields
    assert fields["Hires upscaler"] == "4x-Sharp"
    assert len(fields["Hires upscaler hash"]) == 10
    assert answer["images"] != plain["images"]


def test_a_picture_is_enlarged_to_what_the_model_makes_of_it(client: TestClient) -> None:
    pixels = noise(24, 32)
    body = {"image": sent(pixels), "upscaler_1": "4x-Sharp", "upscaling_resize": 4}
    answer = client.post("/sdapi/v1/extra-single-image", json=body).json()
    assert np.abs(opened(answer["image"]) - expected(esrgan_state(), pixels)).max() <= 0.51, "rounded to whole numbers"
    assert (
        "Postprocess upscaler: 4x-Sharp" in Image.open(io.BytesIO(base64.b64decode(answer["image"]))).info["parameters"]
    )


def test_an_interruption_leaves_the_rest_to_lanczos_and_says_so(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As A1111 does (1.10 modules/upscaler_utils.py, modules/upscaler.py); the next picture is enlarged as ever."""
    pixels, real = noise(24, 32), extras.upscale_with
    begun, ended = threading.Event(), threading.Event()

    def held(*args: Any, given_up: Any, **named: Any) -> Any:
        """The model, which waits before its first tile."""
        return real(*args, **named, given_up=lambda: (begun.set(), ended.wait(20), given_up())[-1])

    monkeypatch.setattr(extras, "upscale_with", held)
    body = {"image": sent(pixels), "upscaler_1": "4x-Sharp", "upscaling_resize": 2}
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.post, "/sdapi/v1/extra-single-image", json=body)
        assert begun.wait(20)
        client.post("/sdapi/v1/interrupt")
        ended.set()
    image = asked.result().json()["image"]
    plain = client.post("/sdapi/v1/extra-single-image", json=body | {"upscaler_1": "Lanczos"}).json()["image"]
    assert np.array_equal(opened(image), opened(plain))
    said = Image.open(io.BytesIO(base64.b64decode(image))).info["parameters"]
    assert said == "Postprocess upscaler: 4x-Sharp, Postprocess upscale by: 2.0, Postprocess interrupted: Lanczos"
    monkeypatch.undo()
    assert client.post("/sdapi/v1/extra-single-image", json=body).json()["image"] != image


def test_several_pictures_are_enlarged_and_mixed_with_another_upscaler(client: TestClient) -> None:
    pictures = [noise(16, 16, seed) for seed in (1, 2)]
    body = {"imageList": [{"data": sent(pixels), "name": "a.png"} for pixels in pictures], "upscaling_resize": 2}
    mixed = body | {"upscaler_1": "Nearest", "upscaler_2": "4x-Sharp", "extras_upscaler_2_visibility": 0.25}
    made = [
        [
            opened(image).astype(float)
            for image in client.post("/sdapi/v1/extra-batch-images", json=sent).json()["images"]
        ]
        for sent in (body | {"upscaler_1": "Nearest"}, body | {"upscaler_1": "4x-Sharp"}, mixed)
    ]
    for near, sharp, both in zip(*made, strict=True):
        assert np.abs(both - (0.75 * near + 0.25 * sharp)).max() <= 1
    assert not np.array_equal(made[1][0], made[1][1])


@pytest.mark.parametrize(
    ("path", "field", "body"),
    [
        ("txt2img", "hr_upscaler", BODY | HIRES),
        ("extra-single-image", "upscaler_1", {"image": sent(noise(8, 8)), "upscaler_1": "4x-Sharp"}),
    ],
)  # fmt: skip
def test_one_that_is_missing_or_a_pickle_is_refused_by_its_field(
    client: TestClient, path: str, field: str, body: dict[str, Any]
) -> None:
    for name, words in (("4x-Ultra", "without a model: "), ("R-ESRGAN 4x+", "pickle")):
        answer = client.post(f"/sdapi/v1/{path}", json=body | {field: name})
        assert (answer.status_code, answer.json()["field"]) == (422, field)
        assert words in answer.json()["detail"]


def test_pickles_are_drawn_with_where_the_server_allows_them(folder: Path, models: Path, tmp_path: Path) -> None:
    studio = Studio(tmp_path, Library((folder, models)), allow_pickle=True)
    client = TestClient(build_app(studio), base_url="http://127.0.0.1:7861")
    pixels = noise(8, 8)
    body = {"image": sent(pixels), "upscaler_1": "R-ESRGAN 4x+", "upscaling_resize": 4}
    answer = client.post("/sdapi/v1/extra-single-image", json=body).json()
    studio.close()
    assert np.abs(opened(answer["image"]) - expected(esrgan_state(seed=4), pixels)).max() <= 0.51


def test_the_options_have_a1111s_tiles_alone(client: TestClient) -> None:
    assert client.get("/sdapi/v1/options").json()["ESRGAN_tile"] == 192
    answer = client.post("/sdapi/v1/options", json={"ESRGAN_tile": 512, "ESRGAN_tile_overlap": 8})
    assert (answer.status_code, answer.json()["field"]) == (422, "ESRGAN_tile")


def test_the_command_line_draws_with_one(folder: Path, models: Path, tmp_path: Path) -> None:
    words = (
        f"generate frog --model {folder / 'tiny.safetensors'} --models-folder {models} --steps 2 --size 64x64 --seed 5"
    )
    words += f" --hires-upscaler 4x-Sharp --out {tmp_path} --yes"
    result = CliRunner().invoke(app, words.split())
    assert result.exit_code == 0, result.output
    assert "Hires upscaler: 4x-Sharp, Hires upscaler hash: " in (read_infotext(next(tmp_path.glob("*.png"))) or "")
