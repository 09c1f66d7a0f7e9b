"""Whether a difference over seeds is more than chance, beside SciPy."""

import numpy as np
import pytest
from scipy import stats

from clipskip.measures.chances import holm, paired_p


@pytest.mark.parametrize(("count", "t"), [(2, 12.706), (3, 4.303), (5, 2.776), (11, 2.228)])
def test_students_table_has_its_points_at_five_percent(count: int, t: float) -> None:
    shape = np.arange(count) - (count - 1) / 2  # of mean 0, and moved until its t is the table's
    differences = shape + t * shape.std(ddof=1) / count**0.5
    assert paired_p(differences.tolist()) == pytest.approx(
        0.05, abs=5e-5
    )  # half a thousandth of t, by twice the density


@pytest.mark.parametrize("seeds", [2, 3, 4, 9])
def test_p_is_that_of_scipys_paired_t_test(seeds: int) -> None:
    numbers = np.random.default_rng(seeds)
    one, other = numbers.normal(size=seeds), numbers.normal(0.5, size=seeds)
    assert paired_p((one - other).tolist()) == pytest.approx(stats.ttest_rel(one, other).pvalue, abs=1e-12)


def test_differences_that_are_all_alike_are_judged_by_their_signs() -> None:
    assert paired_p([0.1] * 4) == 0.125 == stats.binomtest(4, 4).pvalue
    assert paired_p([0.0, 0.0]) == 1


def test_seeds_that_differ_by_chance_alone_are_called_more_than_chance_as_often_as_said() -> None:
    numbers = np.random.default_rng(0)
    called = 0
    for _ in range(400):
        columns = numbers.normal(size=(4, 5))
        pairs = [(columns[:, a] - columns[:, b]).tolist() for a in range(5) for b in range(a)]
        called += min(holm([paired_p(pair) for pair in pairs])) < 0.05
    assert called / 400 <= 0.05 + 2 * 0.011  # Holm's promise, and two standard errors of 400 draws


def test_holms_correction_is_the_one_of_his_paper() -> None:
    # worked by hand: 4 * 0.005, 3 * 0.01, 2 * 0.03, and the last not below the one before it
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1] and holm([]) == []
