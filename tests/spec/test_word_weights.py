"""Weights of words in InvokeAI's and NovelAI's prompts, held against their tools' own readings."""

import time

import pytest

from clipskip.errors import SpecError
from clipskip.prompt import describe
from clipskip.spec.invoke_prompt import invoke_pieces
from clipskip.spec.word_weights import invoke_words, novelai_words

COMPEL = [
    ("a fox+ in snow", [("a", 1.0), ("fox", 1.1), ("in snow", 1.0)]),
    ("flames--", [("flames", 0.81)]),
    ('"red fox"++ in snow', [("red fox", 1.21), ("in snow", 1.0)]),
    ("(red fox)1.2, snow", [("red fox", 1.2), (", snow", 1.0)]),
    ("hairy (mountain (\\(man\\))+)+", [("hairy", 1.0), ("mountain", 1.1), ("(man)", 1.21)]),
    ("a (ba)dly (f)ormed +test", [("a ba dly f ormed +test", 1.0)]),
    ("(flames).attend(+)", [("flames", 1.1)]),
    ("flames.attend(1.3)", [("flames", 1.3)]),
    ("hot-dog eating--", [("hot-dog", 1.0), ("eating", 0.81)]),
    ("v1.5+ a", [("v1.5+ a", 1.0)]),
    ("a,b+", [("a,", 1.0), ("b", 1.1)]),
    ("fox++cat", [("fox", 1.21), ("cat", 1.0)]),
    ("(a)-0.5", [("a", 0.9), ("0.5", 1.0)]),
    ("(a) 1.2", [("a 1.2", 1.0)]),
    ("(fox:1.2)", [("fox:1 . 2", 1.0)]),
    ("(a=b)+ c", [("(a=b)+ c", 1.0)]),
    ("((x (y)", [("((x y", 1.0)]),
    ('a "b, c" d', [("a b , c d", 1.0)]),
    ('("a, \\"b\\"" c (d)2.0)+', [('a , "b" c', 1.1), ("d", 2.2)]),
    ("\\+ fox+", [("\\+", 1.0), ("fox", 1.1)]),
    ("(a b+)0.5", [("a", 0.5), ("b", 0.55)]),
    ("((a)+)+", [("a", 1.21)]),
    ("(a.)+ b", [("a .", 1.1), ("b", 1.0)]),
    ("a+ b+", [("a b", 1.1)]),
    ('(a","b)+', [("a , b", 1.1)]),
]
"""What compel 2.1's PromptParser makes of these prompts, neighbours of one weight joined."""


def joined(pieces: list[tuple[str, float]]) -> list[tuple[str, float]]:
    whole: list[tuple[str, float]] = []
    for words, weight in pieces:
        if whole and whole[-1][1] == round(weight, 6):
            whole[-1] = (f"{whole[-1][0]} {words}", round(weight, 6))
        else:
            whole.append((words, round(weight, 6)))
    return whole


@pytest.mark.parametrize(("prompt", "expected"), COMPEL)
def test_invokeais_weights_are_those_of_compel(prompt: str, expected: list[tuple[str, float]]) -> None:
    assert joined(invoke_pieces(prompt)) == expected


def read_as_a1111(prompt: str) -> list[tuple[str, float]]:
    """Each token of a prompt with the weight that A1111 gives it."""
    (part,) = describe(prompt, steps=20).parts
    assert part.weight == 1
    return [(token.text.strip(), round(token.weight, 4)) for chunk in part.texts[0].chunks for token in chunk.tokens]


@pytest.mark.parametrize(("prompt", "expected"), [row for row in COMPEL if "-0.5" not in row[0]])
def test_a1111_gives_the_words_the_same_weights(prompt: str, expected: list[tuple[str, float]]) -> None:
    weighed = {weight for _, weight in read_as_a1111(invoke_words(prompt))}
    assert weighed == {round(weight, 4) for _, weight in expected}


def test_a_number_at_the_end_of_a_prompt_does_not_weigh_the_whole() -> None:
    """A1111 takes "a fox:1.2" for a prompt of weight 1.2 (prompt_parser.py, get_multicond_prompt_list)."""
    for words in (invoke_words("a fox:2"), novelai_words("a fox:1.2"), novelai_words("a fox : 3 ")):
        assert {weight for _, weight in read_as_a1111(words)} == {1.0}


@pytest.mark.parametrize("call", ['("a", "b").blend(1, 1)', "a cat.swap(dog)", '("a", "b").and()', '"a".swap(b)'])
def test_what_one_text_cannot_say_is_an_error(call: str) -> None:
    with pytest.raises(SpecError, match="cannot be repeated"):
        invoke_words(call)


def test_a_lora_that_an_invokeai_prompt_calls_is_a_tag() -> None:
    assert invoke_words("a fox withLora(ogre,0.5) useLora(ink)") == "a fox <lora:ogre:0.5> <lora:ink:1>"


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("1.5::red fox, snow:: a den", "(red fox, snow:1.5) a den"),
        ("a, -0.8::feet::, b", "a, (feet:-0.8), b"),
        ("2::a ::b::c", "(a:2) b::c"),
        (".5::a {b}::", "(a:0.5) (b:0.525)"),
        ("1::a::", "a"),
        (
            "1girl, 1.5::rain, night ::, 0.5::coat ::, black shoes",
            "1girl, (rain, night:1.5) , (coat:0.5) , black shoes",
        ),
        ("{{{rain :: snow", "(rain:1.15762)  snow"),
        ("-1::hat ::", "(hat:-1) "),
        ("mk2::a", "mk2::a"),
        ("1.2::a 0.5::b", "(a:1.2) (b:0.5)"),
    ],
)
def test_novelais_weights_in_numbers_are_a1111s(prompt: str, expected: str) -> None:
    assert novelai_words(prompt) == expected


@pytest.mark.parametrize(
    "text", ["(" * 100_000, "a [" * 60_000, '"' * 100_001, "((a " * 30_000, "(a)+" * 30_000, "1::" * 40_000]
)
@pytest.mark.parametrize("words", [invoke_words, novelai_words])
def test_hostile_prompts_are_read_in_no_time(text: str, words: object) -> None:
    started = time.process_time()
    try:
        words(text)  # type: ignore[operator]  # one of the two above
    except SpecError as error:
        assert len(str(error)) < 200
    assert time.process_time() - started < 4  # what is not linear takes minutes
