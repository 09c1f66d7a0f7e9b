"""Answers about sweeps, as JSON."""

from collections.abc import Collection, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from clipskip.errors import ClipskipError
from clipskip.spec import Axis, ClipSkip, LoraRef, Skip
from clipskip.sweep import (
    ENDED,
    GRID,
    PAGE,
    Job,
    Marks,
    Measure,
    Record,
    Studio,
    Summary,
    Worker,
    drawing_now,
    seconds_left,
)

State = Literal["queued", "running", "done", "cancelled", "failed", "interrupted"]
JobState = Literal["none", "queued", "running", "done", "cancelled", "failed"]
CellState = Literal["waiting", "drawing", "done", "failed"]


class View(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(extra="forbid")


class ErrorView(View):
    """Why something was refused or failed."""

    detail: str
    field: str | None
    """The setting at fault, if there is one."""


class OpenAIErrorView(View):
    """The same, where OpenAI's clients look for it."""

    message: str
    param: str | None
    type: Literal["invalid_request"] = "invalid_request"


class RefusalView(ErrorView):
    """The answer to every refused request."""

    error: OpenAIErrorView
    errors: list[ErrorView]
    """Every reason; `detail` has all of them in one text, and `field` is the first one's."""

    @classmethod
    def of(cls, detail: str, field: str | None = None, *, errors: Sequence[ErrorView] = ()) -> "RefusalView":
        """Return the refusal for this reason, or for several."""
        return cls(
            detail=detail,
            field=field,
            error=OpenAIErrorView(message=detail, param=field),
            errors=list(errors) or [ErrorView(detail=detail, field=field)],
        )


class LoraView(View):
    """A LoRA at its strengths."""

    name: str
    text_encoder: float
    unet: float
    hash: str


class ModelView(View):
    """The checkpoint of a sweep."""

    name: str
    hash: str
    family: str | None
    depth: int | None
    trained_clip_skip: int | None


class ColumnView(View):
    """A Clip Skip: a number, or the text of a schedule such as [1:2:0.5]."""

    clip_skip: int | float | str
    label: str


class AxisView(View):
    """A setting that a sweep varies besides Clip Skip."""

    name: str
    """The name as it is typed: lora-weight."""
    label: str
    """The text before a value, as in LoRA 0.8; empty where values speak for themselves."""
    values: list[int | float | str]


class RowView(View):
    """The LoRAs of a row, and its values of the axes."""

    name: str
    loras: list[LoraView]
    values: dict[str, int | float | str]
    """By the axis' name. Left out is an axis that does not apply to the row, such as the weight of a row without
    LoRA."""


class CellView(View):
    """One picture of a sweep."""

    id: str
    """12 hex digits that differ when any setting differs."""
    state: CellState
    step: int
    steps: int
    image: str | None
    thumbnail: str | None
    settings: str | None
    scores: dict[str, float]
    """By the name of the measure, for those that have been measured."""


class WorkerView(View):
    """A process outside this server that draws a sweep: of a cluster, or one of several shares."""

    name: str
    """Host and process."""
    device: str
    pictures: int
    per_second: float


class SummaryView(View):
    """A sweep without its cells."""

    id: str
    name: str
    """The name that somebody gave it; empty where nobody did."""
    state: State
    created: str
    prompt: str
    negative_prompt: str
    seed: int
    settings: str
    model: ModelView
    columns: list[ColumnView]
    rows: list[RowView]
    done: int
    total: int
    progress: float
    eta_s: float | None
    workers: list[WorkerView]
    """Who else draws it now; then its state is running, and it cannot be cancelled here."""
    error: ErrorView | None
    grid: str | None
    page: str | None
    manifest: str
    thumbnail: str | None
    """The picture of the winner, else of a starred cell, else the last one."""
    stars: int


class SweepView(SummaryView):
    """A sweep."""

    axes: list[AxisView]
    left_out: list[str]
    """Combinations of the axes' values that cannot be drawn, and why."""
    measures: list[Measure]
    """What the cells' scores measure."""
    summary: Summary | None
    """The result of the measures; null if nothing is measured."""
    cells: list[list[CellView]]


class StartedView(SweepView):
    """A sweep that has just been started."""

    warnings: list[str]
    """What is odd about its files: another hash than the settings name, LoRA weights that fit nothing."""


class AdviceView(View):
    """The progress of an advice job, and its result."""

    state: JobState
    progress: float
    eta_s: float | None
    error: ErrorView | None
    advice: dict[str, Any] | None
    """The same as `advise --json` prints."""


class DoubtView(View):
    """Something that is probably a mistake, and is drawn all the same."""

    field: str
    """The setting that it is about."""
    text: str


class CheckView(View):
    """A sweep as it would be planned."""

    doubts: list[DoubtView]
    left_out: list[str]
    """Combinations of the axes' values that cannot be drawn, and why."""
    columns: list[ColumnView]
    axes: list[AxisView]
    pictures: int
    width: int
    height: int


class SweepsView(View):
    """Sweeps, the newest first."""

    sweeps: list[SummaryView]


def view_sweep(record: Record, studio: Studio) -> SweepView:
    """Return a sweep with its cells."""
    job = studio.queue.find(record.id)
    drawn = _drawn_view(record, job)
    width = len(record.skips)
    rows = [range(start, start + width) for start in range(0, len(record.cells) * width, width)]
    cells = [[view_cell(record, job, place, drawn=drawn) for place in row] for row in rows]
    summary_view = _summary(record, job, drawn, studio.history.shown_marks(record))
    measures, summary = list(record.scores.measures), record.scores.summary
    return SweepView(
        **dict(summary_view),
        axes=view_axes(record.axes),
        left_out=list(record.left_out),
        measures=measures,
        summary=summary,
        cells=cells,
    )


def view_summary(record: Record, studio: Studio) -> SummaryView:
    """Return a sweep without its cells."""
    job = studio.queue.find(record.id)
    return _summary(record, job, _drawn_view(record, job), studio.history.shown_marks(record))


def _drawn_view(record: Record, job: Job | None) -> Collection[int]:
    """Return the places of the cells that are done."""
    return set(job.done) if job and job.state == "running" else record.drawn


def view_cell(record: Record, job: Job | None, place: int, *, drawn: Collection[int]) -> CellView:
    """Return one cell by its place, row by row; `drawn` are the places of those that are done."""
    row, column = divmod(place, len(record.skips))
    cell, steps = record.cells[row][column], record.request.steps
    running = job is not None and job.state == "running"
    step, of = job.steps.get(place, (0, steps)) if job else (0, steps)
    done = place in drawn
    image = _image(record, place) if done else None
    state: CellState = "done" if done else "drawing" if running and step else "waiting"
    if job and job.state == "failed" and not done and step:
        state = "failed"
    return CellView(
        id=cell.id,
        state=state,
        step=of if done else step if state == "drawing" else 0,
        steps=of,
        image=image,
        thumbnail=image,
        settings=cell.settings if done else None,
        scores=dict(cell.scores),
    )


def _image(record: Record, place: int) -> str:
    row, column = divmod(place, len(record.skips))
    return f"/v1/sweeps/{record.id}/cells/{row}/{column}.png"


def _summary(record: Record, job: Job | None, drawn: Collection[int], marks: Marks) -> SummaryView:
    done, total = len(drawn), len(record.flat)
    asked, base = record.request, f"/v1/sweeps/{record.id}"
    workers = () if done == total or (job and job.state not in ENDED) else drawing_now(record.folder)
    state: State = "running" if workers else job.state if job else "done" if done == total else "interrupted"
    columns = zip(record.skips, record.labels, strict=True)
    return SummaryView(
        id=record.id,
        name=marks.name,
        state=state,
        created=record.created,
        prompt=asked.prompt,
        negative_prompt=asked.negative_prompt,
        seed=asked.seed,
        settings=record.settings,
        model=_model_view(record),
        columns=[ColumnView(clip_skip=skip_json(skip), label=label) for skip, label in columns],
        rows=[
            RowView(name=name, loras=[view_lora(lora) for lora in loras], values=dict(values))
            for (name, loras), values in zip(record.rows, record.values, strict=True)
        ],
        done=done,
        total=total,
        progress=job.share if job and state == "running" and not workers else done / total,
        eta_s=seconds_left(workers, total - done) if workers else job.eta_s if job else None,
        workers=[view_worker(worker) for worker in workers],
        error=view_error(job.error) if job and job.error else None,
        grid=f"{base}/grid.png" if record.has(GRID) else None,
        page=f"{base}/page.html" if record.has(PAGE) else None,
        manifest=f"{base}/manifest.json",
        thumbnail=_thumbnail(record, drawn, marks),
        stars=len(marks.stars),
    )


def _thumbnail(record: Record, drawn: Collection[int], marks: Marks) -> str | None:
    """Return the path of the picture that stands for a sweep."""
    cells, stars = record.flat, marks.stars

    def rank(place: int) -> tuple[bool, bool, int]:
        id = cells[place].id
        return id == marks.winner, id in stars, place

    return _image(record, max(drawn, key=rank if marks.ids else None)) if drawn else None


def _model_view(record: Record) -> ModelView:
    return ModelView(
        name=record.request.model or "",
        hash=record.request.model_hash or "",
        family=record.model_family,
        depth=record.model_depth,
        trained_clip_skip=record.model_trained_clip_skip,
    )


def view_axes(axes: Sequence[Axis]) -> list[AxisView]:
    """Return what a sweep varies besides Clip Skip."""
    return [
        AxisView(name=axis.kind.name, label=axis.kind.label or axis.kind.title, values=list(axis.values))
        for axis in axes
    ]


def view_lora(lora: LoraRef) -> LoraView:
    """Return a LoRA at its strengths."""
    return LoraView(name=lora.name, text_encoder=lora.text_encoder, unet=lora.unet, hash=lora.hash)


def view_worker(worker: Worker) -> WorkerView:
    """Return a process that draws elsewhere."""
    return WorkerView(
        name=worker.name, device=worker.device, pictures=worker.pictures, per_second=round(worker.per_second, 4)
    )


def view_error(error: ClipskipError) -> ErrorView:
    """Return an error with the setting at fault."""
    return ErrorView(detail=str(error), field=error.field)


def skip_json(skip: Skip) -> int | float | str:
    """Return a number, or a schedule's text."""
    return skip.from_end if isinstance(skip, ClipSkip) else str(skip)
