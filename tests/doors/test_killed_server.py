"""A server that is killed while it draws: nothing that was finished is lost, and the sweep goes on."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from clipskip.doors.http import build_app
from clipskip.sweep import Studio, held
from clipskip.weights import Library

ASKED = {
    "prompt": "a red frog",
    "model": "tiny",
    "steps": 8,
    "seed": 5,
    "width": 64,
    "height": 64,
    "clip_skips": "1-12",
    "loras": [{"name": "ogre"}],
}
CELLS = 24


@contextmanager
def serving(out: Path, models: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """`clipskip serve` as a process of its own, and its address."""
    words = ["serve", "--port", "0", "--out", str(out), "--models-folder", str(models)]
    script = "from clipskip.doors.cli import main; main()"
    server = subprocess.Popen(
        [sys.executable, "-u", "-c", script, *words], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    try:
        assert server.stdout is not None
        said = next(line for line in server.stdout if "clipskip is at" in line)
        found = re.search(r"http://\S+", said)
        assert found is not None
        yield server, found[0]
    finally:
        server.kill()
        server.communicate()


def pictures(out: Path) -> dict[str, bytes]:
    """Every cell that is there, by its name."""
    return {path.name: path.read_bytes() for path in out.glob("sweep-*/row*.png")}


def whole_sweep(out: Path, library: Library, ask: str) -> dict[str, Any]:
    """The sweep that this request starts or goes on with, at its end."""
    studio = Studio(out, library)
    client = TestClient(build_app(studio), base_url="http://127.0.0.1:7861")
    found = client.post(ask, json=ASKED if ask == "/v1/sweeps" else None).json()
    while found["state"] in ("queued", "running"):
        time.sleep(0.02)
        found = client.get(f"/v1/sweeps/{found['id']}").json()
    studio.close()
    return found  # type: ignore[no-any-return]


@pytest.mark.slow
def test_a_sweep_that_kill_9_ended_is_found_and_goes_on_to_the_same_pictures(
    folder: Path, library: Library, tmp_path: Path
) -> None:
    out, untouched = tmp_path / "killed", tmp_path / "untouched"
    with serving(out, folder) as (server, address):
        id = httpx2.post(f"{address}/v1/sweeps", json=ASKED, timeout=60).json()["id"]
        while not pictures(out):
            time.sleep(0.002)
        server.kill()
        server.wait()
    kept = pictures(out)
    assert 0 < len(kept) < CELLS
    with held(out) as free:
        assert free
    stamps = {name: (out / f"sweep-{id}" / name).stat().st_mtime_ns for name in kept}

    studio = Studio(out, library)
    client = TestClient(build_app(studio), base_url="http://127.0.0.1:7861")
    (found,) = client.get("/v1/sweeps").json()["sweeps"]
    assert (found["id"], found["state"], found["done"]) == (id, "interrupted", len(kept))
    studio.close()

    resumed = whole_sweep(out, library, f"/v1/sweeps/{id}/resume")
    assert (resumed["state"], resumed["done"]) == ("done", CELLS)
    assert {name: (out / f"sweep-{id}" / name).stat().st_mtime_ns for name in kept} == stamps
    whole_sweep(untouched, library, "/v1/sweeps")
    assert pictures(out) == pictures(untouched)
