"""What each layer makes of a text's words, held against transformers with tokens masked out."""

from dataclasses import replace
from xml.etree import ElementTree

import pytest
import torch
from clip_reference import SMALL, our_encoder, random_model
from torch import Tensor

from clipskip.advise import read_layers
from clipskip.doors.layers_text import layer_lines, layer_picture
from clipskip.encode import TextReader
from clipskip.errors import PromptError
from clipskip.prompt import END, START, common_words, token_ids
from clipskip.weights import Embedding

COMMON = 40
TEXT = "a red frog left of a blue owl"


@pytest.fixture(scope="module")
def model():
    return random_model(SMALL)


@pytest.fixture(scope="module")
def reader(model) -> TextReader:
    return TextReader.of(our_encoder(model, SMALL))


def theirs(model, ids: list[int], hidden: set[int] = frozenset()) -> Tensor:
    """By Clip Skip: transformers' vectors [12, tokens, width], through the final norm, with tokens that nobody sees."""
    mask = torch.tensor([[int(i not in hidden) for i in range(len(ids))]])
    states = model(torch.tensor([ids]), attention_mask=mask, output_hidden_states=True).hidden_states
    return torch.stack([model.final_layer_norm(state[0]) for state in reversed(states[1:])])


@pytest.fixture(scope="module")
def centred(model) -> Tensor:
    """Our text's vectors less the mean of the common words said alone: [12, 10 tokens, width]."""
    lone = torch.stack([theirs(model, [START, one, END]) for one in common_words(COMMON)])
    mean, mean_end = lone[:, :, 1].mean(0), lone[:, :, 2].mean(0)
    whole = theirs(model, [START, *token_ids(TEXT), END])
    return torch.cat([whole[:, :-1] - mean[:, None], whole[:, -1:] - mean_end[:, None]], dim=1)


def share(moved: Tensor, own: Tensor) -> list[float]:
    return (moved.norm(dim=-1) / own.norm(dim=-1)).tolist()


NEAR = {"abs": 2e-3}
"""float32 in other batches, and lengths that are a fifth of what was subtracted; numbers are rounded to four places."""


def test_what_all_others_do_is_what_masking_them_takes_away(model, reader: TextReader, centred: Tensor) -> None:
    ids = [START, *token_ids(TEXT), END]
    found = read_layers(reader, TEXT, common=COMMON).words
    assert [word.text for word in found] == [*TEXT.split(), "(end)"]
    for at, word in enumerate(found, start=1):
        alone = theirs(model, ids, set(range(1, at)))[:, at]
        whole = theirs(model, ids)[:, at]
        assert word.context == pytest.approx(share(whole - alone, centred[:, at]), **NEAR), word.text


def test_what_one_word_does_to_another_is_what_masking_it_takes_away(
    model, reader: TextReader, centred: Tensor
) -> None:
    ids, words = [START, *token_ids(TEXT), END], TEXT.split()
    frog = read_layers(reader, TEXT, common=COMMON).words[2]
    assert {heard.word for heard in frog.heard} == {"a", "red"}
    for heard in frog.heard:
        hidden = words.index(heard.word) + 1
        moved = theirs(model, ids)[:, 3] - theirs(model, ids, {hidden})[:, 3]
        assert heard.share == pytest.approx(share(moved, centred[:, 3]), **NEAR), heard.word


def test_a_word_of_two_tokens_is_hidden_whole(model, reader: TextReader) -> None:
    text = "swamp ogre reeds"
    ids = [START, *token_ids(text), END]
    assert len(ids) == 7  # ogre and reeds are two tokens each
    swamp, ogre, reeds, end = read_layers(reader, text, common=COMMON).words
    heard = next(one for one in reeds.heard if one.word == "ogre")
    moved = (theirs(model, ids) - theirs(model, ids, {2, 3}))[:, 5].norm(dim=-1)
    alone = (theirs(model, ids) - theirs(model, ids, {1, 2, 3}))[:, 5].norm(dim=-1)
    ratio = torch.tensor(heard.share) / torch.tensor(reeds.context)
    assert torch.allclose(ratio, moved / alone, atol=2e-3)
    assert (swamp.context, [one.word for one in swamp.heard]) == ((0.0,) * 12, [])
    assert {one.word for one in end.heard} == {"swamp", "ogre", "reeds"}
    assert ogre.heard[0].word == "swamp"


def test_likeness_is_the_mean_cosine_over_the_words(model, reader: TextReader, centred: Tensor) -> None:
    found = read_layers(reader, TEXT, common=COMMON)
    unit = torch.nn.functional.normalize(centred[:, 1:], dim=-1)
    expected = torch.einsum("swd,twd->st", unit, unit) / unit.shape[1]
    assert torch.allclose(torch.tensor(found.likeness), expected, atol=2e-3)
    whole = theirs(model, [START, *token_ids(TEXT), END])[:, 1:]
    plain = torch.nn.functional.cosine_similarity(whole[:-1], whole[1:], dim=-1).mean(1)
    assert found.plain_likeness == pytest.approx(plain.tolist(), abs=1e-4)


def test_a_word_said_alone_is_nearest_to_itself_at_every_layer(reader: TextReader) -> None:
    word = next(one for one in ("the", "and", "for") if token_ids(one)[0] in common_words(COMMON))
    said, end = read_layers(reader, word, common=COMMON).words
    for near in (*said.nearest, *end.nearest):
        assert (near[0].word, len(near)) == (word, 3)
        assert near[0].cosine == pytest.approx(1, abs=0.02)  # the words are looked for in bfloat16


def test_nothing_is_heard_across_chunks_and_each_has_its_end(reader: TextReader) -> None:
    found = read_layers(reader, "red frog BREAK owl", common=COMMON).words
    assert [word.text for word in found] == ["red", "frog", "(end)", "owl", "(end)"]
    assert {heard.word for heard in found[4].heard} == {"owl"}
    assert found[3].context == (0.0,) * 12


def test_an_embedding_is_one_word(reader: TextReader) -> None:
    vectors = torch.randn(3, SMALL.width, generator=torch.Generator().manual_seed(0))
    mine = replace(reader, embeddings=(Embedding(name="mine", vectors=(vectors,), hash="0" * 64),))
    words = read_layers(mine, "red mine frog", common=COMMON).words
    assert [word.text for word in words] == ["red", "mine", "frog", "(end)"]
    assert {heard.word for heard in words[2].heard} == {"red", "mine"}


def test_commas_count_but_have_no_line_and_an_empty_text_has_its_end(reader: TextReader) -> None:
    found = read_layers(reader, "red, frog", common=COMMON)
    assert [word.text for word in found.words] == ["red", "frog", "(end)"]
    assert "," in {heard.word for heard in found.words[1].heard}
    (end,) = read_layers(reader, "", common=COMMON).words
    assert (end.text, end.heard, end.context) == ("(end)", (), (0.0,) * 12)


def test_a_text_that_only_a_sampler_can_combine_is_refused(reader: TextReader) -> None:
    with pytest.raises(PromptError, match="encode each part"):
        read_layers(reader, "red AND frog", common=COMMON)


def test_a_long_text_is_refused_with_what_to_do(reader: TextReader) -> None:
    with pytest.raises(PromptError, match="has 5 chunks"):
        read_layers(reader, " BREAK ".join("abcde"), common=COMMON)


def test_lines_and_picture_say_every_word_at_every_clip_skip(reader: TextReader) -> None:
    found = read_layers(reader, 'red & "frog" <x>', common=COMMON)
    lines = list(layer_lines(found, model="tiny", depth=12))
    heads = next(line for line in lines if line.startswith("reads layer"))
    assert heads.split()[2:] == [str(layer) for layer in range(12, 0, -1)]
    assert sum(line.startswith("  frog") for line in lines) == 2  # what the others do to it, and what it is nearest to
    picture = ElementTree.fromstring(layer_picture(found, model="tiny", text='red & "frog" <x>'))
    said = ["".join(node.itertext()) for node in picture.iter() if node.tag.endswith("text")]
    assert {'red & "frog" <x>', "red", "frog", "(end)"} <= set(said)
    assert len(said) > 12 * (12 + 3)
