"""What A1111's own API tests ask by their names, asked of this server on the starter, each with more than a status looked at.

A1111 1.10 has 29 (test/test_txt2img.py, test_img2img.py, test_extras.py, test_utils.py); these are written anew from what
its API does. Tiling, face restoration and SD upscale are refused by name.
"""

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
from clipskip.spec import parse_infotext
from clipskip.sweep import Studio
from clipskip.weights import Library

TXT2IMG: dict[str, Any] = {
    "batch_size": 1, "cfg_scale": 7, "denoising_strength": 0, "enable_hr": False, "eta": 0, "firstphase_height": 0,
    "firstphase_width": 0, "height": 64, "n_iter": 1, "negative_prompt": "", "prompt": "example prompt",
    "restore_faces": False, "s_churn": 0, "s_noise": 1, "s_tmax": 0, "s_tmin": 0, "sampler_index": "Euler a", "seed": -1,
    "seed_resize_from_h": -1, "seed_resize_from_w": -1, "steps": 3, "styles": [], "subseed": -1, "subseed_strength": 0,
    "tiling": False, "width": 64,
}  # fmt: skip
IMG2IMG: dict[str, Any] = {
    "resize_mode": 0, "denoising_strength": 0.75, "mask": None, "mask_blur": 4, "inpainting_fill": 0,
    "inpaint_full_res": False, "inpaint_full_res_padding": 0, "inpainting_mask_invert": False,
    "prompt": "example prompt", "styles": [], "seed": -1, "subseed": -1, "subseed_strength": 0, "seed_resize_from_h": -1,
    "seed_resize_from_w": -1, "sampler_name": "Euler a", "batch_size": 1, "n_iter": 1, "steps": 3, "cfg_scale": 7,
    "width": 64, "height": 64, "restore_faces": False, "tiling": False, "negative_prompt": "", "eta": 0, "s_churn": 0,
    "s_tmax": 0, "s_tmin": 0, "s_noise": 1, "override_settings": {}, "sampler_index": "Euler a",
    "include_init_images": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    studio = Studio(tmp_path_factory.mktemp("out"), Library.of_user())
    yield TestClient(build_app(studio), base_url="http://127.0.0.1:7861")
    studio.close()


def picture(size: tuple[int, int] = (64, 64)) -> str:
    colours = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(colours).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def opened(image: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(image)))


def drawn(client: TestClient, body: dict[str, Any], **changes: Any) -> tuple[list[Image.Image], list[dict[str, str]]]:
    """The pictures and their settings."""
    path = "img2img" if "init_images" in body | changes else "txt2img"
    answer = client.post(f"/sdapi/v1/{path}", json=body | changes)
    assert answer.status_code == 200, answer.text
    texts = json.loads(answer.json()["info"])["infotexts"]
    return [opened(image) for image in answer.json()["images"]], [dict(parse_infotext(text).fields) for text in texts]


def test_txt2img_simple(client: TestClient) -> None:
    (image,), (said,) = drawn(client, TXT2IMG)
    assert (image.size, said["Sampler"], said["Steps"], said["Clip skip"]) == ((64, 64), "Euler a", "3", "1")


def test_txt2img_with_a_negative_prompt(client: TestClient) -> None:
    (image,), _ = drawn(client, TXT2IMG, seed=5, negative_prompt="example negative prompt")
    (other,), _ = drawn(client, TXT2IMG, seed=5)
    assert "Negative prompt: example negative prompt" in image.info["parameters"]
    assert not np.array_equal(image, other)


def test_txt2img_with_a_complex_prompt(client: TestClient) -> None:
    prompt = "((emphasis)), (emphasis1:1.1), [to:1], [from::2], [from:to:0.3], [alt|alt1]"
    (image,), _ = drawn(client, TXT2IMG, prompt=prompt)
    assert image.info["parameters"].startswith(prompt)


def test_txt2img_not_square(client: TestClient) -> None:
    (image,), (said,) = drawn(client, TXT2IMG, height=128)
    assert (image.size, said["Size-1"], said["Size-2"]) == ((64, 128), "64", "128")


@pytest.mark.parametrize("upscaler", ["Latent", "Lanczos"])
def test_txt2img_with_a_hires_pass(client: TestClient, upscaler: str) -> None:
    hires = {"enable_hr": True, "denoising_strength": 0.7, "hr_upscaler": upscaler, "hr_scale": 1.5}
    (image,), (said,) = drawn(client, TXT2IMG, **hires)
    assert (image.size, said["Hires upscale"], said["Denoising strength"]) == ((96, 96), "1.5", "0.7")


def test_txt2img_more_than_once(client: TestClient) -> None:
    images, said = drawn(client, TXT2IMG, n_iter=2, seed=5)
    assert [fields["Seed"] for fields in said] == ["5", "6"]
    assert not np.array_equal(*images)


def test_txt2img_in_a_batch(client: TestClient) -> None:
    images, said = drawn(client, TXT2IMG, batch_size=2, seed=5)
    assert [fields["Seed"] for fields in said] == ["5", "6"]
    assert not np.array_equal(*images)


@pytest.mark.parametrize("sampler", ["PLMS", "DDIM", "UniPC", "Euler"])
def test_txt2img_with_other_samplers(client: TestClient, sampler: str) -> None:
    (image,), (said,) = drawn(client, TXT2IMG, sampler_index=sampler, steps=4)
    assert (image.size, said["Sampler"]) == ((64, 64), sampler)


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [("txt2img", "tiling", True), ("txt2img", "restore_faces", True), ("img2img", "script_name", "SD upscale")],
)
def test_what_is_not_here_is_refused_by_name(client: TestClient, path: str, name: str, value: Any) -> None:
    body = TXT2IMG if path == "txt2img" else IMG2IMG | {"init_images": [picture()]}
    answer = client.post(f"/sdapi/v1/{path}", json=body | {name: value})
    assert (answer.status_code, answer.json()["field"]) == (422, name)


def test_img2img_simple(client: TestClient) -> None:
    (image,), (said,) = drawn(client, IMG2IMG, init_images=[picture()])
    assert (image.size, said["Denoising strength"]) == ((64, 64), "0.75")


def halves() -> str:
    """A mask whose right half is white."""
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (32, 0, 64, 64))
    file = io.BytesIO()
    mask.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("only_masked", [False, True])
def test_img2img_with_a_mask_keeps_what_is_black(client: TestClient, inverted: bool, only_masked: bool) -> None:
    sent, mask = picture(), {"mask": halves(), "mask_blur": 0, "inpainting_fill": 1}
    masked = mask | {"inpainting_mask_invert": inverted, "inpaint_full_res": only_masked}
    (image,), (said,) = drawn(client, IMG2IMG, init_images=[sent], **masked)
    away = np.abs(np.asarray(image).astype(int) - np.asarray(opened(sent)).astype(int)).mean((0, 2))
    kept, anew = (away[32:], away[:32]) if inverted else (away[:32], away[32:])
    assert kept[2:-2].max() < 3 < anew.mean()
    assert ("Mask mode" in said) is inverted


def test_the_options_are_told(client: TestClient) -> None:
    options = client.get("/sdapi/v1/options").json()
    assert {"sd_model_checkpoint", "CLIP_stop_at_last_layers", "send_seed", "face_restoration"} <= set(options)


def test_options_are_written(client: TestClient) -> None:
    before = client.get("/sdapi/v1/options").json()["send_seed"]
    assert client.post("/sdapi/v1/options", json={"send_seed": not before}).status_code == 200
    assert client.get("/sdapi/v1/options").json()["send_seed"] is not before


def test_a_single_picture_is_enlarged(client: TestClient) -> None:
    body = {
        "resize_mode": 0, "show_extras_results": True, "gfpgan_visibility": 0, "codeformer_visibility": 0,
        "codeformer_weight": 0, "upscaling_resize": 2, "upscaling_resize_w": 128, "upscaling_resize_h": 128,
        "upscaling_crop": True, "upscaler_1": "Lanczos", "upscaler_2": "None", "extras_upscaler_2_visibility": 0,
        "image": picture(),
    }  # fmt: skip
    answer = client.post("/sdapi/v1/extra-single-image", json=body)
    assert opened(answer.json()["image"]).size == (128, 128)


def test_the_settings_of_a_picture_are_told(client: TestClient) -> None:
    assert client.post("/sdapi/v1/png-info", json={"image": picture()}).json()["info"] == ""
    answer = client.post("/sdapi/v1/txt2img", json=TXT2IMG).json()
    told = client.post("/sdapi/v1/png-info", json={"image": answer["images"][0]}).json()
    assert told["info"] == json.loads(answer["info"])["infotexts"][0]
    assert told["parameters"]["Prompt"] == "example prompt"


@pytest.mark.parametrize(
    ("path", "has"),
    [("cmd-flags", "api"), ("samplers", "Euler a"), ("upscalers", "Lanczos"), ("sd-models", "starter"),
     ("hypernetworks", ""), ("face-restorers", ""), ("realesrgan-models", ""), ("prompt-styles", ""), ("embeddings", "loaded"),
     ("schedulers", "karras"), ("latent-upscale-modes", "Latent (nearest)"), ("sd-vae", ""), ("loras", "ogre")],
)  # fmt: skip
def test_lists_are_told(client: TestClient, path: str, has: str) -> None:
    answer = client.get(f"/sdapi/v1/{path}")
    assert answer.status_code == 200
    assert has in answer.text
