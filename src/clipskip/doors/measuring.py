"""Measuring a sweep's cells from the command line, with a progress bar and the results in words."""

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from clipskip.doors.terminal import say
from clipskip.errors import printable
from clipskip.score import Scoring, score_sweep
from clipskip.sweep import Extras, Model, SweepFolder


def build_scoring(sources: str | None, clip: str | None) -> Scoring | None:
    """Return what was asked to be measured; a CLIP model alone asks for CLIP scores."""
    names = [name.strip() for name in (sources or "").split(",") if name.strip()]
    if clip and "clip" not in names:
        names.append("clip")
    return Scoring(sources=tuple(dict.fromkeys(names)), clip=clip) if names else None


def measure_sweep(model: Model, folder: SweepFolder, extras: Extras, scoring: Scoring, console: Console) -> bool:
    """Measure cells without a number yet and print the results; False when it was interrupted."""
    columns = (TextColumn("Measuring"), BarColumn(), TextColumn("{task.percentage:.0f}%"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("Measuring", total=None)
        try:
            summary = score_sweep(
                model, folder, extras, scoring, tell=lambda done, most: bar.update(task, completed=done, total=most)
            )
        except KeyboardInterrupt:
            return False
    for line in summary.missing:
        console.print(printable(line), style="yellow", markup=False)
    for line in summary.lines:
        say(line)
    return True
