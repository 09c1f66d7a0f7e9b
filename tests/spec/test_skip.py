"""Clip Skip as a value: what exists, how it is typed, what a sweep's range means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipskip.doors.http.a1111.plot_axes import read_axis
from clipskip.errors import SkipOutOfRange, SpecError
from clipskip.spec import ClipSkip, parse_columns, parse_skips


@pytest.mark.parametrize("number", [0, -1, 0.5, float("nan"), float("inf"), True, None, "2"])
def test_what_is_not_a_layer_is_refused(number: object) -> None:
    with pytest.raises(SkipOutOfRange):
        ClipSkip(number)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("text", ["two", "", "1e9", "0x2", "1.5.2", "nan", "-1", "0"])
def test_what_cannot_be_typed_is_refused(text: str) -> None:
    with pytest.raises(SkipOutOfRange):
        ClipSkip.parse(text)


@pytest.mark.parametrize("number", [13, 12.5, 1e9, 10**30])
def test_deeper_than_the_encoder_names_its_depth(number: float) -> None:
    with pytest.raises(SkipOutOfRange, match="12 layers; use 1 to 12"):
        ClipSkip(number).check(12)


@given(st.integers(1, 12))
def test_every_layer_of_sd1_can_be_typed(number: int) -> None:
    skip = ClipSkip.parse(str(number)).check(12)
    assert (skip.from_end, skip.shallow, skip.deep, str(skip)) == (number, number, number, str(number))


def test_a_fraction_lies_between_two_layers() -> None:
    skip = ClipSkip(1.25)
    assert (skip.shallow, skip.deep, skip.fraction, str(skip)) == (1, 2, 0.25, "1.25")


def test_a_whole_float_is_the_same_skip() -> None:
    assert ClipSkip(2.0) == ClipSkip(2) and hash(ClipSkip(2.0)) == hash(ClipSkip(2)) and str(ClipSkip(2.0)) == "2"


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1-5", [1, 2, 3, 4, 5]), ("2", [2]), ("1,2,4", [1, 2, 4]), ("1-2:0.5, 6", [1, 1.5, 2, 6]), ("2,1-3", [2, 1, 3]),
        ("1-11 (+2)", [1, 3, 5, 7, 9, 11]), ("1-12(+5)", [1, 6, 11]), ("1-5 [3]", [1, 3, 5]), ("1-12", list(range(1, 13))),
        ("1-4 [3]", [1, 2, 4]), ("1-1 [1]", [1]), ("1.5-2.5 [3]", [1.5, 2, 2.5]), ("5-1 (-2)", [5, 3, 1]), ("1-2 (0.5)", [1, 1.5, 2]),
        ("5-1 [3]", [5, 3, 1]), ("1-11 (+2), 2 , 12", [1, 3, 5, 7, 9, 11, 2, 12]),
        ("1..3", [1, 2, 3]), ("1.0..1.3", [1, 1.1, 1.2, 1.3]), ("1..3 (+0.5)", [1, 1.5, 2, 2.5, 3]), ("1||2||4-5", [1, 2, 4, 5]),
        ("SKIP:1-3, 4, SKIP:5", [4]), ("1, 3, .., 11", [1, 3, 5, 7, 9, 11]), ("1,1.5,..,3", [1, 1.5, 2, 2.5, 3]),
        ("12, 9, .., 1", [12, 9, 6, 3, 1]),
    ],
)  # fmt: skip
def test_a_range_reads_as_it_looks(text: str, numbers: list[float]) -> None:
    assert [skip.from_end for skip in parse_skips(text)] == numbers


@pytest.mark.parametrize(
    "text",
    [
        "5-1",
        "1-5:0",
        "1-9999999",
        "1-",
        "a-b",
        "1,,2",
        "1-5 (0)",
        "1-5 (-1)",
        "1-5 [0]",
        "1-5 [9999]",
        "1-5 (+2",
        "1-5 [3",
        "0-3 [2]",
        "SKIP:1",
        "1,2,..",
        "1,..,5",
        "3,2,..,5",
        "1,1.001,..,12",
    ],
)
def test_a_range_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SpecError):
        parse_skips(text)


@pytest.mark.parametrize(
    "text", ["1-5", "2-12", "1-11 (+2)", "1-12 (+3)", "1-5 [3]", "1-4 [3]", "1-12 [5]", "1-12 [7]", "12-1 (-3)"]
)
def test_a1111s_ranges_are_the_same_on_every_axis_of_its_plot(text: str) -> None:
    steps = read_axis(
        [4, text, []], "X", csv_mode=False, fixed_seeds=True
    )  # Steps, read by A1111's rule for whole numbers
    skips = read_axis([22, text, []], "X", csv_mode=False, fixed_seeds=True)
    assert skips.values == steps.values == tuple(skip.from_end for skip in parse_skips(text))
    assert parse_columns(text) == parse_skips(text)
