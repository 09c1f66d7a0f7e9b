"""Bad requests: each gets a 4xx in one clear line that names what was asked, and the next request is unaffected."""

import base64
import json
import os
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import save

from clipskip.sweep import Studio
from clipskip.weights import Library

SMALL = {"prompt": "a red frog", "model": "tiny", "steps": 1, "seed": 5, "width": 64, "height": 64, "clip_skips": "1"}
JSON = {"content-type": "application/json"}


class Evil:
    """What a pickle runs when it is opened."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.fixture(scope="module")
def models(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model and its LoRA, and beside them files that are none, or others' than they seem."""
    found = tmp_path_factory.mktemp("bad")
    whole = (folder / "tiny.safetensors").read_bytes()
    kohya = "lora_te_text_model_encoder_layers_3_self_attn_q_proj"
    misfit = {f"{kohya}.lora_down.weight": torch.ones(4, 99), f"{kohya}.lora_up.weight": torch.ones(99, 4)}
    files = {
        "tiny": whole,
        "empty": b"",
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 2132625894\n",
        "webpage": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "half": whole[: len(whole) // 2],
        "endless": struct.pack("<Q", 2**63) + b"{}",
        "flux": save({"double_blocks.0.img_attn.qkv.weight": torch.zeros(9, 3)}),
        "ogre": (folder / "loras" / "ogre.safetensors").read_bytes(),
        "misfit": save(misfit),
        "elsewhere": save({"lora_te2_text_model_encoder_layers_31_mlp_fc1.lora_up.weight": torch.ones(4, 4)}),
        "wide": save({"emb_params": torch.ones(2, 768)}),
    }
    for name, content in files.items():
        (found / f"{name}.safetensors").write_bytes(content)
    torch.save({"state_dict": {"a": Evil(found / "marker")}}, found / "pickled.ckpt")
    secret = tmp_path_factory.mktemp("secret") / "secret.safetensors"
    secret.write_bytes(whole)
    (found / "link.safetensors").symlink_to(secret)
    return found


@pytest.fixture(scope="module")
def studio(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    found = Studio(tmp_path_factory.mktemp("out"), Library((models,)))
    yield found
    found.close()


def ended(client: TestClient, **changes: Any) -> tuple[str, str]:
    """The state and the error that a sweep comes to, be it at once or when it is drawn."""
    answer = client.post("/v1/sweeps", json=SMALL | changes)
    found = answer.json()
    if answer.status_code != 202:
        assert 400 <= answer.status_code < 500, found
        return "refused", found["detail"]
    while found["state"] in ("queued", "running"):
        time.sleep(0.01)
        found = client.get(f"/v1/sweeps/{found['id']}").json()
    return found["state"], (found["error"] or {}).get("detail", "")


def shown(answer: Any, status: int = 422) -> dict[str, Any]:
    """A refusal's JSON, which is one line."""
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    assert "\n" not in found["detail"] and " object at 0x" not in found["detail"]
    return found


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("empty", "0 bytes"),
        ("pointer", "git-lfs pointer"),
        ("webpage", "web page"),
        ("half", "bytes"),
        ("endless", "bytes"),
        ("flux", "Clip Skip"),
        ("pickled", "--allow-pickle"),
        ("ogre", "LoRA"),
        ("wide", "embedding"),
        ("link", "no model"),
        ("../secret", "no model"),
        ("nothing", "no model"),
    ],
)
def test_a_file_that_is_no_model_says_so(client: TestClient, models: Path, model: str, said: str) -> None:
    state, detail = ended(client, model=model)
    assert (state, said in detail) == ("refused", True), detail
    assert not (models / "marker").exists()
    assert ended(client) == ("done", "")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loras": [{"name": "tiny"}]}, "not a LoRA"),
        ({"loras": [{"name": "misfit"}]}, "99"),
        ({"loras": [{"name": "elsewhere"}]}, "SDXL"),
        ({"loras": [{"name": "pickled"}]}, "--allow-pickle"),
        ({"prompt": "a wide frog"}, "768"),
    ],
)
def test_a_file_that_does_not_fit_the_model_says_so(client: TestClient, changes: dict[str, Any], said: str) -> None:
    state, detail = ended(client, **changes)
    assert state in ("refused", "failed")
    assert said in detail
    assert ended(client) == ("done", "")


def test_a_name_in_another_case_is_the_same_file(client: TestClient) -> None:
    assert client.post("/v1/sweeps", json=SMALL | {"model": "TINY"}).json()["model"]["name"] == "tiny"


@pytest.mark.parametrize(
    "skip", ["0", "-1", "0.5", "12.5", "13", '"2"', "true", "NaN", "1" + 30 * "0", "1e30", "1e999"]
)
@pytest.mark.parametrize("door", ["sweeps", "negative", "encode", "openai", "dialects"])
def test_a_clip_skip_that_is_none_is_refused_with_the_models_range(client: TestClient, door: str, skip: str) -> None:
    small = json.dumps({name: value for name, value in SMALL.items() if name != "clip_skips"})[:-1]
    path, body = {
        "sweeps": ("/v1/sweeps", f'{small}, "clip_skips": [1, {skip}]}}'),
        "negative": ("/v1/sweeps", f'{small}, "negative_clip_skip": {skip}}}'),
        "encode": ("/v1/encode", f'{{"prompt": "frog", "model": "tiny", "clip_skips": [1, {skip}]}}'),
        "openai": ("/v1/images/generations", f'{{"prompt": "frog", "model": "tiny", "clip_skip": {skip}}}'),
        "dialects": ("/v1/dialects", f'{{"clip_skip": {skip}}}'),
    }[door]
    found = shown(client.post(path, content=body, headers=JSON))
    assert len(found["detail"]) < 300
    if skip in ("NaN", "1e999"):
        assert "number" in found["detail"]
    elif skip == "true":
        assert "number, from 1 (the last layer) to the depth" in found["detail"]
    else:
        assert "1 to 12" in found["detail"]


@pytest.mark.parametrize("body", ['{"clip_skips": [null]}', '{"clip_skips": null}', '{"clip_skips": [[1]]}'])
def test_a_clip_skip_that_is_nothing_is_refused(client: TestClient, body: str) -> None:
    assert shown(client.post("/v1/sweeps", content=body, headers=JSON))["field"].startswith("clip_skips")


@pytest.mark.parametrize("skip", [1.5, 12, 1.0])
def test_a_clip_skip_between_two_layers_is_one(client: TestClient, skip: float) -> None:
    assert ended(client, clip_skips=[skip]) == ("done", "")


def test_an_empty_prompt_is_one(client: TestClient) -> None:
    assert ended(client, prompt="") == ("done", "")


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("<lora:ogre:nan>", "not finite"),
        ("<lora:ogre:1e309>", "not finite"),
        ("<lora:ogre:abc>", "not a number"),
        ("<lora:ogre:1>" * 200, "use at most 100"),
        ("frog " * 15_000, "100 chunks"),
        ("BREAK " * 1_000, "100 chunks"),
        ("x" * 100_001, "100000"),
    ],
)
def test_a_prompt_that_cannot_be_drawn_says_why(client: TestClient, prompt: str, said: str) -> None:
    found = shown(client.post("/v1/sweeps", json=SMALL | {"prompt": prompt}))
    assert (found["field"], said in found["detail"]) == ("prompt", True), found["detail"]


def test_a_prompt_of_ten_megabytes_is_too_large(client: TestClient) -> None:
    shown(client.post("/v1/prompt", json={"prompt": "x" * 10_000_000}), 413)


def test_a_hundred_thousand_brackets_are_read_in_linear_time(client: TestClient) -> None:
    begun = time.process_time()
    assert client.post("/v1/prompt", json={"prompt": "(" * 100_000}).status_code == 200
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("path", "changes", "field"),
    [
        ("/v1/sweeps", {"width": 63}, "width"),
        ("/v1/sweeps", {"width": 0}, "width"),
        ("/v1/sweeps", {"height": -8}, "height"),
        ("/v1/sweeps", {"height": 100_000}, "height"),
        ("/v1/sweeps", {"steps": 0}, "steps"),
        ("/v1/sweeps", {"steps": 10**9}, "steps"),
        ("/v1/sweeps", {"seed": 2**64}, "seed"),
        ("/v1/sweeps", {"seed": -2}, "seed"),
        ("/v1/sweeps", {"seed": "abc"}, "seed"),
        ("/v1/sweeps", {"cfg_scale": -1}, "cfg_scale"),
        ("/v1/images/generations", {"prompt": "frog", "n": 10**6}, "n"),
        ("/v1/images/generations", {"prompt": "frog", "model": "tiny", "size": "100000x8"}, "size"),
        ("/sdapi/v1/txt2img", {"n_iter": 10**6}, "n_iter"),
        ("/sdapi/v1/txt2img", {"n_iter": 50, "batch_size": 50}, "n_iter"),
        ("/sdapi/v1/txt2img", {"seed": "abc"}, "seed"),
        ("/sdapi/v1/txt2img", {"steps": 10**9}, "steps"),
    ],
)
def test_a_number_out_of_bounds_names_its_field(
    client: TestClient, path: str, changes: dict[str, Any], field: str
) -> None:
    body = (SMALL if path == "/v1/sweeps" else {}) | changes
    assert shown(client.post(path, json=body))["field"] == field


def test_a_seed_of_minus_1_is_any(client: TestClient) -> None:
    assert client.post("/v1/sweeps", json=SMALL | {"seed": -1}).json()["seed"] >= 0


def png(width: int, height: int) -> bytes:
    """A PNG that claims this size, of which a little is there."""
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(1000))),
        (b"IEND", b""),
    )
    chunks = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


BOMB, SVG = png(60_000, 60_000), b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"


@pytest.mark.parametrize("content", [BOMB, SVG, png(8, 8)[:40], png(100, 100), b"GIF89a"], ids=range(5))
def test_a_picture_that_cannot_be_opened_says_so(client: TestClient, content: bytes) -> None:
    text = base64.b64encode(content).decode()
    shown(client.post("/sdapi/v1/png-info", json={"image": text}))
    found = shown(client.post("/sdapi/v1/img2img", json={"init_images": [text], "steps": 1}))
    assert found["field"] == "init_images"
    shown(client.post("/v1/settings", files={"file": ("x.png", content)}))


@pytest.mark.parametrize(
    "link", ["http://169.254.169.254/latest", "file:///etc/passwd", "/etc/passwd", "data:text/html;base64,QUJD", "QUJ"]
)
def test_a_link_is_no_picture_and_nothing_is_asked_of_it(client: TestClient, link: str) -> None:
    assert "base64" in shown(client.post("/sdapi/v1/img2img", json={"init_images": [link]}))["detail"]
    assert "base64" in shown(client.post("/sdapi/v1/png-info", json={"image": link}))["detail"]


@pytest.mark.parametrize(
    "body",
    [
        "[" * 100_000,
        '{"prompt":' * 50 + "1" + "}" * 50,
        '{"prompt": "a", "prompt": "b"}',
        '{"prompt": "\\ud800"}',
        "",
        "x",
    ],
    ids=range(6),
)
def test_a_body_that_is_no_json_as_it_is_meant_is_refused(client: TestClient, body: str) -> None:
    shown(client.post("/v1/sweeps", content=body, headers=JSON))


def test_a_header_that_comes_twice_is_refused(client: TestClient) -> None:
    twice = [("authorization", "Bearer one"), ("authorization", "Bearer two")]
    assert "authorization" in shown(client.get("/v1/status", headers=twice), 400)["detail"]  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "application/x-www-form-urlencoded"])
def test_a_body_of_another_type_is_refused(client: TestClient, kind: str) -> None:
    found = shown(client.post("/v1/prompt", content='{"prompt": "frog"}', headers={"content-type": kind}))
    assert found["detail"].endswith("send it with the header Content-Type: application/json")


def test_another_pages_text_is_refused_before_it_is_read(client: TestClient) -> None:
    headers = {"content-type": "text/plain", "origin": "http://evil.example"}
    shown(client.post("/v1/sweeps", content='{"prompt": "frog"}', headers=headers), 403)
