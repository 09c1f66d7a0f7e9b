"""A1111's own clients, unmodified, against the server on a tiny random model; and bodies as other programs send them."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webuiapi
from fastapi.testclient import TestClient
from PIL import Image
from served import served

from clipskip.doors.http import build_app
from clipskip.sweep import Studio

BODY = {
    "prompt": "a red frog",
    "steps": 2,
    "width": 64,
    "height": 64,
    "seed": 5,
    "override_settings": {"sd_model_checkpoint": "tiny"},
}


@pytest.fixture(scope="module")
def port(studio: Studio) -> Iterator[int]:
    with served(build_app(studio)) as found:
        yield int(found.rpartition(":")[2])


def draw(client: TestClient, **changes: Any) -> dict[str, Any]:
    answer = client.post("/sdapi/v1/txt2img", json=BODY | changes)
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


def pixels(png: str) -> Any:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


def at(skip: Any) -> dict[str, Any]:
    return {"override_settings": {"sd_model_checkpoint": "tiny", "CLIP_stop_at_last_layers": skip}}


def test_webuiapi_draws_at_two_clip_skips_and_reads_the_settings_back(port: int) -> None:
    api = webuiapi.WebUIApi(port=port)
    drawn = [
        api.txt2img(prompt="a red frog", steps=2, width=64, height=64, seed=5, sampler_name="Euler a", **at(skip))
        for skip in (1, 2)
    ]
    assert not np.array_equal(*(np.asarray(one.image) for one in drawn))
    assert [one.info["clip_skip"] for one in drawn] == [1, 2]
    assert "Clip skip: 2" in api.png_info(drawn[1].image).info
    assert [model["model_name"] for model in api.get_sd_models()] == ["tiny"]
    assert "Euler a" in [sampler["name"] for sampler in api.get_samplers()]
    assert api.get_progress()["state"]["job_count"] == 0


def test_what_is_overridden_once_does_not_leak(client: TestClient) -> None:
    before = draw(client)
    draw(client, **at(9))
    after = draw(client)
    assert np.array_equal(pixels(before["images"][0]), pixels(after["images"][0]))
    assert client.get("/sdapi/v1/options").json()["CLIP_stop_at_last_layers"] == 1


def test_the_override_is_stronger_than_the_field_and_the_field_than_the_option(client: TestClient) -> None:
    client.post("/sdapi/v1/options", json={"CLIP_stop_at_last_layers": 4})
    used = [draw(client), draw(client, clip_skip=3), draw(client, clip_skip=3, **at(2))]
    client.post("/sdapi/v1/options", json={"CLIP_stop_at_last_layers": 1})
    assert [
        '"clip_skip": 4' in used[0]["info"],
        '"clip_skip": 3' in used[1]["info"],
        '"clip_skip": 2' in used[2]["info"],
    ] == [True] * 3


def test_a_batch_counts_its_seeds_up(client: TestClient) -> None:
    three = draw(client, batch_size=3)["images"]
    assert np.array_equal(pixels(three[2]), pixels(draw(client, seed=7)["images"][0]))


@pytest.mark.parametrize("skip", [0, 13, -1, 0.5, 12.5, "2", True, None, 10**30])
def test_a_clip_skip_that_is_none_of_the_models_is_refused(client: TestClient, skip: Any) -> None:
    answer = client.post("/sdapi/v1/txt2img", json=BODY | at(skip))
    assert answer.status_code == 422


@pytest.mark.parametrize(
    ("name", "value"),
    [("restore_faces", True), ("tiling", True), ("styles", ["photo"]), ("script_name", "Prompt matrix"),
     ("alwayson_scripts", {"controlnet": {"args": [{"enabled": True}]}}), ("refiner_checkpoint", "sdxl")],
)  # fmt: skip
def test_a_field_that_would_change_the_picture_is_refused_by_name(client: TestClient, name: str, value: Any) -> None:
    answer = client.post("/sdapi/v1/txt2img", json=BODY | {name: value})
    assert (answer.status_code, answer.json()["field"]) == (422, name)


def test_open_webui_posts_all_options_back_and_draws(client: TestClient) -> None:
    options = client.get("/sdapi/v1/options", headers={"authorization": ""}).json()
    assert client.post("/sdapi/v1/options", json=options).status_code == 200
    assert draw(client, batch_size=1, negative_prompt="")["images"]


def test_an_option_that_cannot_be_had_is_refused_by_itself(client: TestClient) -> None:
    answer = client.post("/sdapi/v1/options", json={"CLIP_stop_at_last_layers": 2, "face_restoration": True})
    assert (answer.status_code, answer.json()["field"]) == (422, "face_restoration")
    assert client.get("/sdapi/v1/options").json()["CLIP_stop_at_last_layers"] == 2
    client.post("/sdapi/v1/options", json={"CLIP_stop_at_last_layers": 1})


def test_a_bad_request_leaves_the_next_one_unharmed(client: TestClient) -> None:
    assert client.post("/sdapi/v1/txt2img", json=BODY | {"sampler_name": "Eulr"}).status_code == 422
    assert draw(client)["images"]


@pytest.mark.parametrize(
    "image", ["", "not base64!", base64.b64encode(b"<svg/>").decode(), base64.b64encode(b"\x89PNG").decode()]
)
def test_a_picture_that_is_none_has_no_settings(client: TestClient, image: str) -> None:
    assert client.post("/sdapi/v1/png-info", json={"image": image}).status_code in (404, 422)


def test_no_list_tells_a_path_of_this_machine(client: TestClient, folder: Path) -> None:
    for name in ("sd-models", "loras", "embeddings", "options", "cmd-flags"):
        assert str(folder) not in client.get(f"/sdapi/v1/{name}").text
