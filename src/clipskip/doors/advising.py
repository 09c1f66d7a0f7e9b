"""The advise command: it measures with a progress bar and prints the verdict as text or JSON."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from clipskip.advise import Advice, Answer, Wanted, advise, advise_by_family, whole_skips
from clipskip.doors.advice_text import lines, plain
from clipskip.spec import ClipSkip, Dialect, Family, Request
from clipskip.sweep import Model, find_model, load_model, resolve
from clipskip.weights import Library, read_trainer_config, remember


def run_advise(
    request: Request,
    skips: Sequence[ClipSkip],
    *,
    tool: str,
    images: Path | None,
    base: str | None,
    clip: str | None,
    trainer_config: Path | None,
    folders: Sequence[Path],
    allow_pickle: bool,
    as_json: bool,
    keep: bool = False,
) -> str:
    """Find out which Clip Skip to use, with progress on standard error, and return the answer."""
    dialect = Dialect.parse(tool)
    console, library = Console(stderr=True, highlight=False), Library.of_user(folders)
    path = find_model(request.model, hash=request.model_hash, library=library)
    config = read_trainer_config(trainer_config) if trainer_config else None
    measured = bool(images or base or clip or keep or config)
    settled = advise_by_family(path, request, measured=measured, allow_pickle=allow_pickle)
    if settled is not None:
        return _printed(*settled, tool=dialect, as_json=as_json)
    with console.status("Opening the model"):
        model = load_model(path, allow_pickle=allow_pickle, prediction=request.prediction)
    question = Wanted(
        request=request,
        skips=whole_skips(skips, depth=model.facts.depth),
        images=images,
        base=base,
        config=config,
        clip=clip,
    )
    with Progress(
        TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), console=console, transient=True
    ) as bar:
        task = bar.add_task("Asking the model")

        def tell(rows: int, most: int) -> None:
            bar.update(task, completed=rows, total=most, description=f"{rows} of at most {most} UNet evaluations")

        advice = advise(model, question, library, allow_pickle=allow_pickle, tell=tell)
    if keep:
        _keep(advice, model, request, library, console, allow_pickle=allow_pickle)
    return _printed(advice, model.facts.family, tool=dialect, as_json=as_json)


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


def _printed(advice: Advice, family: Family, *, tool: Dialect, as_json: bool) -> str:
    if as_json:
        return json.dumps(plain(advice, family=family), indent=2, ensure_ascii=False)
    return "\n".join(lines(advice, family=family, tool=tool))
