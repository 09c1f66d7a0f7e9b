"""Sweeps one after another on one worker: asked, watched, cancelled, found again in the output folder."""

import base64
import io
import queue
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipskip.errors import Busy, ClipskipError, NotFound
from clipskip.image import png_bytes
from clipskip.spec import Render, Request, Skip, render_infotext
from clipskip.sweep.folder import SweepFolder
from clipskip.sweep.manifest import read_manifest, request_of
from clipskip.sweep.model import Advance, Extras, Model
from clipskip.sweep.resolve import resolve
from clipskip.sweep.run import draw_missing, find_model, open_model, plan_sweep
from clipskip.weights import Library

State = Literal["queued", "running", "done", "cancelled", "failed", "interrupted"]
PREFIX = "sweep-"
Place = tuple[int, int]
Event = tuple[str, dict[str, Any]]
WAITING = 64
"""Events that a slow watcher may fall behind by before it is told to begin anew."""


def preview_url(pixels: NDArray[np.uint8]) -> str:
    """A preview [h, w, 3] as a data URL."""
    stored = io.BytesIO()
    Image.fromarray(pixels).save(stored, "PNG")
    return "data:image/png;base64," + base64.b64encode(stored.getvalue()).decode("ascii")


@final
class Job:
    """One sweep that was asked for."""

    def __init__(self, folder: SweepFolder, model: Model, extras: Extras, *, previews: bool) -> None:
        self.folder, self.model, self.extras, self.previews = folder, model, extras, previews
        self.id = folder.sweep.key
        self.state: State = "queued"
        self.error: dict[str, Any] | None = None
        self.steps: dict[Place, int] = {}
        self.done: set[Place] = set()
        self.began = self.share = self.begun_at = 0.0
        self.stop = threading.Event()
        self.watchers: list[queue.Queue[Event | None]] = []

    @property
    def eta_s(self) -> float | None:
        """Seconds that are left, by the pace so far."""
        fresh = self.share - self.begun_at
        if self.state != "running" or fresh <= 0:
            return None
        return (time.monotonic() - self.began) * (1 - self.share) / fresh


@final
class Errand:
    """Single pictures that somebody waits for; they go through the same queue."""

    def __init__(self, model: Model, renders: Sequence[Render], extras: Extras) -> None:
        self.model, self.renders, self.extras = model, renders, extras
        self.pictures: list[bytes | None] = [None] * len(renders)
        self.future: Future[list[bytes]] = Future()
        """The PNGs, of those that were done when it was stopped."""
        self.stop = threading.Event()
        self.step, self.steps, self.share, self.began = 0, renders[0].steps, 0.0, 0.0

    @property
    def eta_s(self) -> float:
        """Seconds that are left, by the pace so far; 0 when that is not known."""
        return (time.monotonic() - self.began) * (1 - self.share) / self.share if self.share else 0.0

    def run(self) -> None:
        """Draws them."""
        self.began, done = time.monotonic(), 0
        for event in self.model.draw(self.renders, self.extras):
            if isinstance(event, Advance):
                self.step, self.steps = event.step, event.steps
                self.share = min(1.0, (done + len(event.indices) * event.step / event.steps) / len(self.renders))
            else:
                done += 1
                self.pictures[event.index] = png_bytes(event.pixels, render_infotext(event.render))
            if self.stop.is_set():
                break
        self.future.set_result([png for png in self.pictures if png is not None])


@final
class Studio:
    """A queue of sweeps with one worker, and the folder that they are drawn into."""

    def __init__(self, out: Path, library: Library, *, limit: int = 8, allow_pickle: bool = False) -> None:
        self.out, self.library, self.limit, self.allow_pickle = out, library, limit, allow_pickle
        self.jobs: dict[str, Job] = {}
        self._waiting: deque[Job | Errand] = deque()
        self.errand: Errand | None = None
        """The single pictures that are drawn now."""
        self._changed = threading.Condition()
        self._opening = threading.Lock()
        self._model: tuple[Path, Model] | None = None
        self._closed = False
        threading.Thread(target=self._work, name="clipskip-worker", daemon=True).start()

    @property
    def model(self) -> Model | None:
        """The model in memory."""
        return self._model[1] if self._model else None

    @property
    def waiting(self) -> int:
        """Sweeps that have not begun."""
        return len(self._waiting)

    @property
    def running(self) -> str | None:
        """The sweep that is being drawn."""
        return next((job.id for job in self.jobs.values() if job.state == "running"), None)

    def open(self, name: str | None, *, hash: str | None = None) -> Model:
        """The model of this name; the one before it leaves the memory when no sweep needs it any more."""
        path = find_model(name, hash=hash, library=self.library)
        with self._opening:
            if self._model is None or self._model[0] != path:
                self._model = None
                self._model = path, open_model(str(path), library=self.library, allow_pickle=self.allow_pickle)
            return self._model[1]

    def start(self, request: Request, skips: Sequence[Skip], *, previews: bool) -> Job:
        """Plans a sweep and puts it into the queue; one that is asked for again is reopened. Busy when it is full."""
        self._check_room()
        model = self.open(request.model, hash=request.model_hash)
        sweep, extras = plan_sweep(request, skips, model, self.library, allow_pickle=self.allow_pickle)
        folder = SweepFolder.create(self.out / f"{PREFIX}{sweep.key}", sweep)
        with self._changed:
            known = self.jobs.get(sweep.key)
            if known is not None and known.state in ("queued", "running"):
                return known
            job = self.jobs[sweep.key] = Job(folder, model, extras, previews=previews)
            self._waiting.append(job)
            self._changed.notify_all()
        return job

    def draw(self, request: Request, count: int) -> Errand:
        """Puts single pictures into the queue, seeds counting up; wait for its future. Busy when the queue is full."""
        self._check_room()
        model = self.open(request.model, hash=request.model_hash)
        base, extras = resolve(request, model, self.library, allow_pickle=self.allow_pickle)
        errand = Errand(model, [replace(base, seed=base.seed + i) for i in range(count)], extras)
        with self._changed:
            self._waiting.append(errand)
            self._changed.notify_all()
        return errand

    def resume(self, id: str) -> Job:
        """Goes on with a sweep of the folder."""
        request, skips = request_of(self._manifest(id))
        return self.start(request, skips, previews=True)

    def cancel(self, id: str) -> None:
        """Stops a sweep before its next step; finished pictures stay."""
        with self._changed:
            job = self.jobs.get(id)
            if job is None:
                self._manifest(id)
                return
            job.stop.set()
            if job in self._waiting:
                self._waiting.remove(job)
                self._end(job, "cancelled")

    def close(self) -> None:
        """Stops what is drawn and takes no more."""
        with self._changed:
            self._closed = True
            for job in self.jobs.values():
                job.stop.set()
            for waiting in self._waiting:
                if isinstance(waiting, Errand):
                    waiting.future.cancel()
            if self.errand:
                self.errand.stop.set()
            self._changed.notify_all()

    def view(self, id: str, *, cells: bool = True) -> dict[str, Any]:
        """A sweep as the API says it."""
        return self._view(id, self._manifest(id), cells=cells)

    def all(self) -> list[dict[str, Any]]:
        """Every sweep of the folder, the newest first, without its cells."""
        found = []
        for folder in self.out.glob(f"{PREFIX}*"):
            manifest = read_manifest(folder)
            if manifest is not None:
                found.append(self._view(folder.name.removeprefix(PREFIX), manifest, cells=False))
        return sorted(found, key=lambda one: str(one["created"]), reverse=True)

    def file(self, id: str, name: str) -> Path:
        """A file of a sweep's folder; NotFound where it is not there (yet)."""
        path = self.out / f"{PREFIX}{self._known(id)}" / name
        if not path.is_file():
            raise NotFound(f"the sweep {id} has no {name} (yet)", field="sweep")
        return path

    def cell(self, id: str, row: int, column: int) -> Path:
        """The picture of one cell; NotFound where it is not drawn (yet)."""
        cells = self._manifest(id)["cells"]
        if not (row < len(cells) and column < len(cells[row])):
            raise NotFound(f"the sweep {id} has {len(cells)} rows of {len(cells[0])} cells", field="sweep")
        return self.file(id, Path(cells[row][column]["file"]).name)

    def watch(self, id: str) -> "queue.Queue[Event | None]":
        """Events as they come; None is the last."""
        found: queue.Queue[Event | None] = queue.Queue()
        with self._changed:
            found.put(("sweep", self.view(id)))
            job = self.jobs.get(id)
            if job is not None and job.state in ("queued", "running"):
                job.watchers.append(found)
            else:
                view = self.view(id, cells=False)
                found.put(("end", {"state": view["state"], "error": view["error"]}))
                found.put(None)
        return found

    def unwatch(self, id: str, watcher: "queue.Queue[Event | None]") -> None:
        """No more events for this one."""
        with self._changed:
            job = self.jobs.get(id)
            if job is not None and watcher in job.watchers:
                job.watchers.remove(watcher)

    def _check_room(self) -> None:
        if self.waiting >= self.limit:
            raise Busy(f"{self.waiting} are waiting, and {self.limit} is the most; wait for one of them, or cancel it")

    def _known(self, id: str) -> str:
        if not (id.isalnum() and id.isascii() and len(id) <= 64 and (self.out / f"{PREFIX}{id}").is_dir()):
            raise NotFound(f"there is no sweep {id[:64]!r}; GET /v1/sweeps lists them", field="sweep")
        return id

    def _manifest(self, id: str) -> dict[str, Any]:
        found = read_manifest(self.out / f"{PREFIX}{self._known(id)}")
        if found is None:
            raise NotFound(f"the folder of the sweep {id} has no manifest that can be read", field="sweep")
        return found

    def _view(self, id: str, manifest: dict[str, Any], *, cells: bool) -> dict[str, Any]:
        job, folder, base = self.jobs.get(id), self.out / f"{PREFIX}{id}", f"/v1/sweeps/{id}"
        shown = [[self._cell(job, folder, base, (r, c), cell, manifest["steps"]) for c, cell in enumerate(row)]
                 for r, row in enumerate(manifest["cells"])]  # fmt: skip
        flat = [cell for row in shown for cell in row]
        done = sum(cell["state"] == "done" for cell in flat)
        state: State = job.state if job else ("done" if done == len(flat) else "interrupted")
        model = (
            job.model
            if job
            else self.model
            if self.model and self.model.ref.hash == manifest["model"]["hash"]
            else None
        )
        view = {
            "id": id,
            "state": state,
            **{name: manifest[name] for name in ("created", "prompt", "negative_prompt", "seed", "settings", "columns", "rows")},
            "model": manifest["model"]
            | ({"family": model.reader.family.label, "depth": model.depth, "trained_clip_skip": model.trained_clip_skip}
               if model else {"family": None, "depth": None, "trained_clip_skip": None}),
            "done": done,
            "total": len(flat),
            "progress": job.share if job and state == "running" else done / len(flat),
            "eta_s": job.eta_s if job else None,
            "error": job.error if job else None,
            "grid": f"{base}/grid.png" if (folder / "grid.png").exists() else None,
            "page": f"{base}/page.html" if (folder / "index.html").exists() else None,
            "manifest": f"{base}/manifest.json",
            "thumbnail": next((cell["image"] for cell in reversed(flat) if cell["image"]), None),
        }  # fmt: skip
        return view | ({"cells": shown} if cells else {})

    def _cell(
        self, job: Job | None, folder: Path, base: str, place: Place, cell: dict[str, Any], steps: int
    ) -> dict[str, Any]:
        done = place in job.done if job and job.state == "running" else (folder / Path(cell["file"]).name).exists()
        step = job.steps.get(place, 0) if job else 0
        image = f"{base}/cells/{place[0]}/{place[1]}.png" if done else None
        return {
            "state": "done" if done else "drawing" if step and job and job.state == "running" else "waiting",
            "step": steps if done else step,
            "steps": steps,
            "image": image,
            "thumbnail": image,
            "settings": cell["settings"] if done else None,
        }

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                job = self._waiting.popleft()
                if isinstance(job, Job):
                    job.state = "running"
            if isinstance(job, Errand):
                self._run(job)
                continue
            try:
                self._draw(job)
                self._end(job, "cancelled" if job.stop.is_set() else "done")
            except ClipskipError as error:
                job.error = {"detail": str(error), "field": error.field}
                self._end(job, "failed")
            except Exception as error:  # one sweep's fault must not end the worker
                job.error = {"detail": f"drawing failed: {type(error).__name__}: {error}"[:500], "field": None}
                self._end(job, "failed")

    def _run(self, errand: Errand) -> None:
        self.errand = errand
        try:
            errand.run()
        except Exception as error:  # it is for the one who waits
            errand.future.set_exception(error)
        finally:
            self.errand = None

    def _draw(self, job: Job) -> None:
        sweep = job.folder.sweep
        places = [(r, c) for r in range(len(sweep.rows)) for c in range(len(sweep.skips))]
        missing = [place for place in places if not job.folder.has(*place)]
        job.done = set(places) - set(missing)
        job.began, job.share = time.monotonic(), len(job.done) / len(places)
        job.begun_at = job.share
        events = draw_missing(job.model, job.folder, job.extras, previews=job.previews)
        try:
            for event in events:
                if job.stop.is_set():
                    break
                if isinstance(event, Advance):
                    self._advance(job, event, [missing[i] for i in event.indices], total=len(places))
                elif (place := places[event.index]) in missing:
                    job.done.add(place)
                    view = self.view(job.id)
                    self._tell(
                        job, "cell", {"row": place[0], "column": place[1], "cell": view["cells"][place[0]][place[1]]}
                    )
        finally:
            events.close()  # type: ignore[attr-defined]
        if job.done:
            job.folder.finish()

    def _advance(self, job: Job, event: Advance, places: Sequence[Place], *, total: int) -> None:
        for place in places:
            job.steps[place] = event.step
        drawing = sum(min(1.0, job.steps.get(place, 0) / event.steps) for place in job.steps if place not in job.done)
        job.share = min(1.0, (len(job.done) + drawing) / total)
        pictures = event.previews or (None,) * len(places)
        for (row, column), picture in zip(places, pictures, strict=True):
            preview = preview_url(picture) if picture is not None and job.watchers else None
            said = {
                "row": row,
                "column": column,
                "step": event.step,
                "steps": event.steps,
                "preview": preview,
                "eta_s": job.eta_s,
            }
            self._tell(job, "step", said)

    def _tell(self, job: Job, name: str, data: dict[str, Any]) -> None:
        with self._changed:
            for watcher in job.watchers:
                if name != "step" or watcher.qsize() < WAITING:
                    watcher.put((name, data))

    def _end(self, job: Job, state: State) -> None:
        with self._changed:
            job.state = state
            view = self.view(job.id)
            for watcher in job.watchers:
                watcher.put(("sweep", view))
                watcher.put(("end", {"state": state, "error": job.error}))
                watcher.put(None)
            job.watchers.clear()
