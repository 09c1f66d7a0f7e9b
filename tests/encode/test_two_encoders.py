"""SDXL's two encoders and SD 2.x's one against transformers, padded, weighted and joined by A1111's rules, worked out anew."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import pytest
import tiny_sdxl
import torch
from clip_reference import relative, tokenizer
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from clipskip.encode import TextReader, condition, condition_all, encode_text, open_text_encoder, prompt_embeds
from clipskip.errors import SkipOutOfRange
from clipskip.networks import TextShape, build_text_encoder
from clipskip.spec import ClipSkip, EncoderSkips, Family, FileRef, Render, parse_skip
from clipskip.weights import Embedding

TOLERANCE = 1e-5
"""Of the largest number: float32, sums in another order."""
RENDER = Render(prompt="a red frog", model=FileRef(name="m"), steps=10, clip_skip=ClipSkip(2), width=832, height=1216)
START, END = 49406, 49407
SPARE = 4


@dataclass(frozen=True)
class Both:
    ours: TextReader
    l: CLIPTextModel  # noqa: E741
    g: CLIPTextModelWithProjection


def config(shape: TextShape) -> CLIPTextConfig:
    known = {**shape.config(), "vocab_size": shape.vocabulary + SPARE}
    return CLIPTextConfig(**known, bos_token_id=START, eos_token_id=END)


def widened(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """With rows behind the vocabulary, for textual inversions."""
    table = state["embeddings.token_embedding.weight"]
    rows = torch.randn(SPARE, table.shape[1], generator=torch.Generator().manual_seed(9))
    return {**state, "embeddings.token_embedding.weight": torch.cat([table, rows])}


@pytest.fixture(scope="module")
def both() -> Both:
    states = tiny_sdxl.sdxl().states
    l, g = CLIPTextModel(config(tiny_sdxl.L)).eval(), CLIPTextModelWithProjection(config(tiny_sdxl.G)).eval()  # noqa: E741
    l.load_state_dict(widened(states["text_encoder"]))
    named = {
        n if n.startswith("text_projection") else f"text_model.{n}": t
        for n, t in widened(states["text_encoder_2"]).items()
    }
    g.load_state_dict(named)
    networks = (
        build_text_encoder(states["text_encoder"], tiny_sdxl.L),
        build_text_encoder(states["text_encoder_2"], tiny_sdxl.G),
    )
    return Both(TextReader.of(*networks, family=Family.SDXL), l, g)


def ids(tokens: Sequence[int], *, pad: int) -> Tensor:
    """A chunk as an encoder is given it: what follows the first end token is `pad`."""
    return torch.tensor([[START, *tokens, END, *[pad] * (75 - len(tokens))]])


def tokens_of(text: str) -> list[int]:
    found: list[int] = tokenizer()(text, add_special_tokens=False).input_ids
    return found


@torch.no_grad()
def states(both: Both, tokens: Sequence[int]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], Tensor]:
    """h[0..12] of L, h[0..32] of G and the pooled vector of one chunk."""
    g = both.g(ids(tokens, pad=0), output_hidden_states=True)
    return both.l(ids(tokens, pad=END), output_hidden_states=True).hidden_states, g.hidden_states, g.text_embeds[0]


def sides(found: tuple[tuple[Tensor, ...], tuple[Tensor, ...], Tensor], l: float, g: float) -> tuple[Tensor, Tensor]:  # noqa: E741
    """Each encoder's layer at a Clip Skip, without the final norm; a fraction lies between two."""

    def layer(hidden: tuple[Tensor, ...], skip: float) -> Tensor:
        whole, part = int(skip), skip - int(skip)
        deeper = hidden[-(whole + 1)] if part else hidden[-whole]
        return (1 - part) * hidden[-whole][0] + part * deeper[0]

    return layer(found[0], l), layer(found[1], g)


def test_every_pair_of_clip_skips_is_transformers_layers_side_by_side(both: Both) -> None:
    pairs = list(product(range(1, 13), range(1, 33)))
    renders = [RENDER.at(EncoderSkips.of(ClipSkip(l), ClipSkip(g))) for l, g in pairs]  # noqa: E741
    theirs = states(both, tokens_of(RENDER.prompt))
    for (l, g), one in zip(pairs, condition_all(both.ours, renders), strict=True):  # noqa: E741
        vectors = one.positive[0].schedule[0][1]
        assert vectors.tokens.shape == (77, tiny_sdxl.L.width + tiny_sdxl.G.width)
        for ours, expected in zip(vectors.tokens.split([32, 40], -1), sides(theirs, l, g), strict=True):
            assert relative(ours, expected) < TOLERANCE, f"clip skip {l}/{g}"


def test_one_number_counts_for_both_and_a_fraction_lies_between_two_layers(both: Both) -> None:
    theirs = states(both, tokens_of(RENDER.prompt))
    for text, l, g in (("3", 3, 3), ("1.5", 1.5, 1.5), ("2.25/7.5", 2.25, 7.5)):  # noqa: E741
        tokens = condition(both.ours, RENDER.at(parse_skip(text))).positive[0].schedule[0][1].tokens
        assert relative(tokens, torch.cat(sides(theirs, l, g), -1)) < TOLERANCE


def test_the_pooled_vector_is_transformers_and_the_same_to_the_bit_at_every_clip_skip(both: Both) -> None:
    theirs = states(both, tokens_of("a red frog"))[2]
    skips = [parse_skip(f"{l}/{g}") for l, g in ((1, 1), (2, 2), (12, 1), (1, 32), (12, 32), (3, 7))]  # noqa: E741
    alone = [encode_text(both.ours, "a red frog", [skip])[skip].pooled for skip in skips]
    assert alone[0] is not None and relative(alone[0], theirs) < TOLERANCE
    assert all(pooled is not None and torch.equal(pooled, alone[0]) for pooled in alone)


def test_weights_count_for_each_encoder_by_itself_and_not_for_the_pooled_vector(both: Both) -> None:
    plain = states(both, tokens_of("a red frog"))
    weights = torch.ones(77, 1)
    weights[2] = 1.3
    for emphasis in ("Original", "No norm", "Ignore"):
        render = replace(RENDER, prompt="a (red:1.3) frog", emphasis=emphasis)
        vectors = condition(both.ours, render).positive[0].schedule[0][1]
        expected = []
        for side in sides(plain, 2, 2):
            weighted = side if emphasis == "Ignore" else side * weights
            expected.append(weighted * (side.mean() / weighted.mean()) if emphasis == "Original" else weighted)
        assert relative(vectors.tokens, torch.cat(expected, -1)) < TOLERANCE
        assert vectors.pooled is not None and relative(vectors.pooled, plain[2]) < TOLERANCE


def test_a_long_prompt_is_read_chunk_by_chunk_and_pooled_from_the_first(both: Both) -> None:
    vectors = condition(both.ours, replace(RENDER, prompt="a red frog BREAK blue owl")).positive[0].schedule[0][1]
    chunks = [states(both, tokens_of(text)) for text in ("a red frog", "blue owl")]
    expected = torch.cat([torch.cat(sides(chunk, 2, 2), -1) for chunk in chunks])
    assert relative(vectors.tokens, expected) < TOLERANCE
    assert vectors.pooled is not None and relative(vectors.pooled, chunks[0][2]) < TOLERANCE


def test_every_text_of_a_schedule_and_of_an_and_has_its_own_pooled_vector(both: Both) -> None:
    found = condition(both.ours, replace(RENDER, prompt="[frog:owl:0.5] AND reeds :0.5"))
    texts = [vectors for part in found.positive for _, vectors in part.schedule]
    assert [part.weight for part in found.positive] == [1, 0.5]
    for text, vectors in zip(("frog", "owl", "reeds"), texts, strict=True):
        assert vectors.pooled is not None and relative(vectors.pooled, states(both, tokens_of(text))[2]) < TOLERANCE


def waves(number: float) -> Tensor:
    """A sinusoid of 256 numbers, the cosines first (Podell et al. 2023, section 2.2)."""
    angles = number / 10_000 ** (torch.arange(128, dtype=torch.float64) / 128)
    return torch.cat([angles.cos(), angles.sin()]).float()


def test_what_stands_beside_the_text_is_pooled_vector_sizes_crop_and_target_in_a1111s_order(both: Both) -> None:
    found = condition(both.ours, replace(RENDER, crop_top=8, crop_left=24))
    vectors = found.positive[0].schedule[0][1]
    sizes = torch.cat([waves(n) for n in (1216, 832, 8, 24, 1216, 832)])
    assert vectors.added is not None and vectors.pooled is not None
    assert torch.equal(vectors.added[:40], vectors.pooled)
    assert torch.allclose(vectors.added[40:], sizes, atol=1e-4)  # the angle 1216 in float32


def test_sizes_are_spread_as_published_numbers_have_it(both: Both) -> None:
    vectors = condition(both.ours, replace(RENDER, width=832, height=1024)).positive[0].schedule[0][1]
    assert vectors.added is not None
    height, width = vectors.added[40:296], vectors.added[296:552]
    golden = [0.9873536, -0.5376172, 0.9939517, -0.1585334, 0.1098179]
    assert height[[0, 1, 127, 128, 255]].tolist() == pytest.approx(golden, abs=1e-4)
    golden = [-0.8667971, 0.1658572, 0.9960058, 0.4986609, 0.0892883]
    assert width[[0, 1, 127, 128, 255]].tolist() == pytest.approx(golden, abs=1e-4)


def test_an_empty_negative_prompt_is_all_zeros_but_for_its_sizes_and_only_there(both: Both) -> None:
    found = condition(both.ours, replace(RENDER, prompt=""))
    below, above = found.negative[0][1], found.positive[0].schedule[0][1]
    assert not below.tokens.any() and below.pooled is not None and not below.pooled.any()
    assert below.added is not None and above.added is not None and torch.equal(below.added[40:], above.added[40:])
    assert above.tokens.any() and above.pooled is not None and above.pooled.any()


@pytest.mark.parametrize(
    "change", [{"negative_prompt": "blurry"}, {"empty_negative": "Read"}, {"negative_prompt": "[:blurry:0.5]"}]
)
def test_other_negative_prompts_are_read(both: Both, change: dict[str, str]) -> None:
    vectors = condition(both.ours, replace(RENDER, **change)).negative[0][1]
    text = change.get("negative_prompt", "") if change.get("negative_prompt") == "blurry" else ""
    theirs = states(both, tokens_of(text))
    assert relative(vectors.tokens, torch.cat(sides(theirs, 2, 2), -1)) < TOLERANCE
    assert vectors.pooled is not None and relative(vectors.pooled, theirs[2]) < TOLERANCE


def test_an_embedding_has_its_own_vectors_for_each_encoder(both: Both) -> None:
    rows = [
        both.l.get_input_embeddings().weight[tiny_sdxl.L.vocabulary :].detach(),
        both.g.get_input_embeddings().weight[tiny_sdxl.G.vocabulary :].detach(),
    ]
    swampy = Embedding(name="swampy", vectors=(rows[0][:2], rows[1][:2]), hash="1")
    reader = replace(both.ours, embeddings=(swampy,))
    vectors = condition(reader, replace(RENDER, prompt="a swampy frog")).positive[0].schedule[0][1]
    spare = range(tiny_sdxl.L.vocabulary, tiny_sdxl.L.vocabulary + 2)
    theirs = states(both, [*tokens_of("a"), *spare, *tokens_of("frog")])
    assert relative(vectors.tokens, torch.cat(sides(theirs, 2, 2), -1)) < TOLERANCE
    # transformers takes the last end token for the pooled vector; a spare row has a higher number, and is not one.
    assert vectors.pooled is not None and relative(vectors.pooled, theirs[2]) < TOLERANCE


def test_a_phrase_has_its_own_clip_skip_in_each_encoder(both: Both) -> None:
    from clipskip.spec import PhraseSkip

    render = replace(RENDER, phrase_skips=(PhraseSkip.parse("red=5/9"),))
    tokens = condition(both.ours, render).positive[0].schedule[0][1].tokens
    theirs = states(both, tokens_of(RENDER.prompt))
    expected = torch.cat(sides(theirs, 2, 2), -1)
    expected[2] = torch.cat(sides(theirs, 5, 9), -1)[2]
    assert relative(tokens, expected) < TOLERANCE


def test_each_encoders_schedule_changes_at_its_own_call(both: Both) -> None:
    found = condition(both.ours, RENDER.at(parse_skip("L=[1:2:4],G=[3:5:6]")))
    theirs = states(both, tokens_of(RENDER.prompt))
    for call, (l, g) in {4: (1, 3), 5: (2, 3), 6: (2, 3), 7: (2, 5)}.items():  # noqa: E741
        assert relative(found.at(call)[0][0], torch.cat(sides(theirs, l, g), -1)) < TOLERANCE, f"call {call}"


def test_prompt_embeds_give_diffusers_the_pooled_vectors_too(both: Both) -> None:
    found = prompt_embeds(both.ours, "a red frog", "blurry", clip_skip=parse_skip("2/3"))
    theirs = {text: states(both, tokens_of(text)) for text in ("a red frog", "blurry")}
    assert relative(found["prompt_embeds"][0], torch.cat(sides(theirs["a red frog"], 2, 3), -1)) < TOLERANCE
    assert relative(found["pooled_prompt_embeds"][0], theirs["a red frog"][2]) < TOLERANCE
    assert relative(found["negative_pooled_prompt_embeds"][0], theirs["blurry"][2]) < TOLERANCE
    empty = prompt_embeds(both.ours, "a red frog")
    assert not empty["negative_prompt_embeds"].any() and not empty["negative_pooled_prompt_embeds"].any()
    read = prompt_embeds(both.ours, "a red frog", zero_negative=False)
    assert relative(read["negative_pooled_prompt_embeds"][0], states(both, [])[2]) < TOLERANCE


@pytest.mark.parametrize("skip", ["13", "13/2", "2/33"])
def test_a_layer_that_an_encoder_does_not_have_is_refused_by_its_name(both: Both, skip: str) -> None:
    with pytest.raises(SkipOutOfRange, match=r"OpenCLIP-bigG|CLIP-L"):
        condition(both.ours, RENDER.at(parse_skip(skip)))


@torch.no_grad()
def test_sd2_reads_all_24_layers_through_the_norm_and_pads_with_0(tmp_path) -> None:  # type: ignore[no-untyped-def]
    parts = tiny_sdxl.sd2()
    theirs = CLIPTextModel(config(tiny_sdxl.H)).eval()
    theirs.load_state_dict(widened(parts.states["text_encoder"]))
    reader = open_text_encoder(tiny_sdxl.write(parts, tmp_path / "sd2.safetensors"))
    hidden = theirs(ids(tokens_of("a red frog"), pad=0), output_hidden_states=True).hidden_states
    for skip, vectors in encode_text(reader, "a red frog", [ClipSkip(n) for n in range(1, 25)]).items():
        assert relative(vectors.tokens, theirs.final_layer_norm(hidden[-int(str(skip))])[0]) < TOLERANCE
        assert vectors.pooled is None
    assert condition(reader, RENDER).negative[0][1].tokens.any(), "only SDXL zeroes an empty negative prompt"


def test_a_mean_near_0_that_weights_move_far_is_told(both: Both) -> None:
    plain = states(both, tokens_of("a red frog"))
    assert condition(both.ours, RENDER).warnings == (), "without weights nothing is multiplied"
    sides_of = sides(plain, 2, 2)
    token = sides_of[0][2]
    weight = round(float(1 - 0.75 * sides_of[0].sum() / token.sum()), 3)  # leaves a quarter of the mean
    found = condition(both.ours, replace(RENDER, prompt=f"a (red:{weight}) frog"))
    assert len(found.warnings) == 1 and 'use the emphasis "No norm"' in found.warnings[0]
    assert condition(both.ours, replace(RENDER, prompt=f"a (red:{weight}) frog", emphasis="No norm")).warnings == ()
