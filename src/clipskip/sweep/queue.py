"""One queue with one worker: jobs are drawn in order, can be watched, and stop before their next step."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

from clipskip.errors import Busy, ClipskipError
from clipskip.sweep.drawn import Advance, Drawn, Halt
from clipskip.sweep.model import Model
from clipskip.sweep.models import Models
from clipskip.sweep.run import Saved
from clipskip.weights import CheckpointFacts

State = Literal["queued", "running", "done", "cancelled", "failed"]
Event = Advance | Drawn | Saved
Draw = Callable[[Model], Iterator[Event]]
ENDED: frozenset[State] = frozenset({"done", "cancelled", "failed"})
REMEMBERED = 100
"""How many ended jobs can still be asked for."""


@final
class Job:
    """Pictures to be drawn, with their progress. Only the worker writes; everybody may read."""

    def __init__(
        self, facts: CheckpointFacts, draw: Draw, *, total: int, id: str = "", halt: Halt | None = None
    ) -> None:
        self.id, self.facts, self.total, self.draw = id, facts, total, draw
        """Jobs without an id are known only to those who put them into the queue."""
        self.state: State = "queued"
        self.error: ClipskipError | None = None
        self.done: set[int] = set()
        """Places of finished pictures."""
        self.pictures: dict[int, Drawn] = {}
        """Pictures that are not kept on disk."""
        self.steps: dict[int, tuple[int, int]] = {}
        """For each place, its step and the number of steps."""
        self.previews: dict[int, NDArray[np.uint8]] = {}
        self.version = 0
        """Grows with every change, so that watchers know when to look."""
        self.stop = threading.Event()
        self.halt = halt
        """For those who want half-done pictures, where the job allows it."""
        self.ended = threading.Event()
        self._begun: tuple[float, float] | None = None
        """When the first step was done, and the share that was done by then."""

    @property
    def share(self) -> float:
        """The share that is drawn, 0 to 1."""
        steps, done = dict(self.steps), set(self.done)
        partly = sum(step / (of + 1) for place, (step, of) in steps.items() if place not in done)
        return min(1.0, (len(done) + partly) / self.total)

    @property
    def eta_s(self) -> float | None:
        """The seconds left at the pace so far; None where there is no pace yet."""
        begun, share = self._begun, self.share
        if self.state != "running" or begun is None or share <= begun[1]:
            return None
        return (time.monotonic() - begun[0]) * (1 - share) / (share - begun[1])

    def begin(self) -> None:
        """Start the job. The queue holds its lock meanwhile, so that nobody can cancel in between."""
        self.state = "running"
        self.version += 1

    def take(self, event: Event) -> None:
        """Record what has been drawn."""
        if isinstance(event, Advance):
            self.steps |= dict.fromkeys(event.indices, (event.step, event.steps))
            if self._begun is None:  # after the first step, which cells of one batch report together
                self._begun = time.monotonic(), self.share
            self.previews |= dict(zip(event.indices, event.previews, strict=False))
        else:
            if isinstance(event, Drawn):
                self.pictures[event.index] = event
            self.done.add(event.index)
            self.previews.pop(event.index, None)
        self.version += 1

    def end(self, state: State, error: ClipskipError | None = None) -> None:
        """End the job; nothing more will be drawn. Only the first end counts."""
        if self.state not in ENDED:
            self.state, self.error = state, error
            self.version += 1
        self.ended.set()

    def release(self) -> None:
        """Release what drawing needed, because LoRAs are large."""
        self.draw = nothing
        self.previews.clear()


def nothing(_: Model) -> Iterator[Event]:
    """Draw nothing."""
    yield from ()


@final
class Queue:
    """Jobs in order of arrival, of which at most `limit` may wait."""

    def __init__(self, models: Models, *, limit: int = 8) -> None:
        self.limit = limit
        self._models = models
        self._waiting: deque[Job] = deque()
        self._known: dict[str, Job] = {}
        self._current: Job | None = None
        self._changed = threading.Condition()
        self._closed = False
        self._worker = threading.Thread(target=self._work, name="clipskip-worker", daemon=True)
        self._worker.start()

    @property
    def waiting(self) -> int:
        """Number of jobs that have not begun."""
        return len(self._waiting)

    @property
    def running(self) -> Job | None:
        """The job that is being drawn."""
        job = self._current
        return job if job is not None and job.state == "running" else None

    def find(self, id: str) -> Job | None:
        """Return a job that waits, is drawn, or ended recently."""
        return self._known.get(id)

    def busy(self, id: str) -> bool:
        """Return whether a job with this id, or about it (advice:ID), waits or runs, up to its last write."""
        with self._changed:
            jobs = [*self._waiting, *([self._current] if self._current else [])]
            return any(job.id.rpartition(":")[2] == id for job in jobs)

    def put(self, job: Job) -> Job:
        """Add the job, or return the one with the same id that has not ended. Raises Busy when too many wait."""
        with self._changed:
            if self._closed:
                raise Busy("the server is closing; ask again when it is back")
            known = self._known.get(job.id)
            if known is not None and known.state not in ENDED:
                return known
            self.check()
            if job.id:
                self._known.pop(job.id, None)
                self._known[job.id] = job
                self._forget()
            self._waiting.append(job)
            self._changed.notify_all()
        return job

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep others from adding or taking jobs while the `with` block lasts, so that `check` still holds at `put`."""
        with self._changed:
            yield

    def check(self) -> None:
        """Raise Busy where no more may wait."""
        if len(self._waiting) >= self.limit:
            raise Busy(
                f"{len(self._waiting)} jobs are waiting, and at most {self.limit} may; wait for one of them, "
                "or cancel it"
            )

    def cancel(self, job: Job) -> None:
        """End the job at once for everybody; the worker stops before its next step."""
        with self._changed:
            job.stop.set()
            job.end("cancelled")
            with suppress(ValueError):
                self._waiting.remove(job)
                job.release()

    def unload(self) -> None:
        """Close the models in memory; Busy while one of them draws."""
        with self._changed:
            if self._current is not None or self._waiting:
                raise Busy("a model is being drawn with; ask again when it is done, or interrupt it")
            self._models.close()

    def close(self, *, wait_s: float = 10) -> None:
        """Stop what is being drawn, accept no more, and wait until the worker has written what it has."""
        with self._changed:
            self._closed = True
            for job in self._waiting:
                job.end("cancelled")
                job.release()
            self._waiting.clear()
            if self._current is not None:
                self._current.stop.set()
                self._current.end("cancelled")
            self._changed.notify_all()
        self._worker.join(wait_s)

    def _forget(self) -> None:
        over = len(self._known) - REMEMBERED - self.limit
        for id in [id for id, job in self._known.items() if job.state in ENDED][: max(0, over)]:
            del self._known[id]

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._draw(job)
                job.end("cancelled" if job.stop.is_set() else "done")
            except ClipskipError as error:
                job.end("failed", error)
            except Exception as error:  # one job's fault must not end the worker
                logging.getLogger(__name__).exception("drawing failed")
                job.end("failed", ClipskipError(f"drawing failed: {type(error).__name__}: {error}"[:500]))
            finally:
                job.release()
                self._current = None

    def _next(self) -> Job | None:
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            self._current = job = self._waiting.popleft()
            job.begin()
            return job

    def _draw(self, job: Job) -> None:
        if job.stop.is_set():
            return
        events = job.draw(self._models.open(job.facts))
        try:
            for event in events:
                job.take(event)
                if job.stop.is_set():
                    return
        finally:
            events.close()  # type: ignore[attr-defined]  # every one of them is a generator
