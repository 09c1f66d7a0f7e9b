"""What a sweep's scores come to: groups of seeds, comparisons in pairs, and badges of columns with the number that made them."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from spec.test_table import changed

from clipskip.advise.files import Evidence
from clipskip.score.cells import measures_of
from clipskip.score.summary import ScoredSweep, summarize
from clipskip.spec import Axis, ClipSkip, LoraRef
from clipskip.spec.table import PICTURE
from clipskip.sweep import Measure, Sweep

BASE = replace(changed(PICTURE[0]), seed=1)
OGRE = LoraRef(name="ogre", hash="0123456789ab")
CLIP = Measure(name="clip_score", label="CLIP score", unit="points", higher_is_better=True, source="clip")
SEEDS = (1, 2, 3, 4)
SAID = Evidence(about="tiny", source="its hash", skip=2, weight=0.97, doubt="none")


def sweep_of(seeds: Sequence[int] = SEEDS, *, rows: Sequence[tuple[LoraRef, ...]] = ((), (OGRE,))) -> Sweep:
    """Clip Skip 1 to 3 across; every row at each seed."""
    axis = Axis.parse(f"seed={','.join(map(str, seeds))}")
    variants = [replace(BASE, seed=seed) for seed in seeds for _ in rows]
    return Sweep(
        base=BASE,
        skips=tuple(map(ClipSkip, (1, 2, 3))),
        rows=tuple(row for _ in seeds for row in rows),
        variants=tuple(variants),
        points=tuple(((axis, one.seed),) for one in variants),
        axes=(axis,),
        loras=(OGRE,),
    )


def table_of(sweep: Sweep, measures: Sequence[Measure], value: Callable[[int, int, str], float | None]) -> ScoredSweep:
    cells = [
        [
            {one.name: found for one in measures if (found := value(row, column, one.name)) is not None}
            for column in range(len(sweep.skips))
        ]
        for row in range(len(sweep.rows))
    ]
    return ScoredSweep(sweep=sweep, measures=tuple(measures), cells=cells)


def test_rows_that_differ_in_their_seed_alone_are_one_group_with_mean_and_spread() -> None:
    numbers = np.random.default_rng(0).normal(30, 1, (8, 3))
    table = table_of(sweep_of(), [CLIP], lambda row, column, _: float(numbers[row, column]))
    summary = summarize(table, known={}, depth=12)
    assert {group.rows for group in summary.groups} == {(0, 2, 4, 6), (1, 3, 5, 7)}
    for group in summary.groups:
        values = numbers[list(group.rows), group.column]
        assert (group.count, group.mean) == (4, pytest.approx(values.mean()))
        assert group.spread == pytest.approx(values.std(ddof=1))


def test_the_best_clip_skip_is_compared_in_pairs_and_corrected_for_all_of_them() -> None:
    numbers = np.random.default_rng(3).normal(30, 0.2, (8, 3)) + np.array([0, 3, 0.1])
    table = table_of(sweep_of(), [CLIP], lambda row, column, _: float(numbers[row, column]))
    summary = summarize(table, known={}, depth=12)
    ours = [one for one in summary.comparisons if one.rows == (0, 2, 4, 6)]
    values = numbers[[0, 2, 4, 6]]
    assert {(one.best, one.other) for one in ours} == {(1, 0), (1, 2)}
    pairs = [(0, 1), (0, 2), (1, 2)]
    chances = [stats.ttest_rel(values[:, a], values[:, b]).pvalue for a, b in pairs]
    for one in ours:
        at = pairs.index((min(one.best, one.other), max(one.best, one.other)))
        assert one.p == pytest.approx(chances[at]) and one.seeds == 4
        rank = sorted(chances).index(chances[at])
        assert one.corrected == pytest.approx(
            max((3 - n) * p for n, p in enumerate(sorted(chances)[: rank + 1])), rel=1e-9
        )
        assert one.difference == pytest.approx((values[:, 1] - values[:, one.other]).mean())
        assert one.more_than_chance == (one.corrected < 0.05)
    (line,) = [line for line in summary.lines if line.startswith("CLIP score, without LoRA")]
    assert "best at Clip Skip 2" in line and "the difference is more than chance at 1, 3" in line


def test_of_one_seed_nothing_is_compared_and_that_is_said() -> None:
    table = table_of(sweep_of([1]), [CLIP], lambda row, column, _: 30.0 + column)
    summary = summarize(table, known={}, depth=12)
    assert summary.comparisons == () and all(group.spread is None for group in summary.groups)
    assert summary.lines[0] == "CLIP score, without LoRA: best at Clip Skip 3 (32); one seed says nothing of chance."


def test_a_measure_that_does_not_depend_on_the_seed_is_not_compared() -> None:
    measures = measures_of(["ogre"])
    table = table_of(sweep_of(), measures, lambda row, column, _: 0.2 * row + column)
    compared = {one.measure for one in summarize(table, known={}, depth=12).comparisons}
    assert compared == {"guidance_kept", "picture_changed", "lora_uptake"}


def test_a_share_is_compared_with_the_clip_skip_that_it_is_of() -> None:
    apart = np.random.default_rng(1).normal(0, 0.01, (8, 3))

    def value(row: int, column: int, name: str) -> float | None:
        return {"guidance_kept": 1.0 if column == 1 else (1.2, 1, 0.6)[column] + float(apart[row, column])}.get(name)

    summary = summarize(table_of(sweep_of(), measures_of([]), value), known={}, depth=12)
    ours = [one for one in summary.comparisons if one.rows == (0, 2, 4, 6)]
    assert [(one.best, one.other, one.more_than_chance) for one in ours] == [(1, 0, True), (1, 2, True)]
    chances = [stats.ttest_1samp(1.2 + apart[[0, 2, 4, 6], 0] - 1, 0).pvalue]
    assert ours[0].p == pytest.approx(chances[0])
    assert max(one.corrected for one in ours) == pytest.approx(
        max(max(one.p for one in ours), 2 * min(one.p for one in ours))
    )
    assert (
        "over 4 seeds against Clip Skip 2, of which it is the share: the difference is more than chance at 1, 3"
        in summary.lines[0]
    )


def test_cells_without_a_number_are_left_out() -> None:
    table = table_of(sweep_of(), [CLIP], lambda row, column, _: None if row < 2 and column == 0 else 30 + row + column)
    summary = summarize(table, known={}, depth=12)
    counts = {(group.rows, group.column): group.count for group in summary.groups}
    assert counts[(0, 2, 4, 6), 0] == 3 and counts[(0, 2, 4, 6), 1] == 4
    assert {one.seeds for one in summary.comparisons if one.other == 0} == {3}


NUMBERS = {
    "guidance_kept": (0.9, 1.0, 0.3),
    "conditioning_moved": (0.4, 0.0, 1.2),
    "picture_changed": (0.5, 0.0, 0.8),
    "broken_signs": (0, 0, 2),
    "lora_uptake": (0.8, 1.0, 0.04),
}


def test_badges_say_the_number_that_made_them() -> None:
    def value(row: int, column: int, name: str) -> float | None:
        return None if name == "lora_uptake" and not row % 2 else NUMBERS[name][column]

    table = table_of(sweep_of(), measures_of(["ogre"]), value)
    badges = {badge.kind: badge for badge in summarize(table, known={"tiny": [SAID], "ogre": []}, depth=12).badges}
    trained, gone, broken = badges["trained here"], badges["LoRA gone"], badges["broken from here"]
    assert (trained.column, trained.about, trained.value) == (1, "tiny", 0.97) and "its hash" in trained.text
    assert (gone.column, gone.about, gone.value) == (2, "ogre", 0.04) and "4% of what it adds" in gone.text
    assert (broken.column, broken.value) == (2, 0.3)
    assert "8 of 8 rows: 30% of the guidance is kept" in broken.text and "moved by 120%" in broken.text


def test_a_column_is_not_broken_where_a_deeper_one_is_sound_or_most_rows_are() -> None:
    def with_signs(signs: Callable[[int, int], int]) -> set[str]:
        table = table_of(
            sweep_of(),
            measures_of([]),
            lambda row, column, name: signs(row, column) if name == "broken_signs" else 0.5,
        )
        return {badge.kind for badge in summarize(table, known={}, depth=12).badges}

    assert with_signs(lambda row, column: 2 if column == 1 else 0) == set()
    assert with_signs(lambda row, column: 2 if column == 2 and row < 3 else 0) == set()
    assert with_signs(lambda row, column: 3 if column == 2 and row < 4 else 0) == {"broken from here"}
