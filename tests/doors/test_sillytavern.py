"""SillyTavern 1.19.0: what its server asks of an A1111, recorded; and, where its package is installed, that server itself.

npm pack sillytavern@1.19.0 && tar xzf sillytavern-1.19.0.tgz && (cd package && npm install --omit=dev)
SILLYTAVERN=package pytest -m slow tests/doors/test_sillytavern.py
"""

import base64
import io
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image
from served import served

from clipskip.doors.http import Punctual, build_app
from clipskip.sweep import Studio
from clipskip.weights import Library

PACKAGE = os.environ.get("SILLYTAVERN", "")
LISTS = {
    "options": dict, "samplers": list, "schedulers": list, "upscalers": list, "latent-upscale-modes": list,
    "sd-models": list, "sd-vae": list, "progress": dict,
}  # fmt: skip
"""What it asks before it draws (src/endpoints/stable-diffusion.js)."""
SHIPPED: dict[str, Any] = {
    "auth": "", "prompt": "a red frog", "negative_prompt": "lowres", "sampler_name": "DDIM", "scheduler": "normal",
    "steps": 20, "cfg_scale": 7, "width": 512, "height": 512, "restore_faces": False, "enable_hr": False,
    "hr_upscaler": "Latent", "hr_scale": 1.0, "hr_additional_modules": [], "denoising_strength": 0.7,
    "hr_second_pass_steps": 0, "override_settings": {"CLIP_stop_at_last_layers": 1},
    "override_settings_restore_afterwards": True, "clip_skip": 1, "save_images": True, "send_images": True,
    "do_not_save_grid": False, "do_not_save_samples": False,
}  # fmt: skip
"""What its page sends for a picture, with the settings that it ships."""
SMALL = {"width": 64, "height": 64, "steps": 4}


@pytest.fixture(scope="module")
def address(library: Library, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    studio = Studio(tmp_path_factory.mktemp("out"), library)
    with served(build_app(studio), http=Punctual) as found:
        yield found
    studio.close()


def is_a_picture_at(found: dict[str, Any], *, clip_skip: int) -> None:
    info = json.loads(found["info"])
    assert (info["clip_skip"], len(found["images"])) == (clip_skip, 1)
    assert info["clipskip_ignored"] == ["url", "auth", "hr_additional_modules", "scheduler"]
    assert f"Clip skip: {clip_skip}," in Image.open(io.BytesIO(base64.b64decode(found["images"][0]))).info["parameters"]


@pytest.mark.parametrize("skip", [1, 2])
def test_what_sillytavern_asks_is_answered(address: str, skip: int) -> None:
    basic = {"authorization": "Basic Og=="}  # of an empty name and password
    with httpx2.Client(base_url=f"{address}/sdapi/v1", headers=basic, timeout=60) as client:
        lists = {name: client.get(f"/{name}").json() for name in LISTS}
        assert {name: type(found) for name, found in lists.items()} == LISTS
        title = lists["sd-models"][0]["title"]
        assert client.post("/options", json={"sd_model_checkpoint": title}).status_code == 200
        override = {"override_settings": {"CLIP_stop_at_last_layers": skip}, "clip_skip": skip}
        found = client.post("/txt2img", json={"url": address} | SHIPPED | SMALL | override).json()
    is_a_picture_at(found, clip_skip=skip)


@pytest.fixture(scope="module")
def tavern(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """SillyTavern's own server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path_factory.mktemp("tavern")
    log = (home / "log").open("wb")
    command = ["node", "server.js", "--port", str(port), "--disableCsrf", "--browserLaunchEnabled", "false"]
    command += ["--dataRoot", str(home / "data"), "--configPath", str(home / "config.yaml")]
    server = subprocess.Popen(command, cwd=Path(PACKAGE).resolve(), stdout=log, stderr=log)
    address, until = f"http://127.0.0.1:{port}", time.monotonic() + 300
    while time.monotonic() < until and server.poll() is None:
        with suppress(httpx2.HTTPError):
            httpx2.get(f"{address}/version", timeout=5)
            break
        time.sleep(1)
    yield f"{address}/api/sd"
    server.terminate()
    server.wait(20)
    log.close()


@pytest.mark.slow
@pytest.mark.skipif(not PACKAGE, reason="SILLYTAVERN names no installed package of it")
def test_sillytaverns_own_server_draws(tavern: str, address: str) -> None:
    with httpx2.Client(base_url=tavern, timeout=120) as client:
        asked = {"url": address, "auth": ""}
        for name in ("ping", "samplers", "schedulers", "upscalers", "vaes", "get-model"):
            assert client.post(f"/{name}", json=asked).status_code == 200
        (model,) = client.post("/models", json=asked).json()[:1]
        assert client.post("/set-model", json=asked | {"model": model["value"]}).status_code == 200
        for skip in (1, 2):
            override = {"override_settings": {"CLIP_stop_at_last_layers": skip}, "clip_skip": skip}
            found = client.post("/generate", json=asked | SHIPPED | SMALL | override)
            is_a_picture_at(found.json(), clip_skip=skip)
