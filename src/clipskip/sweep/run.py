"""Opening models, and drawing renders and sweeps into a folder; each picture is written when it is done."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import torch

from clipskip.errors import ClipskipError, LoraError, NotFound, PromptError, SpecError
from clipskip.image import png_bytes, write_bytes
from clipskip.networks import best_dtype
from clipskip.sample import check_room, kept_memory
from clipskip.spec import Axis, Render, Request, Skip, render_infotext
from clipskip.sweep.drawn import Advance, Drawn, Extras, Failed
from clipskip.sweep.folder import SweepFolder, ensure_writable
from clipskip.sweep.model import Model
from clipskip.sweep.plan import Sweep, file_name
from clipskip.sweep.resolve import NO_PICTURES, Pictures, check_skip, resolve
from clipskip.sweep.second import calls_of_passes
from clipskip.sweep.several import Several
from clipskip.sweep.shard import RENEW_S, Shard, claim, release, renew
from clipskip.sweep.vary import varied
from clipskip.sweep.workers import Clock, this_worker
from clipskip.weights import CheckpointFacts, FileKind, Library, load_checkpoint, read_facts

STARTER = "starter"
WHOLE = Shard()
T = TypeVar("T")
CLAIMED_AT_ONCE = 4
OF_ONE_CELL = (SpecError, PromptError, LoraError)
"""Errors that another cell may not have; without a model's file or room on the disk none can be drawn."""
CellPlace = tuple[int, int, int]
"""A cell's number among all, its row and its column."""


@runtime_checkable
class Draws(Protocol):
    """Something that draws a sweep's pictures: a Model, or another tool's pipeline."""

    def draw(self, renders: Sequence[Render], extras: Extras, *, previews: bool = False) -> Iterator[Advance | Drawn]:
        """Yield each picture when it is done, by its place among the renders, and the steps in between where it reports
        them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """One picture has been written."""

    index: int
    """Its place among the renders; in a sweep, row by row."""
    path: Path
    render: Render


def open_model(
    name: str | os.PathLike[str] | None = None,
    *,
    hash: str | None = None,
    library: Library | None = None,
    device: str | None = None,
    allow_pickle: bool = False,
) -> Model:
    """Open the checkpoint with this name, path or hash for drawing; without any, the embedded starter.

    A hash has precedence: the file with that content is used, whatever its name.
    """
    asked = None if name is None else os.fspath(name)
    path = find_model(asked, hash=hash, library=library or Library.of_user())
    return load_model(path, device=device, allow_pickle=allow_pickle)


def load_model(
    path: Path, *, device: str | None = None, allow_pickle: bool = False, prediction: str | None = None
) -> Model:
    """Load the checkpoint in this file for drawing; `prediction` (epsilon or v) overrides what the file says."""
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = best_dtype(place)
    with kept_memory(place):
        checkpoint = load_checkpoint(
            path,
            dtype=dtype,
            text_dtype=torch.float32,
            device=place,
            allow_pickle=allow_pickle,
            prediction=None if prediction is None else "v" if prediction == "v" else "epsilon",
            check_bytes=partial(check_room, place, what=f"{path.name} in {str(dtype).removeprefix('torch.')}"),
        )
        return Model(checkpoint, device=place, dtype=dtype, allow_pickle=allow_pickle)


def find_model(name: str | None, *, hash: str | None, library: Library) -> Path:
    """Find the checkpoint's file by hash where one is given and known, else by name."""
    by_hash = library.find_hash(hash, FileKind.CHECKPOINT, likely=name or "") if hash else None
    if by_hash is not None:
        return by_hash
    try:
        return library.find(name or (hash or STARTER), FileKind.CHECKPOINT)
    except NotFound as error:
        if hash and name:
            fetch = "" if library.names_only else ", and --fetch looks for it on Civitai"
            raise NotFound(f"{error}; no file there has the hash {hash} either{fetch}", field="model") from None
        raise


def plan_sweep(
    request: Request,
    skips: Sequence[Skip],
    model: CheckpointFacts,
    library: Library | None = None,
    *,
    axes: Sequence[Axis] = (),
    pictures: Pictures = NO_PICTURES,
    allow_pickle: bool = False,
) -> tuple[Sweep, Extras]:
    """Plan the guide's grid for this request: the Clip Skips across, without and with its LoRAs down.

    With axes, the rows repeat for each combination of their values.
    """
    place = library or Library.of_user()
    models = {request.model: model}

    def find(asked: Request) -> tuple[Render, Extras]:
        facts = models.get(asked.model)
        if facts is None:
            path = find_model(asked.model, hash=None, library=place)
            facts = models[asked.model] = read_facts(path, allow_pickle=allow_pickle)
        render, extras = resolve(asked, facts, place, pictures=pictures, allow_pickle=allow_pickle)
        return render, extras if facts is model else replace(extras, models={facts.ref: facts})

    def check(render: Render) -> None:
        facts = next(facts for facts in models.values() if facts.ref == render.model)
        negative = render.negative_clip_skip or skips[0]
        for calls in calls_of_passes(render):
            for skip in (*skips, negative):
                check_skip(skip, facts, calls=calls)

    sweep, extras = varied(replace(request, clip_skip=skips[0], counted_by=None), axes, find, check)
    return replace(sweep, skips=tuple(skips)), extras


def drawing_models(model: Model, extras: Extras, open: Callable[[CheckpointFacts], Model]) -> Model | Several:
    """Return the model that draws a sweep; where an axis names others, all of them by turns."""
    return Several(model, open) if extras.models else model


def draw_sweep(
    request: Request,
    skips: Sequence[Skip],
    model: Model,
    *,
    folder: Path,
    library: Library | None = None,
    axes: Sequence[Axis] = (),
    allow_pickle: bool | None = None,
) -> SweepFolder:
    """Draw the sweep into the folder, with its grid and page; what is there already is kept.

    LoRAs and embeddings may be pickles if `allow_pickle`; by default, if the model was opened with it.
    """
    allowed = model.allow_pickle if allow_pickle is None else allow_pickle
    sweep, extras = plan_sweep(request, skips, model.facts, library, axes=axes, allow_pickle=allowed)
    into = SweepFolder.create(folder, sweep, model=model.facts)
    drawer = drawing_models(model, extras, lambda facts: load_model(facts.source.path, allow_pickle=allowed))
    for _ in draw_missing(drawer, into, extras):
        pass
    into.finish()
    return into


def draw_one(
    request: Request,
    model: Model,
    *,
    library: Library | None = None,
    pictures: Pictures = NO_PICTURES,
    allow_pickle: bool | None = None,
) -> Drawn:
    """Draw one picture; return its pixels [height, width, 3] and the render. `pictures` are those to begin at.

    LoRAs and embeddings may be pickles if `allow_pickle`; by default, if the model was opened with it.
    """
    searched, allowed = library or Library.of_user(), model.allow_pickle if allow_pickle is None else allow_pickle
    render, extras = resolve(request, model.facts, searched, pictures=pictures, allow_pickle=allowed)
    return next(event for event in model.draw([render], extras) if isinstance(event, Drawn))


def draw_to(
    model: Model, renders: Sequence[Render], extras: Extras, *, folder: Path, previews: bool = False
) -> Iterator[Advance | Saved]:
    """Draw the pictures into a folder; where a name is taken, a number is added."""
    ensure_writable(folder)

    def write(drawn: Drawn) -> Saved:
        content = png_bytes(drawn.pixels, render_infotext(drawn.render))
        path = save_picture(drawn.render, folder, content=content)
        return Saved(index=drawn.index, path=path, render=drawn.render)

    yield from _written(model.draw(renders, extras, previews=previews), write)


def save_picture(render: Render, folder: Path, *, content: bytes, suffix: str = ".png") -> Path:
    """Write a picture's file under a free name, and return its path."""
    path = _unused((folder / file_name(render)).with_suffix(suffix))
    write_bytes(path, content)
    return path


def draw_missing(
    model: Draws,
    folder: SweepFolder,
    extras: Extras,
    *,
    previews: bool = False,
    shard: Shard = WHOLE,
    failed: list[Failed] | None = None,
) -> Iterator[Advance | Saved]:
    """Draw what the sweep's folder lacks, one LoRA row after the other; places count row by row.

    With a `shard`, only its own cells are drawn and yielded; one that claims takes a few cells at a time. Cells that
    cannot be drawn are put into `failed`; without it the first ends the drawing.
    """
    sweep, missing = folder.sweep, []
    folder.keep_begun(extras.starts)
    for index, (row, column) in enumerate(sweep.places):
        render = sweep.cell(row, column)
        if not shard.has(render):
            continue
        if folder.has(row, column):
            yield Saved(index=index, path=folder.place(row, column), render=render)
        else:
            missing.append((index, row, column))
    if missing and shard == WHOLE:
        folder.reopen()
    draw = _draw_claimed if shard.claims else _draw_cells
    yield from _counted(draw(model, folder, extras, missing, previews=previews, failed=failed), model, folder)


def draw_each(
    model: Draws,
    renders: Sequence[Render],
    extras: Extras,
    *,
    previews: bool = False,
    fail: Callable[[int, ClipskipError], None],
) -> Iterator[Advance | Drawn]:
    """Draw what can be drawn. Where one fails, the rest is halved until it is alone: `fail` is told its place and the
    error."""
    waiting, drawn = [list(range(len(renders)))], set[int]()
    while waiting:
        piece = waiting.pop()
        try:
            for event in model.draw([renders[at] for at in piece], extras, previews=previews):
                if isinstance(event, Drawn):
                    drawn.add(piece[event.index])
                    yield replace(event, index=piece[event.index])
                else:
                    yield replace(event, indices=tuple(piece[index] for index in event.indices))
        except OF_ONE_CELL as error:
            left = [at for at in piece if at not in drawn]
            if len(left) == 1:
                fail(left[0], error)
            waiting += halves(left)[::-1] if len(left) > 1 else []


def halves(cells: Sequence[T]) -> list[list[T]]:
    """Return the first half and the second."""
    middle = (len(cells) + 1) // 2
    return [half for half in (list(cells[:middle]), list(cells[middle:])) if half]


def _counted(events: Iterator[Advance | Saved], model: Draws, folder: SweepFolder) -> Iterator[Advance | Saved]:
    """Tell in the sweep's folder what draws it, and how fast."""
    first = model.first if isinstance(model, Several) else model
    clock = Clock(folder.path, this_worker(first.device, first.unet.dtype)) if isinstance(first, Model) else None
    try:
        for event in events:
            if clock is not None and isinstance(event, Saved):
                clock.drew()
            yield event
    finally:
        events.close()  # type: ignore[attr-defined]  # a generator: claims are given back at once
        if clock is not None:
            clock.end()


def _draw_claimed(
    model: Draws,
    folder: SweepFolder,
    extras: Extras,
    missing: Sequence[CellPlace],
    *,
    previews: bool,
    failed: list[Failed] | None,
) -> Iterator[Advance | Saved]:
    """Draw a few cells at a time, so that machines of different speed end together."""
    waiting = deque(missing)
    while waiting:
        claimed: list[CellPlace] = []
        left = set[Render]()
        try:  # a signal may come at any moment of claiming
            while waiting and len(claimed) < CLAIMED_AT_ONCE:
                index, row, column = waiting.popleft()
                cell = folder.sweep.cell(row, column)
                left.add(cell)  # before it is claimed: release takes back only what is this process's
                if not folder.has(row, column) and any(claim(folder.path, [cell])):
                    claimed.append((index, row, column))
                else:
                    left.discard(cell)
            told = time.monotonic()
            for event in _draw_cells(model, folder, extras, claimed, previews=previews, failed=failed):
                if isinstance(event, Saved):
                    left.discard(event.render)
                if time.monotonic() - told > RENEW_S:
                    renew(folder.path, left)
                    told = time.monotonic()
                yield event
        finally:
            release(folder.path, left)


def _draw_cells(
    model: Draws,
    folder: SweepFolder,
    extras: Extras,
    missing: Sequence[CellPlace],
    *,
    previews: bool,
    failed: list[Failed] | None,
) -> Iterator[Advance | Saved]:
    def write(drawn: Drawn) -> Saved:
        index, row, column = missing[drawn.index]
        return Saved(index=index, path=folder.save(row, column, drawn.pixels), render=drawn.render)

    def fail(at: int, error: ClipskipError) -> None:
        assert failed is not None
        failed.append(Failed(place=missing[at][1:], reason=str(error), field=error.field))

    renders = [folder.sweep.cell(r, c) for _, r, c in missing]
    if failed is None:
        drawn = model.draw(renders, extras, previews=previews)
    else:
        drawn = draw_each(model, renders, extras, previews=previews, fail=fail)
    for event in _written(drawn, write):
        if isinstance(event, Advance):
            event = replace(event, indices=tuple(missing[i][0] for i in event.indices))
        yield event


def _written(events: Iterator[Advance | Drawn], write: Callable[[Drawn], Saved]) -> Iterator[Advance | Saved]:
    """Write each picture while the next is drawn, and yield it when it is complete on disk."""
    writes: deque[Future[Saved]] = deque()
    with ThreadPoolExecutor(max_workers=1) as pool:
        for event in events:
            if isinstance(event, Drawn):
                writes.append(pool.submit(write, event))
            else:
                yield event
            while writes and writes[0].done():
                yield writes.popleft().result()
        while writes:
            yield writes.popleft().result()


def _unused(path: Path) -> Path:
    number, free = 1, path
    while os.path.lexists(free):
        free = path.with_stem(f"{path.stem}-{number}")
        number += 1
    return free
