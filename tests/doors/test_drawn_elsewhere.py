"""A sweep that other processes draw, a cluster's or shares', is followed like the server's own."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from spec.test_table import changed

from clipskip.doors.http import build_app
from clipskip.doors.http.ours import events
from clipskip.spec import ClipSkip
from clipskip.spec.table import PICTURE
from clipskip.sweep import Studio, Sweep, SweepFolder, Worker, kinds, read_workers
from clipskip.sweep.workers import SILENT_S, Telling
from clipskip.weights import Library

SWEEP = Sweep(base=changed(PICTURE[0]), skips=tuple(map(ClipSkip, range(1, 6))))
FAST = Worker(name="a 7", device="H200", dtype="float16", version="1", pictures=10, seconds=5.0)
SLOW = Worker(name="b 7", device="CPU", dtype="float32", version="1", pictures=2, seconds=4.0)


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    made = Studio(tmp_path, Library((tmp_path,)))
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return SweepFolder.create(tmp_path / "sweep-a", SWEEP)


def test_it_is_running_with_each_workers_speed_and_the_time_left(studio: Studio, folder: SweepFolder) -> None:
    client = TestClient(build_app(studio), base_url="http://127.0.0.1:7861")
    assert client.get("/v1/sweeps/a").json()["state"] == "interrupted"
    for worker in (FAST, SLOW):
        Telling(folder.path).tell(worker)
    sweep = client.get("/v1/sweeps/a").json()
    assert (sweep["state"], sweep["eta_s"]) == ("running", 2.0), "five pictures at 2 + 0.5 a second"
    assert [(one["name"], one["per_second"]) for one in sweep["workers"]] == [("a 7", 2.0), ("b 7", 0.5)]
    assert len(kinds(read_workers(folder.path))) == 2
    for worker in (FAST, SLOW):
        Telling(folder.path).tell(replace(worker, ended=True))
    sweep = client.get("/v1/sweeps/a").json()
    assert (sweep["state"], sweep["workers"]) == ("interrupted", [])


def test_who_was_not_heard_of_for_a_while_draws_no_more(studio: Studio, folder: SweepFolder) -> None:
    Telling(folder.path).tell(FAST)
    (note,) = (folder.path / "workers").iterdir()
    old = note.stat().st_mtime - SILENT_S - 1
    os.utime(note, (old, old))
    client = TestClient(build_app(studio), base_url="http://127.0.0.1:7861")
    assert client.get("/v1/sweeps/a").json()["state"] == "interrupted"


def test_this_server_and_a_killed_process_of_its_machine_are_nobody_who_draws(
    studio: Studio, folder: SweepFolder
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        for pid in (os.getpid(), process.pid):
            Telling(folder.path).tell(replace(FAST, name=f"{socket.gethostname()} {pid}"))
        client = TestClient(build_app(studio), base_url="http://127.0.0.1:7861")
        (worker,) = client.get("/v1/sweeps/a").json()["workers"]
        assert worker["name"].endswith(f" {process.pid}")
        process.kill()
    sweep = client.get("/v1/sweeps/a").json()
    assert (sweep["state"], sweep["workers"]) == ("interrupted", [])


def test_its_events_are_its_pictures_as_they_come_and_its_progress(
    studio: Studio, folder: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "OTHERS_S", 0)
    monkeypatch.setattr(events, "LOOK_S", 0.01)
    Telling(folder.path).tell(FAST)

    async def follow() -> list[tuple[str, dict[str, object]]]:
        came = []
        async for text in events.watch(studio.history.find("a"), studio):
            name, data = text.strip().split("\n")
            came.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
            if len(came) == 1:
                folder.place(0, 3).write_bytes(b"a picture")
            if came[-1][0] == "cell":
                Telling(folder.path).tell(replace(FAST, ended=True))
        return came

    came = asyncio.run(follow())
    names = [name for name, _ in came]
    assert names[0] == "sweep" and names[1:3] == ["cell", "progress"] and names[-2:] == ["sweep", "end"]
    assert (came[1][1]["column"], came[2][1]["eta_s"]) == (3, 2.0)
    assert came[-1][1]["state"] == "interrupted"
