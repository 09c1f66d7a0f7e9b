"""A sweep on a Ray cluster: workers take pieces of work and return finished pictures, which one process writes.

Ray places the workers, starts those that die again and repeats what they had in hand. A piece that fails even so is
halved, so that one bad cell takes no other with it.
"""

import hashlib
import re
import signal
import socket
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from clipskip.errors import ClipskipError, SpecError
from clipskip.image import png_bytes, write_bytes
from clipskip.spec import FileRef, Render, render_infotext
from clipskip.sweep.drawn import Drawn, Extras, Failed
from clipskip.sweep.folder import SweepFolder
from clipskip.sweep.model import Model
from clipskip.sweep.run import Saved, draw_each, drawing_models, halves, load_model
from clipskip.sweep.staging import Staged, with_content
from clipskip.sweep.workers import Telling, Worker, this_worker
from clipskip.weights import CheckpointFacts, read_facts

try:
    import ray
except ImportError:
    ray = None

RETRIES, MOST_LOSSES = 1, 3
"""How often Ray repeats a piece of work whose worker died, before it is halved, and how often a cell that is alone is
handed out."""
MOST_PIECE, PIECES_EACH = 12, 4
"""The most cells in a piece of work, and how many pieces a worker gets at least where there are enough cells."""
PATIENCE_S, PATIENCE = 30.0, 3.0
"""Once nothing waits, a piece is drawn again by an idle worker after so many seconds and so many times as long as the
slowest one took: its node may be lost."""
LOOK_S, ANSWER_S, REST_S = 5.0, 10.0, 5.0
"""Seconds between looks at what is in hand, for a cluster to answer, and without work for a worker that did not: its
node may be lost, and Ray not have noticed."""
Place = tuple[int, int]
Cell = tuple[Place, Render]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """The files and settings that a worker opens."""

    model: Path
    refiner: Path | None
    models: Mapping[FileRef, Path]
    """Further checkpoints, which an axis names."""
    extras: Extras
    """LoRAs, embeddings and pictures to begin at as they are; VAEs and upscalers by their paths where the sweep began."""
    files: Mapping[Path, Staged]
    """Every file by its path where the sweep began."""
    allow_pickle: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A piece of work that came back."""

    worker: Worker
    """Who drew it, with all that it has drawn so far."""
    pictures: Mapping[Place, tuple[bytes, str]]
    """Each PNG with its sha256."""
    failed: tuple[Failed, ...] = ()


@dataclass(slots=True, kw_only=True)
class Tally:
    """The progress of each worker, and the cells that failed."""

    workers: dict[str, Worker] = field(default_factory=dict)
    failed: list[Failed] = field(default_factory=list)


class Actor:
    """A process with the model open, which Ray runs as an actor."""

    def __init__(self, plan: Plan, threads: int) -> None:
        if threads:
            import torch

            torch.set_num_threads(threads)
        self._plan, self._other = plan, dict[FileRef, Model]()
        self._model = load_model(self._here(plan.model), allow_pickle=plan.allow_pickle)
        self._extras = self._opened(plan.extras)
        self._drawer = drawing_models(self._model, self._extras, self._open)
        self._worker = this_worker(self._model.device, self._model.unet.dtype)

    def draw(self, cells: Sequence[Cell]) -> Finished:
        """Draw these cells. Where one fails, the rest is halved until it is alone."""
        started, pictures, failed = time.monotonic(), dict[Place, tuple[bytes, str]](), list[Failed]()

        def fail(at: int, error: ClipskipError) -> None:
            failed.append(Failed(place=cells[at][0], reason=str(error), field=error.field))

        for event in draw_each(self._drawer, [render for _, render in cells], self._extras, fail=fail):
            if isinstance(event, Drawn):
                png = png_bytes(event.pixels, render_infotext(event.render))
                pictures[cells[event.index][0]] = png, hashlib.sha256(png).hexdigest()
        self._worker = replace(
            self._worker,
            pictures=self._worker.pictures + len(pictures),
            seconds=self._worker.seconds + time.monotonic() - started,
        )
        return Finished(worker=self._worker, pictures=pictures, failed=tuple(failed))

    def _here(self, path: Path) -> Path:
        return self._plan.files[path].here()

    def _opened(self, extras: Extras) -> Extras:
        """Return the extras with the files of this node."""
        pickles, plan = self._plan.allow_pickle, self._plan
        return replace(
            extras,
            vaes={digits: replace(vae, path=self._here(vae.path)) for digits, vae in extras.vaes.items()},
            upscalers={digits: replace(file, path=self._here(file.path)) for digits, file in extras.upscalers.items()},
            refiner=read_facts(self._here(plan.refiner), allow_pickle=pickles, refiner=True) if plan.refiner else None,
            models={ref: read_facts(self._here(path), allow_pickle=pickles) for ref, path in plan.models.items()},
        )

    def _open(self, facts: CheckpointFacts) -> Model:
        """Return a further checkpoint, which stays open until another is asked for."""
        if facts.ref not in self._other:
            self._other.clear()
            self._other[facts.ref] = load_model(facts.source.path, allow_pickle=self._plan.allow_pickle)
        return self._other[facts.ref]


def draw_on_cluster(
    folder: SweepFolder, plan: Plan, *, address: str | None, workers: int | None = None, tally: Tally | None = None
) -> Iterator[Saved]:
    """Draw what the folder lacks on a Ray cluster, or on this machine without an address. Stop iterating to cancel.

    There is one worker for each GPU of the cluster, or for each CPU where it has no GPU. Cells that fail are in the
    `tally`.
    """
    tally = tally if tally is not None else Tally()
    indices = {place: index for index, place in enumerate(folder.sweep.places)}
    missing: list[Cell] = []
    for place, index in indices.items():
        render = folder.sweep.cell(*place)
        if folder.has(*place):
            yield Saved(index=index, path=folder.place(*place), render=render)
        else:
            missing.append((place, render))
    if not missing:
        return
    folder.keep_begun(plan.extras.starts)
    folder.reopen()
    with _Connected(address):
        staged = with_content(list(plan.files.values()))
        given = ray.put(replace(plan, files=staged))  # kept for workers that are started again
        pool = _actors(given, workers, most=len(missing))
        try:
            for place, path in _Crew(folder, missing, pool, tally).draw():
                yield Saved(index=indices[place], path=path, render=folder.sweep.cell(*place))
        finally:
            for actor in pool:
                ray.kill(actor)


def plan_for(model: CheckpointFacts, extras: Extras, *, allow_pickle: bool) -> Plan:
    """Return what workers need to draw what was planned here."""
    files = [Staged.of(model.source.path, sha256=model.source.sha256)]
    files += [Staged.of(facts.source.path, sha256=facts.source.sha256) for facts in extras.models.values()]
    files += [Staged.of(vae.path) for vae in extras.vaes.values()]
    files += [Staged.of(upscaler.path) for upscaler in extras.upscalers.values()]
    if extras.refiner is not None:
        files.append(Staged.of(extras.refiner.source.path, sha256=extras.refiner.source.sha256))
    return Plan(
        model=model.source.path.absolute(),
        refiner=extras.refiner.source.path.absolute() if extras.refiner else None,
        models={ref: facts.source.path.absolute() for ref, facts in extras.models.items()},
        extras=replace(
            extras,
            loras={digits: replace(lora, metadata=dict(lora.metadata)) for digits, lora in extras.loras.items()},
            vaes={digits: replace(vae, path=vae.path.absolute()) for digits, vae in extras.vaes.items()},
            upscalers={digits: replace(file, path=file.path.absolute()) for digits, file in extras.upscalers.items()},
            starts=dict(extras.starts),
            refiner=None,
            models={},
        ),
        files={file.path: file for file in files},
        allow_pickle=allow_pickle,
    )


class _Connected:
    """A connection to the cluster, closed when drawing ends, which frees the workers."""

    def __init__(self, address: str | None) -> None:
        if ray is None:
            raise SpecError("--ray needs Ray: pip install 'clipskip[ray]'", field="ray")
        self._owned = not ray.is_initialized()
        self._address = address or "local"  # without a word Ray would take a cluster that somebody has begun here

    def __enter__(self) -> None:
        if self._owned:
            _check_answers(self._address)
            handler = signal.getsignal(signal.SIGTERM)
            try:
                ray.init(address=self._address, log_to_driver=False, include_dashboard=False, logging_level="error")
            except (ConnectionError, RuntimeError, ValueError) as error:
                token = ", and set RAY_AUTH_MODE=token if it asks for one" if self._address.startswith("ray://") else ""
                raise SpecError(
                    f"no Ray cluster answers at {self._address} ({str(error)[:200]}); check the address{token}",
                    field="ray",
                ) from None
            with suppress(ValueError):  # not the main thread
                signal.signal(signal.SIGTERM, handler)  # Ray has put its own there

    def __exit__(self, *_: object) -> None:
        if self._owned:
            ray.shutdown()


def _check_answers(address: str) -> None:
    """Raise SpecError where nobody listens, which Ray would try for ten minutes."""
    match = re.fullmatch(r"(?:ray://)?\[?([^/\]]+?)\]?:(\d{1,5})", address)
    if match is None:
        return
    try:
        socket.create_connection((match[1], int(match[2])), timeout=ANSWER_S).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise SpecError(f"no Ray cluster answers at {address} ({error}); check the address", field="ray") from None


class _Handle(Protocol):
    draw: Any  # Ray's handle of a method


def _actors(plan: Any, workers: int | None, *, most: int) -> list[_Handle]:  # Ray's reference to it
    """Start the workers, one for each GPU of the cluster, or for each CPU."""
    resources = ray.cluster_resources()
    gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
    count = max(1, min(workers or gpus or cpus, most))
    share = max(1, cpus // count)
    options = {"num_gpus": 1} if gpus else {"num_cpus": share if count <= cpus else cpus / count}
    actor = ray.remote(max_restarts=-1, max_task_retries=RETRIES, **options)(Actor)
    return [actor.remote(plan, 0 if gpus else share) for _ in range(count)]


@dataclass(slots=True)
class _Piece:
    """A piece of work in a worker's hands."""

    actor: _Handle
    cells: list[Cell]
    since: float
    repeated: bool = False
    """Whether another worker has it too."""


class _Crew:
    """Workers that pull pieces of work until every cell is drawn or has failed."""

    def __init__(self, folder: SweepFolder, missing: Sequence[Cell], actors: Sequence[_Handle], tally: Tally) -> None:
        self._folder, self._tally, self._telling = folder, tally, Telling(folder.path)
        self._left = dict(missing)
        self._waiting = deque(
            _work_pieces(missing, most=max(1, min(MOST_PIECE, len(missing) // (PIECES_EACH * len(actors)))))
        )
        self._idle, self._busy = list(actors), dict[Any, _Piece]()  # by Ray's reference to the result
        self._resting, self._losses = deque[tuple[float, _Handle]](), Counter[Place]()
        self._slowest_s, self._reason = 0.0, "its worker died"

    def draw(self) -> Iterator[tuple[Place, Path]]:
        """Yield every finished picture once it is written."""
        while self._left and (self._busy or self._idle or self._resting):
            self._wake()
            self._hand_out()
            if not self._busy:
                time.sleep(LOOK_S)
                continue
            ready, _ = ray.wait(list(self._busy), timeout=LOOK_S)
            for reference in ready:
                piece = self._busy.pop(reference)
                try:
                    done: Finished = ray.get(reference)
                except ray.exceptions.RayError as error:
                    self._lost(piece, error)
                    continue
                self._idle.append(piece.actor)
                self._slowest_s = max(self._slowest_s, time.monotonic() - piece.since)
                self._hand_out()  # before pictures are written, so that nobody waits for the disk
                yield from self._keep(piece, done)
        self._tally.failed += [Failed(place=place, reason=self._reason) for place in self._left]
        for worker in self._tally.workers.values():
            self._telling.tell(replace(worker, ended=True))

    def _wake(self) -> None:
        """Let those who have rested work again."""
        while self._resting and time.monotonic() - self._resting[0][0] > REST_S:
            self._idle.append(self._resting.popleft()[1])

    def _hand_out(self) -> None:
        while self._idle and (piece := self._next()):
            actor = self._idle.pop()
            self._busy[actor.draw.remote(piece)] = _Piece(actor, piece, time.monotonic())

    def _next(self) -> list[Cell]:
        """Return cells to be drawn: those that wait, else those that somebody has had in hand for too long."""
        while self._waiting:
            if piece := self._undrawn(self._waiting.popleft()):
                return piece
        patience_s = max(PATIENCE_S, PATIENCE * self._slowest_s)
        for overdue in self._busy.values():
            if not overdue.repeated and time.monotonic() - overdue.since > patience_s:
                overdue.repeated = True
                if piece := self._undrawn(overdue.cells):
                    return piece
        return []

    def _undrawn(self, cells: Sequence[Cell]) -> list[Cell]:
        return [cell for cell in cells if cell[0] in self._left]

    def _keep(self, piece: _Piece, done: Finished) -> Iterator[tuple[Place, Path]]:
        """Write what came back, and yield it; a picture that came already, or arrived damaged, is not counted."""
        for place, (png, sha256) in done.pictures.items():
            if place in self._left and hashlib.sha256(png).hexdigest() == sha256:
                path = self._folder.place(*place)
                write_bytes(path, png)
                del self._left[place]
                yield place, path
        for failed in done.failed:
            if self._left.pop(failed.place, None):
                self._tally.failed.append(failed)
        self._tally.workers[done.worker.name] = done.worker
        self._telling.tell(done.worker)
        if damaged := self._undrawn(piece.cells):
            self._waiting.append(damaged)

    def _lost(self, piece: _Piece, error: Any) -> None:  # one of Ray's errors
        """Halve what a worker did not return; a cell that is alone fails in the end. A worker that cannot even start is
        left, and one that does not answer rests, since it may be long gone, so that others take what it had."""
        if getattr(error, "actor_init_failed", False):
            self._reason = _cause(error)
            self._waiting.append(piece.cells)
            return
        if isinstance(error, ray.exceptions.RayTaskError):  # its process may be in a bad state
            ray.kill(piece.actor, no_restart=False)
        self._resting.append((time.monotonic(), piece.actor))
        left = self._undrawn(piece.cells)
        self._waiting.extend(halves(left))
        if len(left) == 1:
            place = left[0][0]
            self._losses[place] += 1
            if self._losses[place] == MOST_LOSSES:
                self._waiting.pop()
                del self._left[place]
                self._tally.failed.append(Failed(place=place, reason=_cause(error)))


def _work_pieces(cells: Sequence[Cell], *, most: int) -> Iterator[list[Cell]]:
    """Yield pieces of work, each of one checkpoint, VAE, LoRA set and prompt, so that these are opened, merged and read
    once."""
    groups: dict[tuple[object, ...], list[Cell]] = {}
    for cell in cells:
        render = cell[1]
        alike = render.model, render.vae, render.loras, render.prompt, render.negative_prompt
        groups.setdefault(alike, []).append(cell)
    by_model = sorted(groups.values(), key=lambda group: group[0][1].model.hash)
    for group in by_model:
        for start in range(0, len(group), most):
            yield group[start : start + most]


def _cause(error: Any) -> str:  # one of Ray's errors
    """Return why a worker did not return its work, in one line."""
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return "its worker ran out of memory; draw smaller pictures, or on a machine with more"
    if isinstance(error, ray.exceptions.RayTaskError):
        return str(error.cause if getattr(error, "cause", None) else error).strip().splitlines()[-1][:300]
    if getattr(error, "actor_init_failed", False):
        return f"no worker could open the model: {str(error).strip().splitlines()[-1][:300]}"
    return f"its worker died or was lost, {MOST_LOSSES} times when it was drawn alone"
