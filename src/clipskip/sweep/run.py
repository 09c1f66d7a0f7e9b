"""Opens a model; draws renders and sweeps into a folder, each picture written when it is done."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from clipskip.errors import NotFound
from clipskip.image import png_bytes, write_bytes
from clipskip.networks import best_dtype
from clipskip.sample import kept_memory
from clipskip.spec import Render, Request, Skip, render_infotext
from clipskip.sweep.folder import SweepFolder, ensure_writable
from clipskip.sweep.model import Advance, Drawn, Extras, Model
from clipskip.sweep.plan import Sweep, file_name, with_and_without
from clipskip.sweep.resolve import NO_PICTURES, Pictures, check_skip, resolve
from clipskip.sweep.second import calls_of_passes
from clipskip.weights import CheckpointFacts, FileKind, Library, load_checkpoint

STARTER = "starter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """One picture is written."""

    index: int
    """Its place among the renders; of a sweep, row by row."""
    path: Path
    render: Render


def open_model(
    name: str | None = None,
    *,
    hash: str | None = None,
    library: Library | None = None,
    device: str | None = None,
    allow_pickle: bool = False,
) -> Model:
    """The checkpoint of this name, path or hash, ready to draw; the embedded starter when nothing is given.

    A hash says more than a name: the file of that content is taken whatever it is called.
    """
    path = find_model(name, hash=hash, library=library or Library.of_user())
    return load_model(path, device=device, allow_pickle=allow_pickle)


def load_model(
    path: Path, *, device: str | None = None, allow_pickle: bool = False, prediction: str | None = None
) -> Model:
    """The checkpoint in this file, ready to draw; `prediction` (epsilon or v) in the place of what it says."""
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
        )
        return Model(checkpoint, device=place, dtype=dtype)


def find_model(name: str | None, *, hash: str | None, library: Library) -> Path:
    """The checkpoint's file: by hash where one is given and found, else by name."""
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
    pictures: Pictures = NO_PICTURES,
    allow_pickle: bool = False,
) -> tuple[Sweep, Extras]:
    """The guide's grid for this request: the Clip Skips across, without and with its LoRAs down."""
    first = replace(request, clip_skip=skips[0], counted_by=None)
    base, extras = resolve(first, model, library or Library.of_user(), pictures=pictures, allow_pickle=allow_pickle)
    for skip in skips:
        for calls in calls_of_passes(base):
            check_skip(skip, model, calls=calls)
    return Sweep(base=replace(base, loras=()), skips=tuple(skips), rows=with_and_without(base.loras)), extras


def draw_sweep(
    request: Request,
    skips: Sequence[Skip],
    model: Model,
    *,
    folder: Path,
    library: Library | None = None,
    allow_pickle: bool = False,
) -> SweepFolder:
    """Draws the sweep into the folder, with its grid and page; what is there already is kept."""
    sweep, extras = plan_sweep(request, skips, model.facts, library, allow_pickle=allow_pickle)
    into = SweepFolder.create(folder, sweep, model=model.facts)
    for _ in draw_missing(model, into, extras):
        pass
    into.finish()
    return into


def draw_one(
    request: Request,
    model: Model,
    *,
    library: Library | None = None,
    pictures: Pictures = NO_PICTURES,
    allow_pickle: bool = False,
) -> Drawn:
    """One picture: its pixels [height, width, 3] and the render that made them. `pictures` are those to begin at.

    LoRAs and embeddings that are pickles need `allow_pickle`, as the model itself does when it is opened.
    """
    found = library or Library.of_user()
    render, extras = resolve(request, model.facts, found, pictures=pictures, allow_pickle=allow_pickle)
    return next(event for event in model.draw([render], extras) if isinstance(event, Drawn))


def draw_to(
    model: Model, renders: Sequence[Render], extras: Extras, *, folder: Path, previews: bool = False
) -> Iterator[Advance | Saved]:
    """Draws the pictures into a folder; names that are taken there are left alone and a number is added."""
    ensure_writable(folder)

    def write(drawn: Drawn) -> Saved:
        content = png_bytes(drawn.pixels, render_infotext(drawn.render))
        path = save_picture(drawn.render, folder, content=content)
        return Saved(index=drawn.index, path=path, render=drawn.render)

    yield from _written(model.draw(renders, extras, previews=previews), write)


def save_picture(render: Render, folder: Path, *, content: bytes, suffix: str = ".png") -> Path:
    """Write a picture's file under a name that is free, and give its path."""
    path = _unused((folder / file_name(render)).with_suffix(suffix))
    write_bytes(path, content)
    return path


def draw_missing(
    model: Model, folder: SweepFolder, extras: Extras, *, previews: bool = False
) -> Iterator[Advance | Saved]:
    """Draws what the sweep's folder does not have yet, each LoRA row after the other; places count row by row."""
    sweep = folder.sweep
    places = [(r, c) for r in range(len(sweep.rows)) for c in range(len(sweep.skips))]
    missing = []
    for index, (row, column) in enumerate(places):
        if folder.has(row, column):
            yield Saved(index=index, path=folder.place(row, column), render=sweep.cell(row, column))
        else:
            missing.append((index, row, column))
    if missing:
        folder.reopen()

    def write(drawn: Drawn) -> Saved:
        index, row, column = missing[drawn.index]
        return Saved(index=index, path=folder.save(row, column, drawn.pixels), render=drawn.render)

    drawn = model.draw([sweep.cell(r, c) for _, r, c in missing], extras, previews=previews)
    for event in _written(drawn, write):
        if isinstance(event, Advance):
            event = replace(event, indices=tuple(missing[i][0] for i in event.indices))
        yield event


def _written(events: Iterator[Advance | Drawn], write: Callable[[Drawn], Saved]) -> Iterator[Advance | Saved]:
    """Each picture written beside the drawing of the next, and told of when it is whole on disk."""
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
