import math

import numpy as np
import pytest

from clipskip.measures.chances import chances, spread_out


def test_two_columns_have_the_chance_that_the_normal_distribution_gives_them() -> None:
    rng = np.random.default_rng(0)
    common, gaps = rng.normal(size=(400, 1)), rng.normal(0.05, 1, size=400)
    found = chances(np.hstack([common, common + gaps[:, None]]))
    z = gaps.mean() / (gaps.std() / 20)
    expected = 0.5 * (1 + math.erf(z / 2**0.5))
    # 4000 draws know a chance to 0.008; a bootstrap of 400 is normal to about 0.01
    assert found[0] == pytest.approx(expected, abs=0.03)
    assert found.sum() == pytest.approx(1)


def test_how_hard_a_picture_is_for_all_alike_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(20, 3))
    assert np.allclose(chances(scores), chances(scores + 100 * rng.normal(size=(20, 1))), atol=1e-3)


def test_the_even_sequence_begins_as_van_der_corput_s() -> None:
    assert [spread_out(n) for n in range(6)] == [0, 0.5, 0.25, 0.75, 0.125, 0.625]
