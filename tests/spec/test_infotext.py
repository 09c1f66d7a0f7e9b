"""Infotexts as A1111 reads and writes them; expected values were made with A1111's own reader."""

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipskip.errors import SpecError
from clipskip.spec import Infotext, format_infotext, parse_infotext, quote, with_defaults

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "infotext.json").read_text("utf-8"))

CALM = settings(deadline=None, derandomize=True, max_examples=100)

GUIDE = """You can see how it varies. Clip Skip 1-5

Positive Prompt: best quality, highest detail, 8k, swamp, fireflies, Shrek, reeds

Negative Prompt: mutated, deformed, amateur drawing

Steps: 30, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 512x512, Model hash: 69528490df, Model: anything-v4.0-pruned

Shrek Lora; https://example.org/models/16615
"""


@pytest.mark.parametrize("case", GOLDEN["parse"], ids=lambda case: repr(case["infotext"][:40]))
def test_a_text_is_read_as_a1111_reads_it(case: dict[str, object]) -> None:
    found = parse_infotext(str(case["infotext"]))
    assert (found.prompt, found.negative_prompt) == (case["prompt"], case["negative_prompt"])
    assert dict(found.fields) == case["fields"] and list(found.fields) == list(case["fields"])  # type: ignore[call-overload]  # JSON


@pytest.mark.parametrize("case", [case for case in GOLDEN["parse"] if "clip_skip_after_default" in case], ids=repr)
def test_a_text_is_filled_in_as_a1111_fills_it_in(case: dict[str, str]) -> None:
    found = with_defaults(parse_infotext(case["infotext"]))
    assert found.fields["Clip skip"] == case["clip_skip_after_default"]
    assert found.prompt == case["prompt_after_full_parse"]


@pytest.mark.parametrize(("value", "expected"), GOLDEN["quote"])
def test_a_value_is_quoted_as_a1111_quotes_it(value: object, expected: object) -> None:
    assert quote(value) == expected


@pytest.mark.parametrize("case", GOLDEN["parse"], ids=lambda case: repr(case["infotext"][:40]))
def test_every_text_comes_back_from_its_parts(case: dict[str, str]) -> None:
    parts = parse_infotext(case["infotext"])
    assert parse_infotext(format_infotext(parts)) == parts


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("ab: 1, cd: 2, ef: 3, Size: 5x7", {"ab": "1", "cd": "2", "ef": "3", "Size-1": "5", "Size-2": "7"}),
        ('ab: "unclosed, cd: 2, ef: 3', {"ab": '"unclosed', "cd": "2", "ef": "3"}),
        (r'ab: "bad \x json", cd: 2, ef: 3', {"ab": r'"bad \x json"', "cd": "2", "ef": "3"}),
        ('ab: , cd: "", ef: 3, gh: 4', {"cd": "", "ef": "3", "gh": "4"}),
        ("x: 9, ab: 1, cd: 2, ef: 3", {"ab": "1", "cd": "2", "ef": "3"}),
        ("ab: 1:2, cd-e/f: 2, - ef : 3", {"ab": "1:2", "cd-e/f": "2", "ef ": "3"}),
        ("ab: 1, ab: 2, AB: 3", {"ab": "2", "AB": "3"}),
        ('ab: "a" b, cd: 2, ef: 3', {"ab": '"a" b', "cd": "2", "ef": "3"}),
        ("ключ: да, 键值: 三, ef: 3", {"ключ": "да", "键值": "三", "ef": "3"}),
        ("nothing here, ab: 1, cd: 2, ef: 3,", {"ab": "1", "cd": "2", "ef": "3"}),
    ],
)
def test_the_corners_of_the_grammar(line: str, fields: dict[str, str]) -> None:
    assert parse_infotext(f"a cat\n{line}").fields == fields


SLOW_PAIR = re.compile(
    r"""\s*(?P<key>\w[\w \-/]+):\s*(?P<value>"(?:\\.|[^\\"])+"|[^,]*)(?:,|$)""",
)
"""The grammar in one regular expression, which takes quadratic time: the reader's independent reference."""


@CALM
@given(st.text(alphabet='aA é-/:, "\\\t_1x', max_size=60))
def test_pairs_are_those_of_the_grammar(line: str) -> None:
    from clipskip.spec.infotext import _pairs

    assert list(_pairs(line)) == [(m["key"], m["value"]) for m in SLOW_PAIR.finditer(line)]


@pytest.mark.parametrize("piece", ["a", "a ", "a: ", 'ab: "', 'ab: "\\"', "ab:", ",", 'ab: "x', "é-/"])
def test_hostile_lines_take_linear_time(piece: str) -> None:
    started = time.process_time()
    parse_infotext(piece * 100_000)
    assert time.process_time() - started < 2  # quadratic time would be minutes


def test_the_guides_block_is_read_out_of_its_page() -> None:
    found = parse_infotext(GUIDE)
    assert found.prompt == "best quality, highest detail, 8k, swamp, fireflies, Shrek, reeds"
    assert found.negative_prompt == "mutated, deformed, amateur drawing"
    assert found.fields["Model"] == "anything-v4.0-pruned" and found.fields["Size-2"] == "512"


def test_the_guides_settings_may_stand_before_its_negative_prompt() -> None:
    lines = GUIDE.split("\n\n")
    assert without_rest("\n".join([lines[1], lines[3], lines[2]])) == without_rest(GUIDE)


def without_rest(text: str) -> Infotext:
    return replace(parse_infotext(text), rest=())


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.just("\n"), max_size=30)
KEYS = st.from_regex(r"[A-Za-z_][A-Za-z_/ -]{2,10}", fullmatch=True)
VALUES = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(
    lambda v: not re.match(r"\d+x\d+\s*$", v)
)


@CALM
@given(TEXTS, TEXTS, st.dictionaries(KEYS, VALUES, min_size=3, max_size=6), st.booleans())
def test_any_parts_come_back_or_are_refused(prompt: str, negative: str, fields: dict[str, str], hashed: bool) -> None:
    parts = Infotext(
        prompt=prompt, negative_prompt=negative, fields=fields, hashes={"lora:a, b": "01"} if hashed else {}
    )
    try:
        text = format_infotext(parts)
    except SpecError:
        return
    found = parse_infotext(text)
    assert {k: v for k, v in found.fields.items() if k in fields} == fields
    assert found.hashes == parts.hashes
    assert found.prompt.split() == prompt.split() and found.negative_prompt.split() == negative.split()


@CALM
@given(st.text(alphabet='abN:, "\n\\x12', max_size=80), st.sampled_from(["", "\nNegative prompt: "]))
def test_what_was_read_is_written_and_read_as_the_same(text: str, between: str) -> None:
    parts = parse_infotext(f"{text}{between}{text}\nSteps: 20, Sampler: Euler, CFG scale: 7, {text}")
    try:
        assert parse_infotext(format_infotext(parts)) == replace(parts, rest=())
    except SpecError:
        assert len(parts.fields) < 3 or "x" in text


def test_unknown_fields_are_kept_with_their_order() -> None:
    text = 'p\nSteps: 20, ADetailer model: face_yolov8n.pt, Wildcard: "a, b", Zed: 1'
    assert format_infotext(parse_infotext(text)) == text


def test_hashes_in_json_are_read_beside_what_a1111_makes_of_them() -> None:
    text = 'p\nSteps: 20, Sampler: Euler, CFG scale: 7, Hashes: {"model": "aa", "lora:b c": "bb"}'
    found = parse_infotext(text)
    assert found.hashes == {"model": "aa", "lora:b c": "bb"}
    assert found.fields["Hashes"] == '{"model": "aa"' and "lora" in found.fields
    assert format_infotext(found) == text


@pytest.mark.parametrize(
    "fields", [{"Steps": "20"}, {"a": "1", "b": "2", "c": "3"}, {"a,b": "1", "cc": "2", "dd": "3"}]
)
def test_fields_that_no_text_can_carry_are_refused(fields: dict[str, str]) -> None:
    with pytest.raises(SpecError, match="be read differently"):
        format_infotext(Infotext(prompt="p", fields=fields))


def test_a_prompt_that_would_be_read_as_settings_is_refused() -> None:
    with pytest.raises(SpecError, match="prompt"):
        format_infotext(Infotext(prompt="p\nNegative prompt: q", fields={}))
    with pytest.raises(SpecError):
        format_infotext(Infotext(prompt="ab: c, de: f, gh: i", fields={}))
