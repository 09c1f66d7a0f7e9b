"""ComfyUI's prompts: brackets, embeddings and chunks by its rules, worked out again letter by letter."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipskip.errors import PromptError
from clipskip.prompt import Emphasis, Rules, describe, missing_embeddings, read_prompt, token_ids
from clipskip.prompt.comfy import read_comfy, segments

CALM = settings(deadline=None, derandomize=True, max_examples=300)
COMFY = Rules(emphasis=Emphasis.COMFYUI)


def split_again(text: str) -> list[str]:
    """What stands in brackets, and what stands between: a count of open brackets, one letter at a time."""
    parts, current, depth = [], "", 0
    for letter in text:
        if letter == "(" and depth == 0:
            if current:
                parts.append(current)
            current = ""
        current += letter
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == ")" and depth == 0:
            parts.append(current)
            current = ""
    return [*parts, current] if current else parts


def weigh_again(text: str, weight: float) -> list[tuple[str, float]]:
    """Each piece with its weight, by recursion."""
    found: list[tuple[str, float]] = []
    for part in split_again(text):
        if len(part) < 2 or part[0] != "(" or part[-1] != ")":
            found.append((part, weight))
            continue
        inside, own = part[1:-1], weight * 1.1
        place = inside.rfind(":")
        if place > 0:
            try:
                own = float(inside[place + 1 :])
                inside = inside[:place]
            except ValueError:
                pass
        found += weigh_again(inside, own)
    return found


@CALM
@given(st.text(alphabet="()ab: .12-", max_size=30))
def test_brackets_weigh_as_in_comfyui(text: str) -> None:
    assert segments(text) == [(words, weight) for words, weight in weigh_again(text, 1.0)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a (cat:1.3)", [("a ", 1.0), ("cat", 1.3)]),
        ("((a:1.3))", [("a", 1.3)]),
        ("((a) b:0.5)", [("a", 0.5 * 1.1), (" b", 0.5)]),
        ("[a] # b", [("[a] # b", 1.0)]),
        (r"\(a\) (b)", [("(a) ", 1.0), ("b", 1.1)]),
        (r"(a \(b\):1.2)", [("a (b)", 1.2)]),
        ("a) (b:1.2)", [("a) (b:1.2)", 1.0)]),
        ("(a", [("(a", 1.0)]),
        ("(:1.2)", [(":1.2", 1.1)]),
        ("(a:b)", [("a:b", 1.1)]),
        ("", []),
    ],
)
def test_what_brackets_mean(text: str, expected: list[tuple[str, float]]) -> None:
    assert segments(text) == [(words, pytest.approx(weight)) for words, weight in expected]


def ids(text: str, **embeddings: int) -> list[tuple[int, ...]]:
    return [chunk.tokens for chunk in read_comfy(text, embeddings).chunks]


def test_nothing_is_a_comment_a_tag_an_edit_or_an_and() -> None:
    text = "1girl, #1 fan <lora:x:1> [a:b:3] [c|d] x AND y BREAK z :2"
    prompt = read_prompt(text, steps=10, rules=COMFY)
    assert (prompt.text, prompt.loras, len(prompt.parts), prompt.parts[0].weight) == (text, (), 1, 1.0)
    (entry,) = prompt.parts[0].schedule
    assert entry.chunks[0].tokens == tuple(token_ids(text)) and set(entry.chunks[0].weights) == {1.0}


def test_an_embedding_is_called_by_its_name_behind_the_word() -> None:
    (chunk,) = read_comfy("a (embedding:Easy.safetensors, swamp:1.2)", {"easy": 3}).chunks
    assert [(slot.name, slot.position, slot.vectors) for slot in chunk.slots] == [("easy", 2, 3)]
    # A comma stands at the name, so it is read with the text behind it.
    assert chunk.tokens == (320, 0, 0, 0, *token_ids(", swamp"))
    assert chunk.weights == (1.0, *[1.2] * 5)


@pytest.mark.parametrize(
    "call", ["embedding:sd15\\easy.pt", "embedding:sd15/EASY", "embedding:easy", "\nembedding:easy"]
)
def test_an_embedding_may_be_called_by_folder_ending_and_case(call: str) -> None:
    assert read_comfy(f"a {call} b", {"easy": 1}).chunks[0].slots[0].name == "easy"


def test_a_name_without_the_word_before_it_is_text() -> None:
    assert read_comfy("easy, a myembedding:easy, a (b)embedding :easy", {"easy": 3}).chunks[0].slots == ()


def test_an_embedding_that_is_not_there_is_named() -> None:
    assert missing_embeddings("a embedding:easy, embedding:bad b", ["bad"]) == ("easy",)
    assert ids("a embedding:easy b") == [(320, *token_ids("b"))]
    report = describe("a embedding:easy b", steps=9, rules=COMFY)
    assert report.unknown == ("no model folder has the embedding 'easy'",)


def test_text_of_eight_tokens_is_cut_at_the_end_of_a_chunk_and_shorter_text_moves_on() -> None:
    seventy = "swamp " * 70
    swamp = token_ids("swamp")[0]
    assert [len(tokens) for tokens in ids(f"{seventy}(a b c d e f g h:1.2)")] == [75, 3]
    assert [len(tokens) for tokens in ids(f"{seventy}(a b c d e f g:1.2)")] == [70, 7]
    assert ids("swamp " * 80) == [(swamp,) * 75, (swamp,) * 5]
    assert read_comfy("swamp " * 80, {}).count == 80


def test_a_full_chunk_is_followed_by_no_empty_one() -> None:
    assert [len(tokens) for tokens in ids("swamp " * 75)] == [75]
    assert ids("") == [()]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("(a:nan)", "nan"),
        ("(a:1e999)", "1e999"),
        ("(" * 9000 + "a" + ")" * 9000, "brackets"),
        ("swamp " * 70 + "embedding:easy", "where ComfyUI would cut it in two"),
        ("a embedding:", "without a name"),
        ("a " * 9000, "chunks"),
        ("a" * 600_000, "characters"),
    ],
)
def test_what_cannot_be_drawn_is_an_error(text: str, words: str) -> None:
    with pytest.raises(PromptError, match=words):
        read_comfy(text, {"easy": 12})


def test_hostile_brackets_are_read_at_once() -> None:
    started = time.process_time()
    for text in ("(" * 100_000, ")" * 100_000, "()" * 50_000, "(a)" * 500, ":" * 100_000):
        segments(text)
    assert time.process_time() - started < 2


def test_tags_are_noted_as_words() -> None:
    report = describe("a <lora:x:1>", steps=9, rules=COMFY)
    assert report.text == "a <lora:x:1>" and report.loras == () and "ComfyUI" in report.notes[0]
