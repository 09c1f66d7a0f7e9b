"""Three hundred cells on three workers that die: none is lost, none comes twice, and every byte is one process'.

Cells are the embedded model's smallest pictures at one step. A worker is killed when chance says how many cells are there,
from none, while models are opened, to all but one; what it comes to is printed.
"""

import multiprocessing
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import psutil
import pytest

from clipskip.spec import Axis, LoraRef, Request, parse_skips
from clipskip.sweep import SweepFolder, draw_missing, open_model, plan_sweep

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of Ray's own processes and sockets

from clipskip.sweep.cluster import Tally, draw_on_cluster, plan_for  # noqa: E402

CELLS, KILLS, WORKERS = 300, 10, 3
ASKED = Request(prompt="swamp, ogre", steps=1, seed=1, width=64, height=64, loras=(LoraRef(name="ogre"),))
TYPED = (
    "sweep", "swamp, ogre", "--lora", "ogre", "--clip-skip", "1-5", "--axis", f"seed=1-{CELLS // 10}", "--steps", "1",
    "--size", "64x64", "--seed", "1", "--yes",
)  # fmt: skip
FRESH = multiprocessing.get_context("forkserver")
"""Makes processes that have the libraries already, so that most of a process' life is drawing."""
FRESH.set_forkserver_preload(["clipskip.doors.cli", "clipskip.doors.work", "clipskip.sweep"])
CHANCE = random.Random(20)
CLEAN = {"CLIPSKIP_MODELS": "", "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}


@pytest.fixture(scope="module", autouse=True)
def _clean() -> Iterator[None]:
    """The embedded model alone, and Ray's workers as pressing as their driver."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CLEAN.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The pictures of one process that nobody disturbs, by their names."""
    model, path = open_model(), tmp_path_factory.mktemp("alone")
    folder, extras = planned(path)
    for _ in draw_missing(model, folder, extras):  # type: ignore[arg-type]
        pass
    found = pictures(path)
    assert len(found) == CELLS
    return found


def planned(path: Path) -> tuple[SweepFolder, object]:
    facts = open_model().facts
    sweep, extras = plan_sweep(ASKED, parse_skips("1-5"), facts, axes=[Axis.parse(f"seed=1-{CELLS // 10}")])
    return SweepFolder.create(path, sweep, model=facts), extras


def pictures(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.glob("row*.png")}


def check(path: Path, alone: dict[str, bytes], what: str) -> None:
    """Nothing lost, nothing doubled, no byte different."""
    there = pictures(path)
    lost, unequal = alone.keys() - there.keys(), [name for name in there if there[name] != alone.get(name)]
    doubled = len(there) - len({name.rpartition("-")[2] for name in there})
    print(f"{what}: {len(there)} cells, {len(lost)} lost, {doubled} doubled, {len(unequal)} unequal", flush=True)
    assert not lost and not doubled and not unequal


# Ray


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def workers(driver: int | None = None) -> list[psutil.Process]:
    """The processes of the Ray workers of a driver, or of this process."""
    processes = psutil.Process(driver).children(recursive=True)
    return [process for process in processes if process.name().startswith("ray::Actor")]


def kill_worker(path: Path, at: int, ended: threading.Event, kills: list[int]) -> None:
    """Kill one of the workers once so many cells are there, unless the drawing has ended."""
    while not ended.wait(0.02):
        if (count := len(pictures(path))) >= at and (there := workers()):
            CHANCE.choice(there).kill()
            kills.append(count)
            return


def drawn_on_ray(path: Path, *, kill_at: int) -> tuple[float, list[int]]:
    """Draw everything; return the seconds that it took, and at how many cells a worker was killed."""
    (folder, extras), tally = planned(path), Tally()
    kills, ended = list[int](), threading.Event()
    threading.Thread(target=kill_worker, args=(path, kill_at, ended, kills), daemon=True).start()
    started, times = time.monotonic(), Counter[int]()
    plan = plan_for(open_model().facts, extras, allow_pickle=False)  # type: ignore[arg-type]
    for event in draw_on_cluster(folder, plan, address=None, workers=WORKERS, tally=tally):
        times[event.index] += 1
    ended.set()
    assert not tally.failed and len(times) == CELLS and set(times.values()) == {1}
    return time.monotonic() - started, kills


def test_a_worker_of_ray_is_killed(cluster: None, alone: dict[str, bytes], tmp_path: Path) -> None:
    killed = 0
    while killed < KILLS:  # where the drawing was faster, nobody was killed
        path = tmp_path / str(time.monotonic_ns())
        seconds, kills = drawn_on_ray(path, kill_at=CHANCE.randrange(CELLS))
        killed += len(kills)
        check(path, alone, f"Ray, a worker killed at {kills} cells, {seconds:.0f} s")
        shutil.rmtree(path)


# Shares


def command(more: Sequence[str]) -> None:
    """`clipskip sweep` in this process."""
    from clipskip.doors.cli import main

    os.environ.update(CLEAN)
    os.setpgrp()
    sys.argv = ["clipskip", *TYPED, *more]
    main()


def begun(*more: str) -> ForkServerProcess:
    process = FRESH.Process(target=partial(command, more))
    process.start()
    return process


@pytest.mark.parametrize("auto", [False, True], ids=["shares", "auto"])
def test_a_share_is_killed_and_started_again(auto: bool, alone: dict[str, bytes], tmp_path: Path) -> None:
    shards = ["auto"] * WORKERS if auto else [f"{i}/{WORKERS}" for i in range(1, WORKERS + 1)]
    kills = 0
    while kills < KILLS:
        path, at = tmp_path / str(time.monotonic_ns()), CHANCE.randrange(CELLS)
        asked = [("--out", str(path), "--shard", shard) for shard in shards]
        started, processes = time.monotonic(), [begun(*more) for more in asked]
        while len(pictures(path)) < at and any(process.is_alive() for process in processes):
            time.sleep(0.02)
        victim = CHANCE.randrange(WORKERS)
        processes[victim].kill()
        processes[victim].join()
        hit = processes[victim].exitcode == -signal.SIGKILL
        what = f"{'killed' if hit else 'not killed, it had ended,'} at {len(pictures(path))} cells"
        kills += hit
        processes[victim] = begun(*asked[victim])
        for process in processes:
            process.join(600)
        seconds = time.monotonic() - started
        assert [process.exitcode for process in processes] == [0] * WORKERS
        check(path, alone, f"--shard {'auto' if auto else f'i/{WORKERS}'}, {what}, {seconds:.0f} s")
        assert (path / "grid.png").is_file() and (path / "index.html").is_file()
        shutil.rmtree(path)


# The driver


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_the_command_that_drives_ray_is_ended_and_given_again(
    end: signal.Signals, alone: dict[str, bytes], tmp_path: Path
) -> None:
    """Ended twice, the second time when more is there; its workers end with it."""
    more = ("--out", str(tmp_path), "--ray", "local")
    for share in (CHANCE.uniform(0.05, 0.5), CHANCE.uniform(0.5, 0.9)):
        process, deadline = begun(*more), time.monotonic() + 300
        while len(pictures(tmp_path)) < share * CELLS and time.monotonic() < deadline:
            time.sleep(0.02)
        assert process.pid
        own = workers(process.pid)
        os.kill(process.pid, end)
        process.join(60)
        assert process.exitcode == (-signal.SIGKILL if end == signal.SIGKILL else 130)
        there = pictures(tmp_path)
        print(f"the driver, {end.name} at {len(there)} cells", flush=True)
        assert share * CELLS <= len(there) < CELLS and there.items() <= alone.items()
        assert own and not psutil.wait_procs(own, timeout=60)[1]
    process = begun(*more)
    process.join(600)
    assert process.exitcode == 0
    check(tmp_path, alone, f"the driver, {end.name} twice and given again")
    assert not list(tmp_path.glob(".*.partial")), "what the killed one left half written"
    assert (tmp_path / "grid.png").is_file() and (tmp_path / "index.html").is_file()
