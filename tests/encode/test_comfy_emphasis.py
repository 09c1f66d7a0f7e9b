"""ComfyUI's weights: how far from the empty prompt each vector is, worked out token by token from transformers' vectors."""

import pytest
import torch
from clip_reference import BREAK, SMALL, SPARE, Segments, expected, our_encoder, random_model, relative, skips_of
from torch import Tensor

from clipskip.encode import Conditioning, TextReader, condition_all
from clipskip.spec import ClipSkip, FileRef, PhraseSkip, Render
from clipskip.weights import Embedding

TOLERANCE = 1e-5
"""float32: sums in another order."""
SKIPS = (1, 2, 3)


class Setting:
    """Ours and theirs with the same weights, and an embedding of two vectors."""

    def __init__(self) -> None:
        self.theirs = random_model(SMALL, spare=SPARE)
        rows = self.theirs.state_dict()["embeddings.token_embedding.weight"][SMALL.vocabulary :]
        easy = Embedding(name="easy", vectors=(rows[[0, 1]],), hash="easy")
        self.reader = TextReader.of(our_encoder(self.theirs, SMALL), embeddings=(easy,))
        self.slots = {"easy": range(SMALL.vocabulary, SMALL.vocabulary + 2)}
        self.skips = [ClipSkip(n) for n in skips_of(self.theirs)]

    def ours(self, prompt: str, **settings: object) -> dict[float, Conditioning]:
        base = Render(prompt=prompt, model=FileRef(name="m"), steps=10, emphasis="ComfyUI", **settings)
        found = condition_all(self.reader, [base.at(skip) for skip in self.skips])
        return {skip.from_end: one for skip, one in zip(self.skips, found, strict=True)}

    def plain(self, segments: Segments) -> dict[float, Tensor]:
        """The vectors [tokens, width] without weights, by Clip Skip."""
        return {n: found[0] for n, found in expected(self.theirs, [segments], slots=self.slots).items()}


@pytest.fixture(scope="module")
def small() -> Setting:
    return Setting()


PROMPTS: list[tuple[str, Segments, dict[int, float]]] = [
    ("a (big:1.4) cat", [("a big cat", 1)], {2: 1.4}),
    ("((a:1.4)) (big) cat", [("a big cat", 1)], {1: 1.4, 2: 1.1}),
    ("(a (big) cat:0.5)", [("a big cat", 1)], {1: 0.5, 2: 0.5 * 1.1, 3: 0.5}),
    ("a [big] # cat", [("a [big] # cat", 1)], {}),
    ("a (embedding:easy:-1) cat", [("a", 1), ("@easy", 1), ("cat", 1)], {2: -1.0, 3: -1.0}),
    ("swamp " * 80 + "(ogre:2)", [("swamp " * 75, 1), BREAK, ("swamp " * 5 + "ogre", 1)], {77 + 6: 2.0, 77 + 7: 2.0}),
]


@pytest.mark.parametrize(("prompt", "segments", "weights"), PROMPTS, ids=[prompt[:30] for prompt, _, _ in PROMPTS])
def test_a_weighted_vector_is_so_many_times_as_far_from_the_empty_prompts(
    small: Setting, prompt: str, segments: Segments, weights: dict[int, float]
) -> None:
    read, empty = small.plain(segments), small.plain([("", 1)])
    for n, one in small.ours(prompt).items():
        wanted = read[n].clone()
        for place, weight in weights.items():
            middle = empty[n][place % 77]
            wanted[place] = middle + weight * (read[n][place] - middle)
        assert relative(one.positive[0].schedule[0][1].tokens, wanted) < TOLERANCE, f"clip skip {n}"


def test_it_counts_for_the_negative_prompt_too(small: Setting) -> None:
    for one in small.ours("(a big cat:1.3)", negative_prompt="(a big cat:1.3)").values():
        assert torch.equal(one.negative[0][1].tokens, one.positive[0].schedule[0][1].tokens)


def test_a_prompt_without_weights_is_the_same_under_both_rules(small: Setting) -> None:
    plain = Render(prompt="a big cat", model=FileRef(name="m"), steps=10)
    (theirs,) = condition_all(small.reader, [plain.at(ClipSkip(2))])
    ours = small.ours("a big cat")[2]
    assert torch.equal(ours.positive[0].schedule[0][1].tokens, theirs.positive[0].schedule[0][1].tokens)


def test_a_phrases_own_clip_skip_is_weighed_from_the_empty_prompt_at_that_skip(small: Setting) -> None:
    phrases = (PhraseSkip(phrase="big", skip=ClipSkip(3)),)
    ours = small.ours("a (big:1.4) cat", phrase_skips=phrases)[2]
    read, empty = small.plain([("a big cat", 1)]), small.plain([("", 1)])
    wanted = read[2].clone()
    wanted[2] = empty[3][2] + 1.4 * (read[3][2] - empty[3][2])
    assert relative(ours.positive[0].schedule[0][1].tokens, wanted) < TOLERANCE
