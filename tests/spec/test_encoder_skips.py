"""A Clip Skip for each of SDXL's two encoders: as typed, as value, in settings texts, as the depths allow it."""

import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipskip.errors import ClipskipError, SkipOutOfRange, SpecError
from clipskip.spec import (
    ClipSkip,
    EncoderSkip,
    EncoderSkips,
    FileRef,
    PhraseSkip,
    Render,
    Skip,
    SkipSchedule,
    check_depths,
    parse_columns,
    parse_skip,
    parse_skips,
    render_infotext,
    request_from_text,
    skip_for,
)

CALM = settings(deadline=None, derandomize=True, max_examples=100)
SDXL = (12, 32)
LAYERS = (st.integers(1, 12) | st.floats(1, 12)).map(ClipSkip)
ONE: st.SearchStrategy[EncoderSkip] = LAYERS | st.builds(
    lambda two, when: SkipSchedule(skips=two, when=when), st.tuples(LAYERS, LAYERS), st.integers(1, 40)
)
SKIPS: st.SearchStrategy[Skip] = st.builds(EncoderSkips.of, ONE, ONE)
RENDER = Render(prompt="a frog", model=FileRef(name="m"))


def pair(left: float, right: float) -> Skip:
    return EncoderSkips.of(ClipSkip(left), ClipSkip(right))


@pytest.mark.parametrize(
    ("text", "expected", "canonical"),
    [
        ("2", ClipSkip(2), "2"),
        ("2/2", ClipSkip(2), "2"),
        ("L=2,G=2", ClipSkip(2), "2"),
        ("2/5", pair(2, 5), "2/5"),
        (" 2 / 5 ", pair(2, 5), "2/5"),
        ("L=2,G=5", pair(2, 5), "2/5"),
        ("g=5, l=2", pair(2, 5), "2/5"),
        ("L=2/G=5", pair(2, 5), "2/5"),
        ("clip_l=2,clip_g=5", pair(2, 5), "2/5"),
        ("1.5/32", pair(1.5, 32), "1.5/32"),
        ("2.0/5", pair(2, 5), "2/5"),
        ("[1:2:0.5]/5", EncoderSkips.of(parse_skip("[1:2:0.5]"), ClipSkip(5)), "[1:2:0.5]/5"),  # type: ignore[arg-type]  # no pair
        ("L=[1|2],G=[1:2:3]", EncoderSkips.of(parse_skip("[1|2]"), parse_skip("[1:2:3]")), "[1|2]/[1:2:3]"),  # type: ignore[arg-type]  # no pairs
    ],
)
def test_two_encoders_are_typed_in_every_form(text: str, expected: Skip, canonical: str) -> None:
    assert parse_skip(text) == expected and str(parse_skip(text)) == canonical


@CALM
@given(SKIPS)
def test_every_pair_reads_back_from_its_text(skip: Skip) -> None:
    assert parse_skip(str(skip)) == skip


@CALM
@given(SKIPS, st.integers(40, 60))
def test_a_pair_is_at_each_step_what_its_encoders_are(skip: Skip, calls: int) -> None:
    begun = 0
    for until, read in skip.over(calls):
        for number in (0, 1):
            alone = next(one for end, one in skip_for(skip, number).over(calls) if begun <= end)
            assert skip_for(read, number) == alone
        begun = until + 1
    assert until == calls


def test_one_number_is_both_encoders() -> None:
    assert skip_for(ClipSkip(2), 0) == skip_for(ClipSkip(2), 1) == ClipSkip(2)
    assert (skip_for(pair(2, 5), 0), skip_for(pair(2, 5), 1)) == (ClipSkip(2), ClipSkip(5))


def test_a_pair_of_equals_has_one_value() -> None:
    with pytest.raises(SpecError, match="give that number once"):
        EncoderSkips(l=ClipSkip(2), g=ClipSkip(2))


@pytest.mark.parametrize(
    "text", ["2/", "/2", "1/2/3", "L=2", "L=2,L=3", "L=2,X=3", "X=1,G=2", "=,=", "L=2,G=", "0/2", "2/0", "L=2 G=5", "/"]
)
def test_what_names_no_two_encoders_is_refused(text: str) -> None:
    with pytest.raises(SkipOutOfRange, match="clip skip"):
        parse_skip(text)


@pytest.mark.parametrize("text", ["1", "12", "2/5", "12/32", "1/32", "1.5/31.5", "[1:12:0.5]/[32|1]"])
def test_sdxl_has_12_and_32_layers(text: str) -> None:
    assert check_depths(parse_skip(text), SDXL) == parse_skip(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "13",
            "13 is deeper than the 12 layers of CLIP-L; use 1 to 12 for both encoders, or give each its own: L=2,G=5",
        ),
        ("12.5", "12.5 is deeper than the 12 layers of CLIP-L"),
        ("13/2", "13 is deeper than the 12 layers of CLIP-L; use 1 to 12$"),
        ("2/33", "33 is deeper than the 32 layers of OpenCLIP-bigG; use 1 to 32$"),
        ("2/[1:40:0.5]", "40 is deeper than the 32 layers of OpenCLIP-bigG"),
        ("1" + "0" * 30, r"1e\+30 is deeper than the 12 layers of CLIP-L"),
    ],
)
def test_what_an_encoder_has_not_names_the_encoder_and_its_depth(text: str, said: str) -> None:
    with pytest.raises(SkipOutOfRange, match=said):
        check_depths(parse_skip(text), SDXL)


def test_a_model_of_one_encoder_takes_no_pair() -> None:
    with pytest.raises(
        SkipOutOfRange, match="2/5 is for two text encoders, and this model has one; use one number, 1 to 24"
    ):
        check_depths(pair(2, 5), [24])
    assert check_depths(ClipSkip(24), [24]) == ClipSkip(24)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1-2,2/5", ["1", "2", "2/5"]),
        ("L=2,G=5,3", ["2/5", "3"]),
        ("3, G=5, L=2", ["3", "2/5"]),
        ("2/1-4", ["2/1", "2", "2/3", "2/4"]),
        ("L=1-2,G=4-5", ["1/4", "1/5", "2/4", "2/5"]),
        ("[1:2:0.5]/3,2/[1|2]", ["[1:2:0.5]/3", "2/[1|2]"]),
        ("2/2,2", ["2"]),
    ],
)
def test_the_columns_of_a_sweep_may_be_pairs(text: str, expected: list[str]) -> None:
    assert [str(skip) for skip in parse_columns(text)] == expected


def test_a_phrase_may_have_a_pair_of_its_own() -> None:
    expected = PhraseSkip(phrase="red frog", skip=pair(2, 5))
    assert PhraseSkip.parse("red frog=2/5") == PhraseSkip.parse("Red frog = L=2,G=5") == expected
    assert PhraseSkip.parse(str(expected)) == expected
    assert PhraseSkip.parse("a=b=2/5").phrase == "a=b"


@CALM
@given(SKIPS, SKIPS)
def test_settings_texts_keep_a_pair(skip: Skip, negative: Skip) -> None:
    render = replace(RENDER, clip_skip=skip, negative_clip_skip=negative)
    asked = request_from_text(render_infotext(render))
    assert (asked.clip_skip, asked.negative_clip_skip, asked.unused) == (skip, negative, ())


def test_settings_texts_keep_a_whole_number_for_a1111() -> None:
    text = render_infotext(replace(RENDER, clip_skip=pair(2.5, 5), phrase_skips=(PhraseSkip.parse("frog=2/3"),)))
    assert "Clip skip: 2, Clip skip per encoder: 2.5/5, " in text
    assert request_from_text(text).phrase_skips == (PhraseSkip.parse("frog=2/3"),)


def test_settings_that_disagree_on_the_pair_are_refused() -> None:
    text = "a frog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Clip skip: 3, Clip skip per encoder: 2/5"
    with pytest.raises(SpecError, match="disagree"):
        request_from_text(text)


def test_pairs_are_part_of_a_renders_key_and_leave_other_keys_alone() -> None:
    keys = {replace(RENDER, clip_skip=skip).key for skip in (ClipSkip(2), pair(2, 5), pair(5, 2), pair(2, 6))}
    assert len(keys) == 4 and RENDER.at(ClipSkip(2)).key == "37adb1b36050"


@pytest.mark.parametrize("parse", [parse_skip, parse_skips, parse_columns, PhraseSkip.parse])
@pytest.mark.parametrize(
    "text",
    [
        "\x1d", "\x1d2", "2\x1d", 
        "[\x1d1:2:3]", "[1:2:\x1d]", "\x00", "1" * 400, "1" * 400 + "-" + "1" * 400, "[1:2:" + "9" * 150 + "]",
        "1-2" + " " * 100_000 + "x", 
        "1" * 100_000 + "x", "=" * 100_000, "/" * 100_000, "L=1," * 50_000, "a=" * 50_000 + "l=1,g=2",
        "٣", "²",
        "1_0", "1e5", "nan", "inf", "-inf", "1-3:" + "0" * 400, "1/" * 3 + "[", 
        "[[[[[[[[[]/[", "l=[1:2:3],g", "-", "1--2", "1-1000/1-1000",
    ],
)  # fmt: skip
def test_hostile_text_is_answered_at_once(parse: object, text: str) -> None:
    began = time.process_time()
    try:
        parse(text)  # type: ignore[operator]  # one of the four above
    except ClipskipError as error:
        assert len(str(error)) < 400
    assert time.process_time() - began < 1


@CALM
@given(st.text(alphabet="12.[]:|/=,LGg- \x1d\n", max_size=60))
def test_any_text_is_a_clip_skip_or_our_error(text: str) -> None:
    for parse in (parse_skip, parse_columns, PhraseSkip.parse):
        try:
            parse(text)
        except ClipskipError as error:
            assert "clip skip" in str(error).lower()


@pytest.mark.parametrize(
    "number",
    [10**400, -(10**400), 1e308, "2" * 5000, [10**5000], {}, b"2", 2 + 0j],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_is_no_clip_skip_is_refused_in_few_words(number: object) -> None:
    with pytest.raises(SkipOutOfRange) as caught:
        ClipSkip(number).check(12)  # type: ignore[arg-type]  # wrong on purpose
    assert len(str(caught.value)) < 200 and "12" in str(caught.value)
