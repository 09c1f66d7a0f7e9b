"""The advise command: it measures with a progress bar and prints the verdict as text or JSON."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from clipskip.advise import Advice, Answer, Wanted, advise, advise_by_family, whole_skips
from clipskip.doors.advice_text import advice_json, lines
from clipskip.errors import SpecError
from clipskip.spec import ClipSkip, Dialect, Family, Request
from clipskip.sweep import Model, find_model, load_model, resolve
from clipskip.weights import Library, read_trainer_config, remember


@dataclass(frozen=True, slots=True, kw_only=True)
class AdviseOptions:
    """The options of the advise command."""

    request: Request
    skips: tuple[ClipSkip, ...]
    """The layers to compare."""
    dialect: Dialect
    """The tool whose numbers the answer is in."""
    images: Path | None
    """A folder of pictures with captions."""
    base: str | None
    """The checkpoint that the model was made from."""
    clip: str | None
    """The CLIP model to score pictures with."""
    trainer_config: Path | None
    keep: bool
    """Whether later pictures use the answer."""
    plot: Path | None
    """The SVG file to draw epochs into."""
    folders: tuple[Path, ...]
    allow_pickle: bool
    as_json: bool


@contextmanager
def progress_of(console: Console, most: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar while the model is asked, and give the function that moves it. `most` is "at most " where it may end early."""
    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("Asking the model")

        def tell(rows: int, total: int) -> None:
            bar.update(task, completed=rows, total=total, description=f"{rows} of {most}{total} UNet evaluations")

        yield tell


def open_asked(options: AdviseOptions, path: Path, console: Console) -> Model:
    """Open the model that is asked about."""
    with console.status("Opening the model"):
        return load_model(path, allow_pickle=options.allow_pickle, prediction=options.request.prediction)


def run_advise(options: AdviseOptions) -> str:
    """Find out which Clip Skip to use, with progress on standard error, and return the answer."""
    if options.plot is not None:
        raise SpecError("--out draws the epochs of a LoRA; give several of one with --lora", field="out")
    request, allow_pickle = options.request, options.allow_pickle
    console, library = Console(stderr=True, highlight=False), Library.of_user(options.folders)
    path = find_model(request.model, hash=request.model_hash, library=library)
    config = read_trainer_config(options.trainer_config) if options.trainer_config else None
    measured = bool(options.images or options.base or options.clip or options.keep or config)
    settled = advise_by_family(path, request, measured=measured, allow_pickle=allow_pickle)
    if settled is not None:
        return _printed(options, *settled)
    model = open_asked(options, path, console)
    wanted = Wanted(
        request=request,
        skips=whole_skips(options.skips, depth=model.facts.depth),
        images=options.images,
        base=options.base,
        config=config,
        clip=options.clip,
    )
    with progress_of(console, "at most ") as tell:
        advice = advise(model, wanted, library, allow_pickle=allow_pickle, tell=tell)
    if options.keep:
        _keep(advice, model, request, library, console, allow_pickle=allow_pickle)
    return _printed(options, advice, model.facts.family)


def _keep(
    advice: Advice, model: Model, request: Request, library: Library, console: Console, *, allow_pickle: bool
) -> None:
    """Keep the answer for later pictures of this checkpoint with these LoRAs, unless it is not known."""
    verdict = advice.verdict
    if verdict.answer is Answer.NOT_KNOWN:
        console.print("Nothing is kept, because it is not known what these files were trained at", style="yellow")
        return
    _, extras = resolve(request, model.facts, library, allow_pickle=allow_pickle)
    path = remember(model.facts.source, extras.loras, clip_skip=verdict.skip, sure=verdict.sure, why=verdict.text)
    console.print(f"Kept for pictures without a Clip Skip, in {path}", markup=False, soft_wrap=True)


def _printed(options: AdviseOptions, advice: Advice, family: Family) -> str:
    if options.as_json:
        return json.dumps(advice_json(advice, family=family), indent=2, ensure_ascii=False)
    return "\n".join(lines(advice, family=family, tool=options.dialect))
