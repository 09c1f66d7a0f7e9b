"""A whole prompt, from comments to chunks."""

import pytest

from clipskip.errors import PromptError, SpecError
from clipskip.prompt import Chunk, Emphasis, Rules, read_prompt, strip_comments, token_ids
from clipskip.spec import LoraRef


def test_the_stages_follow_one_another() -> None:
    prompt = read_prompt("a [cat:dog:0.5] # AND nothing\nAND (fox:1.2) :0.5 <lora:ogre:0.8>", steps=10)
    assert prompt.loras == (LoraRef(name="ogre", text_encoder=0.8, unet=0.8),)
    assert [part.weight for part in prompt.parts] == [1.0, 0.5]
    assert [(one.until_step, one.text) for one in prompt.parts[0].schedule] == [(5, "a cat"), (10, "a dog")]
    (fox,) = prompt.parts[1].schedule
    assert fox.chunks == (Chunk(tokens=tuple(token_ids("fox")), weights=(1.2,)),)


def test_a_negative_prompt_knows_neither_and_nor_tags_nor_a_weight_of_its_own() -> None:
    text = "a AND b <lora:x:1> :0.5"
    prompt = read_prompt(text, steps=10, negative=True)
    assert (prompt.loras, len(prompt.parts), prompt.parts[0].weight) == ((), 1, 1.0)
    assert prompt.parts[0].schedule[0].text == text


def test_texts_of_one_schedule_have_one_length_in_chunks() -> None:
    long, short = read_prompt("[" + "cat " * 80 + ":dog:3]", steps=10).parts[0].schedule
    assert (len(long.chunks), long.own_chunks, len(short.chunks), short.own_chunks) == (2, 2, 2, 1)
    assert short.chunks[1] == Chunk()


def test_an_empty_prompt_is_one_empty_chunk() -> None:
    (entry,) = read_prompt("", steps=20).parts[0].schedule
    assert (entry.until_step, entry.chunks, entry.count) == (20, (Chunk(),), 0)


def test_emphasis_none_takes_brackets_and_break_as_text() -> None:
    rules = Rules(emphasis=Emphasis.NONE)
    (entry,) = read_prompt("(a:1.2.3) BREAK", steps=20, rules=rules).parts[0].schedule
    assert entry.chunks[0].tokens == tuple(token_ids("(a:1.2.3) BREAK"))
    assert set(entry.chunks[0].weights) == {1.0}


def test_emphasis_modes_have_a1111s_names_and_comfyuis() -> None:
    names = ["Original", "No norm", "Ignore", "None", "ComfyUI"]
    assert [Emphasis.parse(name).value for name in names] == [mode.value for mode in Emphasis]
    with pytest.raises(SpecError, match="use one of Original, No norm, Ignore, None"):
        Emphasis.parse("original")


@pytest.mark.parametrize(
    ("prompt", "clean"),
    [
        ("a # c\nb", "a \nb"),
        ("# c\nb", "\nb"),
        ("a\n# c\nb", "a\nb"),
        ("a\n# c\n# d\nb", "a\n\nb"),
        ("a # c", "a \n"),
        ("a\r\n# c\r\nb", "a\r\nb"),
        ("#", "\n"),
    ],
)
def test_a_comment_becomes_a_new_line(prompt: str, clean: str) -> None:
    assert strip_comments(prompt) == clean


def test_comments_can_be_kept() -> None:
    assert read_prompt("a #1 fan", steps=5, rules=Rules(comments=False)).text == "a #1 fan"


def test_the_second_pass_is_read_over_its_own_steps() -> None:
    prompt = read_prompt("[a:b:1.5]", steps=20, rules=Rules(hires_steps=10))
    assert [one.until_step for one in prompt.parts[0].schedule] == [5, 10]


def test_embeddings_are_named_once_each_in_order() -> None:
    prompt = read_prompt("b, a, b AND c", steps=5, embeddings={"a": 1, "b": 2, "c": 1, "d": 1})
    assert prompt.embeddings == ("b", "a", "c")


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("(" * 10_000 + "a", "multiply to inf"),
        (f"a :{'9' * 400}", "multiply to inf"),
        ("a AND " * 64 + "a", "65 parts"),
        ("x" * 500_001, "500,001 characters"),
        ("[" + "|".join(f"a{at} BREAK BREAK BREAK BREAK" for at in range(300)) + "]", "more than 1,000 chunks"),
        ("[a|b]" + "c " * 20_000, "texts of more than|more than 100 chunks"),
        ("[" + "|".join(f"a{at}" for at in range(300)) + "]" + " " * 8_000 + "z", "texts of more than"),
    ],
)
def test_prompts_past_any_use_are_an_error(prompt: str, says: str) -> None:
    with pytest.raises(PromptError, match=says):
        read_prompt(prompt, steps=300)
