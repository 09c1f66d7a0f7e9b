"""What the starter's training shows it, and what it never does."""

import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "training"))
import world

SCENES = 1500


@pytest.fixture(scope="module")
def said() -> list[tuple[world.Scene, str]]:
    rng = random.Random(0)
    scenes = [world.sample_scene(rng) for _ in range(SCENES)]
    return [(scene, world.with_strangers(world.caption(scene, rng), rng)) for scene in scenes]


def test_a_quarter_of_the_scenes_is_a_place_without_an_object(said: list[tuple[world.Scene, str]]) -> None:
    empty = sum(not scene.items for scene, _ in said) / SCENES
    assert abs(empty - world.EMPTY_CHANCE) < 4 * (0.25 * 0.75 / SCENES) ** 0.5  # four standard errors


def test_no_caption_of_the_base_holds_a_loras_word(said: list[tuple[world.Scene, str]]) -> None:
    assert not [text for _, text in said for word in ("ogre", "gnome", "blueprint", "shrek") if word in text]


def test_combinations_that_measurements_ask_for_are_never_trained(said: list[tuple[world.Scene, str]]) -> None:
    assert not any(world.held_out(scene.background, item) for scene, _ in said for item in scene.items)
    heldout = world.sample_scene(random.Random(0), split="heldout")
    assert all(world.held_out(heldout.background, item) for item in heldout.items)


def test_words_that_mean_nothing_are_none_of_the_worlds() -> None:
    rng = random.Random(0)
    strange = {world.stranger(rng) for _ in range(500)}
    assert len(strange) > 490
    assert not strange & {*world.OBJECTS, *world.COLOURS, *world.EXTRAS, *world.BACKGROUNDS, *world.GOOD_TAGS}


def test_a_long_list_of_bad_tags_goes_with_no_single_fault(said: list[tuple[world.Scene, str]]) -> None:
    bad = set(world.POOR_TAGS)
    lengths = {scene.quality: 0 for scene, _ in said}
    for scene, text in said:
        lengths[scene.quality] = max(lengths[scene.quality], sum(tag in bad for tag in text.split(", ")))
    assert lengths["poor"] >= 10 and max(length for quality, length in lengths.items() if quality != "poor") <= 5


def test_scenes_of_colours_show_nothing_else_and_nothing_held_out() -> None:
    rng = random.Random(0)
    scenes = [world.sample_scene(rng, split="colours") for _ in range(300)]
    items = [(scene.background, item) for scene in scenes for item in scene.items]
    assert all(scene.items for scene in scenes)
    assert {item.colour for _, item in items} == {*world.COLOURS}
    assert not any(world.held_out(background, item) for background, item in items)


def test_scenes_of_pairs_show_two_objects_and_nothing_held_out() -> None:
    rng = random.Random(0)
    scenes = [world.sample_scene(rng, split="pairs") for _ in range(300)]
    assert all(len(scene.items) == 2 for scene in scenes)
    assert not any(world.held_out(scene.background, item) for scene in scenes for item in scene.items)
    assert {scene.quality for scene in scenes} > {None, "good", "poor"}


def test_a_wide_and_a_tall_picture_are_drawn_at_their_size() -> None:
    pytest.importorskip("resvg_py")
    from drawing import render

    scene = world.sample_scene(random.Random(0))
    for width, height in world.SHAPES.values():
        assert render(replace(scene, width=width, height=height)).shape == (height, width, 3)


@pytest.mark.parametrize(("own", "poor"), [(True, 0.1), (False, 0.0)])
def test_a_loras_pictures_go_with_negative_prompts_too(own: bool, poor: float) -> None:
    """A tenth with nothing, a tenth of the LoRA's own with bad tags alone; to four standard errors of 2,000 captions."""
    from lora import words

    rng = random.Random(0)
    scene = replace(world.sample_scene(rng, split="ogre" if own else "places"), quality=None)
    texts = [words(scene, rng, own=own) for _ in range(2000)]
    bad = [text for text in texts if text and set(text.split(", ")) <= set(world.POOR_TAGS)]
    praised = [text for text in texts if set(text.split(", ")) & set(world.GOOD_TAGS)]
    for found, share in ((texts.count(""), 0.1), (len(bad), poor), (len(praised), 0.8 / 3 if own else 0)):
        assert found / 2000 == pytest.approx(share, abs=4 * (share * (1 - share) / 2000) ** 0.5)
    assert own == any("ogre" in text for text in texts)


def test_a_styles_pictures_always_have_their_caption() -> None:
    """Where the negative prompt does not know the style, guidance strengthens it."""
    from lora import words

    rng = random.Random(0)
    scene = world.sample_scene(rng, split="blueprint")
    assert all("blueprint" in words(scene, rng, own=True) for _ in range(300))
