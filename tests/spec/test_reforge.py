"""reForge's dynamic Clip Skip, call by call as its own loop reads it, as settings texts carry it, and back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipskip.errors import ClipskipError, SpecError
from clipskip.sample import SAMPLERS
from clipskip.spec import ClipSkip, Dialect, StepSkips, from_dialect, parse_skip, request_from_text, to_dialect
from clipskip.spec.reforge import TWO_CALLS, read_dynamic, write_dynamic

CALM = settings(deadline=None, derandomize=True, max_examples=100)


def reforge_ramp(start: int, calls: int) -> list[int]:
    """Its values for each call: one less each time down to 2."""
    return [max(start - call, 2) for call in range(calls)]


def reforge_values(values: list[int], calls: int) -> list[int]:
    """Its values for each call: the list's, within 2 to 12, and then the last."""
    held = [min(max(value, 2), 12) for value in values]
    return [held[min(call, len(held) - 1)] for call in range(calls)]


def by_call(skip: object, calls: int) -> list[float]:
    """What is read at each of the denoiser's calls."""
    over = skip.over(calls)  # type: ignore[attr-defined]  # any Clip Skip
    return [next(layer.from_end for until, layer in over if call <= until) for call in range(calls)]


@CALM
@given(st.integers(2, 12), st.integers(1, 40))
def test_a_ramp_is_read_call_by_call_as_reforge_reads_it(start: int, calls: int) -> None:
    assert by_call(read_dynamic(f"{start}->2", calls=calls), calls) == reforge_ramp(start, calls)


@CALM
@given(st.lists(st.integers(0, 15), min_size=1, max_size=20), st.integers(1, 40))
def test_values_are_read_call_by_call_as_reforge_reads_them_and_written_back(values: list[int], calls: int) -> None:
    skip = read_dynamic(",".join(map(str, values)), calls=calls)
    assert by_call(skip, calls) == reforge_values(values, calls)
    assert by_call(read_dynamic(write_dynamic(skip, calls=calls), calls=calls), calls) == reforge_values(values, calls)
    assert parse_skip(str(skip)) == skip


@pytest.mark.parametrize(
    ("noted", "expected"),
    [
        ("Dynamic clip skip: 4->2, Dynamic clip skip start: 4, Clip skip: 4", "[4>3>2]"),
        ("Dynamic clip skip start: 4", "[4>3>2]"),
        ('Dynamic clip skip schedule: "9,7,4,3,3,3,2", Clip skip: 9', "[9>7>4>3>3>3>2]"),
        ("Dynamic clip skip schedule: 3, Clip skip: 3", "3"),
        ("Dynamic clip skip: 2->2, Clip skip: 2", "2"),
        ("Dynamic clip skip: 12->2, Clip skip: 12", "[12>11>10>9>8>7>6>5]"),
    ],
)
def test_settings_texts_of_reforge_are_read(noted: str, expected: str) -> None:
    asked = request_from_text(f"a frog\nSteps: 8, Sampler: Euler a, CFG scale: 7, {noted}")
    assert (str(asked.clip_skip), asked.unused) == (expected, ())
    assert not isinstance(asked.clip_skip, StepSkips) or asked.clip_skip.check_calls(8)


def test_a_sampler_of_two_calls_a_step_reads_twice_as_many_values() -> None:
    text = "a frog\nSteps: 3, Sampler: DPM++ 2S a Karras, CFG scale: 7, Dynamic clip skip: 12->2, Clip skip: 12"
    assert str(request_from_text(text).clip_skip) == "[12>11>10>9>8>7]"
    assert {sampler.name.casefold() for sampler in SAMPLERS if sampler.order == 2} == TWO_CALLS


def test_settings_that_disagree_with_the_ramp_are_refused() -> None:
    with pytest.raises(SpecError, match="disagree"):
        request_from_text("a frog\nSteps: 8, Sampler: Euler a, CFG scale: 7, Dynamic clip skip: 4->2, Clip skip: 3")


def test_schedules_of_ours_are_written_for_reforge_where_it_can_say_them() -> None:
    assert to_dialect(parse_skip("[4:2:0.5]"), Dialect.REFORGE, calls=6) == "4,4,4,4,2"
    assert to_dialect(parse_skip("[4>3>2]"), Dialect.REFORGE) == "4,3,2"
    assert from_dialect("4->2", Dialect.REFORGE) == parse_skip("[4>3>2]")
    for text in ("[1:2:0.5]", "[2.5:3:0.5]", "[13>2]"):
        with pytest.raises(SpecError, match="whole numbers from 2 to 12"):
            to_dialect(parse_skip(text), Dialect.REFORGE, calls=6)
    with pytest.raises(SpecError, match="number of steps"):
        to_dialect(parse_skip("[4:2:0.5]"), Dialect.REFORGE)
    with pytest.raises(SpecError, match="ComfyUI has no Clip Skip that changes by step"):
        to_dialect(parse_skip("[4>3>2]"), Dialect.COMFYUI)


@pytest.mark.parametrize("text", ["[4>3>2]", "[1.5>2]", "[2>2>3>1]"])
def test_a_clip_skip_for_each_step_reads_back_from_its_text(text: str) -> None:
    assert str(parse_skip(text)) == text and parse_skip(f" {text} ") == parse_skip(text)


def test_values_that_only_go_on_are_left_out() -> None:
    assert str(parse_skip("[4>3>3>3]")) == "[4>3]" and parse_skip("[2>2]") == ClipSkip(2)


def test_more_values_than_a_picture_has_calls_are_an_error() -> None:
    skip = parse_skip("[4>3>2]")
    assert isinstance(skip, StepSkips)
    with pytest.raises(SpecError, match="has 3 values, but this picture has 2 denoiser calls"):
        skip.check_calls(2)


@pytest.mark.parametrize(
    "text", ["4->3", "->2", "9;;x", "4->2->2", "9" * 5000 + "->2", "9," * 10**6, "\x1d,", "1e5,2", ",", "-1,3"]
)
def test_hostile_values_are_read_or_refused_in_few_words(text: str) -> None:
    try:
        assert max(by_call(read_dynamic(text), 300)) <= 12
    except ClipskipError as error:
        assert len(str(error)) < 300


@pytest.mark.parametrize("text", ["[>]", "[1>]", "1>2", "[1>2", "[" + "1>" * 400 + "2]", "[[1:2:3]>2]", "[0>1]", ">"])
def test_what_is_no_clip_skip_for_each_step_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="clip skip"):
        parse_skip(text)
