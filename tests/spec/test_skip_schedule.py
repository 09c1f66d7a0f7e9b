"""A Clip Skip that changes by step, and one for a phrase: as typed, as value, as A1111's editing reads it."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipskip.errors import SkipOutOfRange, SpecError
from clipskip.prompt.edits import parse_schedule
from clipskip.spec import ClipSkip, FileRef, PhraseSkip, Render, Skip, SkipSchedule, parse_columns, parse_skip

CALM = settings(deadline=None, derandomize=True, max_examples=100)
LAYERS = (st.integers(1, 12) | st.floats(1, 12)).map(ClipSkip)
WHENS = st.integers(1, 40) | st.floats(0.001, 0.999)
SKIPS: st.SearchStrategy[Skip] = st.recursive(
    LAYERS,
    lambda inner: (
        st.builds(lambda two, when: SkipSchedule(skips=two, when=when), st.tuples(inner, inner), WHENS)
        | st.lists(inner, min_size=2, max_size=3).map(lambda some: SkipSchedule(skips=tuple(some)))
    ),
    max_leaves=5,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2", [(10, 2)]),
        ("[1:2:0.5]", [(5, 1), (10, 2)]),
        ("[1:2.5:3]", [(3, 1), (10, 2.5)]),
        ("[[1:2:3]:4:6]", [(3, 1), (6, 2), (10, 4)]),
        ("[ 1 : 2 : .5 ]", [(5, 1), (10, 2)]),
    ],
)
def test_a_schedule_of_skips_is_written_as_a1111_writes_edits(text: str, expected: list[tuple[int, float]]) -> None:
    assert parse_skip(text).over(10) == tuple((until, ClipSkip(n)) for until, n in expected)


@CALM
@given(SKIPS, st.integers(1, 60))
def test_every_schedule_changes_at_the_calls_at_which_the_same_edit_of_a_prompt_does(skip: Skip, calls: int) -> None:
    edits = parse_schedule(str(skip), calls)
    assert [(until, str(one)) for until, one in skip.over(calls)] == edits


@CALM
@given(SKIPS)
def test_every_clip_skip_reads_back_from_its_text(skip: Skip) -> None:
    text = str(skip)
    if len(text) <= 200:
        assert parse_skip(text) == skip


@pytest.mark.parametrize(
    "text", ["[1:2]", "[2:0.5]", "two", "[1:0:0.5]", "[1::0.5]", "[1]", "[]", "[", "[1:2:.]", "[1|2", "[1|2:0.5]", "1]"]
)
def test_a_schedule_with_what_is_no_skip_in_it_is_an_error(text: str) -> None:
    with pytest.raises(SkipOutOfRange, match="clip skip"):
        parse_skip(text)


@pytest.mark.parametrize("when", ["0", "0.0", "1.0", "2.5", "0.0001"])
def test_a_change_is_a_share_below_1_or_a_step(when: str) -> None:
    with pytest.raises(SpecError, match="give a share"):
        parse_skip(f"[1:2:{when}]")


@pytest.mark.parametrize("text", ["[" * 100_000, "[1|" * 100_000 + "2"])
def test_a_hostile_schedule_is_refused_at_once(text: str) -> None:
    with pytest.raises(SpecError, match="at most 200 are read"):
        parse_skip(text)


@pytest.mark.parametrize("text", ["[1:2:40]", "[1:2:9]", "[1:2:0.01]", "[1|2|3]"])
def test_a_schedule_of_which_a_picture_never_reads_a_part_is_an_error(text: str) -> None:
    skip = parse_skip(text)
    assert isinstance(skip, SkipSchedule)
    with pytest.raises(SpecError, match=r"never reaches .* calls"):
        skip.check_calls(3 if "|" in text else 10)


def test_a_schedule_that_a_picture_reads_whole_is_itself() -> None:
    skip = parse_skip("[1:2:8]")
    assert isinstance(skip, SkipSchedule) and skip.check_calls(10) is skip and skip.check(2) is skip


def test_a_schedule_with_a_layer_that_the_encoder_has_not_names_it() -> None:
    with pytest.raises(SkipOutOfRange, match="13 is deeper than this encoder's 12 layers"):
        parse_skip("[1:[2|13]:0.5]").check(12)


def test_a_schedule_knows_its_first_layer_and_all_of_them() -> None:
    skip = parse_skip("[[3:1:2]:[1|4.5]:6]")
    assert skip.first == ClipSkip(3) and skip.parts == (ClipSkip(3), ClipSkip(1), ClipSkip(4.5))


def test_the_columns_of_a_sweep_may_be_schedules() -> None:
    columns = parse_columns("1-2, [1:2:0.5],[1|2],2,3-4:0.5")
    assert [str(one) for one in columns] == ["1", "2", "[1:2:0.5]", "[1|2]", "3", "3.5", "4"]


def test_a_phrase_and_its_skip_are_typed_with_an_equals_sign() -> None:
    assert PhraseSkip.parse(" Red  FROG = 4") == PhraseSkip(phrase="red frog", skip=ClipSkip(4))
    assert str(PhraseSkip.parse("a=b=[1:2:0.5]")) == "a=b=[1:2:0.5]"


@pytest.mark.parametrize(
    ("text", "said"), [("red frog", "no clip skip"), ("=4", "without words"), ("frog=0", "0"), ("frog=", "''")]
)
def test_a_phrase_without_words_or_skip_is_an_error(text: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        PhraseSkip.parse(text)


def test_a_phrase_has_one_skip_and_there_are_not_too_many() -> None:
    render = Render(prompt="a", model=FileRef(name="m"))
    with pytest.raises(SpecError, match="'frog' has 2 clip skips"):
        replace(render, phrase_skips=(PhraseSkip.parse("frog=2"), PhraseSkip.parse("Frog=3")))
    with pytest.raises(SpecError, match="use at most 32"):
        replace(render, phrase_skips=tuple(PhraseSkip.parse(f"frog {n}=2") for n in range(33)))


def test_schedules_and_phrases_are_part_of_a_renders_key() -> None:
    render = Render(prompt="a", model=FileRef(name="m"))
    changes = [
        {"clip_skip": parse_skip("[1:2:0.5]")},
        {"clip_skip": parse_skip("[1:2:5]")},
        {"negative_clip_skip": parse_skip("[1|2]")},
        {"phrase_skips": (PhraseSkip.parse("a=2"),)},
        {"phrase_skips": (PhraseSkip.parse("a=3"),)},
        {},
    ]
    assert len({replace(render, **change).key for change in changes}) == len(changes)
