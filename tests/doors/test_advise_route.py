"""POST /v1/advise on the tiny model."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_sdxl
from fastapi.testclient import TestClient
from tiny_sd1 import write_sdxl

from clipskip.doors.http import build_app
from clipskip.sweep import Studio
from clipskip.weights import Library

ASKED = {"prompt": "swamp, ogre", "model": "tiny", "loras": [{"name": "ogre"}], "clip_skips": "1,2"}


@pytest.fixture
def client(library: Library, tmp_path: Path) -> Iterator[TestClient]:
    studio = Studio(tmp_path, library)
    yield TestClient(build_app(studio), base_url="http://127.0.0.1:7861")
    studio.close()


def test_the_verdict_comes_with_its_measurements_and_every_tools_number(client: TestClient) -> None:
    said = client.post("/v1/advise", json=ASKED).json()
    assert (said["verdict"]["skip"], said["prompted"]["skips"]) == (2, [1, 2])
    assert {row["tool"]: row["number"] for row in said["tools"]}["comfyui"] == "-2"
    assert said["prompted"]["loras"][0]["uptake"][1] == 1


@pytest.mark.parametrize(
    ("changes", "status", "field"),
    [
        ({"clip_skips": "13"}, 422, "clip_skip"),
        ({"clip_skips": "1.5"}, 422, "clip_skip"),
        ({"model": "nope"}, 404, "model"),
        ({"loras": [{"name": "nope"}]}, 404, "lora"),
        ({"images": "/etc"}, 422, "images"),
        ({"seed": -1}, 422, "seed"),
    ],
)
def test_a_field_that_cannot_be_is_named(client: TestClient, changes: dict[str, Any], status: int, field: str) -> None:
    answer = client.post("/v1/advise", json=ASKED | changes)
    assert (answer.status_code, answer.json()["field"]) == (status, field)


def test_a_model_of_a_family_with_one_clip_skip_for_all_is_answered_from_its_header(tmp_path: Path) -> None:
    write_sdxl(tmp_path / "pony.safetensors")
    studio = Studio(tmp_path / "out", Library((tmp_path,)))
    client = TestClient(build_app(studio), base_url="http://127.0.0.1:7861")
    said = client.post("/v1/advise", json={"model": "pony"}).json()
    assert (said["verdict"]["skip"], said["family"], said["rows"]) == (2, "SDXL", 0)
    studio.close()


def test_a_prompt_is_measured_on_sdxl(tmp_path: Path) -> None:
    tiny_sdxl.write(tiny_sdxl.sdxl(), tmp_path / "pony.safetensors")
    studio = Studio(tmp_path / "out", Library((tmp_path,)))
    client = TestClient(build_app(studio), base_url="http://127.0.0.1:7861")
    said = client.post("/v1/advise", json={"model": "pony", "prompt": "a cat", "clip_skips": "1,2"}).json()
    assert (said["verdict"]["skip"], said["family"], said["prompted"]["guidance_kept"][1]) == (2, "SDXL", 1)
    assert said["rows"] > 0 and "without the final norm" in said["notes"][0]
    studio.close()


def test_the_advice_on_a_sweep_is_a_job_that_is_cancelled_and_kept_with_it(
    client: TestClient, library: Library, tmp_path: Path
) -> None:
    small = {
        "prompt": "swamp, ogre",
        "model": "tiny",
        "steps": 1,
        "seed": 5,
        "width": 64,
        "height": 64,
        "clip_skips": "1,2",
    }
    id = client.post("/v1/sweeps", json=small | {"loras": [{"name": "ogre"}]}).json()["id"]
    at = f"/v1/sweeps/{id}/advice"
    assert client.get(at).json() == {"state": "none", "progress": 0, "eta_s": None, "error": None, "advice": None}
    assert client.delete(at).status_code == 404
    assert client.post(at).status_code == 202
    assert client.delete(at).json()["state"] == "cancelled"
    assert client.post(at).json()["state"] in ("queued", "running")
    deadline = time.monotonic() + 60
    while (said := client.get(at).json())["state"] != "done" and time.monotonic() < deadline:
        assert said["error"] is None and 0 <= said["progress"] <= 1
        time.sleep(0.05)
    assert said["advice"]["prompted"]["skips"] == [1, 2]
    later = Studio(tmp_path, library)
    kept = TestClient(build_app(later), base_url="http://127.0.0.1:7861").get(at).json()
    later.close()
    assert kept["state"] == "done" and kept["advice"] == said["advice"]
