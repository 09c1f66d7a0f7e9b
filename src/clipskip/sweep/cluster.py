"""A sweep on a Ray cluster: workers take groups of cells and return finished pictures, which one process writes.

Ray places the workers, restarts those that die and assigns their work again. Files that a node lacks are sent through
its object store and verified by hash.
"""

import hashlib
import itertools
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from filelock import FileLock

from clipskip.errors import ClipskipError, DamagedFile, SpecError
from clipskip.image import png_bytes, write_bytes
from clipskip.spec import Axis, Request, Skip, render_infotext
from clipskip.sweep.folder import SweepFolder
from clipskip.sweep.model import Drawn, Extras
from clipskip.sweep.run import Saved, load_model, plan_sweep
from clipskip.weights import CheckpointFacts, Library, hash_file

try:
    import ray
    import ray.util
except ImportError:
    ray = None

RETRIES = 3
"""How often the work of a worker that died is assigned again."""
GROUP = 12
"""Cells in one piece of work, all of one row, so that their texts are read in one pass."""
CHUNK = 64 * 2**20
"""Bytes of a file in one object of the store."""
Place = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A file that workers need, with its hash and, for nodes that lack it, its content."""

    path: Path
    sha256: str
    chunks: tuple[Any, ...] = ()  # Ray's references

    def here(self) -> Path:
        """Return the file on this node: at the same path if the content is the same, else written from the store once
        per node."""
        if self.path.is_file() and hash_file(self.path).sha256 == self.sha256:
            return self.path
        folder = Path(platformdirs.user_cache_dir("clipskip")) / "staged" / self.sha256[:16]
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / self.path.name
        with FileLock(f"{place}.lock"):
            if not place.is_file():
                scratch, digest = place.with_name(f"{place.name}.part"), hashlib.sha256()
                with open(scratch, "wb") as file:
                    for chunk in self.chunks:
                        piece = ray.get(chunk).tobytes()
                        digest.update(piece)
                        file.write(piece)
                if digest.hexdigest() != self.sha256:
                    raise DamagedFile(
                        f"{self.path.name} arrived damaged on {socket.gethostname()}; run the sweep again"
                    )
                scratch.replace(place)
        return place


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a worker needs to plan the same sweep."""

    request: Request
    skips: tuple[Skip, ...]
    axes: tuple[Axis, ...] = ()
    model: Staged
    others: tuple[Staged, ...] = ()
    """LoRAs and embeddings."""
    folders: tuple[Path, ...] = ()
    allow_pickle: bool = False
    key: str = ""
    """The key of the sweep that the driver planned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A cell that could not be drawn."""

    place: Place
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A piece of work that came back."""

    worker: str
    """Host and process."""
    pictures: Mapping[Place, tuple[bytes, str]]
    """Each PNG with its sha256."""
    failed: tuple[Failed, ...] = ()


@dataclass(slots=True, kw_only=True)
class Tally:
    """How many pictures each worker drew, and the cells that failed."""

    pictures: dict[str, int] = field(default_factory=dict)
    failed: list[Failed] = field(default_factory=list)


class Worker:
    """A process with the model open, which Ray runs as an actor."""

    def __init__(self, plan: Plan, threads: int) -> None:
        if threads:
            import torch

            torch.set_num_threads(threads)
        path = plan.model.here()
        staged = tuple({other.here().parent for other in plan.others})
        library = Library.of_user([*staged, *plan.folders])
        self._model = load_model(path, allow_pickle=plan.allow_pickle)
        facts = self._model.facts
        request = replace(plan.request, model=str(path), model_hash=None)
        self._sweep, self._extras = plan_sweep(
            request, plan.skips, facts, library, axes=plan.axes, allow_pickle=plan.allow_pickle
        )
        if self._sweep.key != plan.key:
            raise DamagedFile(
                f"the files of these names on {socket.gethostname()} differ from those where the sweep began; copy the same files there"
            )

    def draw(self, places: Sequence[Place]) -> Finished:
        """Draw these cells; a cell that fails among others is tried alone before it counts as failed."""
        name = f"{socket.gethostname()} {os.getpid()}"
        try:
            return Finished(worker=name, pictures=self._drawn(places))
        except ClipskipError as error:
            if len(places) == 1:
                return Finished(worker=name, pictures={}, failed=(Failed(place=places[0], reason=str(error)),))
        parts = [self.draw([place]) for place in places]
        pictures = {place: png for part in parts for place, png in part.pictures.items()}
        return Finished(worker=name, pictures=pictures, failed=tuple(fail for part in parts for fail in part.failed))

    def _drawn(self, places: Sequence[Place]) -> dict[Place, tuple[bytes, str]]:
        renders = [self._sweep.cell(*place) for place in places]
        pngs = {}
        for event in self._model.draw(renders, self._extras):
            if isinstance(event, Drawn):
                png = png_bytes(event.pixels, render_infotext(event.render))
                pngs[places[event.index]] = png, hashlib.sha256(png).hexdigest()
        return pngs


def draw_on_cluster(
    folder: SweepFolder, plan: Plan, *, address: str | None, workers: int | None = None, tally: Tally | None = None
) -> Iterator[Saved]:
    """Draw what the folder lacks on a Ray cluster, or on this machine without an address. Stop iterating to cancel.

    There is one worker for each GPU of the cluster, or for each CPU where it has no GPU. Cells that fail are in the
    `tally`.
    """
    tally = tally if tally is not None else Tally()
    indices = {place: index for index, place in enumerate(folder.sweep.places)}
    missing = []
    for place, index in indices.items():
        if folder.has(*place):
            yield Saved(index=index, path=folder.place(*place), render=folder.sweep.cell(*place))
        else:
            missing.append(place)
    if not missing:
        return
    with _Connected(address):
        pool = ray.util.ActorPool(_actors(_with_content(plan), workers, most=-(-len(missing) // GROUP) or 1))
        for place, path in _draw(folder, missing, pool, tally):
            yield Saved(index=indices[place], path=path, render=folder.sweep.cell(*place))


def plan_for(
    request: Request,
    skips: Sequence[Skip],
    model: CheckpointFacts,
    extras: Extras,
    folder: SweepFolder,
    *,
    folders: Sequence[Path],
    allow_pickle: bool,
) -> Plan:
    """Return what workers need to draw a sweep that was planned here."""
    source = model.source
    if source.path.is_dir():
        raise SpecError("a diffusers folder cannot be sent to a cluster; give a single file", field="model")
    paths = [lora.path for lora in extras.loras.values()] + [upscaler.path for upscaler in extras.upscalers.values()]
    return Plan(
        request=replace(request, seed=folder.sweep.base.seed),
        skips=tuple(skips),
        axes=folder.sweep.axes,
        model=Staged(path=source.path.resolve(), sha256=source.sha256),
        others=tuple(Staged(path=path.resolve(), sha256=hash_file(path).sha256) for path in paths),
        folders=tuple(path.resolve() for path in folders),
        allow_pickle=allow_pickle,
        key=folder.sweep.key,
    )


class _Connected:
    """A connection to the cluster, closed when drawing ends, which frees the workers."""

    def __init__(self, address: str | None) -> None:
        if ray is None:
            raise SpecError("--ray needs Ray: pip install 'clipskip[ray]'", field="ray")
        self._owned = not ray.is_initialized()
        self._address = address or None

    def __enter__(self) -> None:
        if self._owned:
            try:
                ray.init(address=self._address, log_to_driver=False, include_dashboard=False, logging_level="error")
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise SpecError(
                    f"no Ray cluster answers at {self._address} ({str(error)[:200]}); check the address", field="ray"
                ) from None

    def __exit__(self, *_: object) -> None:
        if self._owned:
            ray.shutdown()


def _with_content(plan: Plan) -> Plan:
    """Return the plan with its files in the object store, for nodes that lack them; a single node has them all."""
    if len([node for node in ray.nodes() if node["Alive"]]) < 2:
        return plan
    return replace(plan, model=_put(plan.model), others=tuple(_put(other) for other in plan.others))


def _put(staged: Staged) -> Staged:
    chunks = []
    with open(staged.path, "rb") as file:
        while piece := file.read(CHUNK):
            chunks.append(ray.put(np.frombuffer(piece, np.uint8)))
    return replace(staged, chunks=tuple(chunks))


def _actors(plan: Plan, workers: int | None, *, most: int) -> list[Any]:  # Ray's handles
    """Start the workers, one for each GPU of the cluster, or for each CPU. The work of one that dies is assigned
    again."""
    resources = ray.cluster_resources()
    gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
    count = max(1, min(workers or gpus or cpus, most))
    share = max(1, cpus // count)
    options = {"num_gpus": 1} if gpus else {"num_cpus": share if count <= cpus else cpus / count}
    actor = ray.remote(max_restarts=10 * RETRIES, max_task_retries=RETRIES, **options)(Worker)
    given = ray.put(plan)
    return [actor.remote(given, 0 if gpus else share) for _ in range(count)]


def _draw(folder: SweepFolder, missing: Sequence[Place], pool: Any, tally: Tally) -> Iterator[tuple[Place, Path]]:
    """Yield every finished picture once it is written; what never came back failed, with the last reason received."""
    for _, row in itertools.groupby(missing, key=lambda place: place[0]):
        cells = list(row)
        for start in range(0, len(cells), GROUP):
            pool.submit(lambda actor, places: actor.draw.remote(places), cells[start : start + GROUP])
    left, reason = dict.fromkeys(missing), "its worker died"
    while pool.has_next():
        try:
            done: Finished = pool.get_next_unordered()
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1][:300]
            continue
        for place, (png, sha256) in done.pictures.items():
            if hashlib.sha256(png).hexdigest() == sha256:
                path = folder.place(*place)
                write_bytes(path, png)
                left.pop(place, None)
                tally.pictures[done.worker] = tally.pictures.get(done.worker, 0) + 1
                yield place, path
        for failed in done.failed:
            left.pop(failed.place, None)
            tally.failed.append(failed)
    tally.failed += [Failed(place=place, reason=reason) for place in left]
