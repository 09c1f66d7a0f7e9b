"""The laws of reading a layer: what Clip Skip promises whatever the prompt."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from clip_reference import SMALL, our_encoder, random_model, relative
from transformers import CLIPTextModel

from clipskip.encode import (
    TextReader,
    condition,
    condition_all,
    emphasise,
    encode_layers,
    last_layer_needed,
    layer_indices,
    prompt_embeds,
    read_layer,
    vectors_at,
)
from clipskip.errors import PromptError, SkipOutOfRange
from clipskip.networks import TextEncoder, TextShape
from clipskip.prompt import END, START, token_ids
from clipskip.spec import ClipSkip, FileRef, Render
from clipskip.spec.family import Family
from clipskip.weights import Embedding

SKIPS = tuple(ClipSkip(n) for n in range(1, 13))
PLAIN = "best quality, swamp, fireflies, ogre, reeds"
RENDER = Render(prompt=PLAIN, negative_prompt="blurry", model=FileRef(name="m"), steps=10)


@pytest.fixture(scope="module")
def theirs() -> CLIPTextModel:
    return random_model(SMALL)


@pytest.fixture(scope="module")
def encoder(theirs: CLIPTextModel) -> TextEncoder:
    return our_encoder(theirs, SMALL)


@pytest.fixture
def reader(encoder: TextEncoder) -> TextReader:
    return TextReader.of(encoder)


@pytest.fixture
def counted(encoder: TextEncoder) -> Iterator[list[int]]:
    """The layers that run, as they run."""
    ran: list[int] = []
    hooks = [
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
        for number, layer in enumerate(encoder.encoder.layers, start=1)
    ]
    yield ran
    for hook in hooks:
        hook.remove()


def ids_of(text: str) -> torch.Tensor:
    found = token_ids(text)
    return torch.tensor([[START, *found, *[END] * (76 - len(found))]])


def test_clip_skip_1_is_the_encoders_own_output_bit_for_bit(reader: TextReader) -> None:
    found = encode_layers(reader, PLAIN, [ClipSkip(1)])[ClipSkip(1)]
    assert torch.equal(found, reader.encoders[0].network(ids_of(PLAIN))[0])


def test_clip_skip_1_is_transformers_last_hidden_state(reader: TextReader, theirs: CLIPTextModel) -> None:
    found = encode_layers(reader, PLAIN, [ClipSkip(1)])[ClipSkip(1)]
    assert relative(found, theirs(ids_of(PLAIN)).last_hidden_state[0]) < 1e-5  # float32, sums in another order


@pytest.mark.parametrize("skip", SKIPS, ids=str)
def test_a_whole_clip_skip_is_the_normed_layer_bit_for_bit(reader: TextReader, skip: ClipSkip) -> None:
    encoder = reader.encoders[0].network
    layer = encoder.layers(ids_of(PLAIN))[13 - int(skip.from_end)]
    assert torch.equal(encode_layers(reader, PLAIN, [skip])[skip], encoder.final_layer_norm(layer)[0])


def test_one_skip_alone_is_bit_equal_to_it_among_all(reader: TextReader) -> None:
    together = encode_layers(reader, "a (big) cat BREAK ogre", SKIPS)
    for skip in SKIPS:
        assert torch.equal(encode_layers(reader, "a (big) cat BREAK ogre", [skip])[skip], together[skip])


def test_all_skips_take_one_pass_of_the_prompt_and_one_of_the_negative_prompt(
    reader: TextReader, counted: list[int]
) -> None:
    condition_all(reader, [RENDER.at(skip) for skip in SKIPS])
    assert counted == 2 * list(range(1, 13))


def test_the_pass_stops_at_the_last_layer_that_any_skip_reads(reader: TextReader, counted: list[int]) -> None:
    condition_all(reader, [RENDER.at(ClipSkip(n)) for n in (5.5, 8, 12)])
    assert counted == 2 * list(range(1, 9))


@pytest.mark.parametrize(
    ("skips", "layers"), [((1,), (12,)), ((12,), (1,)), ((1.5,), (11, 12)), ((2, 1.5, 12), (1, 11, 12))]
)
def test_a_fraction_needs_both_its_layers(skips: tuple[float, ...], layers: tuple[int, ...]) -> None:
    wanted = [ClipSkip(n) for n in skips]
    assert layer_indices(wanted, depth=12) == layers
    assert last_layer_needed(wanted, depth=12) == layers[-1]


def test_a_fraction_mixes_two_layers_before_the_norm(reader: TextReader) -> None:
    states = reader.encoders[0].network.layers(ids_of(PLAIN))
    mixed = reader.encoders[0].network.final_layer_norm(0.75 * states[11] + 0.25 * states[10])
    found = encode_layers(reader, PLAIN, [ClipSkip(2.25)])[ClipSkip(2.25)]
    assert relative(found, mixed[0]) < 1e-6  # float32, another order
    normed = 0.75 * reader.encoders[0].network.final_layer_norm(states[11]) + 0.25 * reader.encoders[
        0
    ].network.final_layer_norm(states[10])
    assert relative(found, normed[0]) > 1e-3


def test_a_family_without_final_norm_reads_the_bare_layer(reader: TextReader) -> None:
    states = reader.encoders[0].network.layers(ids_of(PLAIN))
    assert torch.equal(read_layer(states, ClipSkip(2), depth=12, final_norm=None), states[11])


@pytest.mark.parametrize("number", [13, 12.5, 1e9])
def test_a_skip_deeper_than_the_encoder_names_its_depth(reader: TextReader, number: float) -> None:
    with pytest.raises(SkipOutOfRange, match=r"deeper than this encoder's 12 layers; use 1 to 12"):
        condition(reader, RENDER.at(ClipSkip(number)))


def test_a_negative_skip_deeper_than_the_encoder_is_an_error_too(reader: TextReader) -> None:
    with pytest.raises(SkipOutOfRange, match="12 layers"):
        condition(reader, replace(RENDER, negative_clip_skip=ClipSkip(13)))


def test_sd2_folders_without_the_last_layer_say_so() -> None:
    shape = TextShape(depth=23, width=1024, heads=2, mlp_width=8, positions=77, vocabulary=10)
    with torch.device("meta"):
        reader = TextReader.of(TextEncoder(shape), family=Family.SD2)
    assert reader.encoders[0].layers([ClipSkip(2)]) == (23,)
    with pytest.raises(SkipOutOfRange, match=r"holds 23 of .* 24 layers; use 2 to 24"):
        reader.encoders[0].layers([ClipSkip(1), ClipSkip(2)])


def test_pictures_with_the_same_texts_and_skip_share_their_conditioning(reader: TextReader) -> None:
    first, seed, skip = condition_all(reader, [RENDER, replace(RENDER, seed=7), RENDER.at(ClipSkip(2))])
    assert first is seed
    assert first is not skip


def test_a_text_that_comes_back_is_the_same_tensor_also_after_a_move(reader: TextReader) -> None:
    found = condition(reader, replace(RENDER, prompt="[a|b] cat"))
    for one in (found, found.to(dtype=torch.bfloat16)):
        schedule = one.positive[0].schedule
        assert len(schedule) == 10
        assert schedule[0][1] is schedule[2][1]
        assert schedule[0][1] is not schedule[1][1]
    assert found.to(dtype=torch.bfloat16).negative[0][1].tokens.dtype == torch.bfloat16


def test_the_denoisers_calls_find_their_text_as_in_a1111(reader: TextReader) -> None:
    found = condition(reader, replace(RENDER, prompt="[swamp:lake:3]"))
    (first, early), (last, late) = found.positive[0].schedule
    assert (first, last) == (3, 10)
    assert [vectors_at(found.positive[0].schedule, call) is early for call in range(10)] == [True] * 4 + [False] * 6
    positive, negative = found.at(4)
    assert torch.equal(positive[0], late.tokens)
    assert torch.equal(negative, found.negative[0][1].tokens)


def test_samplers_of_second_order_count_twice_the_calls(reader: TextReader) -> None:
    (found,) = condition_all(reader, [replace(RENDER, prompt="[a:b:0.5]")], calls=lambda render: 2 * render.steps)
    assert [until for until, _ in found.positive[0].schedule] == [10, 20]


def test_more_chunks_than_one_batch_agree_with_them_one_by_one(reader: TextReader) -> None:
    words = [f"{number} reeds" for number in range(40)]
    found = encode_layers(reader, " BREAK ".join(words), [ClipSkip(3)])[ClipSkip(3)]
    alone = torch.cat([encode_layers(reader, word, [ClipSkip(3)])[ClipSkip(3)] for word in words])
    assert relative(found, alone) < 1e-5  # float32, other batch sizes


def test_a_bfloat16_encoder_gives_float32_vectors(theirs: CLIPTextModel) -> None:
    coarse = TextReader.of(our_encoder(theirs, SMALL).to(torch.bfloat16))
    exact = TextReader.of(our_encoder(theirs, SMALL))
    for skip, found in encode_layers(coarse, "a (big) cat", SKIPS).items():
        assert found.dtype == torch.float32
        assert relative(found, encode_layers(exact, "a (big) cat", SKIPS)[skip]) < 5e-2  # bfloat16 keeps 8 bits


def test_two_embeddings_of_one_name_are_an_error_when_it_is_used(reader: TextReader) -> None:
    twins = tuple(Embedding(name="ogrish", vectors=(torch.ones(1, 32) * n,), hash=str(n)) for n in (1, 2))
    both = replace(reader, embeddings=twins)
    assert encode_layers(both, "a cat", [ClipSkip(1)])
    with pytest.raises(PromptError, match="'ogrish', and 2 different embeddings have that name"):
        encode_layers(both, "an ogrish cat", [ClipSkip(1)])


def test_a_mean_of_zero_cannot_be_restored() -> None:
    vectors, weights = torch.tensor([[[[1.0, -1.0], [1.0, 1.0]]]]), torch.tensor([[[1.0, 0.0]]])
    with pytest.raises(PromptError, match="mean of its vectors to 0"):
        emphasise(vectors, weights, counts=[1], restore_mean=True)


def test_prompt_embeds_are_what_a_sampler_would_be_given(reader: TextReader) -> None:
    found = prompt_embeds(reader, PLAIN, "blurry", clip_skip=ClipSkip(2))
    positive, negative = condition(reader, RENDER.at(ClipSkip(2))).at(0)
    assert relative(found["prompt_embeds"], positive) < 1e-6  # one more chunk in the batch
    assert relative(found["negative_prompt_embeds"][0], negative) < 1e-6


def test_prompt_embeds_pad_the_shorter_with_the_empty_prompt_at_its_own_skip(reader: TextReader) -> None:
    found = prompt_embeds(reader, "reeds " * 100, "blurry", clip_skip=ClipSkip(2), negative_clip_skip=ClipSkip(3))
    assert found["prompt_embeds"].shape == found["negative_prompt_embeds"].shape == (1, 231, 32)
    empty = encode_layers(reader, "", [ClipSkip(3)])[ClipSkip(3)]
    assert relative(found["negative_prompt_embeds"][0, 77:], empty.repeat(2, 1)) < 1e-5  # float32, other batch sizes


def test_prompt_embeds_read_at_the_familys_own_skip_by_default(reader: TextReader) -> None:
    by_default, last = prompt_embeds(reader, PLAIN), prompt_embeds(reader, PLAIN, clip_skip=ClipSkip(1))
    assert torch.equal(by_default["prompt_embeds"], last["prompt_embeds"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a cat AND a dog", "AND"),
        ("a cat :2", "ends in a weight"),
        ("[a:b:0.5]", "step to step"),
        ("[a|b]", "step to step"),
        ("a cat <lora:ogre:1>", "LoRA 'ogre'"),
    ],
)
def test_a_text_that_is_more_than_one_set_of_vectors_is_refused(reader: TextReader, text: str, says: str) -> None:
    with pytest.raises(PromptError, match=says):
        encode_layers(reader, text, [ClipSkip(1)])
