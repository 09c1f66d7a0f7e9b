"""Brackets to weights, where the recorded cases do not reach."""

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipskip.errors import PromptError
from clipskip.prompt import BREAK
from clipskip.prompt.brackets import parse_attention

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

PROMPTISH = st.text(alphabet="ab ,()[]:.12\\\nBREAK", max_size=40)


@patient
@given(st.text(alphabet="abc ,.\n日ü🐸", max_size=40))
def test_text_without_marks_is_one_piece_of_weight_1(text: str) -> None:
    assert parse_attention(text) == [(text, 1.0)]


@patient
@given(st.text(max_size=30))
def test_escaping_every_mark_gives_the_text_back(text: str) -> None:
    text = text.replace("BREAK", "")
    escaped = "".join(f"\\{letter}" if letter in "()[]:\\" else letter for letter in text)
    assert parse_attention(escaped) == [(text, 1.0)]


@patient
@given(PROMPTISH)
def test_neighbours_never_have_one_weight(text: str) -> None:
    try:
        weights = [weight for _, weight in parse_attention(text)]
    except PromptError:
        return
    assert weights
    assert all(a != b for a, b in pairwise(weights))


@patient
@given(st.text(alphabet="ab ,[]", max_size=20).filter(lambda text: text.count("[") == text.count("]") == 0))
def test_a_weight_multiplies_those_inside_it(text: str) -> None:
    inside = parse_attention(f"({text} (b:1.5))")
    assert parse_attention(f"(({text} (b:1.5)):0.7)") == [(words, weight * 0.7) for words, weight in inside]


def test_square_and_round_brackets_may_cross() -> None:
    assert parse_attention("(a [b) c]") == [("a ", 1.1), ("b", 1.1 * (1 / 1.1)), (" c", 1 / 1.1)]


@pytest.mark.parametrize(("prompt", "number"), [("(a:1.2.3)", "1.2.3"), ("(a:.)", "."), ("x (a:+..5 )", "+..5")])
def test_a_weight_that_is_no_number_is_an_error_that_shows_it(prompt: str, number: str) -> None:
    with pytest.raises(PromptError, match="is not a number") as caught:
        parse_attention(prompt)
    assert repr(number) in str(caught.value)
    assert caught.value.field == "prompt"


def test_such_a_number_is_text_where_no_bracket_is_open() -> None:
    assert parse_attention("a:1.2.3)") == [("a:1.2.3)", 1.0)]


def test_a_bracket_around_break_weighs_it_too() -> None:
    assert parse_attention("(a BREAK b)") == [("a", 1.1), ("BREAK", -1.1), ("b", 1.1)]


def test_break_takes_the_space_around_it() -> None:
    assert parse_attention("a \n BREAK\t b ") == [("a", 1.0), BREAK, ("b ", 1.0)]


def test_a_backslash_before_a_letter_is_dropped() -> None:
    assert parse_attention("\\no \\") == [("no ", 1.0)]


def test_100_000_open_brackets_weigh_as_much_as_float64_can_hold() -> None:
    assert parse_attention("(" * 100_000 + "a") == [("a", float("inf"))]
