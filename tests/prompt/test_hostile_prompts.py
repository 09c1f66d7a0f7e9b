"""Prompts made to be slow: every public reader takes linear time, measured in its own processor time."""

import time
from collections.abc import Callable

import pytest

from clipskip.errors import ClipskipError
from clipskip.prompt import describe, extract_tags, read_prompt, strip_comments, token_ids
from clipskip.prompt.brackets import parse_attention
from clipskip.prompt.composition import parse_composition
from clipskip.prompt.edits import parse_schedule

SIZE = 100_000
READERS: dict[str, Callable[[str], object]] = {
    "parse_attention": parse_attention,
    "parse_schedule": lambda text: parse_schedule(text, 30),
    "parse_composition": parse_composition,
    "extract_tags": extract_tags,
    "strip_comments": strip_comments,
    "token_ids": token_ids,
    "read_prompt": lambda text: read_prompt(text, steps=30),
    "describe": lambda text: describe(text, steps=30),
}
NESTED = {"(": "(" * SIZE, "[": "[" * SIZE, "()": "(" * SIZE + "a" + ")" * SIZE, "[a|b:": "[a|b:" * (SIZE // 5)}
OTHERS = {
    "[]": "[" * SIZE + "a" + "]" * SIZE,
    "(a": "(a" * (SIZE // 2),
    "(a)": "(a" * (SIZE // 3) + ")" * (SIZE // 3),
    "(a:1)": "(a" * (SIZE // 5) + ":1)" * (SIZE // 5),
    "([": "([" * (SIZE // 2) + "a" + "])" * (SIZE // 2),
    "[a|b]": "[a|b]" * (SIZE // 5),
    "[a|": "[a|" * (SIZE // 4) + "]" * (SIZE // 4),
    "[:1]": "[" * (SIZE // 4) + "a" + ":1]" * (SIZE // 4),
    "edits": "[a:b:1][a:b:2][a:b:3]" * (SIZE // 21),
    "<a:": "<a:" * (SIZE // 3),
    "tags": "<lora:x:1>" * (SIZE // 10),
    "space": "a" + " " * SIZE + "b",
    ": ": ": " * (SIZE // 2),
    "AND": "AND " * (SIZE // 4),
    "BREAK": "BREAK " * (SIZE // 6),
    "almost BREAK": "a" + " " * SIZE + "BREAKx",
    "#": "#\n" * (SIZE // 2),
    "\\": "\\" * SIZE,
    "digits": "(a:" + "1" * SIZE + ")",
    "dots": "(a:" + "." * SIZE + ")",
    "word": "a" * SIZE,
    "emoji": "😀" * SIZE,
    "accents": "é\u0300" * (SIZE // 2),
    "commas": "a," * (SIZE // 2),
}


def seconds(reader: Callable[[str], object], text: str) -> float:
    started = time.process_time()
    try:
        reader(text)
    except ClipskipError as error:
        assert len(str(error)) < 300
        assert "\n" not in str(error)
    return time.process_time() - started


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("text", NESTED)
def test_100_000_nested_brackets_take_less_than_2_seconds(reader: str, text: str) -> None:
    assert seconds(READERS[reader], NESTED[text]) < 2


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("text", OTHERS)
def test_100_000_hostile_characters_take_less_than_2_seconds(reader: str, text: str) -> None:
    assert seconds(READERS[reader], OTHERS[text]) < 2
