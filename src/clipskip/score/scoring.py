"""A sweep's folder and an open model in; a number for each cell and measure, in its manifest, out.

Besides what `advise` measures of each row, scores look at finished pictures: a CLIP model of the user's, or a plug-in. A package
has one by an entry point of the group `clipskip.scores` whose object, called without arguments, gives a `Score`.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clipskip.advise import Evidence, combined, evidence_of_checkpoint, evidence_without_drawing
from clipskip.errors import ClipskipError, NotFound, SpecError
from clipskip.measures import Scorer
from clipskip.score.cells import ADVISE, SIGNS, References, measure_row, measures_of, row_rows, same_to_model
from clipskip.score.summary import ScoredSweep, summarize
from clipskip.spec import ClipSkip, EncoderSkips, FileRef, LoraRef, Render
from clipskip.sweep import (
    Extras,
    Measure,
    Model,
    Summary,
    Sweep,
    SweepFolder,
    cell_id,
    load_model,
    pixels_of,
    read_manifest,
    write_scores,
)
from clipskip.weights import CheckpointFacts

GROUP, CLIP = "clipskip.scores", "clip"
SAVE_S = 5.0
"""Seconds between writes of what is found so far."""


class Score(Protocol):
    """A scorer of finished pictures. If it fails, only that number is lost."""

    @property
    def label(self) -> str:
        """The name in words: "aesthetic score"."""

    @property
    def unit(self) -> str:
        """Return what a number counts: "points", or "share" where 1 is all of it."""

    @property
    def higher_is_better(self) -> bool:
        """Return whether a higher number is a better picture."""

    def __call__(self, picture: NDArray[np.uint8], prompt: str) -> float:
        """Return the number of a picture [height, width, 3] that was drawn from this prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """The measures to take of a sweep."""

    sources: tuple[str, ...]
    """advise, clip, and names of plug-ins."""
    clip: str | None = None
    """A CLIP model, as a folder or by its name on a hub."""

    def __post_init__(self) -> None:
        known = available(clip=self.clip)
        strange = next((name for name in self.sources if name not in known), None)
        if strange == CLIP:
            raise SpecError("CLIP scores need a CLIP model; name its folder with --clip", field="scores")
        if strange is not None:
            raise SpecError(f"score {strange[:60]!r} is not here; use {', '.join(known)}", field="scores")


def available(*, clip: str | None = None) -> tuple[str, ...]:
    """Return the names of what can be measured here."""
    plugins = sorted(entry.name for entry in entry_points(group=GROUP))
    return (ADVISE, *([CLIP] if clip else ()), *plugins)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClipScore:
    """The CLIP score as a Score."""

    scorer: Scorer
    label: str = "CLIP score"
    unit: str = "points"
    higher_is_better: bool = True

    def __call__(self, picture: NDArray[np.uint8], prompt: str) -> float:
        """100 max(cosine, 0) of the two."""
        return float(self.scorer.score([picture], [prompt])[0, 0])


def score_sweep(
    model: Model,
    folder: SweepFolder,
    extras: Extras,
    wanted: Scoring,
    *,
    open: Callable[[CheckpointFacts], Model] | None = None,
    tell: Callable[[int, int], None] = lambda done, most: None,
) -> Summary:
    """Measure what the folder's manifest does not have yet, write it there and into the page with its summary, and give that.

    What cannot be measured is named in the summary's `missing`. Pictures are only read. `open` opens the other models of a sweep
    over several, one after the other; without it they are read from their files. `tell` hears of UNet evaluations and
    pictures as they are done, and how many there may be; where it raises, what is found so far is kept.
    """
    keeper = _Keeper(folder, wanted, tell)
    loras = _all_loras(folder.sweep)
    advised = ADVISE in wanted.sources or any(measure.source == ADVISE for measure in keeper.measures)
    known = evidence_without_drawing(model, replace(folder.sweep.base, loras=loras), extras) if advised else {}
    if advised:
        known |= {ref.name: tuple(evidence_of_checkpoint(facts)) for ref, facts in extras.models.items()}
    try:
        if ADVISE in wanted.sources:
            _score_rows(_Models(model, extras, open), keeper, extras, known, loras=loras)
        for name in wanted.sources:
            if name != ADVISE:
                _score_pictures(keeper, name)
    finally:
        keeper.save()
    grid = [[keeper.cells.get(id, {}) for id in row] for row in keeper.ids]
    table = ScoredSweep(sweep=folder.sweep, measures=keeper.measures, cells=grid)
    summary = summarize(table, known=known, depth=model.facts.depth, missing=keeper.missing)
    write_scores(folder.path, summary=summary)
    if folder.page.is_file():  # the page has the scores in itself
        folder.finish()
    return summary


class _Keeper:
    """The scores of the cells so far, and the progress."""

    def __init__(self, folder: SweepFolder, wanted: Scoring, tell: Callable[[int, int], None]) -> None:
        self.folder, self.wanted, self._tell = folder, wanted, tell
        manifest = read_manifest(folder.path) or {}
        self.measures = tuple(Measure(**measure) for measure in manifest.get("measures", ()))
        cells = manifest.get("cells", ())
        self.ids = [[cell_id(cell["file"]) for cell in row] for row in cells]
        self.cells: dict[str, dict[str, float]] = {
            cell_id(cell["file"]): dict(cell.get("scores", {})) for row in cells for cell in row
        }
        self.missing: list[str] = []
        self._done, self._saved_at = 0, time.monotonic()
        self._fresh: dict[str, dict[str, float]] = {}
        columns = len(folder.sweep.skips)
        pictures = len(folder.sweep.places) * sum(name != ADVISE for name in wanted.sources)
        rows = sum(row_rows(folder.sweep.cell(row, 0), columns=columns) for row in self.rows_to_ask())
        self._total = max(1, pictures + rows * (ADVISE in wanted.sources))

    def rows_to_ask(self) -> list[int]:
        """Return the rows of which a cell has no numbers of advise yet, one of each kind that is the same to it."""
        sweep, rows = self.folder.sweep, dict[Render, int]()
        for row in range(len(sweep.rows)):
            measurable = [c for c, skip in enumerate(sweep.skips) if isinstance(skip, ClipSkip | EncoderSkips)]
            if any(SIGNS not in self.cells[self.ids[row][column]] for column in measurable):
                rows.setdefault(same_to_model(sweep.cell(row, 0)), row)
        return list(rows.values())

    def add_measures(self, measures: Sequence[Measure]) -> None:
        """Know what numbers come."""
        known = {measure.name: measure for measure in (*self.measures, *measures)}
        self.measures = tuple(known.values())

    def put(self, id: str, values: Mapping[str, float]) -> None:
        """Take a cell's numbers, and write what is new every few seconds."""
        self.cells.setdefault(id, {}).update(values)
        self._fresh.setdefault(id, {}).update(values)
        if time.monotonic() - self._saved_at > SAVE_S:
            self.save()

    def count(self, more: int) -> None:
        """Tell of so many more."""
        self._done = min(self._total, self._done + more)
        self._tell(self._done, self._total)

    def save(self) -> None:
        """Write what is new."""
        if self._fresh:
            write_scores(self.folder.path, measures=self.measures, cells=self._fresh)
        self._fresh, self._saved_at = {}, time.monotonic()


class _Models:
    """The models of a sweep's rows; of those besides the first, one is open at a time."""

    def __init__(self, first: Model, extras: Extras, open: Callable[[CheckpointFacts], Model] | None) -> None:
        self.first, self._extras, self._open = first, extras, open or self._read
        self._other: Model | None = None

    def facts(self, ref: FileRef) -> CheckpointFacts:
        """Return the facts of a row's model."""
        return self.first.facts if ref == self.first.facts.ref else self._extras.models[ref]

    def of(self, ref: FileRef) -> Model:
        """Return a row's model, open."""
        if ref == self.first.facts.ref:
            return self.first
        if self._other is None or self._other.facts.ref != ref:
            self._other = None
            self._other = self._open(self._extras.models[ref])
        return self._other

    def _read(self, facts: CheckpointFacts) -> Model:
        return load_model(facts.source.path, allow_pickle=self.first.allow_pickle)


def _score_rows(
    models: _Models,
    keeper: _Keeper,
    extras: Extras,
    known: Mapping[str, Sequence[Evidence]],
    *,
    loras: Sequence[LoraRef],
) -> None:
    """Take the measures of advise, once for rows that are equal to it."""
    sweep, depth = keeper.folder.sweep, models.first.facts.depth
    own = {ref.hash: _best(known[ref.name], depth) for ref in loras}
    keeper.add_measures(measures_of([ref.name for ref in loras]))
    alike: dict[Render, list[int]] = {}
    for row in range(len(sweep.rows)):
        alike.setdefault(same_to_model(sweep.cell(row, 0)), []).append(row)
    for first in sorted(keeper.rows_to_ask(), key=lambda row: sweep.cell(row, 0).model.name):
        render = sweep.cell(first, 0)
        facts = models.facts(render.model)
        references = References(model=_best(known[facts.ref.name], facts.depth), loras=own)
        try:
            model = models.of(facts.ref)
            measured = measure_row(model, render, extras, skips=sweep.skips, references=references, tell=keeper.count)
        except ClipskipError as error:
            name = sweep.row_names[first]
            keeper.missing.append(f"{name}: guidance, LoRA uptake and breakage are not measured: {error}")
            continue
        for other in alike[same_to_model(render)]:
            for column, skip in enumerate(sweep.skips):
                if skip in measured:
                    keeper.put(keeper.ids[other][column], measured[skip])
    schedules = [str(skip) for skip in sweep.skips if not isinstance(skip, ClipSkip | EncoderSkips)]
    if schedules:
        keeper.missing.append(
            f"{', '.join(schedules)}: a Clip Skip that changes over the steps has no one set of numbers"
        )


def _score_pictures(keeper: _Keeper, name: str) -> None:
    """Score the pictures that are there."""
    measure_name, folder = "clip_score" if name == CLIP else name, keeper.folder
    waiting = [
        (row, column)
        for row, column in folder.sweep.places
        if measure_name not in keeper.cells[keeper.ids[row][column]]
    ]
    if not waiting:
        return
    try:
        score = _open_score(name, clip=keeper.wanted.clip)
        measure = _measure(score, name=measure_name, source=name)
    except Exception as error:  # whatever a plug-in raises, the pictures are there
        keeper.missing.append(f"{name}: cannot be opened: {_words(error)}")
        return
    keeper.add_measures([measure])
    failed: Counter[str] = Counter()
    for row, column in waiting:
        place = folder.place(row, column)
        keeper.count(1)
        if not place.is_file():
            failed["not drawn"] += 1
            continue
        try:
            value = float(score(pixels_of(place), folder.sweep.cell(row, column).prompt))
        except Exception as error:  # as above
            failed[_words(error)] += 1
            continue
        if math.isfinite(value):
            keeper.put(keeper.ids[row][column], {measure_name: value})
        else:
            failed[f"it gave {value}"] += 1
    for why, count in failed.items():
        keeper.missing.append(f"{name}: no number for {count} of {len(waiting)} pictures: {why}")


def _measure(score: Score, *, name: str, source: str) -> Measure:
    return Measure(
        name=name,
        label=str(score.label),
        unit=str(score.unit),
        higher_is_better=bool(score.higher_is_better),
        source=source,
    )


def _all_loras(sweep: Sweep) -> tuple[LoraRef, ...]:
    """Return each LoRA of the sweep once, at the strength that it was asked for."""
    return tuple({ref.hash: ref for row in (*sweep.rows, sweep.loras) for ref in row}.values())


def _open_score(name: str, *, clip: str | None) -> Score:
    if name == CLIP:
        assert clip is not None
        return ClipScore(scorer=Scorer.open(clip))
    plugin = next(iter(entry_points(group=GROUP, name=name)), None)
    if plugin is None:
        raise NotFound(f"no installed package has the score {name!r}", field="scores")
    opened: Callable[[], Score] = plugin.load()
    return opened()


def _best(evidence: Sequence[Evidence], depth: int) -> int:
    chances = combined(evidence, depth=depth)
    return max(chances, key=chances.__getitem__)


def _words(error: Exception) -> str:
    text = str(error).splitlines()[0][:200] if str(error) else ""
    return text if isinstance(error, ClipskipError) else f"{type(error).__name__}: {text}"
