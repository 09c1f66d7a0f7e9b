"""What A1111 makes of prompts, recorded: every kind, every case."""

import json
from pathlib import Path
from typing import Any

import pytest

from clipskip.encode import vectors_at
from clipskip.prompt import extract_tags, read_prompt, token_pieces
from clipskip.prompt.brackets import parse_attention
from clipskip.prompt.composition import parse_composition
from clipskip.prompt.edits import parse_schedule
from clipskip.prompt.tags import lora_refs
from clipskip.spec import LoraRef

Case = dict[str, Any]
CASES: list[Case] = json.loads((Path(__file__).parents[1] / "golden" / "prompts.json").read_text())


def of_kind(kind: str) -> list[Case]:
    return [case for case in CASES if case["kind"] == kind]


def name(case: Case) -> str:
    return repr(case["prompt"][:40])


def test_every_recorded_kind_is_tested_here() -> None:
    assert {case["kind"] for case in CASES} == {"attention", "schedule", "composition", "lora_tags", "chunks"}


@pytest.mark.parametrize("case", of_kind("attention"), ids=name)
def test_attention_is_read_as_a1111_reads_it(case: Case) -> None:
    # Weights are equal to the last bit: the products are taken in the same order.
    assert parse_attention(case["prompt"]) == [tuple(entry) for entry in case["expected"]]


@pytest.mark.parametrize("case", of_kind("schedule"), ids=name)
def test_schedules_are_read_as_a1111_reads_them(case: Case) -> None:
    hires, old = case.get("hires_steps"), case.get("old_timelines", False)
    schedule = parse_schedule(case["prompt"], case["steps"], hires_steps=hires, old_timelines=old)
    assert schedule == [tuple(entry) for entry in case["expected"]]


@pytest.mark.parametrize("case", [case for case in of_kind("schedule") if "text_per_call" in case], ids=name)
def test_each_denoiser_call_gets_the_text_that_a1111_gives_it(case: Case) -> None:
    schedule = [tuple(entry) for entry in case["expected"]]
    assert [vectors_at(schedule, call) for call in range(len(case["text_per_call"]))] == case["text_per_call"]


@pytest.mark.parametrize("case", of_kind("composition"), ids=name)
def test_compositions_are_read_as_a1111_reads_them(case: Case) -> None:
    assert parse_composition(case["prompt"]) == [tuple(entry) for entry in case["expected"]]


@pytest.mark.parametrize("case", of_kind("lora_tags"), ids=name)
def test_tags_are_taken_out_as_a1111_takes_them(case: Case) -> None:
    text, tags = extract_tags(case["prompt"])
    assert text == case["text"]
    assert [(tag.kind, list(tag.items)) for tag in tags] == [(one["type"], one["items"]) for one in case["expected"]]


@pytest.mark.parametrize("case", of_kind("lora_tags"), ids=name)
def test_lora_tags_say_what_they_say_to_a1111(case: Case) -> None:
    _, tags = extract_tags(case["prompt"])
    for tag, expected in zip(tags, case["expected"], strict=True):
        if expected["type"] == "lora":
            lora = tag.read_lora()
            found = {"name": lora.name, "te": lora.text_encoder, "unet": lora.unet, "dyn": lora.dyn}
            assert found == {key: expected[key] for key in found}


def test_lyco_is_another_word_for_lora() -> None:
    _, tags = extract_tags("<lyco:x:0.4> fox")
    assert lora_refs(tags) == (LoraRef(name="x", text_encoder=0.4, unet=0.4),)


@pytest.mark.parametrize("case", of_kind("chunks"), ids=name)
def test_chunks_are_cut_where_a1111_cuts_them(case: Case) -> None:
    (entry,) = read_prompt(case["prompt"], steps=20, negative=True).parts[0].schedule
    pieces = [token_pieces(chunk.tokens) for chunk in entry.chunks]
    assert [len(chunk) for chunk in pieces] == case["chunk_sizes"]
    assert [chunk[:3] for chunk in pieces] == case["first_tokens"]
    assert [chunk[-2:] for chunk in pieces] == case["last_tokens"]
    assert [list(chunk.slots) for chunk in entry.chunks] == case["fixes"]
    assert entry.count == case["token_count"]
    assert max(-(-entry.count // 75), 1) * 75 == case["target"]
