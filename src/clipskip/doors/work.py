"""Commands that draw: open the model, show progress, write pictures, end cleanly on Ctrl-C."""

import signal
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, Task, TextColumn, TimeRemainingColumn

from clipskip.doors.measuring import measure_sweep
from clipskip.doors.terminal import say
from clipskip.errors import SpecError, printable
from clipskip.score import Scoring
from clipskip.spec import Axis, Request, Skip
from clipskip.sweep import (
    GRID,
    NO_PICTURES,
    PAGE,
    Advance,
    Doubt,
    Extras,
    Failed,
    Model,
    Pictures,
    Saved,
    Shard,
    Sweep,
    SweepFolder,
    Worker,
    doubts_of,
    draw_missing,
    draw_to,
    drawing_models,
    find_model,
    finish_folder,
    held,
    kinds,
    load_model,
    merge_folders,
    not_drawn,
    open_model,
    plan_sweep,
    read_workers,
    resolve,
    seeded,
    warnings_of,
)
from clipskip.weights import CheckpointFacts, Library, read_facts

WHOLE = Shard()
OUT = Path("clipskip-out")
SPEED_S = 600.0
"""The last seconds whose speed the time left is reckoned by."""
LOG_S = 60.0
MOST_UNUSED, MOST_SHOWN = 40, 120
"""The most settings that are named as not used, and the most characters of each."""


def run_sweep(
    request: Request,
    skips: tuple[Skip, ...],
    *,
    folders: Sequence[Path],
    allow_pickle: bool,
    out: Path | None,
    yes: bool = False,
    pictures: Pictures = NO_PICTURES,
    axes: Sequence[Axis] = (),
    shard: Shard = WHOLE,
    scoring: Scoring | None = None,
) -> bool:
    """Draw what is missing of the sweep, then its grid and page, then measure it. Returns False if it was
    interrupted."""
    if shard != WHOLE and request.seed == -1:
        raise SpecError("shards of a sweep must agree on its seed; give one with --seed", field="seed")
    console, library = Console(stderr=True, highlight=False), Library.of_user(folders)
    model = _open_model(request, library, console, allow_pickle=allow_pickle)
    sweep, extras = plan_sweep(
        request, skips, model.facts, library, axes=axes, pictures=pictures, allow_pickle=allow_pickle
    )
    _tell_left_out(sweep, console)
    _warn(request, model, extras, console)
    _ask(doubts_of(request, sweep.base, model.facts, extras), console, yes=yes)
    folder = SweepFolder.create(out or OUT / f"sweep-{sweep.key}", sweep, model=model.facts)
    with _stopped_by_sigterm(), held(folder.path) if shard == WHOLE else nullcontext():
        if shard == WHOLE:
            folder.sweep_up()
        failures = _Failures(sweep, console)
        complete = _draw(model, folder, extras, shard, console, failures)
        if complete and scoring is not None and folder.whole:
            complete = measure_sweep(model, folder, extras, scoring, console)
    _tell_end(folder, console, complete=complete)
    failures.end()
    return complete


def _draw(
    model: Model, folder: SweepFolder, extras: Extras, shard: Shard, console: Console, failures: "_Failures"
) -> bool:
    """Draw this process's cells, then the grid and the page; a shard makes those only when the whole sweep is there."""
    pictures = sum(shard.has(folder.sweep.cell(row, column)) for row, column in folder.sweep.places)
    try:
        drawer = drawing_models(
            model, extras, lambda facts: load_model(facts.source.path, allow_pickle=model.allow_pickle)
        )
        events = draw_missing(drawer, folder, extras, shard=shard, failed=failures.cells)
        return _show(failures.told(events), console=console, pictures=pictures)
    finally:
        if shard == WHOLE or folder.whole:
            _finish(folder)


def run_on_ray(
    request: Request,
    skips: tuple[Skip, ...],
    *,
    address: str,
    folders: Sequence[Path],
    allow_pickle: bool,
    out: Path | None,
    pictures: Pictures = NO_PICTURES,
    axes: Sequence[Axis] = (),
    scoring: Scoring | None = None,
) -> bool:
    """Draw a sweep on a Ray cluster; `local` starts one on this machine. Measuring comes after, on this machine.

    Returns False if it was interrupted.
    """
    console, library = Console(stderr=True, highlight=False), Library.of_user(folders)
    _tell_unused(request, console)
    path = find_model(request.model, hash=request.model_hash, library=library)
    facts = read_facts(path, allow_pickle=allow_pickle)
    sweep, extras = plan_sweep(request, skips, facts, library, axes=axes, pictures=pictures, allow_pickle=allow_pickle)
    _tell_left_out(sweep, console)
    doubts = [doubt.text for doubt in doubts_of(request, sweep.base, facts, extras)]
    for text in (*doubts, *warnings_of(request, extras)):
        console.print(printable(text), style="yellow", markup=False)
    folder = SweepFolder.create(out or OUT / f"sweep-{sweep.key}", sweep, model=facts)
    failures = _Failures(sweep, console)
    with held(folder.path), _stopped_by_sigterm():
        folder.sweep_up()
        complete, workers = _draw_on_ray(folder, facts, extras, address, console, failures, allow_pickle=allow_pickle)
        if complete and scoring is not None and folder.whole:
            model = load_model(path, allow_pickle=allow_pickle)
            complete = measure_sweep(model, folder, extras, scoring, console)
    _tell_workers(workers, console)
    _tell_end(folder, console, complete=complete)
    failures.end()
    return complete


def _draw_on_ray(
    folder: SweepFolder,
    facts: CheckpointFacts,
    extras: Extras,
    address: str,
    console: Console,
    failures: "_Failures",
    *,
    allow_pickle: bool,
) -> tuple[bool, Collection[Worker]]:
    """Draw what is missing on the cluster, then the grid and the page. Returns whether it went on to the end, and who drew."""
    from clipskip.sweep.cluster import Tally, draw_on_cluster, plan_for  # Ray takes a second to import

    tally = Tally(failed=failures.cells)
    plan = plan_for(facts, extras, allow_pickle=allow_pickle)
    events = draw_on_cluster(folder, plan, address=None if address == "local" else address, tally=tally)
    pictures, speed = len(folder.sweep.places), partial(_speed, tally.workers)
    try:
        with closing(events):  # type: ignore[type-var]  # a generator
            complete = _show(failures.told(events), console=console, pictures=pictures, speed=speed)
    finally:
        _finish(folder)
    return complete, tally.workers.values()


class _Failures:
    """The cells that could not be drawn: each is printed when it fails, and their number at the end."""

    def __init__(self, sweep: Sweep, console: Console) -> None:
        self.cells = list[Failed]()
        self._sweep, self._console, self._told = sweep, console, 0

    def told(self, events: Iterator[Advance | Saved]) -> Iterator[Advance | Saved]:
        """Pass events on, and print what has failed meanwhile."""
        for event in events:
            self._tell()
            yield event
        self._tell()

    def end(self) -> None:
        """Raise SpecError where cells failed."""
        if self.cells:
            raise not_drawn(self.cells, cells=len(self._sweep.places))

    def _tell(self) -> None:
        for failed in self.cells[self._told :]:
            row, column = failed.place
            name = f"{self._sweep.row_names[row]}, {self._sweep.columns[column]}"
            self._console.print(printable(f"failed: {name}: {failed.reason}"), style="red", markup=False)
        self._told = len(self.cells)


def _speed(workers: Mapping[str, Worker]) -> str:
    """Return the pictures per second of each worker."""
    return " + ".join(f"{worker.per_second:.2f}" for worker in workers.values())


def _tell_workers(workers: Iterable[Worker], console: Console) -> None:
    for worker in sorted(workers, key=lambda worker: worker.name):
        text = f"{worker.name}: {worker.pictures} pictures, {worker.per_second:.2f} a second, {', '.join(worker.kind)}"
        console.print(printable(text), markup=False)


def _tell_kinds(folder: Path, console: Console) -> None:
    """Print what pictures were drawn with, where it is of several kinds."""
    different = kinds(read_workers(folder))
    if len(different) > 1:
        text = f"drawn with {len(different)} kinds of devices or versions, whose pictures may differ in the last bits: "
        console.print(printable(text + "; ".join(different)), style="yellow", markup=False)


def _tell_end(folder: SweepFolder, console: Console, *, complete: bool) -> None:
    """Print what is there now."""
    _tell_kinds(folder.path, console)
    if not complete:
        console.print(printable(f"Stopped. The same command goes on from what is in {folder.path}."), markup=False)
    if folder.page.is_file():
        say(f"grid  {folder.grid.resolve()}")
        say(f"page  {folder.page.resolve()}")
    else:
        places = folder.sweep.places
        there = sum(folder.place(row, column).is_file() for row, column in places)
        say(f"{there} of {len(places)} pictures are in {folder.path.resolve()}")


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Let a batch queue's SIGTERM end the drawing as Ctrl-C does, also where that is ignored, as of a script's `command &`:
    claimed cells are given back."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_merge(into: Path, folders: Sequence[Path]) -> None:
    """Merge folders of one sweep, and make its grid and page."""
    there, count = merge_folders(into, folders)
    finish_folder(into)
    _tell_kinds(into, Console(stderr=True, highlight=False))
    say(f"{there} of {count} pictures")
    say(f"grid  {(into / GRID).resolve()}")
    say(f"page  {(into / PAGE).resolve()}")


def _finish(folder: SweepFolder) -> None:
    """Make the grid and the page of what is drawn, if anything is."""
    if any(folder.path.glob("row*.png")):
        folder.finish()


def run_generate(
    request: Request,
    count: int,
    *,
    folders: Sequence[Path],
    allow_pickle: bool,
    out: Path | None,
    yes: bool = False,
    pictures: Pictures = NO_PICTURES,
) -> bool:
    """Draw `count` pictures with seeds counting up. Returns False if it was interrupted."""
    console, library = Console(stderr=True, highlight=False), Library.of_user(folders)
    model = _open_model(request, library, console, allow_pickle=allow_pickle)
    base, extras = resolve(request, model.facts, library, pictures=pictures, allow_pickle=allow_pickle)
    _warn(request, model, extras, console)
    _ask(doubts_of(request, base, model.facts, extras), console, yes=yes)
    events = draw_to(model, seeded(base, count), extras, folder=out or OUT)
    return _show(events, console=console, pictures=count, tell=True)


def _open_model(request: Request, library: Library, console: Console, *, allow_pickle: bool) -> Model:
    """Open the model that the request names, and print which settings of a settings text are not used."""
    _tell_unused(request, console)
    with console.status("Opening the model"):
        return open_model(request.model, hash=request.model_hash, library=library, allow_pickle=allow_pickle)


def _tell_unused(request: Request, console: Console) -> None:
    if request.unused:
        unused = [printable(f"{name}: {value}" if value else name, limit=MOST_SHOWN) for name, value in request.unused]
        more = f"; and {len(unused) - MOST_UNUSED:,} more" if len(unused) > MOST_UNUSED else ""
        shown = "; ".join(unused[:MOST_UNUSED])
        console.print(f"Not used of these settings: {shown}{more}", style="yellow", markup=False)
    if request.defaulted:
        text = f"Left out of these settings: {', '.join(request.defaulted)}"
        console.print(printable(text), style="yellow", markup=False)


def _tell_left_out(sweep: Sweep, console: Console) -> None:
    for line in sweep.left_out:
        console.print(printable(f"left out: {line}"), style="yellow", markup=False)


def _warn(request: Request, model: Model, extras: Extras, console: Console) -> None:
    doubt = None if request.prediction else model.doubt
    for line in (*warnings_of(request, extras), *([doubt] if doubt else [])):
        console.print(printable(line), style="yellow", markup=False)


def _ask(doubts: Sequence[Doubt], console: Console, *, yes: bool) -> None:
    """Print what is probably a mistake, and ask whether to draw all the same. Raises SpecError unless somebody
    agrees."""
    for doubt in doubts:
        console.print(printable(doubt.text), style="yellow", markup=False)
    if not doubts or yes:
        return
    if not sys.stdin.isatty():
        raise SpecError("nothing was drawn; add --yes to draw all the same", field=doubts[0].field)
    console.print("Draw all the same? [y/N] ", end="", markup=False)
    if input().strip().lower() not in ("y", "yes"):
        raise SpecError("nothing was drawn, as you asked", field=doubts[0].field)


class _Log:
    """A line now and then for a batch queue's log, where no bar is shown."""

    def __init__(self, console: Console) -> None:
        self._console, self._told = console, time.monotonic()

    def tell(self, task: Task) -> None:
        """Print how far it is, unless that was printed a moment ago."""
        if self._console.is_terminal or time.monotonic() - self._told < LOG_S:
            return
        self._told = time.monotonic()
        left = f", about {task.time_remaining / 60:.0f} min left" if task.time_remaining else ""
        self._console.print(f"{task.description}{left}", markup=False)


def _show(
    events: Iterator[Advance | Saved],
    *,
    console: Console,
    pictures: int,
    tell: bool = False,
    speed: Callable[[], str] = str,
) -> bool:
    """Follow the drawing with a progress bar, and the `speed` of those who draw. Returns False if the user stopped it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f}%"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, speed_estimate_period=SPEED_S) as bar:
        task, done = bar.add_task(f"0 of {pictures} pictures", total=float(pictures)), 0
        log = _Log(console)
        try:
            for event in events:
                if isinstance(event, Saved):
                    done += 1
                    each = f", {now} a second" if (now := speed()) else ""
                    bar.update(task, completed=done, description=f"{done} of {pictures} pictures{each}")
                    log.tell(bar.tasks[task])
                    if tell:
                        say(event.path)
                else:
                    for line in dict.fromkeys(event.warnings) if event.step == 1 else ():
                        console.print(printable(line), style="yellow", markup=False)
                    bar.update(task, completed=done + len(event.indices) * event.step / (event.steps + 1))
        except KeyboardInterrupt:
            return False
    return True
