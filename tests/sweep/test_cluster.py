"""A sweep on Ray: the same bytes as from one process, whatever dies."""

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from clipskip.errors import DamagedFile
from clipskip.spec import Axis, LoraRef, Request, parse_skips
from clipskip.sweep import Model, SweepFolder, draw_missing, kinds, plan_sweep, read_workers
from clipskip.weights import Library, hash_file

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore")  # of Ray's own processes and sockets

from clipskip.sweep.cluster import Actor, Cell, Plan, Tally, _Crew, draw_on_cluster, plan_for  # noqa: E402
from clipskip.sweep.staging import Staged, _put  # noqa: E402

ASKED = Request(prompt="a frog", steps=1, seed=3, width=64, height=64, loras=(LoraRef(name="ogre"),))
SKIPS = parse_skips("1-3")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One Ray for all tests of this file, because starting it takes seconds."""
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  (its name in Ray)
    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def bytes_of(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.glob("row*.png")}


def planned(
    path: Path, model: Model, library: Library, *, seeds: int, asked: Request = ASKED
) -> tuple[SweepFolder, object]:
    sweep, extras = plan_sweep(asked, SKIPS, model.facts, library, axes=[Axis.parse(f"seed=1-{seeds}")])
    return SweepFolder.create(path, sweep, model=model.facts), extras


def drawn(
    path: Path,
    model: Model,
    library: Library,
    *,
    seeds: int,
    workers: int = 2,
    kill: bool = False,
    asked: Request = ASKED,
) -> tuple[SweepFolder, Tally]:
    folder, extras = planned(path, model, library, seeds=seeds, asked=asked)
    tally = Tally()
    events = draw_on_cluster(
        folder,
        plan_for(model.facts, extras, allow_pickle=False),
        address=None,
        workers=workers,
        tally=tally,  # type: ignore[arg-type]
    )
    for count, _ in enumerate(events):
        if kill and count == 3:
            threading.Thread(target=kill_one, args=(tally,), daemon=True).start()
    return folder, tally


def kill_one(tally: Tally) -> None:
    """A worker at a random moment: its process is gone, and Ray starts it again."""
    time.sleep(random.random() / 4)
    os.kill(int(random.choice(sorted(tally.workers)).split()[-1]), signal.SIGKILL)


def alone(path: Path, model: Model, library: Library, *, seeds: int) -> dict[str, bytes]:
    folder, extras = planned(path, model, library, seeds=seeds)
    for _ in draw_missing(model, folder, extras):  # type: ignore[arg-type]
        pass
    return bytes_of(path)


def test_two_workers_of_which_one_is_killed_draw_the_bytes_of_one_process(
    cluster: None, model: Model, library: Library, tmp_path: Path
) -> None:
    folder, tally = drawn(tmp_path / "ray", model, library, seeds=6, kill=True)
    assert folder.whole and not tally.failed
    assert bytes_of(tmp_path / "ray") == alone(tmp_path / "alone", model, library, seeds=6)
    assert len(kinds(read_workers(tmp_path / "ray"))) == 1
    assert 0 < sum(worker.pictures for worker in read_workers(tmp_path / "ray")) <= 36


@pytest.mark.slow
def test_cells_that_cannot_be_drawn_are_listed_and_the_others_are_there(
    cluster: None, model: Model, library: Library, tmp_path: Path
) -> None:
    strong = replace(ASKED, loras=(LoraRef(name="ogre", text_encoder=3e38, unet=3e38),))
    folder, tally = drawn(tmp_path, model, library, seeds=2, asked=strong)
    rows = {place[0] for place in (failed.place for failed in tally.failed)}
    assert len(bytes_of(tmp_path)) + len(tally.failed) == 12 and tally.failed
    assert all(folder.sweep.rows[row] for row in rows), "those without the LoRA are all there"
    assert all("NaN" in failed.reason for failed in tally.failed)


@pytest.mark.slow
def test_who_stops_frees_the_workers(cluster: None, model: Model, library: Library, tmp_path: Path) -> None:
    folder, extras = planned(tmp_path, model, library, seeds=6)
    events = draw_on_cluster(folder, plan_for(model.facts, extras, allow_pickle=False), address=None, workers=3)  # type: ignore[arg-type]
    next(events)
    events.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 20
    while ray.available_resources().get("CPU") != 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert ray.available_resources()["CPU"] == 3


class Frail:
    """A worker whose process dies at one cell, as of a picture that does not fit its memory."""

    def __init__(self, plan: Plan, deadly: tuple[int, int]) -> None:
        self._actor, self._deadly = Actor(plan, 1), deadly

    def draw(self, cells: list[Cell]) -> object:
        if any(place == self._deadly for place, _ in cells):
            os.kill(os.getpid(), signal.SIGKILL)
        return self._actor.draw(cells)


@pytest.mark.slow
def test_a_cell_that_workers_die_of_takes_no_other_with_it(
    cluster: None, model: Model, library: Library, tmp_path: Path
) -> None:
    folder, extras = planned(tmp_path, model, library, seeds=4)
    missing, tally = [(place, folder.sweep.cell(*place)) for place in folder.sweep.places], Tally()
    plan = ray.put(plan_for(model.facts, extras, allow_pickle=False))  # type: ignore[arg-type]
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    frail = ray.remote(max_restarts=-1, max_task_retries=1, num_cpus=1)(Frail)
    actors = [frail.remote(plan, (1, 2)) for _ in range(2)]
    assert len(list(_Crew(folder, missing, actors, tally).draw())) == len(bytes_of(tmp_path)) == 23
    assert [failed.place for failed in tally.failed] == [(1, 2)]
    assert "its worker died" in tally.failed[0].reason
    for actor in actors:
        ray.kill(actor)


def test_a_file_that_a_node_lacks_comes_from_the_store_and_is_verified(
    cluster: None, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    there = folder / "loras" / "ogre.safetensors"
    sent = replace(_put(Staged.of(there)), path=tmp_path / "elsewhere" / "ogre.safetensors", beside=b"model:\n")
    arrived = sent.here()
    assert arrived.read_bytes() == there.read_bytes() and arrived.with_suffix(".yaml").read_bytes() == b"model:\n"
    assert sent.here() == arrived and hash_file(arrived).sha256 == sent.sha256
    with pytest.raises(DamagedFile, match="arrived damaged"):
        replace(sent, sha256="0" * 64).here()
    with pytest.raises(DamagedFile, match="copy it to the same path"):
        replace(sent, path=tmp_path / "none.safetensors", sha256="1" * 64, chunks=()).here()
