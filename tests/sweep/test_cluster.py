"""A sweep on Ray: the same bytes as from one process, also when workers die. Runs where Ray is installed."""

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from clipskip.spec import Axis, LoraRef, Request, parse_skips
from clipskip.sweep import Model, SweepFolder, draw_missing, plan_sweep
from clipskip.weights import Library

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

from clipskip.sweep.cluster import Tally, draw_on_cluster, plan_for  # noqa: E402

ASKED = Request(prompt="a frog", steps=1, seed=3, width=64, height=64, loras=(LoraRef(name="ogre"),))
SKIPS = parse_skips("1-5")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  (its name in Ray)
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def bytes_of(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.glob("row*.png")}


def drawn(path: Path, model: Model, library: Library, *, seeds: int, kill: bool = False) -> tuple[SweepFolder, Tally]:
    axes = [Axis.parse(f"seed=1-{seeds}")]
    sweep, extras = plan_sweep(ASKED, SKIPS, model.facts, library, axes=axes)
    folder = SweepFolder.create(path, sweep, model=model.facts)
    plan = plan_for(ASKED, SKIPS, model.facts, extras, folder, folders=library.folders, allow_pickle=False)
    tally = Tally()
    killer = threading.Thread(target=kill_one, args=(tally,), daemon=True)
    for count, _ in enumerate(draw_on_cluster(folder, plan, address=None, workers=3, tally=tally)):
        if kill and count == 3:
            killer.start()
    return folder, tally


def kill_one(tally: Tally) -> None:
    """A worker at a random moment: its process is gone, and Ray starts it again."""
    time.sleep(random.random() / 2)
    victim = random.choice(sorted(tally.pictures))
    os.kill(int(victim.split()[-1]), signal.SIGKILL)


def test_three_workers_draw_the_bytes_of_one_process(
    cluster: None, model: Model, library: Library, tmp_path: Path
) -> None:
    folder, tally = drawn(tmp_path / "ray", model, library, seeds=4)
    assert folder.whole and not tally.failed and sum(tally.pictures.values()) == 40
    sweep, extras = plan_sweep(ASKED, SKIPS, model.facts, library, axes=[Axis.parse("seed=1-4")])
    alone = SweepFolder.create(tmp_path / "alone", sweep, model=model.facts)
    for _ in draw_missing(model, alone, extras):
        pass
    assert bytes_of(tmp_path / "ray") == bytes_of(tmp_path / "alone")


def test_nothing_is_lost_or_doubled_when_a_worker_is_killed(
    cluster: None, model: Model, library: Library, tmp_path: Path
) -> None:
    folder, tally = drawn(tmp_path, model, library, seeds=6, kill=True)
    assert not tally.failed and sum(tally.pictures.values()) == 60 == len(bytes_of(tmp_path))
    assert folder.whole


def test_a_cell_that_cannot_be_drawn_is_listed_and_the_others_are_there(
    cluster: None, model: Model, library: Library, tmp_path: Path
) -> None:
    strong = replace(ASKED, loras=(LoraRef(name="ogre", text_encoder=3e38, unet=3e38),))
    sweep, extras = plan_sweep(strong, SKIPS, model.facts, library)
    folder = SweepFolder.create(tmp_path, sweep, model=model.facts)
    plan = plan_for(strong, SKIPS, model.facts, extras, folder, folders=library.folders, allow_pickle=False)
    tally = Tally()
    saved = list(draw_on_cluster(folder, plan, address=None, workers=2, tally=tally))
    assert len(saved) + len(tally.failed) == 10 and tally.failed
    assert all("NaN" in failed.reason or "numbers" in failed.reason for failed in tally.failed)
