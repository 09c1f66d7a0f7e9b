"""A server of the embedded model and a tiny SDXL one with an empty folder, and its page in Chromium."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_sdxl
import torch
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, Page, sync_playwright
from web_page import CHROMIUM, SEEN_MS

from clipskip.doors.http import build_app
from clipskip.sweep import Studio
from clipskip.weights import Library


@pytest.fixture(scope="module")
def studio(library: Library, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A studio on the tiny model, with an empty output folder."""
    made = Studio(tmp_path_factory.mktemp("out"), library)
    yield made
    made.close()


@pytest.fixture(scope="module")
def client(studio: Studio) -> TestClient:
    """A client of the studio's API."""
    return TestClient(build_app(studio), base_url="http://127.0.0.1:7861")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server whose output folder starts empty."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = tmp_path_factory.mktemp("web")
    models = tmp_path_factory.mktemp("models")
    tiny_sdxl.write(tiny_sdxl.sdxl(), models / "pony.safetensors", dtype=torch.float16)
    words = ["serve", "--port", str(port), "--out", str(out), "--models-folder", str(models)]
    with (out / "server.log").open("wb") as log:
        running = subprocess.Popen(
            [sys.executable, "-c", "from clipskip.doors.cli import main; main()", *words], stdout=log, stderr=log
        )
        address = f"http://127.0.0.1:{port}"
        try:
            _wait_for(address, running, out / "server.log")
            yield address
        finally:
            running.terminate()
            running.wait(20)


def _wait_for(address: str, running: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and running.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/v1/status", timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"the server did not start: {log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Browser, server: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page at 1440 px, or at the width and theme of the test's parameter; nothing is said on its console."""
    width, theme = getattr(request, "param", (1440, "light"))
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=theme,
        permissions=["clipboard-read", "clipboard-write"],
        accept_downloads=True,
    )
    context.set_default_timeout(SEEN_MS)
    tab, said, outside = context.new_page(), list[str](), list[str]()
    tab.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: said.append(str(error)))
    context.on(
        "request", lambda one: None if one.url.startswith((server, "data:", "blob:")) else outside.append(one.url)
    )
    tab.goto(server)
    tab.wait_for_selector("#ready", state="attached")
    yield tab
    context.close()
    # Chromium's own lines for each 4xx, and for what a test let fail
    own = ("the server responded with a status of 4", "Failed to load resource: net::ERR_FAILED")
    assert [line for line in said if not any(words in line for words in own)] == []
    assert outside == []
