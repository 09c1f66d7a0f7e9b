"""The scores of a sweep's cells, kept in its manifest with a summary."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from filelock import FileLock, Timeout

from clipskip.errors import DamagedFile, OutputError
from clipskip.image import write_bytes
from clipskip.sweep.manifest import MANIFEST, read_manifest

SURE = 0.05
"""A difference that chance makes less often than this counts as more than chance."""
BadgeKind = Literal["trained here", "LoRA gone", "broken from here"]
CellScores = Mapping[str, Mapping[str, float]]
"""By a cell's id, then by a measure's name."""
LOCK_S = 10
Part = TypeVar("Part")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A quantity with a number in each cell."""

    name: str
    """Its name in the manifest and above a table's column: guidance_kept."""
    label: str
    """Its name in words: guidance kept."""
    unit: str
    """"share" (1 is all of it), "signs", "points", or a plug-in's own unit."""
    higher_is_better: bool
    source: str
    """What measures it: advise, clip, or the name of a plug-in."""
    by_seed: bool = True
    """Whether it differs from seed to seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Badge:
    """A remark on a column."""

    column: int
    kind: BadgeKind
    about: str
    """The model or the LoRA; empty for the prompt."""
    value: float
    """The number that caused it."""
    text: str
    """The number in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The cells of one Clip Skip that differ only in their seeds."""

    rows: tuple[int, ...]
    column: int
    measure: str
    count: int
    mean: float
    spread: float | None
    """The standard deviation over seeds (n - 1); None for one seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedComparison:
    """The best Clip Skip of a measure against another, seed by seed."""

    rows: tuple[int, ...]
    measure: str
    best: int
    """The column of the best mean; of a measure that is a share of what it is at one Clip Skip, that one's."""
    other: int
    difference: float
    """Mean over seeds of best minus other, in the measure's own unit."""
    seeds: int
    p: float
    """How often chance alone makes such a difference."""
    corrected: float
    """The same, corrected for all pairs of Clip Skips that were compared."""
    more_than_chance: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The summary of a sweep's scores."""

    badges: tuple[Badge, ...] = ()
    groups: tuple[Group, ...] = ()
    comparisons: tuple[PairedComparison, ...] = ()
    lines: tuple[str, ...] = ()
    """The summary in words."""
    missing: tuple[str, ...] = ()
    """What could not be measured, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """A manifest's scores."""

    measures: tuple[Measure, ...] = ()
    summary: Summary | None = None


def cell_id(file: str) -> str:
    """Return the id of a cell by its file's name, which ends with it: 12 hex digits that differ when any setting differs."""
    return file.rpartition("/")[2].rpartition("-")[2].partition(".")[0]


def scores_of(manifest: Mapping[str, Any]) -> Scores:  # Any: JSON
    """Return the measures of a manifest and their summary; DamagedFile where they cannot be read."""
    try:
        summary = manifest.get("summary")
        return Scores(
            measures=tuple(Measure(**measure) for measure in manifest.get("measures", ())),
            summary=None if summary is None else _summary(summary),
        )
    except (TypeError, AttributeError, KeyError) as error:
        raise DamagedFile(
            f"the scores in {MANIFEST} cannot be read ({str(error)[:80]}); score the sweep again", field="sweep"
        ) from None


def write_scores(
    folder: Path, *, measures: Sequence[Measure] = (), cells: CellScores | None = None, summary: Summary | None = None
) -> None:
    """Add scores to a folder's manifest; those of other measures and cells stay."""
    for values in (cells or {}).values():
        assert all(math.isfinite(value) for value in values.values()), "a score is a finite number"
    try:
        with changing(folder):
            _write(folder, measures, cells or {}, summary)
    except Timeout:
        raise OutputError(
            f"another process is writing the scores of {folder}; measure again later", field="out"
        ) from None


def _write(folder: Path, measures: Sequence[Measure], cells: CellScores, summary: Summary | None) -> None:
    manifest = read_manifest(folder)
    if manifest is None:
        raise OutputError(
            f"{folder} contains no sweep: its {MANIFEST} is missing or cannot be read; choose the folder of a sweep",
            field="out",
        )
    known = {measure["name"]: measure for measure in manifest.get("measures", ())}
    known |= {measure.name: asdict(measure) for measure in measures}
    if known:
        manifest["measures"] = list(known.values())
    for cell in (cell for row in manifest["cells"] for cell in row):
        if more := cells.get(cell_id(cell["file"])):
            cell["scores"] = cell.get("scores", {}) | dict(more)
    if summary is not None:
        manifest["summary"] = asdict(summary)
    write_bytes(folder / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False).encode())


def changing(folder: Path) -> FileLock:
    """Lock what is kept beside a sweep's pictures while it is read, changed and written."""
    return FileLock(folder / ".clipskip-changing.lock", timeout=LOCK_S)


def _summary(content: Mapping[str, Any]) -> Summary:  # Any: JSON
    return Summary(
        badges=_score_parts(Badge, content["badges"]),
        groups=_score_parts(Group, content["groups"]),
        comparisons=_score_parts(PairedComparison, content["comparisons"]),
        lines=tuple(map(str, content["lines"])),
        missing=tuple(map(str, content["missing"])),
    )


def _score_parts(kind: type[Part], items: Sequence[Mapping[str, Any]]) -> tuple[Part, ...]:  # Any: JSON
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]  # each kind is a dataclass
    parts = []
    for item in items:
        known_fields = {
            name: tuple(value) if isinstance(value, list) else value for name, value in item.items() if name in names
        }
        parts.append(kind(**known_fields))
    return tuple(parts)
