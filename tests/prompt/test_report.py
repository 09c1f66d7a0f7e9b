"""What a user is shown of how a prompt is read."""

import json
from dataclasses import asdict

import pytest

from clipskip.prompt import Emphasis, Rules, describe, report_lines


def test_each_text_is_shown_once_with_its_steps() -> None:
    (part,) = describe("[cat|dog]", steps=5).parts
    assert [(text.text, text.steps) for text in part.texts] == [("cat", ((1, 2), (4, 4))), ("dog", ((3, 3), (5, 5)))]


def test_tokens_are_shown_as_pieces_ids_and_weights() -> None:
    (text,) = describe("a (firefly:1.2)", steps=5).parts[0].texts
    shown = [(token.text, token.id, token.weight) for token in text.chunks[0].tokens]
    assert shown == [("a ", 320, 1.0), ("firefly ", 33997, 1.2)]
    assert (text.count, text.limit, text.chunks[0].used) == (2, 75, 2)


def test_an_embedding_is_shown_by_its_name() -> None:
    report = describe("a bad hand, x", steps=5, embeddings={"bad hand": 4})
    token = report.parts[0].texts[0].chunks[0].tokens[1]
    assert (token.text, token.id, token.vectors) == ("bad hand", None, 4)
    assert report.embeddings == ("bad hand",)


def test_a_refused_tag_is_told_and_the_rest_is_read() -> None:
    report = describe("fox <hypernet:x:1> <lora:ogre:0.5> <lora:y:abc>", steps=5)
    assert [lora.name for lora in report.loras] == ["ogre"]
    assert [why.split(" ")[2] for why in report.unknown] == ["<hypernet:x:1>", "<lora:y:abc>"]


@pytest.mark.parametrize(
    ("prompt", "note"),
    [
        ("at 12:30", "': 30' is read as a weight"),
        ("(a BREAK b)", "read as the word 'break'"),
        ("a|b [c:d:3]", "no edit"),
        ("[a:b:9]", "b is never used"),
        ("<lora:a:1><lora:a:0.5>", "named 2 times"),
        ("a fox’s den", "’ is read as written"),
        ("salt &amp; pepper", "&amp; is read as written"),
        ("cat " * 74 + "flufferdoodle" * 3, "cut in two between chunks 1 and 2"),
    ],
)
def test_what_people_do_not_expect_is_noted(prompt: str, note: str) -> None:
    notes = describe(prompt, steps=10).notes
    assert len(notes) == 1
    assert note in notes[0]


def test_a_tag_in_a_negative_prompt_is_noted() -> None:
    (note,) = describe("lowres <lora:x:1>", steps=5, negative=True).notes
    assert "<lora:x:1> is read as words" in note


@pytest.mark.parametrize("prompt", ["a cat", "a [cat:dog:3], (sun:1.2) BREAK x <lora:a:1>", "a \\| b", "", "a AND b"])
def test_ordinary_prompts_have_no_notes(prompt: str) -> None:
    assert describe(prompt, steps=10).notes == ()


def test_nothing_is_noted_of_brackets_that_are_text() -> None:
    assert describe("(a BREAK b)", steps=10, rules=Rules(emphasis=Emphasis.NONE)).notes == ()


def test_the_report_is_plain_data() -> None:
    report = describe("a [b|c] <lora:x:1> AND d emb :0.5", steps=4, embeddings={"emb": 2})
    assert json.loads(json.dumps(asdict(report)))["parts"][1]["weight"] == 0.5


def test_lines_show_all_of_it_and_no_control_characters() -> None:
    lines = report_lines(
        describe("a (firefly:1.2) [x|y\x1b] emb <lora:o:0.8> AND z :2", steps=4, embeddings={"emb": 2})
    )
    text = "\n".join(lines)
    assert "LoRA o: text encoder 0.8, U-Net 0.8" in text
    assert "part 2 of 2, weight 2" in text
    assert "<emb> 2 vectors" in text
    assert "x1.2: firefly 33997" in text
    assert "\x1b" not in text
