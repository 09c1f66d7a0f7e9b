"""A Clip Skip that changes by step, and one for a phrase of the prompt."""

from dataclasses import replace

import pytest
import torch
from clip_reference import SMALL, our_encoder, random_model

from clipskip.encode import TextReader, condition, condition_all, vectors_at
from clipskip.errors import PromptError, SkipOutOfRange
from clipskip.spec import ClipSkip, FileRef, PhraseSkip, Render, parse_skip

RENDER = Render(prompt="swamp, (ogre:1.0), reeds", negative_prompt="blurry", model=FileRef(name="m"), steps=10)


@pytest.fixture(scope="module")
def reader() -> TextReader:
    return TextReader.of(our_encoder(random_model(SMALL), SMALL))


def at_phrase(render: Render, text: str) -> Render:
    return replace(render, phrase_skips=(PhraseSkip.parse(text),))


@pytest.mark.parametrize("prompt", ["swamp", "[swamp:lake:2] reeds", "[a|b] AND [swamp:7]"])
@pytest.mark.parametrize("text", ["[1:2:0.5]", "[1|3]", "[[1:2:3]:4.5:6]"])
def test_each_call_reads_the_skip_and_the_text_of_its_step(reader: TextReader, prompt: str, text: str) -> None:
    render, skip = replace(RENDER, prompt=prompt), parse_skip(text)
    found, spans = condition(reader, render.at(skip)), skip.over(render.steps)
    by_skip = {one: condition(reader, render.at(one)) for one in skip.parts}
    for call in range(render.steps):
        now = next(one for until, one in spans if call <= until)
        for ours, own in zip(found.at(call), by_skip[now].at(call), strict=True):
            torch.testing.assert_close(ours, own, rtol=1e-5, atol=1e-5)  # float32, other layers kept


def test_prompt_negative_prompt_and_phrase_change_each_at_its_own_call(reader: TextReader) -> None:
    render = replace(
        at_phrase(RENDER, "ogre=[3|6]"), clip_skip=parse_skip("[1:2:5]"), negative_clip_skip=parse_skip("[4:1:0.2]")
    )
    found = condition(reader, render)
    for call in range(render.steps):
        now = replace(
            at_phrase(RENDER, f"ogre={(3, 6)[max(call - 1, 0) % 2]}"),
            clip_skip=ClipSkip(1 if call <= 5 else 2),
            negative_clip_skip=ClipSkip(4 if call <= 2 else 1),
        )
        for ours, own in zip(found.at(call), condition(reader, now).at(call), strict=True):
            torch.testing.assert_close(ours, own, rtol=1e-5, atol=1e-5)  # float32, other layers kept


def test_a_schedule_counts_the_calls_that_are_said(reader: TextReader) -> None:
    render = RENDER.at(parse_skip("[1:2:0.5]"))
    found = condition(reader, render, calls=20)
    assert torch.equal(found.at(10)[0], found.at(0)[0]) and not torch.equal(found.at(11)[0], found.at(10)[0])


def test_equal_layers_of_a_schedule_are_one_tensor(reader: TextReader) -> None:
    found = condition(reader, RENDER.at(parse_skip("[1|3]")))
    assert len({id(vectors) for _, vectors in found.positive[0].schedule}) == 2


def test_a_phrase_takes_its_vectors_from_its_own_layer_and_the_rest_stay(reader: TextReader) -> None:
    (plain, deep) = condition_all(reader, [RENDER.at(ClipSkip(n)) for n in (1, 6)])
    found = condition(reader, at_phrase(RENDER, "Ogre=6"))
    (mixed, shallow, deeper) = (one.at(0)[0][0] for one in (found, plain, deep))
    own = [3, 4]  # start, swamp, comma, then o + gre
    assert torch.equal(mixed[own], deeper[own])
    others = [at for at in range(77) if at not in own]
    assert torch.equal(mixed[others], shallow[others])
    assert torch.equal(found.negative[0][1].tokens, plain.negative[0][1].tokens)


def test_a_phrase_at_the_prompts_own_skip_changes_nothing(reader: TextReader) -> None:
    render = replace(RENDER, prompt="(swamp:1.4), ogre BREAK ogre")
    found = condition(reader, at_phrase(render, "ogre=1"))
    assert torch.equal(vectors_at(found.positive[0].schedule, 0).tokens, condition(reader, render).at(0)[0][0])


def test_a_phrase_is_found_in_every_chunk_and_across_two(reader: TextReader) -> None:
    render = replace(RENDER, prompt="ogre " + "swamp " * 72 + "ogre")  # o is the 75th token, gre the first of the next
    found = condition(reader, at_phrase(render, "ogre=6"))
    changed = (found.at(0)[0][0] != condition(reader, render).at(0)[0][0]).any(dim=1)
    assert changed.nonzero().flatten().tolist() == [1, 2, 75, 78]


def test_a_phrase_of_one_text_of_the_schedule_is_enough(reader: TextReader) -> None:
    render = replace(RENDER, prompt="[swamp:ogre:5]")
    found = condition(reader, at_phrase(render, "ogre=6"))
    plain = condition(reader, render)
    assert torch.equal(found.at(0)[0], plain.at(0)[0])
    assert not torch.equal(found.at(9)[0], plain.at(9)[0])


def test_a_phrase_that_the_prompt_has_not_is_an_error(reader: TextReader) -> None:
    with pytest.raises(PromptError, match="does not contain the phrase 'goblin', to which Clip Skip 6 applies"):
        condition(reader, at_phrase(RENDER, "goblin=6"))


def test_pictures_of_one_prompt_may_have_phrases_of_their_own(reader: TextReader) -> None:
    renders = [RENDER, at_phrase(RENDER, "ogre=6"), at_phrase(RENDER, "reeds=3")]
    for render, found in zip(renders, condition_all(reader, renders), strict=True):
        torch.testing.assert_close(found.at(0)[0], condition(reader, render).at(0)[0], rtol=1e-5, atol=1e-5)


def test_of_two_phrases_that_overlap_the_later_counts(reader: TextReader) -> None:
    both = replace(RENDER, prompt="red frog", phrase_skips=(PhraseSkip.parse("red frog=6"), PhraseSkip.parse("frog=3")))
    found, deep, own = (
        condition(reader, one).at(0)[0][0] for one in (both, both.at(ClipSkip(6)), both.at(ClipSkip(3)))
    )
    assert torch.equal(found[1], deep[1]) and torch.equal(found[2], own[2])


def test_a_phrases_skip_deeper_than_the_encoder_is_an_error(reader: TextReader) -> None:
    with pytest.raises(SkipOutOfRange, match="12 layers"):
        condition(reader, at_phrase(RENDER, "ogre=13"))
