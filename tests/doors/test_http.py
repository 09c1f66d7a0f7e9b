"""The HTTP API on a tiny random model: sweeps from asking to finding them again, and what bad requests get."""

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from clipskip.doors.http import build_app
from clipskip.image import read_infotext
from clipskip.sweep import Studio
from clipskip.weights import Library, hash_file

SMALL = {"prompt": "a red frog", "model": "tiny", "steps": 2, "seed": 5, "width": 64, "height": 64, "clip_skips": "1-2"}


@pytest.fixture
def studio(library: Library, tmp_path: Path) -> Iterator[Studio]:
    found = Studio(tmp_path, library, limit=2)
    yield found
    found.close()


@pytest.fixture
def client(studio: Studio) -> TestClient:
    return TestClient(build_app(studio), base_url="http://127.0.0.1:7861")


@pytest.fixture(scope="module")
def idle(library: Library, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server for requests that draw nothing, one for all of their tests."""
    studio = Studio(tmp_path_factory.mktemp("idle"), library, limit=2)
    yield TestClient(build_app(studio), base_url="http://127.0.0.1:7861")
    studio.close()


def finished(client: TestClient, id: str) -> dict[str, Any]:
    """The sweep once it has ended."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found: dict[str, Any] = client.get(f"/v1/sweeps/{id}").json()
        if found["state"] not in ("queued", "running"):
            return found
        time.sleep(0.05)
    raise AssertionError("the sweep does not end")


def drawn(client: TestClient, **changes: Any) -> dict[str, Any]:
    answer = client.post("/v1/sweeps", json=SMALL | changes)
    assert answer.status_code == 202, answer.text
    return finished(client, answer.json()["id"])


def test_a_sweep_is_drawn_and_its_pictures_say_their_settings(client: TestClient, tmp_path: Path) -> None:
    sweep = drawn(client, loras=[{"name": "ogre", "text_encoder": 0.5, "unet": 0.5}])
    assert (sweep["state"], sweep["done"], sweep["total"]) == ("done", 4, 4)
    assert [row["name"] for row in sweep["rows"]] == ["without LoRA", "ogre 0.5"]
    (tmp_path / "got.png").write_bytes(client.get(sweep["cells"][1][1]["image"]).content)
    assert read_infotext(tmp_path / "got.png") == sweep["cells"][1][1]["settings"]
    assert "Clip skip: 2" in sweep["cells"][1][1]["settings"]
    assert Image.open(io.BytesIO(client.get(sweep["grid"]).content)).format == "PNG"


def test_files_that_are_not_those_of_the_settings_are_drawn_with_and_said(client: TestClient, folder: Path) -> None:
    ogre = hash_file(folder / "loras" / "ogre.safetensors").autov3
    block = "swamp <lora:ogre:1>\nSteps: 1, Seed: 5, Size: 64x64, Model: tiny, Lora hashes: "
    for noted, said in ((ogre, []), ("0123456789ab", [ogre])):
        answer = client.post("/v1/sweeps", json={"settings": f'{block}"ogre: {noted}"', "clip_skips": "1"})
        assert answer.status_code == 202, answer.text
        assert [own for own in said for line in answer.json()["warnings"] if own in line] == said
        assert len(answer.json()["warnings"]) == len(said)
        assert finished(client, answer.json()["id"])["state"] == "done"


def test_a_restarted_server_finds_its_sweeps_and_goes_on_with_them(
    client: TestClient, library: Library, tmp_path: Path
) -> None:
    sweep = drawn(client, loras=[{"name": "ogre"}])
    folder = tmp_path / f"sweep-{sweep['id']}"
    kept = next(folder.glob("row0-clipskip01*"))
    lost = next(folder.glob("row1-clipskip02*"))
    before, content = kept.stat().st_mtime_ns, lost.read_bytes()
    lost.unlink()
    again = Studio(tmp_path, library)
    other = TestClient(build_app(again), base_url="http://localhost")
    assert [one["state"] for one in other.get("/v1/sweeps").json()["sweeps"]] == ["interrupted"]
    assert other.post(f"/v1/sweeps/{sweep['id']}/resume").json()["id"] == sweep["id"]
    assert finished(other, sweep["id"])["done"] == 4
    assert (kept.stat().st_mtime_ns, lost.read_bytes()) == (before, content)
    again.close()


def test_events_begin_with_the_whole_sweep_and_end_with_its_end(client: TestClient) -> None:
    id = client.post("/v1/sweeps", json=SMALL).json()["id"]
    with client.stream("GET", f"/v1/sweeps/{id}/events") as stream:
        names = [line.removeprefix("event: ") for line in stream.iter_lines() if line.startswith("event: ")]
    assert names[0] == "sweep"
    assert names[-1] == "end"


def test_a_cancelled_sweep_keeps_what_is_drawn_and_says_so(client: TestClient) -> None:
    id = client.post("/v1/sweeps", json=SMALL | {"steps": 150, "clip_skips": "1-12"}).json()["id"]
    client.delete(f"/v1/sweeps/{id}")
    sweep = finished(client, id)
    assert sweep["state"] == "cancelled"
    assert sweep["done"] < sweep["total"]


def test_more_than_the_queue_holds_is_told_to_come_later(client: TestClient, studio: Studio) -> None:
    long = SMALL | {"steps": 150, "clip_skips": "1-12"}
    answers = [client.post("/v1/sweeps", json=long | {"seed": seed}) for seed in range(5)]
    for answer in answers:
        if answer.status_code == 202:
            studio.cancel(answer.json()["id"])
    assert answers[-1].status_code == 429
    assert "at most" in answers[-1].json()["detail"]


@pytest.mark.parametrize(
    ("changes", "status", "field", "said"),
    [
        ({"clip_skips": "13"}, 422, "clip_skip", "12"),
        ({"clip_skips": [0]}, 422, "clip_skips", "1 to 12"),
        ({"clip_skips": [True]}, 422, "clip_skips", ""),
        ({"clip_skips": []}, 422, "clip_skips", "empty"),
        ({"steps": 0}, 422, "steps", "1 is the least"),
        ({"steps": 10**9}, 422, "steps", "150"),
        ({"steps": "20"}, 422, "steps", "whole number"),
        ({"steps": True}, 422, "steps", "whole number"),
        ({"seed": 2**64}, 422, "seed", ""),
        ({"width": 63}, 422, "width", ""),
        ({"width": 68}, 422, "size", "multiple of 8"),
        ({"sampler": "Eulr"}, 422, "sampler", "Euler"),
        ({"model": "tinny"}, 404, "model", "tiny"),
        ({"loras": [{"name": "ogr"}]}, 404, "lora", "ogre"),
        ({"loras": [{"name": "/etc/passwd"}]}, 404, "lora", "no lora"),
        ({"model": "../tiny.safetensors"}, 404, "model", "no model"),
        ({"loras": [{"name": "ogre"}] * 200}, 422, "loras", "64"),
        ({"enable_hr": True}, 422, "enable_hr", "no such field"),
    ],
)
def test_a_bad_field_is_named(idle: TestClient, changes: dict[str, Any], status: int, field: str, said: str) -> None:
    answer = idle.post("/v1/sweeps", json=SMALL | changes)
    found = answer.json()
    assert (answer.status_code, found["field"].split(".")[0]) == (status, field)
    assert said.lower() in found["detail"].lower()
    assert idle.get("/v1/sweeps").json() == {"sweeps": []}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_number_that_is_none_is_refused(idle: TestClient, number: str) -> None:
    body = f'{{"prompt": "frog", "cfg_scale": {number}}}'
    answer = idle.post("/v1/sweeps", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"host": "127.0.0.1.evil.example"},
    ],
)
def test_other_names_and_other_pages_are_turned_away(idle: TestClient, headers: dict[str, str]) -> None:
    assert idle.get("/v1/status", headers=headers).status_code == 403


def test_a_form_of_another_page_is_refused_by_its_type(idle: TestClient) -> None:
    answer = idle.post("/v1/sweeps", content='{"prompt": "frog"}', headers={"content-type": "text/plain"})
    assert answer.status_code == 422


def test_a_body_too_large_is_refused_before_it_is_read(idle: TestClient) -> None:
    answer = idle.post("/v1/sweeps", content=b"{}", headers={"content-length": str(2**31)})
    assert answer.status_code == 413


@pytest.mark.parametrize("id", ["nothing", "..", "%2e%2e", "a/b", "é"])
def test_a_sweep_that_is_not_there_is_not_found(idle: TestClient, id: str) -> None:
    assert idle.get(f"/v1/sweeps/{id}").status_code == 404


def test_a_pictures_settings_fill_the_form(client: TestClient) -> None:
    sweep = drawn(client)
    picture = client.get(sweep["cells"][0][1]["image"]).content
    found = client.post("/v1/settings", files={"file": ("got.png", picture)}).json()
    assert (found["request"]["prompt"], found["request"]["clip_skip"], found["request"]["seed"]) == ("a red frog", 2, 5)


def test_what_is_no_picture_and_no_settings_says_so(idle: TestClient) -> None:
    answer = idle.post("/v1/settings", files={"file": ("x.png", b"\x89PNG\r\n\x1a\nbroken")})
    assert answer.status_code == 422
    assert answer.json()["detail"]


def test_each_answer_has_the_policy(idle: TestClient) -> None:
    for path in ("/", "/web/main.js", "/v1/status"):
        answer = idle.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert idle.get("/web/..%2fcli.py").status_code == 404


def test_clip_skip_2_is_said_in_other_tools_numbers(idle: TestClient) -> None:
    found = idle.post("/v1/dialects", json={"clip_skip": 2, "family": "sd1"}).json()
    numbers = {row["tool"]: row["number"] for row in found["rows"]}
    assert (numbers["diffusers"], found["layer"], found["depth"]) == ("1", 11, 12)


def test_a_number_of_another_tool_is_translated_with_what_it_reads(idle: TestClient) -> None:
    found = idle.post("/v1/dialects", json={"clip_skip": 1, "tool": "draw things", "family": "sdxl"}).json()
    assert found["clip_skip"] == "1/2" and "reads CLIP-L at 1 and OpenCLIP-bigG at 2" in found["remark"]
    assert [(one["encoder"], one["layer"]) for one in found["layers"]] == [("CLIP-L", 12), ("OpenCLIP-bigG", 31)]
    found = idle.post("/v1/dialects", json={"clip_skip": "[4:2:0.5]", "steps": 6}).json()
    assert {row["tool"]: row["number"] for row in found["rows"]}["reforge"] == "4,4,4,4,2"
    refused = idle.post("/v1/dialects", json={"clip_skip": 2, "family": "flux"})
    assert refused.status_code == 422 and "means nothing on Flux" in refused.json()["detail"]


def test_a_sweep_that_is_drawn_is_not_deleted(client: TestClient) -> None:
    id = client.post("/v1/sweeps", json=SMALL | {"steps": 100}).json()["id"]
    refused = client.delete(f"/v1/sweeps/{id}/folder", params={"confirm": id})
    assert refused.status_code == 409 and "cancel it first" in refused.json()["detail"]
    client.delete(f"/v1/sweeps/{id}")
    finished(client, id)


def measured(client: TestClient, id: str) -> dict[str, Any]:
    """What is measured of a sweep, once that has ended."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found: dict[str, Any] = client.get(f"/v1/sweeps/{id}/scores").json()
        if found["state"] not in ("queued", "running"):
            return found
        time.sleep(0.05)
    raise AssertionError("measuring does not end")


def test_a_sweep_that_asks_for_scores_has_them_in_its_cells_and_its_manifest(client: TestClient) -> None:
    sweep = drawn(client, loras=[{"name": "ogre"}], scores=["advise"], axes=["seed=5,6"])
    scores = measured(client, sweep["id"])
    assert (scores["state"], scores["progress"], scores["error"]) == ("done", 1, None)
    cells = client.get(f"/v1/sweeps/{sweep['id']}").json()["cells"]
    assert [cell["scores"]["guidance_kept"] for cell in (row[1] for row in cells)] == [1, 1, 1, 1]
    assert "lora_uptake" not in cells[0][0]["scores"] and cells[1][1]["scores"]["lora_uptake"] == 1
    manifest = client.get(f"/v1/sweeps/{sweep['id']}/manifest.json").json()
    assert manifest["cells"][1][1]["scores"] == cells[1][1]["scores"]
    assert {badge["kind"] for badge in scores["summary"]["badges"]} >= {"trained here"}
    assert {tuple(group["rows"]) for group in scores["summary"]["groups"]} == {(0, 2), (1, 3)}


def test_a_finished_sweep_is_measured_later_and_what_cannot_be_is_refused(client: TestClient) -> None:
    id = drawn(client)["id"]
    assert client.get("/v1/scores").json() == {"scores": ["advise"]}
    assert client.get(f"/v1/sweeps/{id}/scores").json()["state"] == "none"
    assert client.delete(f"/v1/sweeps/{id}/scores").status_code == 404
    refused = client.post(f"/v1/sweeps/{id}/scores", json={"scores": ["beauty"]})
    assert (refused.status_code, refused.json()["field"]) == (422, "scores")
    assert client.post(f"/v1/sweeps/{id}/scores", json={}).status_code == 202
    assert measured(client, id)["measures"][0]["name"] == "guidance_kept"
