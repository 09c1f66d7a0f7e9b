"""The routes that draw nothing: what a file is, and what each layer says of a text."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import load

from clipskip.doors.http import build_app
from clipskip.doors.looking import inspect_file
from clipskip.encode import encode_layers, open_text_encoder
from clipskip.spec import parse_skips
from clipskip.sweep import Studio
from clipskip.weights import Library

ASKED = {"prompt": "a (red:1.2) frog", "clip_skips": "1-3", "model": "tiny"}


@pytest.fixture(scope="module")
def client(library: Library, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    studio = Studio(tmp_path_factory.mktemp("out"), library)
    yield TestClient(build_app(studio), base_url="http://127.0.0.1:7861")
    studio.close()


def summary(client: TestClient, **changes: Any) -> dict[str, Any]:
    answer = client.post("/v1/encode", json=ASKED | changes, headers={"accept": "application/json"})
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


def test_a_list_of_clip_skips_is_read_as_the_command_line_reads_it(client: TestClient) -> None:
    found = client.post("/v1/clip-skips", json={"text": "1-11 (+5),[1:2:0.5], 1-5 [3]", "model": "tiny"}).json()
    assert found == {"clip_skips": [1, 6, 11, "[1:2:0.5]", 3, 5], "model": "tiny"}
    for text, said in (
        ("1-13", "12 layers"),
        ("5-1", "empty or too long"),
        ("2/5", "two text encoders"),
        ("", "not a number"),
    ):
        refused = client.post("/v1/clip-skips", json={"text": text, "model": "tiny"})
        assert refused.status_code == 422 and said in refused.json()["detail"]


def test_an_axis_is_called_as_on_the_form_where_its_values_say_themselves(client: TestClient) -> None:
    asked = {"prompt": "frog", "model": "tiny", "clip_skips": "1", "axes": ["sampler=Euler||DDIM", "cfg=3,5"]}
    found = client.post("/v1/sweeps/check", json=asked).json()
    assert [axis["label"] for axis in found["axes"]] == ["Sampling method", "CFG"] and found["pictures"] == 4


def test_one_text_is_encoded_at_single_layers(client: TestClient) -> None:
    refused = client.post("/v1/encode", json={"prompt": "frog", "model": "tiny", "clip_skips": [1, "[1:2:0.5]"]})
    assert refused.status_code == 422 and "[1:2:0.5], which is not one layer" in refused.json()["detail"]


def test_encode_answers_the_text_encoders_own_layers(client: TestClient, folder: Path) -> None:
    answer = client.post("/v1/encode", json=ASKED)
    assert answer.headers["content-type"] == "application/safetensors"
    found = load(answer.content)
    wanted = encode_layers(open_text_encoder(folder / "tiny.safetensors"), "a (red:1.2) frog", parse_skips("1-3"))
    assert found.keys() == {f"clip_skip_{skip}" for skip in wanted}
    assert all(torch.equal(found[f"clip_skip_{skip}"], state) for skip, state in wanted.items())


def test_encode_names_its_prompt_and_model_in_the_file(client: TestClient, folder: Path) -> None:
    content = client.post("/v1/encode", json=ASKED).content
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    said = json.loads(inspect_file(folder / "tiny.safetensors", as_json=True))
    assert header["__metadata__"] == {
        "prompt": "a (red:1.2) frog",
        "model": "tiny",
        "model_sha256": said["hashes"]["sha256"],
    }


def test_encode_sums_up_each_layer_for_those_who_want_json(client: TestClient) -> None:
    found = summary(client)
    state = load(client.post("/v1/encode", json=ASKED).content)["clip_skip_2"].double()
    assert list(found) == ["1", "2", "3"]
    assert (found["2"]["tokens"], found["2"]["width"]) == tuple(state.shape)
    assert found["2"]["norm"] == pytest.approx(state.norm(dim=1).mean().item())
    assert found["1"]["cosine_to_first"] == pytest.approx(1)
    assert found["3"]["cosine_to_first"] < 1


def test_encode_takes_numbers_and_fractions_and_each_once(client: TestClient) -> None:
    assert list(summary(client, clip_skips=[2, 1.5, 2])) == ["2", "1.5"]


def test_layers_tells_of_every_word_at_every_clip_skip(client: TestClient) -> None:
    found = client.post("/v1/layers", json={"prompt": "a red frog", "model": "tiny"}).json()
    assert (found["model"], found["depth"], found["skips"]) == ("tiny", 12, list(range(1, 13)))
    assert [word["text"] for word in found["words"]] == ["a", "red", "frog", "(end)"]
    assert all(len(word["context"]) == len(word["nearest"]) == 12 for word in found["words"])


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"prompt": "frog", "model": "nope"}, 404, "model"),
        ({"prompt": "frog AND owl"}, 422, "prompt"),
        ({"prompt": " BREAK ".join("abcde")}, 422, "prompt"),
        ({"prompt": "frog", "clip_skips": "1"}, 422, "clip_skips"),
    ],
)
def test_layers_names_the_field_that_cannot_be(
    client: TestClient, body: dict[str, Any], status: int, field: str
) -> None:
    answer = client.post("/v1/layers", json={"model": "tiny"} | body)
    assert (answer.status_code, answer.json()["field"]) == (status, field)


@pytest.mark.parametrize(
    ("changes", "status", "field", "said"),
    [
        ({"clip_skips": "1-13"}, 422, "clip_skip", "12"),
        ({"clip_skips": [13]}, 422, "clip_skips", "1 to 12"),
        ({"clip_skips": [0.5]}, 422, "clip_skips", "1 to 12"),
        ({"clip_skips": []}, 422, "clip_skips", "empty"),
        ({"clip_skips": "[1:2:0.5]"}, 422, "clip_skip", ""),
        ({"model": "tinny"}, 404, "model", "tiny"),
        ({"model": "ogre"}, 404, "model", "ogre"),
        ({"prompt": None}, 422, "prompt", "text"),
        ({"negative": True}, 422, "negative", "no such field"),
        ({"prompt": "frog " * 30_000}, 422, "prompt", "100000"),
    ],
)
def test_encode_names_what_is_wrong(
    client: TestClient, changes: dict[str, Any], status: int, field: str, said: str
) -> None:
    answer = client.post("/v1/encode", json=ASKED | changes)
    found = answer.json()
    assert (answer.status_code, str(found["field"]).split(".")[0]) == (status, field), found
    assert said in found["detail"]


@pytest.mark.parametrize(("name", "kind"), [("tiny", "checkpoint"), ("ogre", "LoRA")])
def test_inspect_says_what_the_command_says(client: TestClient, folder: Path, name: str, kind: str) -> None:
    path = folder / ("tiny.safetensors" if name == "tiny" else "loras/ogre.safetensors")
    answer = client.post("/v1/inspect", json={"name": name})
    assert answer.status_code == 200, answer.text
    wanted = json.loads(inspect_file(path, as_json=True))
    wanted["identity"]["path"] = path.name
    assert answer.json() == wanted
    assert answer.json()["identity"]["kind"].casefold() == kind.casefold()


@pytest.mark.parametrize("name", ["/etc/passwd", "../models/tiny", "loras/../tiny.safetensors", "nothing", "tinny"])
def test_inspect_finds_no_file_outside_its_folders(client: TestClient, name: str) -> None:
    answer = client.post("/v1/inspect", json={"name": name})
    assert answer.status_code == 404
    assert "in the model folders" in answer.json()["detail"]


def test_inspect_of_a_wrong_name_tells_near_ones(client: TestClient) -> None:
    assert "ogre" in client.post("/v1/inspect", json={"name": "ogr"}).json()["detail"]
    assert "tiny" in client.post("/v1/inspect", json={"name": "tinny"}).json()["detail"]


def test_settings_name_all_that_is_not_used(client: TestClient) -> None:
    text = "a fox\nSteps: 20, Seed: 3, Size: 512x512, Clip skip: 2, Tiling: True\nTemplate: a {red|blue} fox"
    said = client.post("/v1/settings", json={"text": text}).json()
    assert said["request"]["seed"] == 3 and said["request"]["clip_skip"] == 2
    assert said["unused"] == [["Tiling", "True"], ["Template", "a {red|blue} fox"]]
    assert said["left_out"] == [
        "CFG scale (7 is used)",
        "sampler (Euler a is used)",
        "model (the one for prompts without a model is used)",
    ]


def test_a_sweep_of_settings_says_what_it_does_not_use_of_them(client: TestClient) -> None:
    text = "a fox\nSteps: 1, Seed: 3, Size: 64x64, Model: tiny, Tiling: True"
    answer = client.post("/v1/sweeps", json={"settings": text, "clip_skips": [1]}).json()
    assert answer["warnings"] == ["not used of the settings: Tiling: True"]


@pytest.mark.parametrize("skip", [{}, [], {"a": 1}, "2\x1d3", True, 1e300])
def test_a_clip_skip_of_a_wrong_type_is_refused_in_one_line(client: TestClient, skip: object) -> None:
    record = {"positive_prompt": "a fox", "clip_skip": skip, "seed": 1, "model": {"name": "tiny", "base": "sd-1"}}
    answer = client.post("/v1/settings", json={"text": json.dumps(record)})
    assert answer.status_code == 422 and answer.json()["field"] == "clip_skip", answer.text


def test_a_prompt_is_read_as_comfyui_reads_it(client: TestClient) -> None:
    def words(tool: str) -> list[str]:
        read = client.post("/v1/prompt", json={"prompt": "a fox # no comment", "as": tool}).json()
        return [token["text"].strip() for token in read["parts"][0]["texts"][0]["chunks"][0]["tokens"]]

    assert words("comfyui") == ["a", "fox", "#", "no", "comment"] and words("a1111") == ["a", "fox"]
    refused = client.post("/v1/prompt", json={"prompt": "a fox", "as": "gimp"})
    assert refused.status_code == 422 and "a1111 or comfyui" in refused.text


def test_settings_that_are_too_long_or_no_text_are_refused_in_words(client: TestClient) -> None:
    answer = client.post("/v1/settings", json={"text": "a" * 3_000_000})
    assert answer.status_code == 422 and "None" not in answer.json()["detail"], answer.text[:200]
    for settings in ('{"prompt": "a \\ud800", "seed": 1}', '{"prompt": "a", "seed": 1, "k\\udc00": 1}'):
        half = client.post("/v1/settings", content=json.dumps({"text": settings}))
        assert half.status_code == 200 and "\\ud" in half.text, half.text
