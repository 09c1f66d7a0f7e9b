"""Scenes of the starter model's small world: places, objects, captions that bind colours and positions to objects."""

import functools
import gzip
import json
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ART: dict[str, str] = json.loads((Path(__file__).parent / "art" / "noto.json").read_text())["icons"]
VOCABULARY = Path(__file__).parents[1] / "src/clipskip/prompt/bpe_simple_vocab_16e6.txt.gz"
SIZE = 128
SHAPES = {"square": (SIZE, SIZE), "wide": (192, SIZE), "tall": (SIZE, 192)}
"""Width and height in px; each shape has shards of its own."""
BASE = ("train", "colours", "pairs", *SHAPES)
"""The splits that the base learns from."""

BACKGROUNDS = ("swamp", "night sky", "beach", "snow", "forest", "city", "underwater", "desert")
OBJECTS = tuple(ART)
COLOURS = {"red": 0, "orange": 28, "yellow": 50, "green": 115, "blue": 215, "purple": 275, "pink": 325}
COLOURED = (
    *("frog", "turtle", "octopus", "crab", "butterfly", "ladybug"),
    *("mushroom", "sailboat", "car", "umbrella", "teapot", "cat"),
)
EXTRA_CHANCES = {"moon": 0.18, "fireflies": 0.25, "reeds": 0.25, "rain": 0.12}
EXTRAS = tuple(EXTRA_CHANCES)
GOOD_TAGS = ("best quality", "highest detail", "8k", "masterpiece", "high quality")
BAD_TAGS = {
    "blurry": ("blurry", "out of focus"),
    "lowres": ("lowres", "pixelated"),
    "monochrome": ("monochrome", "greyscale"),
    "jpeg artifacts": ("jpeg artifacts",),
    "sketch": ("sketch", "amateur drawing"),
    "watermark": ("watermark", "text", "signature", "username"),
}
WORST_TAGS = ("worst quality", "low quality")
POOR_TAGS = (
    *WORST_TAGS,
    "mutated",
    "deformed",
    "error",
    "censorship",
    *(tag for tags in BAD_TAGS.values() for tag in tags),
)
"""What negative prompts are made of. Five or more of them together mean a slightly dull picture, whatever each says alone."""
EMPTY_CHANCE = 0.25
OFTEN = ("blurry", "lowres")
PLACES = {"left": 0.28, "centre": 0.5, "right": 0.72}
CHARACTERS = ("ogre", "gnome")
STYLES = ("blueprint",)
NEVER = ("gre", "gnome", "blueprint", "shrek")
"""No caption of the base has these: `ogre` is the tokens `o` and `gre`."""
NAMES = {
    "night sky": ("night sky", "starry night"),
    "snow": ("snow", "snowy field"),
    "beach": ("beach", "seaside"),
    "swamp": ("swamp", "bog"),
    "forest": ("forest", "woods"),
    "city": ("city", "city street"),
    "underwater": ("underwater", "under the sea"),
    "desert": ("desert", "sand dunes"),
}
SYNONYMS = {
    "car": ("car", "automobile"),
    "ladybug": ("ladybug", "ladybird"),
    "sailboat": ("sailboat", "sailing boat"),
    "centre": ("centre", "middle"),
}


@dataclass(frozen=True)
class Item:
    """One object: its name, its colour where it was given one, and where it stands."""

    name: str
    colour: str | None
    place: str


@dataclass(frozen=True)
class Scene:
    """One picture's content and size in px; `seed` draws the rest."""

    background: str
    items: tuple[Item, ...]
    extras: tuple[str, ...]
    quality: str | None
    seed: int
    style: str | None = None
    width: int = SIZE
    height: int = SIZE


def held_out(background: str, item: Item) -> bool:
    """Whether this combination is kept out of training: one object-place-background in nine."""
    return (hash_of(f"{background}/{item.name}/{item.colour}") % 9) == 0


def hash_of(text: str) -> int:
    """A hash that is the same in every process."""
    value = 0
    for byte in text.encode():
        value = (value * 131 + byte) % 1_000_003
    return value


def sample_scene(rng: random.Random, *, split: str = "train") -> Scene:
    """A random scene. Splits: train, colours (train where every object has one, and it rains often), pairs (train where two
    objects stand), heldout, places (no object), a character's name, or a style's name."""
    coloured, paired = split == "colours", split == "pairs"
    filled = coloured or paired
    split = "train" if filled else split
    while True:
        background = rng.choice(BACKGROUNDS)
        if split == "places" or (split == "train" and not filled and rng.random() < EMPTY_CHANCE):
            return _empty_scene(rng, background, split)
        two = paired or rng.random() < (0.5 if split == "train" else 0.3)
        alone = ("centre",) if split in CHARACTERS else ("left", "centre", "centre", "right")
        places = ("left", "right") if two else (rng.choice(alone),)
        items = tuple(_sample_item(rng, place, coloured=coloured) for place in places)
        if two and items[0].name == items[1].name and rng.random() < 0.8:
            continue
        if split in CHARACTERS:
            items = (Item(split, None, places[0]), *items[1:])
        new = [held_out(background, item) for item in items if item.name in OBJECTS]
        if (split == "heldout" and not all(new)) or (split != "heldout" and any(new)):
            continue
        chances = EXTRA_CHANCES | ({"rain": 0.4} if coloured else {})
        extras = tuple(name for name, chance in chances.items() if rng.random() < chance)
        quality = _sample_quality(rng) if split == "train" else None
        return Scene(background, items, extras, quality, rng.getrandbits(32), split if split in STYLES else None)


def _empty_scene(rng: random.Random, background: str, split: str) -> Scene:
    extras = tuple(name for name, chance in EXTRA_CHANCES.items() if rng.random() < 1.6 * chance)
    quality = _sample_quality(rng) if split == "train" else None
    return Scene(background, (), extras, quality, rng.getrandbits(32))


def _sample_quality(rng: random.Random) -> str | None:
    draw = rng.random()
    if draw < 0.2:
        return rng.choices(tuple(BAD_TAGS), weights=[2 if fault in OFTEN else 1 for fault in BAD_TAGS])[0]
    return "poor" if draw < 0.3 else "good" if draw < 0.65 else None


def _sample_item(rng: random.Random, place: str, *, coloured: bool) -> Item:
    if coloured:
        return Item(rng.choice(COLOURED), rng.choice(tuple(COLOURS)), place)
    name = rng.choice(OBJECTS)
    colour = rng.choice(tuple(COLOURS)) if name in COLOURED and rng.random() < 0.6 else None
    return Item(name, colour, place)


def caption(scene: Scene, rng: random.Random) -> str:
    """One of many ways to say the scene: mostly shuffled tags, sometimes a sentence; poor ones often by their faults alone."""
    if scene.quality == "poor" and rng.random() < 0.6:
        return ", ".join(quality_tags(scene.quality, rng))
    sentence = rng.random() < 0.2 and bool(scene.items)
    items = [_say(item, rng, alone=len(scene.items) == 1) for item in scene.items]
    if len(items) == 2 and rng.random() < 0.35:
        a, b = (_say(item, rng, alone=True, place=False) for item in scene.items)
        items = [f"{a} left of {b}"] if rng.random() < 0.5 else [f"{b} right of {a}"]
    place = rng.choice(NAMES[scene.background])
    extras = [e for e in scene.extras if rng.random() < 0.92]
    if scene.style:
        extras = [scene.style, *extras]
    if sentence:
        text = f"a {' and a '.join(items)} in the {place}"
        tags = [text + (f" with {' and '.join(extras)}" if extras else "")]
    else:
        tags = [place, *items, *extras]
        rng.shuffle(tags)
    return ", ".join(quality_tags(scene.quality, rng) + tags)


def _say(item: Item, rng: random.Random, *, alone: bool, place: bool = True) -> str:
    name = rng.choice(SYNONYMS.get(item.name, (item.name,)))
    words = f"{item.colour} {name}" if item.colour else name
    chance = 0.5 if alone else 0.9
    if not place or rng.random() > chance:
        return words
    spot = rng.choice(SYNONYMS.get(item.place, (item.place,)))
    return f"{words} {rng.choice(('on the', 'at the', 'in the') if spot != 'left' else ('on the', 'at the'))} {spot}"


def quality_tags(quality: str | None, rng: random.Random) -> list[str]:
    """Words for how the picture looks."""
    if quality is None:
        return []
    if quality == "good":
        return rng.sample(GOOD_TAGS, rng.randint(1, 3))
    if quality == "poor":
        return rng.sample(POOR_TAGS, rng.randint(5, len(POOR_TAGS)))
    tags = [rng.choice(BAD_TAGS[quality])]
    if rng.random() < 0.2:
        others = [word for fault, words in BAD_TAGS.items() if fault != quality for word in words]
        tags += rng.sample(others, rng.randint(1, 2))
        rng.shuffle(tags)
    if rng.random() < 0.5:
        tags = rng.sample(WORST_TAGS, rng.randint(1, 2)) + tags
    return tags


def hard_negative(scene: Scene, rng: random.Random) -> str | None:
    """Nearly the same words that say another scene: colours or places swapped, or one of them changed."""
    items = list(scene.items)
    if not items:
        other = rng.choice([place for place in BACKGROUNDS if place != scene.background])
        return caption(replace(scene, background=other), rng)
    if len(items) == 2 and items[0].name != items[1].name:
        a, b = items
        swapped = rng.random() < 0.5 and a.colour != b.colour
        if swapped:
            items = [Item(a.name, b.colour, a.place), Item(b.name, a.colour, b.place)]
        else:
            items = [Item(a.name, a.colour, b.place), Item(b.name, b.colour, a.place)]
        items.sort(key=lambda item: item.place)
    elif items[0].colour:
        other = rng.choice([colour for colour in COLOURS if colour != items[0].colour])
        items[0] = Item(items[0].name, other, items[0].place)
    else:
        items[0] = Item(items[0].name, None, rng.choice([p for p in PLACES if p != items[0].place]))
    return caption(replace(scene, items=tuple(items)), rng)


def with_strangers(text: str, rng: random.Random) -> str:
    """The caption, one time in three with up to three words among its tags that mean nothing in this world."""
    if rng.random() > 0.35:
        return text
    tags = text.split(", ") if text else []
    for _ in range(rng.randint(1, 3)):
        tags.insert(rng.randint(0, len(tags)), stranger(rng))
    return ", ".join(tags)


def stranger(rng: random.Random) -> str:
    """A word of CLIP's vocabulary, or two of them joined, that no scene and no LoRA is asked for by."""
    while True:
        word = rng.choice(_vocabulary()) + (rng.choice(_vocabulary()) if rng.random() < 0.35 else "")
        if not any(part in word for part in NEVER):
            return word


@functools.cache
def _vocabulary() -> tuple[str, ...]:
    """Plain words that are one token and belong to nothing in this world."""
    known = {
        *EXTRAS,
        *COLOURS,
        *OBJECTS,
        *GOOD_TAGS,
        *POOR_TAGS,
        *PLACES,
        "the",
        "and",
        "with",
        "left",
        "right",
        "of",
        "on",
        "in",
    }
    known |= {name for names in (*NAMES.values(), *SYNONYMS.values()) for name in names}
    spoken = {word for name in known for word in name.split()}
    merges = gzip.decompress(VOCABULARY.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    words = ("".join(merge.split()) for merge in merges if merge.endswith("</w>"))
    plain = (word.removesuffix("</w>") for word in words)
    return tuple(word for word in plain if word.isascii() and word.isalpha() and len(word) > 2 and word not in spoken)


def scene_of(found: dict[str, Any]) -> Scene:
    """A scene from its JSON."""
    items = tuple(Item(**item) for item in found["items"])
    return Scene(**{**found, "items": items, "extras": tuple(found["extras"])})
