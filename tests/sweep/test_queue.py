"""One queue with one worker: turns, cancelling, room, and what a sweep that was cut off looks like."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from clipskip.errors import Busy
from clipskip.spec import Axis, LoraRef, Request, parse_skips
from clipskip.sweep import Advance, Job, Model, Studio, SweepFolder, draw_missing, plan_sweep
from clipskip.sweep.queue import ENDED, Event
from clipskip.weights import Library

ASKED = Request(prompt="a red frog", model="tiny", steps=2, seed=5, width=64, height=64)
SKIPS = parse_skips("1-2")


@pytest.fixture
def studio(library: Library, tmp_path: Path) -> Iterator[Studio]:
    found = Studio(tmp_path / "out", library, limit=1)
    yield found
    found.close()


class Turn:
    """A job that draws nothing, and ends when it is told to."""

    def __init__(self, studio: Studio) -> None:
        self.begun, self.over = threading.Event(), threading.Event()
        self.job = studio.queue.put(Job(studio.models.facts("tiny"), self._draw, total=1))

    def _draw(self, _: Model) -> Iterator[Event]:
        self.begun.set()
        self.over.wait(60)
        yield from ()


def busy(studio: Studio) -> Turn:
    """The worker held up by a job."""
    turn = Turn(studio)
    assert turn.begun.wait(60)
    return turn


def test_a_job_that_is_cancelled_while_it_waits_never_has_its_turn(studio: Studio) -> None:
    first, second = busy(studio), Turn(studio)
    studio.queue.cancel(second.job)
    first.over.set()
    third = busy(studio)
    assert (second.job.state, second.begun.is_set()) == ("cancelled", False)
    third.over.set()


def test_a_job_that_was_cancelled_stays_so_when_its_drawing_ends(studio: Studio) -> None:
    turn = busy(studio)
    studio.queue.cancel(turn.job)
    assert turn.job.ended.is_set()
    turn.over.set()
    after = busy(studio)
    assert turn.job.state == "cancelled"
    after.over.set()


def test_one_jobs_fault_is_its_own(studio: Studio, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Model) -> Iterator[Event]:
        raise ZeroDivisionError("by nothing")
        yield

    job = studio.queue.put(Job(studio.models.facts("tiny"), fail, total=1))
    assert job.ended.wait(60)
    assert (job.state, "by nothing" in str(job.error)) == ("failed", True)
    busy(studio).over.set()


def test_a_sweep_that_is_refused_for_want_of_room_leaves_no_folder(studio: Studio) -> None:
    turn = busy(studio)
    waiting = Turn(studio)
    with pytest.raises(Busy, match="at most 1 may"):
        studio.start(ASKED, SKIPS, previews=False)
    assert studio.history.all() == []
    turn.over.set()
    waiting.over.set()


def test_the_same_sweep_asked_by_many_at_once_is_one_job(studio: Studio) -> None:
    turn = busy(studio)
    asking = [threading.Thread(target=lambda: studio.start(ASKED, SKIPS, previews=False)) for _ in range(8)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert studio.queue.waiting == 1
    turn.over.set()


def test_a_closed_queue_takes_no_more_and_nobody_waits_for_it(studio: Studio) -> None:
    turn = busy(studio)
    waiting = Turn(studio)
    turn.over.set()
    studio.close()
    assert waiting.job.ended.is_set() and turn.job.state in ENDED
    with pytest.raises(Busy, match="closing"):
        Turn(studio)


def test_cells_that_cannot_be_drawn_keep_no_others_from_being_drawn(studio: Studio) -> None:
    asked = replace(ASKED, loras=(LoraRef(name="ogre"),))
    record, _ = studio.start(asked, SKIPS, axes=[Axis.parse("lora-weight=1e38,0.5")], previews=False)
    job = studio.queue.find(record.id)
    assert job is not None and job.ended.wait(60)
    assert (job.state, job.error.field) == ("failed", "lora")  # type: ignore[union-attr]
    assert "2 of 6 pictures could not be drawn: " in str(job.error) and "lower their weights" in str(job.error)
    assert len(list(record.folder.glob("row*.png"))) == 4 and (record.folder / "index.html").is_file()


def test_a_grid_of_fewer_pictures_does_not_make_a_sweep_complete(studio: Studio, model: Model) -> None:
    sweep, extras = plan_sweep(ASKED, SKIPS, model.facts, studio.library)
    folder = SweepFolder.create(studio.history.out / f"sweep-{sweep.key}", sweep, model=model.facts)
    list(draw_missing(model, folder, extras))
    last = folder.place(0, 1)
    content = last.read_bytes()
    last.unlink()
    folder.finish()
    drawing = draw_missing(model, folder, extras)
    # As if it were killed: the last picture is written, the page is not.
    next(event for event in drawing if isinstance(event, Advance))
    drawing.close()
    last.write_bytes(content)
    record = studio.history.find(sweep.key)
    assert all(cell.drawn for cell in record.flat) and not record.complete
    studio.resume(record.id)
    deadline = time.monotonic() + 60
    while not record.complete and time.monotonic() < deadline:
        time.sleep(0.01)
    assert folder.page.read_text().count("data:image/png") == 2
