"""Whatever is put into a record comes out of it: in the request, in `unused`, or as an error of ours."""

import copy
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spec.test_graph_loras import APPLY, CR_STACK, EASY_STACK, MANAGER, STACKER, loaded, power_prompt, wildcards
from spec.test_graphs import EFFICIENT, OUT, PARTS, PLAIN, POWER, advanced, in_context, node, with_nodes
from spec.test_records_page import EASY, LINE, NOVELAI, TOOLS

from clipskip.errors import ClipskipError
from clipskip.spec import Request
from clipskip.spec.foreign import UNWRAPPED
from clipskip.spec.record_reader import SPELLINGS, plain_key, says_something
from clipskip.spec.settings import request_from_text

Json = dict[str, Any]
QUICK = settings(deadline=None, derandomize=True, max_examples=40)
RECORDS = {
    f"{tool} {number}": record
    for tool, records in TOOLS.items()
    for number, record in enumerate(records)
    if tool not in ("ComfyUI", "A1111's text")
}
GRAPHS = {
    "plain": PLAIN,
    "custom": PLAIN | PARTS,
    "guided": advanced(node("CFGGuider", model=["4", 0], positive=["6", 0], negative=["7", 0], cfg=6.5)),
    "efficient": EFFICIENT,
    "context": in_context("40", OUT),
    "power": with_nodes({"model": ["30", 0]}, n30=POWER),
    "power prompt": power_prompt(),
    "wildcards": wildcards(),
    **{stack["class_type"]: loaded(n30=APPLY, n31=stack) for stack in (CR_STACK, STACKER, EASY_STACK, MANAGER)},
}
KNOWN = {name for names in SPELLINGS.values() for name in names}
SETTINGS = st.sampled_from(
    sorted({key for record in RECORDS.values() for key in record} | {"Seed", "clip skip", "VAE", "LoRA 1"})
)
KEYS = st.text(max_size=12) | SETTINGS
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["2", "512x768", "Karras"])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def told(asked: Request, key: str) -> bool:
    return any(key in name for name, _ in asked.unused)


def read(record: Json) -> Request | None:
    """The request, or None for one that is refused in one line."""
    try:
        return request_from_text(json.dumps(record))
    except ClipskipError as error:
        assert "\n" not in str(error) and error.field
        return None


def changes(before: Request, after: Request) -> bool:
    return replace(before, unused=()) != replace(after, unused=())


@pytest.mark.parametrize("tool", RECORDS)
@QUICK
@given(key=KEYS, value=VALUES)
def test_a_key_that_is_put_into_a_record_comes_out(tool: str, key: str, value: object) -> None:
    record = RECORDS[tool]
    before, after = read(record), read(record | {key: value})
    assert before is not None
    if after is None or not says_something(value):
        return
    put = value if isinstance(value, dict) and key in UNWRAPPED else {key: value}
    for name in put:
        same = plain_key(name) in KNOWN and not changes(before, after)
        assert told(after, name) or changes(before, after) or same or not says_something(put[name]), (put, after.unused)


def entries(record: Any) -> Iterator[Json]:
    """Every object inside of a record's lists and objects, each of which says something of a file."""
    for value in record.values() if isinstance(record, dict) else record:
        if isinstance(value, dict):
            yield value
        if isinstance(value, dict | list):
            yield from entries(value)


@pytest.mark.parametrize("tool", [tool for tool, record in RECORDS.items() if any(entries(record))])
@QUICK
@given(data=st.data(), key=st.text(min_size=1, max_size=8), value=VALUES)
def test_a_key_that_is_put_inside_an_entry_comes_out(tool: str, data: st.DataObject, key: str, value: object) -> None:
    """Of a LoRA in a list, of the model's own object."""
    record = copy.deepcopy(RECORDS[tool])
    before = read(record)
    inner = data.draw(st.sampled_from(list(entries(record))))
    was = inner.get(key)
    inner[key] = value
    after = read(record)
    assert before is not None
    if after is not None and says_something(value) and value != was:
        shown = any(key in f"{name} {text}" for name, text in after.unused)
        shortened = any(text.endswith("...") or "\\" in text for _, text in after.unused)
        assert shown or shortened or changes(before, after), (key, value, after.unused)


@pytest.mark.parametrize("name", GRAPHS)
@QUICK
@given(data=st.data(), value=VALUES)
def test_an_input_that_is_put_into_a_node_comes_out(name: str, data: st.DataObject, value: object) -> None:
    graph = copy.deepcopy(GRAPHS[name])
    place = data.draw(st.sampled_from(sorted(graph)))
    inputs = graph[place]["inputs"]
    key = data.draw(st.text(max_size=8) | st.sampled_from(sorted(inputs)))
    before = read(graph)
    was = inputs.get(key)
    inputs[key] = value
    after = read(graph)
    assert before is not None
    if after is not None and says_something(value) and value != was:
        assert told(after, key) or changes(before, after) or any(key in text for _, text in after.unused), (
            place,
            key,
            value,
        )


@pytest.mark.parametrize("name", GRAPHS)
@QUICK
@given(inputs=st.dictionaries(st.text(max_size=8), VALUES, max_size=3), kind=st.text(max_size=8))
def test_a_node_that_is_put_into_a_graph_comes_out(name: str, inputs: Json, kind: str) -> None:
    after = read(GRAPHS[name] | {"new": node(kind) | {"inputs": inputs}})
    assert after is None or told(after, kind)


LABELS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_ ]{1,10}", fullmatch=True).map(str.strip).filter(lambda key: len(key) > 1)
WORDS = st.from_regex(r"[A-Za-z0-9.]{1,8}", fullmatch=True)


def line(fields: Json) -> str:
    return ", ".join(f'{key}: "{value}"' if ":" in str(value) else f"{key}: {value}" for key, value in fields.items())


@QUICK
@given(
    label=LABELS | st.sampled_from(["Clip skip", "Model", "steps", "VAE", "Lora hashes"]),
    value=WORDS,
    behind=st.booleans(),
)
def test_a_field_that_is_put_into_a_settings_text_comes_out(label: str, value: str, behind: bool) -> None:
    before = request_from_text(f"a swamp\nNegative prompt: lowres\n{line(LINE)}")
    text = f"a swamp\nNegative prompt: lowres\n{line(LINE)}{chr(10) if behind else ', '}{label}: {value}"
    try:
        after = request_from_text(text)
    except ClipskipError:
        return
    assert told(after, label) or changes(before, after) or str(LINE.get(label)) == value or plain_key(label) in KNOWN


@QUICK
@given(label=st.sampled_from(sorted(set(LINE) | {"Tiling", "Token merging ratio"})), value=WORDS)
def test_a_field_that_stands_twice_in_a_settings_text_comes_out(label: str, value: str) -> None:
    text = f"a swamp\nNegative prompt: lowres\n{line(LINE | {'Tiling': 'True', 'Token merging ratio': 0.5})}, {label}: {value}"
    earlier = str((LINE | {"Tiling": "True", "Token merging ratio": 0.5})[label])
    try:
        after = request_from_text(text)
    except ClipskipError as error:
        assert error.field
        return
    assert earlier == value or told(after, f"{label}, which stands twice"), after.unused


@pytest.mark.parametrize("record", [EASY, NOVELAI], ids=["easy", "novelai"])
def test_plain_records_are_used_whole(record: Json) -> None:
    asked = read(record)
    assert asked is not None and asked.unused == ()


BIG = 300_000


@pytest.mark.parametrize(
    "text",
    [
        "a\n" + "Steps: 1, Seed: 2, CFG scale: 3\n" * (BIG // 30),
        "a\nSteps: 1, " + "k: v, " * (BIG // 6),
        "a\nSteps: 1, Seed: 2, " + 'Hashes: {"a": "' * (BIG // 15),
        "a\nSteps: 1, Seed: 2, x: y, Civitai resources: " + "[" * BIG,
        "Steps: 1 | " * (BIG // 11),
        "a: b\n" * (BIG // 5),
        '"' + "a [" * (BIG // 3) + '" -S 5',
        json.dumps({f"LoRA {i}": "a : 1" for i in range(BIG // 20)} | {"Prompt": "a", "Seed": 1}),
        json.dumps({"prompt": "<a[" * (BIG // 3), "sui_image_params": {"swarm_version": "1"}}),
        json.dumps(
            {"prompt": "<lora:" * (BIG // 6), "cfgScale": 7, "resources": [{"name": "a", "type": "lora"}] * 9999}
        ),
        json.dumps({"prompt": "a", "model": "a" + " " * BIG, "seed": 1}),
        json.dumps({"prompt": "a", "seed": 1} | {f"k{i}": [i] for i in range(BIG // 10)}),
    ],
    ids=range(12),
)
def test_hostile_records_are_read_in_no_time(text: str) -> None:
    started = time.thread_time()
    try:
        request_from_text(text)
    except ClipskipError as error:
        assert len(str(error)) < 2000
    assert time.thread_time() - started < 5  # what is not linear takes minutes
