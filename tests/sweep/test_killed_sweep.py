"""A command-line sweep that is killed in mid-drawing, again and again: the pictures are those of one that nobody touched."""

import multiprocessing
import random
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

SHORT = ("--clip-skip", "1-4", "--steps", "1")
LONG = ("--clip-skip", "1-12", "--steps", "3", "--lora", "ogre:0.8")
FRESH = multiprocessing.get_context("forkserver")
"""Makes processes that have the libraries already: each starts in a fraction of the time that `clipskip` takes."""
FRESH.set_forkserver_preload(["clipskip.doors.cli", "clipskip.sweep"])
SHARE = 0.3
"""Of the time that the whole sweep is drawn in: the longest that a process is let draw before it is killed."""


def sweep(out: Path, more: Sequence[str]) -> None:
    """`clipskip sweep` in this process."""
    from clipskip.doors.cli import main

    asked = ("a red frog", "--size", "64x64", "--seed", "5", "--out", str(out), "--yes")
    sys.argv = ["clipskip", "sweep", *asked, *more]
    main()


def begun(out: Path, more: Sequence[str]) -> ForkServerProcess:
    """The command, from when it has the folder and draws."""
    process = FRESH.Process(target=sweep, args=(out, more))
    process.start()
    lock = out / ".clipskip-server.lock"
    while process.is_alive() and not (lock.exists() and lock.read_text().startswith(f"process {process.pid} ")):
        time.sleep(0.002)
    return process


def pictures(out: Path) -> dict[str, bytes]:
    """Every cell that is there, by its name."""
    return {path.name: path.read_bytes() for path in out.glob("row*.png")}


def whole(out: Path, more: Sequence[str]) -> tuple[dict[str, bytes], float]:
    """The pictures once the command has drawn what is missing, and the seconds that it took from its first step."""
    process, start = begun(out, more), time.monotonic()
    process.join(300)
    assert process.exitcode == 0
    assert not list(out.glob(".*.partial"))
    assert (out / "grid.png").is_file() and (out / "index.html").is_file()
    return pictures(out), time.monotonic() - start


@pytest.mark.parametrize(("kills", "more"), [(1, SHORT), pytest.param(30, LONG, marks=pytest.mark.slow)])
def test_cells_are_the_same_however_often_the_sweep_was_killed(kills: int, more: Sequence[str], tmp_path: Path) -> None:
    """A sweep that gets whole between two kills is begun anew, so that the kills fall on all of its cells."""
    undisturbed, seconds = whole(tmp_path / "undisturbed", more)
    assert len(undisturbed) == (24 if "--lora" in more else 4)
    chance, out, killed = random.Random(15), tmp_path / "killed", 0
    while killed < kills:
        process = begun(out, more)
        time.sleep(chance.uniform(0, SHARE * seconds))
        process.kill()
        process.join()
        cells = pictures(out)
        assert all(undisturbed[name] == content for name, content in cells.items())
        killed += process.exitcode == -signal.SIGKILL and len(cells) < len(undisturbed)
        if len(cells) == len(undisturbed):
            assert whole(out, more)[0] == undisturbed
            shutil.rmtree(out)
    assert whole(out, more)[0] == undisturbed


def test_sigterm_gives_claimed_cells_back_though_ctrl_c_is_ignored(tmp_path: Path) -> None:
    """A batch queue that preempts, and a script's `command &`, which ignores Ctrl-C."""
    process = FRESH.Process(target=in_background, args=(tmp_path,))
    process.start()
    claims = tmp_path / ".claims"
    while process.is_alive() and not (claims.is_dir() and list(claims.iterdir())):
        time.sleep(0.002)
    process.terminate()
    process.join(60)
    assert process.exitcode == 130
    assert len(list(claims.iterdir())) == len(pictures(tmp_path)), "a claim stays with its picture alone"


def in_background(out: Path) -> None:
    """A share that pulls, begun where Ctrl-C is ignored; its pictures take a hundred steps."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sweep(out, ("--clip-skip", "1-8", "--steps", "100", "--shard", "auto"))
