"""Axes as users of A1111's plot and SwarmUI's grid write them."""

import pytest

from clipskip.errors import SpecError
from clipskip.spec import Axis, combinations


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("seed=5", (5,)),
        ("seed=1-4", (1, 2, 3, 4)),
        ("seed=4-1", (4, 3, 2, 1)),
        ("seed=1-9 (+2)", (1, 3, 5, 7, 9)),
        ("seed=1-10 [4]", (1, 4, 7, 10)),
        ("seed=1-10 [5]", (1, 3, 5, 7, 10)),
        ("negative-clip-skip=1-11 (+5)", ("1", "6", "11")),
        ("negative-clip-skip=1-5 [3]||2/5||[1:2:0.5]||SKIP:4", ("1", "3", "5", "2/5", "[1:2:0.5]")),
        ("Seed = 1, 3-5, 1", (1, 3, 4, 5)),
        ("cfg=1-3", (1.0, 2.0, 3.0)),
        ("cfg=2..3", (2.0, 3.0)),
        ("lora-weight=0.2..1.0", (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)),
        ("lora_weight=0.25, 0.5, .., 1.5", (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)),
        ("cfg=1-2 [3]", (1.0, 1.5, 2.0)),
        ("cfg=-1 - 1", (-1.0, 0.0, 1.0)),
        ("steps=10||20||SKIP:30", (10, 20)),
        ("sampler=Euler a, DPM++ 2M", ("Euler a", "DPM++ 2M")),
        ("lora-weight=99999999999999999999,1e-3,0.0000001", (1e20, 0.001, 1e-7)),
        ("sampler=DPM++ 2M, SDE||", ("DPM++ 2M, SDE",)),
        ("prompt=red frog, tall||owl", ("red frog, tall", "owl")),
    ],
)
def test_values_as_users_write_them(text: str, values: tuple[object, ...]) -> None:
    axis = Axis.parse(text)
    assert axis.values == values
    assert Axis.parse(str(axis)) == axis, "its text form reads back"


@pytest.mark.parametrize(
    "text",
    [
        "seed", "seeds=1", "seed=", "seed=1.5", "seed=x", "cfg=nan", "cfg=1-2 (+0)", "seed=1-99999999", "seed=..", "seed=1,..,5",
        "seed=1,1,..,5", "cfg=5,4,..,9", "seed=SKIP:1", "steps=1-2-3", "seed=\x1d1", "cfg=1e400",
        "negative-clip-skip=0", "negative-clip-skip=", "clip-skip=1-5",
    ],
)  # fmt: skip
def test_what_is_no_axis_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="axis"):
        Axis.parse(text)


def test_combinations_change_the_last_axis_first() -> None:
    axes = [Axis.parse("seed=1-2"), Axis.parse("cfg=3,5")]
    assert [[value for _, value in pairs] for pairs in combinations(axes)] == [[1, 3.0], [1, 5.0], [2, 3.0], [2, 5.0]]
    assert combinations([]) == [()]


def test_too_many_combinations_and_doubled_axes_are_refused() -> None:
    with pytest.raises(SpecError, match="combinations"):
        combinations([Axis.parse("seed=1-5000"), Axis.parse("cfg=1-5")])
    with pytest.raises(SpecError, match="twice"):
        combinations([Axis.parse("seed=1"), Axis.parse("seed=2")])
