"""A1111's other routes: stopping pictures, making them larger, models in memory, and what is not here."""

import base64
import io
import json
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from clipskip.doors.http import build_app
from clipskip.image import picture_infotext
from clipskip.spec import parse_infotext
from clipskip.sweep import Studio

BODY = {"prompt": "a red frog", "steps": 2, "width": 64, "height": 64, "seed": 5, "sampler_name": "Euler"}
LONG = BODY | {"steps": 40, "width": 128, "height": 128, "batch_size": 1}


@pytest.fixture(scope="module")
def client(studio: Studio) -> TestClient:
    client = TestClient(build_app(studio), base_url="http://127.0.0.1:7861")
    client.post("/sdapi/v1/options", json={"sd_model_checkpoint": "tiny"})
    return client


def drawn(client: TestClient, **changes: Any) -> dict[str, Any]:
    answer = client.post("/sdapi/v1/txt2img", json=BODY | changes)
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


def until_step(client: TestClient, least: int, asked: "Future[Any]") -> dict[str, Any]:
    """What /progress says once a picture is at this step."""
    while not asked.done():
        state: dict[str, Any] = client.get("/sdapi/v1/progress?skip_current_image=true").json()["state"]
        if state["sampling_step"] >= least:
            return state
        time.sleep(0.002)
    raise AssertionError(f"it was done before step {least}: {asked.result()}")


def test_interrupt_gives_the_pictures_at_hand_half_done(client: TestClient, studio: Studio) -> None:
    kept = set(studio.history.out.iterdir())
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(drawn, client, **LONG, n_iter=3, save_images=True)
        until_step(client, 3, asked)
        assert client.post("/sdapi/v1/interrupt").json() == {}
        found = asked.result(60)
    info = json.loads(found["info"])
    (image,), (text,) = found["images"], info["infotexts"]
    assert 3 <= int(parse_infotext(text).fields["Interrupted after"]) < 40
    assert picture_infotext(base64.b64decode(image), "it") == text
    assert set(studio.history.out.iterdir()) == kept  # as in A1111, unless save_incomplete_images
    assert client.get("/sdapi/v1/progress").json()["state"]["interrupted"] is False
    assert drawn(client)["images"]


def test_skip_leaves_the_pictures_at_hand_and_goes_on_with_the_next(client: TestClient) -> None:
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(drawn, client, **LONG, n_iter=2)
        until_step(client, 2, asked)
        client.post("/sdapi/v1/skip")
        found = asked.result(60)
    first, second = (parse_infotext(text).fields for text in json.loads(found["info"])["infotexts"])
    assert int(first["Interrupted after"]) < 40
    assert "Interrupted after" not in second
    alone = drawn(client, **LONG | {"seed": 6})["images"][0]
    assert np.abs(np.asarray(opened(found["images"][1])).astype(int) - np.asarray(opened(alone)).astype(int)).max() <= 1


def test_nothing_to_stop_is_no_fault(client: TestClient) -> None:
    for name in ("interrupt", "skip"):
        assert client.post(f"/sdapi/v1/{name}").json() == {}
    assert "Interrupted after" not in json.loads(drawn(client)["info"])["infotexts"][0]


def test_a_model_is_let_go_and_opened_again(client: TestClient, studio: Studio) -> None:
    before = drawn(client)["images"]
    assert client.post("/sdapi/v1/unload-checkpoint").json() == {}
    assert studio.models.names == ()
    assert client.post("/sdapi/v1/reload-checkpoint").json() == {}
    assert studio.models.names == ("tiny",)
    client.post("/sdapi/v1/unload-checkpoint")
    assert drawn(client)["images"] == before


def test_a_model_that_draws_is_not_let_go(client: TestClient) -> None:
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(drawn, client, **LONG)
        until_step(client, 1, asked)
        assert client.post("/sdapi/v1/unload-checkpoint").status_code == 429
        client.post("/sdapi/v1/interrupt")
        assert asked.result(60)["images"]


def sent(size: tuple[int, int], *, seed: int = 0, kind: str = "PNG") -> str:
    colours = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(colours).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def opened(image: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(image)))


def extra(client: TestClient, **changes: Any) -> Image.Image:
    answer = client.post("/sdapi/v1/extra-single-image", json={"image": sent((16, 24))} | changes)
    assert answer.status_code == 200, answer.text
    return opened(answer.json()["image"])


@pytest.mark.parametrize(
    ("upscaler", "filter"), [("Lanczos", Image.Resampling.LANCZOS), ("Nearest", Image.Resampling.NEAREST)]
)
def test_a_picture_is_enlarged_by_a_filter(client: TestClient, upscaler: str, filter: Image.Resampling) -> None:
    larger = extra(client, upscaler_1=upscaler, upscaling_resize="2")
    assert np.array_equal(larger, opened(sent((16, 24))).resize((32, 48), filter))
    assert larger.info["parameters"] == f"Postprocess upscaler: {upscaler}, Postprocess upscale by: 2.0"


@pytest.mark.parametrize(("crop", "size"), [(True, (32, 32)), (False, (32, 48))])
def test_a_picture_is_enlarged_to_a_size(client: TestClient, crop: bool, size: tuple[int, int]) -> None:
    to = {"resize_mode": 1, "upscaling_resize_w": 32, "upscaling_resize_h": 32, "upscaling_crop": crop}
    larger = extra(client, upscaler_1="Nearest", **to)
    whole = np.asarray(opened(sent((16, 24))).resize((32, 48), Image.Resampling.NEAREST))
    assert larger.size == size
    assert np.array_equal(larger, whole[8:40] if crop else whole)


def test_no_upscaler_leaves_a_picture_as_it_is(client: TestClient) -> None:
    assert np.array_equal(extra(client, upscaler_1="None"), opened(sent((16, 24))))


def test_two_upscalers_are_mixed(client: TestClient) -> None:
    both = extra(client, upscaler_1="Nearest", upscaler_2="Lanczos", extras_upscaler_2_visibility=0.25)
    parts = [
        opened(sent((16, 24))).resize((32, 48), way) for way in (Image.Resampling.NEAREST, Image.Resampling.LANCZOS)
    ]
    assert np.array_equal(both, Image.blend(*parts, 0.25))


def test_enlarged_pictures_keep_their_settings(client: TestClient) -> None:
    images = [drawn(client, seed=seed)["images"][0] for seed in (5, 6)]
    body = {"upscaler_1": "Lanczos", "imageList": [{"data": image, "name": "x.png"} for image in images]}
    larger = client.post("/sdapi/v1/extra-batch-images", json=body).json()["images"]
    for before, after in zip(images, larger, strict=True):
        assert opened(after).size == tuple(2 * side for side in opened(before).size)
        assert opened(after).info["parameters"].startswith(opened(before).info["parameters"] + ", Postprocess upscaler")


@pytest.mark.parametrize(
    ("changes", "fields"),
    [({"gfpgan_visibility": 1, "codeformer_visibility": 0.5}, ["gfpgan_visibility", "codeformer_visibility"]),
     ({"upscaler_1": "ESRGAN_4x"}, ["upscaler_1"]), ({"image": "x"}, ["image"]), ({"image": ""}, ["image"]),
     ({"upscaling_resize": 100}, ["upscaling_resize"]), ({"resize_mode": 7}, ["resize_mode"])],
)  # fmt: skip
def test_what_extras_cannot_do_is_refused_by_name(client: TestClient, changes: Any, fields: list[str]) -> None:
    answer = client.post(
        "/sdapi/v1/extra-single-image", json={"image": sent((16, 24)), "upscaler_1": "Nearest"} | changes
    )
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == fields


@pytest.mark.parametrize("path", ["interrogate", "create/embedding", "create/hypernetwork", "train/embedding"])
def test_what_is_not_here_says_so_in_a_sentence(client: TestClient, path: str) -> None:
    answer = client.post(f"/sdapi/v1/{path}", json={"image": "x"})
    assert (answer.status_code, "not here" in answer.json()["detail"]) == (501, True)


@pytest.mark.parametrize("path", ["controlnet/model_list", "controlnet/detect", "adetailer/v1/ad_model"])
def test_extensions_are_refused_by_name(client: TestClient, path: str) -> None:
    for answer in (client.get(f"/{path}"), client.post(f"/{path}", json={})):
        assert (answer.status_code, "is not here" in answer.json()["detail"]) == (501, True)


def test_pictures_of_some_megabytes_are_no_reason_for_a_refusal(client: TestClient) -> None:
    image = "A" * (3 * 2**20)
    assert drawn(client, alwayson_scripts={"reactor": {"args": [image, False]}})["images"] == drawn(client)["images"]
    unit = {"ControlNet": {"args": [{"enabled": True, "image": image}]}}
    refused = client.post("/sdapi/v1/txt2img", json=BODY | {"alwayson_scripts": unit})
    assert (refused.status_code, "'ControlNet' is not here" in refused.json()["detail"]) == (422, True)
    for path, body in (("sdapi/v1/interrogate", {"image": image}), ("controlnet/detect", {"input_images": [image]})):
        assert client.post(f"/{path}", json=body).status_code == 501


def test_clients_learn_that_the_server_is_up_as_they_ask_a1111(client: TestClient) -> None:
    ping, head = client.get("/internal/ping"), client.head("/")
    assert (ping.status_code, ping.json()) == (200, {})
    assert (head.status_code, head.content) == (200, b"")


LISTS = {
    "samplers": list, "schedulers": list, "upscalers": list, "latent-upscale-modes": list, "sd-models": list, "sd-vae": list,
    "hypernetworks": list, "face-restorers": list, "realesrgan-models": list, "prompt-styles": list, "embeddings": dict,
    "loras": list, "scripts": dict, "script-info": list, "extensions": list, "cmd-flags": dict, "memory": dict,
}  # fmt: skip


@pytest.mark.parametrize("name", LISTS)
def test_every_list_of_a1111s_is_answered(client: TestClient, name: str) -> None:
    answer = client.get(f"/sdapi/v1/{name}")
    assert (answer.status_code, type(answer.json())) == (200, LISTS[name])


@pytest.mark.parametrize("what", ["checkpoints", "vae", "loras", "embeddings"])
def test_lists_are_refreshed_on_demand(client: TestClient, what: str) -> None:
    assert client.post(f"/sdapi/v1/refresh-{what}").status_code == 200
