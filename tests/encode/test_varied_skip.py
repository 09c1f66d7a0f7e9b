"""A Clip Skip that changes by step, and one for a phrase of the prompt."""

from dataclasses import replace

import pytest
import torch
from clip_reference import SMALL, our_encoder, random_model

from clipskip.encode import PhraseSkip, TextReader, condition, condition_all, skip_schedule, splice, vectors_at
from clipskip.errors import PromptError, SkipOutOfRange
from clipskip.spec import ClipSkip, FileRef, Render

RENDER = Render(prompt="swamp, (ogre:1.0), reeds", negative_prompt="blurry", model=FileRef(name="m"), steps=10)


@pytest.fixture(scope="module")
def reader() -> TextReader:
    return TextReader(encoder=our_encoder(random_model(SMALL), SMALL))


def at_skips(reader: TextReader, render: Render, text: str):
    spans = skip_schedule(text, render.steps)
    found = condition_all(reader, [render.at(skip) for _, skip in spans])
    return splice([(until, one) for (until, _), one in zip(spans, found, strict=True)])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2", [(10, 2)]),
        ("[1:2:0.5]", [(5, 1), (10, 2)]),
        ("[1:2.5:3]", [(3, 1), (10, 2.5)]),
        ("[[1:2:3]:4:6]", [(3, 1), (6, 2), (10, 4)]),
    ],
)
def test_a_schedule_of_skips_is_written_as_a1111_writes_edits(text: str, expected: list[tuple[int, float]]) -> None:
    assert skip_schedule(text, 10) == tuple((until, ClipSkip(n)) for until, n in expected)


@pytest.mark.parametrize("text", ["[1:2]", "[2:0.5]", "two", "[1:0:0.5]", "[1::0.5]"])
def test_a_schedule_with_what_is_no_skip_in_it_is_an_error(text: str) -> None:
    with pytest.raises(SkipOutOfRange, match="clip skip"):
        skip_schedule(text, 10)


@pytest.mark.parametrize("prompt", ["swamp", "[swamp:lake:2] reeds", "[a|b] AND [swamp:7]"])
@pytest.mark.parametrize("text", ["[1:2:0.5]", "[1|3]"])
def test_each_call_reads_the_skip_and_the_text_of_its_step(reader: TextReader, prompt: str, text: str) -> None:
    render = replace(RENDER, prompt=prompt)
    spliced, spans = at_skips(reader, render, text), skip_schedule(text, render.steps)
    by_skip = {skip: condition(reader, render.at(skip)) for skip in {skip for _, skip in spans}}
    for call in range(render.steps):
        skip = next(skip for until, skip in spans if call <= until)
        for found, one in zip(spliced.at(call), by_skip[skip].at(call), strict=True):
            torch.testing.assert_close(found, one, rtol=1e-5, atol=1e-5)  # float32, other layers kept


def test_a_phrase_takes_its_vectors_from_its_own_layer_and_the_rest_stay(reader: TextReader) -> None:
    (plain, deep) = condition_all(reader, [RENDER.at(ClipSkip(n)) for n in (1, 6)])
    (found,) = condition_all(reader, [RENDER], phrases=[PhraseSkip(phrase="Ogre", skip=ClipSkip(6))])
    (mixed, shallow, deeper) = (one.at(0)[0][0] for one in (found, plain, deep))
    own = [3, 4]  # start, swamp, comma, then o + gre
    assert torch.equal(mixed[own], deeper[own])
    others = [at for at in range(77) if at not in own]
    assert torch.equal(mixed[others], shallow[others])
    assert torch.equal(found.negative[0][1], plain.negative[0][1])


def test_a_phrase_at_the_prompts_own_skip_changes_nothing(reader: TextReader) -> None:
    render = replace(RENDER, prompt="(swamp:1.4), ogre BREAK ogre")
    (found,) = condition_all(reader, [render], phrases=[PhraseSkip(phrase="ogre", skip=ClipSkip(1))])
    assert torch.equal(vectors_at(found.positive[0].schedule, 0), condition(reader, render).at(0)[0][0])


def test_a_phrase_is_found_in_every_chunk_and_across_two(reader: TextReader) -> None:
    render = replace(RENDER, prompt="ogre " + "swamp " * 72 + "ogre")  # o is the 75th token, gre the first of the next
    (found,) = condition_all(reader, [render], phrases=[PhraseSkip(phrase="ogre", skip=ClipSkip(6))])
    changed = (found.at(0)[0][0] != condition(reader, render).at(0)[0][0]).any(dim=1)
    assert changed.nonzero().flatten().tolist() == [1, 2, 75, 78]


def test_a_phrase_of_one_text_of_the_schedule_is_enough(reader: TextReader) -> None:
    render = replace(RENDER, prompt="[swamp:ogre:5]")
    (found,) = condition_all(reader, [render], phrases=[PhraseSkip(phrase="ogre", skip=ClipSkip(6))])
    plain = condition(reader, render)
    assert torch.equal(found.at(0)[0], plain.at(0)[0])
    assert not torch.equal(found.at(9)[0], plain.at(9)[0])


def test_a_phrase_that_the_prompt_has_not_is_an_error(reader: TextReader) -> None:
    with pytest.raises(PromptError, match="no phrase 'goblin', which clip skip 6 is for"):
        condition_all(reader, [RENDER], phrases=[PhraseSkip(phrase="goblin", skip=ClipSkip(6))])


def test_a_phrase_without_words_is_an_error() -> None:
    with pytest.raises(PromptError, match="has no words"):
        PhraseSkip(phrase="  ", skip=ClipSkip(6))


def test_a_phrases_skip_deeper_than_the_encoder_is_an_error(reader: TextReader) -> None:
    with pytest.raises(SkipOutOfRange, match="12 layers"):
        condition_all(reader, [RENDER], phrases=[PhraseSkip(phrase="ogre", skip=ClipSkip(13))])
