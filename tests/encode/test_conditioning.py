"""Conditioning against the same rules worked out again with transformers, prompt by prompt, at every Clip Skip."""

import pytest
import torch
from clip_reference import (
    BREAK,
    CLIP_L,
    SMALL,
    SPARE,
    Segments,
    expected,
    our_encoder,
    random_model,
    relative,
    skips_of,
)
from transformers import CLIPTextModel

from clipskip.encode import Conditioning, TextReader, condition_all
from clipskip.networks import TextShape
from clipskip.spec import ClipSkip, FileRef, Render
from clipskip.weights import Embedding

TOLERANCE = 1e-5
"""float32: sums, and the mean that emphasis restores, in another order."""

SLOTS = {"badhands": range(4), "myogre": range(4, 5), "my ogre style": range(5, 15)}
"""Embeddings, and the spare rows that hold their vectors."""

PROMPTS: list[tuple[str, Segments]] = [
    ("", [("", 1)]),
    ("best quality, swamp, fireflies, ogre, reeds", [("best quality, swamp, fireflies, ogre, reeds", 1)]),
    ("Ünïcode ogre's 2024 &*é", [("Ünïcode ogre's 2024 &*é", 1)]),
    ("(a cat:1.2)", [("a cat", 1.2)]),
    ("a (big) cat", [("a ", 1), ("big", 1.1), (" cat", 1)]),
    ("a ((big)) cat", [("a ", 1), ("big", 1.1 * 1.1), (" cat", 1)]),
    ("a [dull] sky", [("a ", 1), ("dull", 1 / 1.1), (" sky", 1)]),
    ("(a (b:1.3) c:0.8)", [("a ", 0.8), ("b", 1.3 * 0.8), (" c", 0.8)]),
    ("a \\(cat\\) \\[here\\]", [("a (cat) [here]", 1)]),
    ("never closed (big cat", [("never closed ", 1), ("big cat", 1.1)]),
    ("closed) too soon", [("closed) too soon", 1)]),
    ("(nothing:0) of the moon", [("nothing", 0), (" of the moon", 1)]),
    ("(less than nothing:-0.5) of the moon", [("less than nothing", -0.5), (" of the moon", 1)]),
    ("(huge:4) swamp", [("huge", 4), (" swamp", 1)]),
    ("ca(terpil:1.2)lar", [("ca", 1), ("terpil", 1.2), ("lar", 1)]),
    ("swamp BREAK ogre", [("swamp", 1), BREAK, ("ogre", 1)]),
    ("BREAK ogre", [("", 1), BREAK, ("ogre", 1)]),
    ("swamp BREAK BREAK ogre", [("swamp", 1), BREAK, ("", 1), BREAK, ("ogre", 1)]),
    ("swamp BREAK", [("swamp", 1), BREAK]),
    ("(swamp:1.3) BREAK (ogre:0.7)", [("swamp", 1.3), (" ", 1), BREAK, ("ogre", 0.7)]),
    ("(a BREAK b:1.0)", [("a", 1), BREAK, ("b", 1)]),
    ("breakfast and BREAKFAST", [("breakfast and BREAKFAST", 1)]),
    ("swamp " * 100, [("swamp " * 100, 1)]),
    ("swamp, " * 60, [("swamp, " * 60, 1)]),
    ("a very deep dark green swamp, " * 26, [("a very deep dark green swamp, " * 26, 1)]),
    ("(fireflies, :1.3)" * 70 + "ogre", [("fireflies, " * 70, 1.3), ("ogre", 1)]),
    ("swamp " * 74 + "(reeds:1.4) BREAK ogre", [("swamp " * 74, 1), ("reeds", 1.4), (" ", 1), BREAK, ("ogre", 1)]),
    ("a badhands ogre", [("a", 1), ("@badhands", 1), ("ogre", 1)]),
    ("(badhands:1.3), myogre", [("@badhands", 1.3), (",", 1), ("@myogre", 1)]),
    ("swamp " * 70 + "my ogre style, reeds", [("swamp " * 70, 1), ("@my ogre style", 1), (", reeds", 1)]),
    (
        "swamp, " + "deep " * 68 + "badhands (ogre:0.5)",
        [("swamp, " + "deep " * 68, 1), ("@badhands", 1), ("ogre", 0.5)],
    ),
    ("myogre " * 80, [("@myogre", 1)] * 80),
]
LONG = "reeds, " * 40
SCHEDULES: list[tuple[str, list[int], list[Segments]]] = [
    ("[swamp:lake:0.5] (ogre:1.4)", [5, 10], [[("swamp ", 1), ("ogre", 1.4)], [("lake ", 1), ("ogre", 1.4)]]),
    ("(ogre:1.4) [swamp:3]", [3, 10], [[("ogre", 1.4), (" ", 1)], [("ogre", 1.4), (" swamp", 1)]]),
    (f"(ogre:1.4) [{LONG}::7]", [7, 10], [[("ogre", 1.4), (f" {LONG}", 1)], [("ogre", 1.4), (" ", 1)]]),
    ("(ogre:1.3) [a|b|c]", [*range(1, 11)], [[("ogre", 1.3), (f" {one}", 1)] for one in "abcabcabca"]),
]


class Setting:
    """Ours and theirs with the same weights and embeddings."""

    def __init__(self, shape: TextShape) -> None:
        self.theirs: CLIPTextModel = random_model(shape, spare=SPARE)
        rows = self.theirs.state_dict()["embeddings.token_embedding.weight"][shape.vocabulary :]
        embeddings = (Embedding(name=name, vectors=(rows[list(at)],), hash=name) for name, at in SLOTS.items())
        self.reader = TextReader.of(our_encoder(self.theirs, shape), embeddings=tuple(embeddings))
        self.slots = {
            name: range(shape.vocabulary + at.start, shape.vocabulary + at.stop) for name, at in SLOTS.items()
        }
        self.skips = [ClipSkip(n) for n in skips_of(self.theirs)]

    def ours(self, prompt: str, negative: str = "", **settings: object) -> dict[float, Conditioning]:
        render = Render(prompt=prompt, negative_prompt=negative, model=FileRef(name="m"), steps=10, **settings)
        found = condition_all(self.reader, [render.at(skip) for skip in self.skips])
        return {skip.from_end: one for skip, one in zip(self.skips, found, strict=True)}

    def check_prompt(self, prompt: str, segments: Segments) -> None:
        """As the prompt and as the negative prompt, at every Clip Skip."""
        theirs = expected(self.theirs, [segments], slots=self.slots)
        for n, one in self.ours(prompt, prompt).items():
            assert [part.weight for part in one.positive] == [1]
            for schedule in (one.positive[0].schedule, one.negative):
                assert [until for until, _ in schedule] == [10]
                assert relative(schedule[0][1].tokens, theirs[n][0]) < TOLERANCE, f"clip skip {n}"


@pytest.fixture(scope="module")
def small() -> Setting:
    return Setting(SMALL)


@pytest.mark.parametrize(("prompt", "segments"), PROMPTS, ids=[prompt[:40] for prompt, _ in PROMPTS])
def test_a_prompt_at_every_clip_skip_is_what_a1111s_rules_give(small: Setting, prompt: str, segments: Segments) -> None:
    small.check_prompt(prompt, segments)


@pytest.mark.slow
def test_every_prompt_at_every_clip_skip_at_full_size() -> None:
    full = Setting(CLIP_L)
    for prompt, segments in PROMPTS:
        full.check_prompt(prompt, segments)


@pytest.mark.parametrize(("prompt", "untils", "texts"), SCHEDULES, ids=["half", "third", "longer", "by turns"])
def test_the_texts_of_a_schedule_share_one_length_and_one_mean(
    small: Setting, prompt: str, untils: list[int], texts: list[Segments]
) -> None:
    theirs = expected(small.theirs, texts)
    for n, one in small.ours(prompt, prompt).items():
        for schedule in (one.positive[0].schedule, one.negative):
            assert [until for until, _ in schedule] == untils
            assert relative(torch.stack([vectors.tokens for _, vectors in schedule]), theirs[n]) < TOLERANCE


@pytest.mark.parametrize("emphasis", ["Original", "No norm", "Ignore", "None"])
def test_each_emphasis_does_what_a1111s_does(small: Setting, emphasis: str) -> None:
    literal: Segments = [("a (big) [cat] BREAK", 1)]
    read: Segments = [("a ", 1), ("big", 1.1), (" ", 1), ("cat", 1 / 1.1), (" ", 1), BREAK]
    theirs = expected(small.theirs, [literal if emphasis == "None" else read], emphasis=emphasis)
    for n, one in small.ours("a (big) [cat] BREAK", emphasis=emphasis).items():
        assert relative(one.positive[0].schedule[0][1].tokens, theirs[n][0]) < TOLERANCE


def test_the_parts_of_an_and_repeat_the_last_vector_of_the_shorter(small: Setting) -> None:
    first = expected(small.theirs, [[("a cat ", 1)]])
    second = expected(small.theirs, [[(" ", 1), ("dog", 1.3), (f" {LONG}", 1)]])
    for n, one in small.ours(f"a cat AND (dog:1.3) {LONG} :-0.5").items():
        assert [part.weight for part in one.positive] == [1, -0.5]
        longer = torch.cat([first[n][0], first[n][0, -1:].expand(77, -1)])
        assert relative(one.positive[0].schedule[0][1].tokens, longer) < TOLERANCE
        assert relative(one.positive[1].schedule[0][1].tokens, second[n][0]) < TOLERANCE


def test_and_and_lora_tags_are_words_in_a_negative_prompt(small: Setting) -> None:
    text = "a cat AND a dog <lora:x:1>"
    theirs = expected(small.theirs, [[(text, 1)]])
    for n, one in small.ours("", text).items():
        assert relative(one.negative[0][1].tokens, theirs[n][0]) < TOLERANCE


def test_the_negative_prompt_can_have_its_own_clip_skip(small: Setting) -> None:
    found = small.ours("an ogre", "(blurry)", negative_clip_skip=ClipSkip(4))
    theirs = expected(small.theirs, [[("blurry", 1.1)]])
    assert all(relative(one.negative[0][1].tokens, theirs[4][0]) < TOLERANCE for one in found.values())
