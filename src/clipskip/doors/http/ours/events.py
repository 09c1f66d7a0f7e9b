"""A sweep as server-sent events. Each watcher looks now and then, so a slow one holds up nobody."""

import asyncio
import base64
import io
import json
import time
from collections.abc import AsyncIterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipskip.doors.http.ours.views import view_cell, view_sweep, view_worker
from clipskip.sweep import ENDED, Job, Record, Studio, drawing_now, seconds_left

LOOK_S, OTHERS_S, KEEP_ALIVE_S = 0.1, 1.0, 15


async def watch(record: Record, studio: Studio) -> AsyncIterator[str]:
    """Yield sweep, then step and cell as they come, then sweep and end. A sweep that others draw has progress in the place
    of steps."""
    watcher: Watcher | OthersWatcher = Watcher(record, studio.queue.find(record.id))
    if watcher.over:
        watcher = OthersWatcher(record)
    yield await _sweep(record, studio)
    said_at = time.monotonic()
    while not watcher.over:
        await asyncio.sleep(LOOK_S)
        news = await asyncio.to_thread(watcher.news)
        if time.monotonic() - said_at > KEEP_ALIVE_S and not news:
            news = [": waiting\n\n"]
        for line in news:
            said_at = time.monotonic()
            yield line
    yield await _sweep(record, studio)
    view = await asyncio.to_thread(view_sweep, record, studio)
    yield _event("end", {"state": view.state, "error": view.error.model_dump() if view.error else None})


class Watcher:
    """The events that one watcher has been sent so far."""

    def __init__(self, record: Record, job: Job | None) -> None:
        self._record, self._job = record, job
        self._version = -1
        self._done: set[int] = set()
        self._steps: dict[int, tuple[int, int]] = {}

    @property
    def over(self) -> bool:
        """Return whether there will be no more news."""
        return self._job is None or self._job.state in ENDED

    def news(self) -> list[str]:
        """Return the events of what changed since the last look."""
        job = self._job
        if job is None or job.version == self._version:
            return []
        self._version = job.version
        done, steps = set(job.done), dict(job.steps)
        moved = [place for place, at in steps.items() if at != self._steps.get(place) and place not in done]
        events = [self._step(job, place, *steps[place]) for place in moved]
        events += [self._cell(job, place) for place in sorted(done - self._done)]
        self._done, self._steps = done, steps
        return events

    def _step(self, job: Job, place: int, step: int, steps: int) -> str:
        row, column = divmod(place, len(self._record.skips))
        look = job.previews.get(place)
        preview = None if look is None else data_url(look)
        place_of = {"row": row, "column": column, "step": step, "steps": steps}
        return _event("step", place_of | {"preview": preview, "eta_s": job.eta_s})

    def _cell(self, job: Job, place: int) -> str:
        row, column = divmod(place, len(self._record.skips))
        cell = view_cell(self._record, job, place, drawn={place})
        return _event("cell", {"row": row, "column": column, "cell": cell.model_dump()})


class OthersWatcher:
    """The events that one watcher has been sent of a sweep that other processes draw."""

    def __init__(self, record: Record) -> None:
        self._record, self._done = record, record.drawn
        self._workers, self._looked = drawing_now(record.folder), time.monotonic()

    @property
    def over(self) -> bool:
        """Return whether nobody draws it."""
        return not self._workers

    def news(self) -> list[str]:
        """Return the events of what changed since the last look, at most one look a second."""
        if time.monotonic() - self._looked < OTHERS_S:
            return []
        self._looked, before, self._done = time.monotonic(), self._done, self._record.drawn
        self._workers = drawing_now(self._record.folder)
        new = sorted(self._done - before)
        left = len(self._record.flat) - len(self._done)
        workers = [view_worker(worker).model_dump() for worker in self._workers]
        progress: dict[str, object] = {"eta_s": seconds_left(self._workers, left), "workers": workers}
        return [self._cell(place) for place in new] + [_event("progress", progress)]

    def _cell(self, place: int) -> str:
        row, column = divmod(place, len(self._record.skips))
        cell = view_cell(self._record, None, place, drawn={place})
        return _event("cell", {"row": row, "column": column, "cell": cell.model_dump()})


def data_url(pixels: NDArray[np.uint8]) -> str:
    """Return a small picture [height, width, 3] as a data URL."""
    stored = io.BytesIO()
    Image.fromarray(pixels).save(stored, "PNG")
    return "data:image/png;base64," + base64.b64encode(stored.getvalue()).decode("ascii")


async def _sweep(record: Record, studio: Studio) -> str:
    view = await asyncio.to_thread(view_sweep, record, studio)
    return f"event: sweep\ndata: {view.model_dump_json()}\n\n"


def _event(name: str, data: dict[str, object]) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
