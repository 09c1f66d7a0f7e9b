"""The studio that a server draws with: a library, one queue, and the folder of its sweeps."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import final

from clipskip.errors import Conflict, DamagedFile, NotFound, printable
from clipskip.spec import Axis, Render, Request, Skip
from clipskip.sweep.delete import Deleted, delete_sweep
from clipskip.sweep.doubts import Doubt, doubts_of, warnings_of
from clipskip.sweep.drawn import Extras, Failed, Halt, not_drawn
from clipskip.sweep.folder import SweepFolder, begun_in
from clipskip.sweep.history import PREFIX, History, Record
from clipskip.sweep.model import Model
from clipskip.sweep.models import Models
from clipskip.sweep.plan import Sweep
from clipskip.sweep.queue import Event, Job, Queue, nothing
from clipskip.sweep.resolve import NO_PICTURES, Pictures, resolve
from clipskip.sweep.run import draw_missing, drawing_models, plan_sweep
from clipskip.weights import CheckpointFacts, Library

SCORES = "scores:"
"""Prefix of a sweep's id in the job that measures it."""
MOST_TOLD = 400
"""The most characters of settings that are told of as not used."""


def _not_used(request: Request) -> Iterator[str]:
    """Yield what a settings text says and nothing here uses."""
    if unused := "; ".join(f"{name}: {value}" for name, value in request.unused):
        yield f"not used of the settings: {printable(unused, limit=MOST_TOLD)}"


@final
class Studio:
    """Sweeps and single pictures, planned at once and drawn in turn. Clients name files; paths are not accepted."""

    def __init__(self, out: Path, library: Library, *, limit: int = 8, allow_pickle: bool = False) -> None:
        self.library, self.allow_pickle = replace(library, names_only=True), allow_pickle
        self.models = Models(self.library, allow_pickle=allow_pickle)
        self.history = History(out)
        self.queue = Queue(self.models, limit=limit)

    def start(
        self, request: Request, skips: Sequence[Skip], *, axes: Sequence[Axis] = (), previews: bool
    ) -> tuple[Record, tuple[str, ...]]:
        """Plan a sweep and queue it; return its record and what is odd about it. A complete one is only opened
        again."""
        facts, sweep, extras = self._plan(request, skips, self.facts(request), axes=axes)
        odd = (
            *_not_used(request),
            *sweep.left_out,
            *(doubt.text for doubt in doubts_of(request, sweep.base, facts, extras)),
            *warnings_of(request, extras),
        )
        return self._begin(facts, sweep, extras, previews=previews), odd

    def check(
        self, request: Request, skips: Sequence[Skip], axes: Sequence[Axis] = ()
    ) -> tuple[Sweep, tuple[Doubt, ...]]:
        """Plan a sweep with all its errors and return it with what is probably not meant, without drawing."""
        facts, sweep, extras = self._plan(request, skips, self.facts(request), axes=axes)
        return sweep, doubts_of(request, sweep.base, facts, extras)

    def facts(self, request: Request) -> CheckpointFacts:
        """Return the facts of the checkpoint that a request names, or of its hash where no file has the name."""
        try:
            return self.models.facts(request.model, hash=None if request.model else request.model_hash)
        except NotFound:
            if not request.model_hash:
                raise
            return self.models.facts(request.model, hash=request.model_hash)

    def resume(self, id: str) -> Record:
        """Continue a sweep in the folder, whoever began it."""
        record = self.history.find(id)
        if record.complete:
            return record
        facts, folder, extras = self.reopened(record)
        return self._begin(facts, folder.sweep, extras, previews=True, folder=record.folder)

    def reopened(self, record: Record) -> tuple[CheckpointFacts, SweepFolder, Extras]:
        """Return what continuing a past sweep needs; DamagedFile where its files have changed."""
        asked = record.request
        known = self.models.facts(asked.model, hash=asked.model_hash)
        begun = begun_in(record.folder, asked.start)
        facts, sweep, extras = self._plan(asked, record.skips, known, axes=record.axes, pictures=begun)
        if f"{PREFIX}{sweep.key}" != record.folder.name and not _same_cells(sweep, record):
            raise DamagedFile(
                f"the sweep {record.id} cannot continue: its model, LoRAs or embeddings have changed since it began; "
                "start it again",
                field="sweep",
            )
        return facts, SweepFolder(path=record.folder, sweep=sweep), extras

    def cancel(self, id: str) -> None:
        """Stop a sweep, and what waits to measure it; finished pictures stay."""
        record = self.history.find(id)
        for name in (record.id, SCORES + record.id):
            job = self.queue.find(name)
            if job is not None:
                self.queue.cancel(job)

    def delete(self, id: str) -> Deleted:
        """Delete a sweep for good; Conflict while it is drawn, measured or waiting."""
        with self.queue.alone():
            record = self.history.find(id)
            if self.queue.busy(record.id):
                raise Conflict(f"the sweep {record.id} is being drawn; cancel it first", field="sweep")
            return delete_sweep(record)

    def plan(self, request: Request, pictures: Pictures = NO_PICTURES) -> tuple[CheckpointFacts, Render, Extras]:
        """Find and check what a single picture needs; `pictures` are those to begin at, by the hash of their pixels."""
        facts = self.models.facts(request.model, hash=request.model_hash)
        return facts, *resolve(request, facts, self.library, pictures=pictures, allow_pickle=self.allow_pickle)

    def draw(
        self, facts: CheckpointFacts, renders: Sequence[Render], extras: Extras, *, at_hand: int | None = None
    ) -> Job:
        """Queue single pictures, which become the job's `pictures`. A halt leaves `at_hand` of them half done."""
        halt = Halt(at_hand=at_hand)

        def drawing(model: Model) -> Iterator[Event]:
            return drawing_models(model, extras, self.models.open).draw(renders, extras, previews=True, halt=halt)

        return self.queue.put(Job(facts, drawing, total=len(renders), halt=halt))

    def load(self, request: Request) -> Job:
        """Queue opening the model that a request names."""
        return self.queue.put(Job(self.models.facts(request.model, hash=request.model_hash), nothing, total=1))

    def close(self) -> None:
        """Stop what is being drawn."""
        self.queue.close()

    def _plan(
        self,
        request: Request,
        skips: Sequence[Skip],
        facts: CheckpointFacts,
        *,
        axes: Sequence[Axis] = (),
        pictures: Pictures = NO_PICTURES,
    ) -> tuple[CheckpointFacts, Sweep, Extras]:
        planned = plan_sweep(
            request, skips, facts, self.library, axes=axes, pictures=pictures, allow_pickle=self.allow_pickle
        )
        return facts, *planned

    def _begin(
        self, facts: CheckpointFacts, sweep: Sweep, extras: Extras, *, previews: bool, folder: Path | None = None
    ) -> Record:
        place = folder or self.history.out / f"{PREFIX}{sweep.key}"
        id = place.name.removeprefix(PREFIX)
        with self.queue.alone():
            if not place.exists():
                self.queue.check()
            kept = SweepFolder.create(place, sweep, model=facts)
            record = self.history.find(id)
            if not record.complete:
                self.queue.put(
                    Job(facts, _drawing(kept, extras, self.models, previews=previews), total=len(record.flat), id=id)
                )
        return record


def _same_cells(sweep: Sweep, record: Record) -> bool:
    """Return whether a folder of another name has this sweep's pictures."""
    folder = SweepFolder(path=record.folder, sweep=sweep)
    return all(cell.path == folder.place(r, c) for r, row in enumerate(record.cells) for c, cell in enumerate(row))


def _drawing(
    folder: SweepFolder, extras: Extras, models: Models, *, previews: bool
) -> Callable[[Model], Iterator[Event]]:
    def draw(model: Model) -> Iterator[Event]:
        failed: list[Failed] = []
        try:
            drawer = drawing_models(model, extras, models.open)
            yield from draw_missing(drawer, folder, extras, previews=previews, failed=failed)
        finally:
            if any(folder.path.glob("row*.png")):
                folder.finish()
        if failed:
            raise not_drawn(failed, cells=len(folder.sweep.places))

    return draw
