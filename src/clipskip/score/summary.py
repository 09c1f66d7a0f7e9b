"""The scores of a sweep's cells in; what they come to out: badges of columns, means over seeds, and what is more than chance."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, groupby

from clipskip.advise import KNOWN, MOST_SURE, Evidence, combined
from clipskip.measures import SIGNS as ENOUGH
from clipskip.measures import holm, paired_p
from clipskip.score.cells import ADVISE, CHANGED, KEPT, MOVED, SIGNS, UPTAKE, uptake_name
from clipskip.spec import ClipSkip, LoraRef
from clipskip.sweep import SURE, Badge, Group, Measure, PairedComparison, Summary, Sweep, name_row

GONE = 0.1
"""A LoRA of which less than this share is taken up is called gone."""
MOST_LINES = 12
"""Lines about means; all of them are in the summary's groups."""
Rows = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredSweep:
    """A sweep with its scores."""

    sweep: Sweep
    measures: tuple[Measure, ...]
    cells: Sequence[Sequence[Mapping[str, float]]]
    """By row and column, then by a measure's name."""

    def value(self, row: int, column: int, measure: str) -> float | None:
        """Return a cell's number, where it has one."""
        return self.cells[row][column].get(measure)

    @property
    def groups(self) -> tuple[Rows, ...]:
        """Rows that differ in their seeds alone, together."""
        rows: dict[object, list[int]] = {}
        for row in range(len(self.sweep.rows)):
            rows.setdefault(replace(self.sweep.cell(row, 0), seed=0), []).append(row)
        return tuple(map(tuple, rows.values()))

    @property
    def columns(self) -> range:
        """Places of Clip Skips."""
        return range(len(self.sweep.skips))

    def name(self, rows: Rows) -> str:
        """Return a group's rows in words, without their seeds."""
        point = self.sweep.points[rows[0]] if self.sweep.points else ()
        others = (axis.name(value) for axis, value in point if axis.kind.name != "seed")
        return ", ".join(filter(None, (*others, name_row(self.sweep.rows[rows[0]]))))


def summarize(
    table: ScoredSweep, *, known: Mapping[str, Sequence[Evidence]], depth: int, missing: Sequence[str] = ()
) -> Summary:
    """Return what the scores come to; `known` is what files and weights say of the Clip Skip that each was trained at."""
    badges = (*_trained(table, known, depth=depth), *_gone(table), *_broken(table))
    groups = tuple(_groups(table))
    comparisons = tuple(_comparisons(table, groups))
    lines = (*(_badge_line(table, badge) for badge in badges), *_lines(table, groups, comparisons))
    return Summary(badges=badges, groups=groups, comparisons=comparisons, lines=lines, missing=tuple(missing))


def _trained(table: ScoredSweep, known: Mapping[str, Sequence[Evidence]], *, depth: int) -> Iterator[Badge]:
    for name, evidence in known.items():
        chances = combined(evidence, depth=depth)
        skip = max(chances, key=chances.__getitem__)
        if chances[skip] < KNOWN or ClipSkip(skip) not in table.sweep.skips:
            continue
        source = max((item for item in evidence if item.skip == skip), key=lambda item: item.weight).source
        yield Badge(
            column=table.sweep.skips.index(ClipSkip(skip)),
            kind="trained here",
            about=name,
            value=round(min(chances[skip], MOST_SURE), 4),
            text=f"{name} was trained here, {min(chances[skip], MOST_SURE):.0%} sure: {source}",
        )


def _gone(table: ScoredSweep) -> Iterator[Badge]:
    """Yield a badge for each LoRA and each Clip Skip at which it is not taken up, on the mean over its rows."""
    rows_of: dict[str, list[int]] = {}
    for row, loras in enumerate(table.sweep.rows):
        for ref in loras:
            rows_of.setdefault(ref.name, []).append(row)
    for name, rows in rows_of.items():
        for column in table.columns:
            values = [
                value
                for row in rows
                if (value := table.value(row, column, _uptake_of(name, table.sweep.rows[row]))) is not None
            ]
            if values and (mean := _mean(values)) < GONE:
                yield Badge(
                    column=column,
                    kind="LoRA gone",
                    about=name,
                    value=round(mean, 4),
                    text=f"{name} is gone: {mean:.0%} of what it adds at its own Clip Skip is left",
                )


def _uptake_of(name: str, row: Sequence[LoraRef]) -> str:
    return UPTAKE if len(row) == 1 else uptake_name(name)


def _broken(table: ScoredSweep) -> Iterator[Badge]:
    """Yield the column from which on, to the deepest, at least half of the rows have two of the three signs."""
    ordered = sorted(
        (skip.from_end, column)
        for column, skip in enumerate(table.sweep.skips)
        if isinstance(skip, ClipSkip)
    )  # fmt: skip
    measured = (
        [row for row in range(len(table.sweep.rows)) if table.value(row, ordered[-1][1], SIGNS) is not None]
        if ordered
        else []
    )
    first = None
    still = set(measured)
    for _, column in reversed(ordered):
        still = {row for row in still if (table.value(row, column, SIGNS) or 0) >= ENOUGH}
        if not still or 2 * len(still) < len(measured):
            break
        first = column, sorted(still)
    if first is None:
        return
    column, rows = first
    kept, moved, changed = (
        _mean([value for row in rows if (value := table.value(row, column, name)) is not None])
        for name in (KEPT, MOVED, CHANGED)
    )
    yield Badge(
        column=column,
        kind="broken from here",
        about="",
        value=round(kept, 4),
        text=f"likely to fall apart from here on in {len(rows)} of {len(measured)} rows: {kept:.0%} of the guidance is kept, "
        f"the conditioning has moved by {moved:.0%} and the guessed picture changed by {changed:.0%}",
    )


def _groups(table: ScoredSweep) -> Iterator[Group]:
    for rows in table.groups:
        for measure in table.measures:
            for column in table.columns:
                values = [value for row in rows if (value := table.value(row, column, measure.name)) is not None]
                if values:
                    mean = _mean(values)
                    squares = math.fsum((value - mean) ** 2 for value in values)
                    spread = math.sqrt(squares / (len(values) - 1)) if len(values) > 1 else None
                    yield Group(
                        rows=rows, column=column, measure=measure.name, count=len(values), mean=mean, spread=spread
                    )


def _comparisons(table: ScoredSweep, groups: Sequence[Group]) -> Iterator[PairedComparison]:
    """Yield the best Clip Skip of each measure against every other, on the seeds that both have.

    Which one is the best is seen on the same numbers, so the correction counts all pairs. A measure that is a share of what it
    is at one Clip Skip is compared with that one, which no number has chosen.
    """
    by_name = {measure.name: measure for measure in table.measures if measure.by_seed}
    for (rows, name), several in groupby(groups, key=lambda group: (group.rows, group.measure)):
        columns = {group.column: group for group in several if group.count > 1}
        if name not in by_name or len(columns) < 2:
            continue
        anchor = _anchor(by_name[name], columns.values())
        best = _best(by_name[name], columns.values()).column if anchor is None else anchor
        others = [column for column in columns if column != best]
        pairs = list(combinations(columns, 2)) if anchor is None else [(best, other) for other in others]
        apart = {pair: _differences(table, rows, name, *pair) for pair in pairs}
        apart = {pair: differences for pair, differences in apart.items() if len(differences) > 1}
        chances = [paired_p(differences) for differences in apart.values()]
        for ((one, other), differences), p, corrected in zip(apart.items(), chances, holm(chances), strict=True):
            if best in (one, other):
                yield PairedComparison(
                    rows=rows,
                    measure=name,
                    best=best,
                    other=other if one == best else one,
                    difference=_mean(differences) if one == best else -_mean(differences),
                    seeds=len(differences),
                    p=p,
                    corrected=corrected,
                    more_than_chance=corrected < SURE,
                )


def _best(measure: Measure, several: Iterable[Group]) -> Group:
    return (max if measure.higher_is_better else min)(several, key=lambda group: group.mean)


def _anchor(measure: Measure, several: Iterable[Group]) -> int | None:
    """Return the column that a share of advise is of: there it is 1, or 0, at every seed."""
    if measure.source != ADVISE:
        return None
    own = 1.0 if measure.higher_is_better else 0.0
    return next((group.column for group in several if group.mean == own and not group.spread), None)


def _differences(table: ScoredSweep, rows: Rows, measure: str, best: int, other: int) -> list[float]:
    pairs = ((table.value(row, best, measure), table.value(row, other, measure)) for row in rows)
    return [first - second for first, second in pairs if first is not None and second is not None]


def _badge_line(table: ScoredSweep, badge: Badge) -> str:
    return f"{table.sweep.columns[badge.column]}: {badge.text}."


def _lines(table: ScoredSweep, groups: Sequence[Group], comparisons: Sequence[PairedComparison]) -> Iterator[str]:
    """Yield a line for each group and measure with seeds to compare, or with a score of the picture; the first dozen."""
    told = {measure.name: measure for measure in table.measures if measure.source != ADVISE or measure.by_seed}
    of_group = [
        (table.name(rows), told[name], list(several), [pair for pair in comparisons if (pair.rows, pair.measure) == (rows, name)])
        for (rows, name), several in groupby(groups, key=lambda group: (group.rows, group.measure))
        if name in told
    ]  # fmt: skip
    worth = [line for line in of_group if line[3] or line[1].source != ADVISE]
    yield from (_comparison_line(table, *line) for line in worth[:MOST_LINES])
    if len(worth) > MOST_LINES:
        yield f"{len(worth) - MOST_LINES} more such lines can be made of the manifest's groups and comparisons."


def _comparison_line(
    table: ScoredSweep, rows: str, measure: Measure, several: Sequence[Group], compared: Sequence[PairedComparison]
) -> str:
    anchor = _anchor(measure, several)
    best = _best(measure, several) if anchor is None else next(group for group in several if group.column == anchor)
    spread = "" if best.spread is None else f" ± {_measure_text(best.spread, measure)} over {best.count} seeds"
    where = table.sweep.columns[best.column]
    start = f"{measure.label}, {rows}: best at {where} ({_measure_text(best.mean, measure)}{spread})"
    if not compared:
        return f"{start}; one seed says nothing of chance."
    if anchor is not None:
        start = f"{measure.label}, {rows}, over {best.count} seeds against {where}, of which it is the share"
    sure = [pair for pair in compared if pair.more_than_chance]
    rest = [pair for pair in compared if not pair.more_than_chance]
    said = []
    if sure:
        worst = max(pair.corrected for pair in sure)
        said.append(
            f"the difference is more than chance at {_skip_names(table, sure)} (corrected p {worst:.3g} at most)"
        )
    if rest:
        said.append(f"no more than chance at {_skip_names(table, rest)}")
    return f"{start}: {', '.join(said)}."


def _skip_names(table: ScoredSweep, compared: Sequence[PairedComparison]) -> str:
    return ", ".join(str(table.sweep.skips[pair.other]) for pair in compared)


def _measure_text(value: float, measure: Measure) -> str:
    return f"{value:.0%}" if measure.unit == "share" else f"{value:.4g}"


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
