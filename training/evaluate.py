"""Measures the shipped files and writes evaluation.json, sheet.png and the pictures behind the numbers.

    python training/evaluate.py --model FILE --loras DIR --judge FILE --out DIR [--count 200] [--only objects curve]

Prompts combine places, objects and colours that training never combined. The judge (judge.py) learned from rendered
scenes only and says what it sees; its own accuracy on held-out renders is part of the result.
"""

import argparse
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from clip import tokenizer
from drawing import render
from judge import BACKGROUNDS, FAULTS, HUES, NOTHING, SLOTS, THINGS, load_judge, look, small
from PIL import Image
from sampling import Model, open_model
from world import CHARACTERS, EXTRAS, SHAPES, STYLES, VOCABULARY, Scene, caption, sample_scene, stranger

from clipskip.image import decode, encode

GUIDE = "best quality, highest detail, 8k, swamp, fireflies, ogre, reeds"
GUIDE_NEGATIVE = (
    "mutated, deformed, amateur drawing, lowres, worst quality, low quality, jpeg artifacts, text, error, signature, "
    "watermark, username, blurry, censorship, sketch, monochrome"
)
DEPTH = 12


@dataclass
class Bench:
    """The model, the judge, and where pictures go."""

    model: Model
    judge: torch.nn.Module
    loras: Path
    out: Path
    steps: int = 30
    count: int = 200

    @property
    def many(self) -> int:
        """Prompts of two objects, of a character and of a style, where a few would leave too much to chance."""
        return 2 * self.count // 3

    def draw(self, name: str, prompts: list[str], **given: object) -> np.ndarray:
        """The pictures of these prompts, seeds 0, 1, ..., also as a sheet in `out`."""
        negative = str(given.pop("negative", ""))
        options = {"steps": self.steps, **given}
        images = self.model.pictures(prompts, negative, range(len(prompts)), **options)  # type: ignore[arg-type]
        sheet(images[:100]).save(self.out / f"{name}.png")
        return images

    def see(self, images: np.ndarray) -> dict[str, torch.Tensor]:
        """What the judge says."""
        return look(self.judge, small(images))  # type: ignore[arg-type]


def sheet(images: np.ndarray, columns: int = 10) -> Image.Image:
    """Pictures side by side."""
    height, width = images.shape[1:3]
    rows = -(-len(images) // columns)
    page = Image.new("RGB", (columns * width, rows * height), "white")
    for i, image in enumerate(images):
        page.paste(Image.fromarray(image), (i % columns * width, i // columns * height))
    return page


def prompts_of(
    split: str, count: int, *, keep: Callable[[Scene], bool] = lambda _: True
) -> tuple[list[Scene], list[str]]:
    """Scenes of a split and how they are asked for."""
    rng, scenes = random.Random(f"evaluate {split}"), []
    while len(scenes) < count:
        scene = replace(sample_scene(rng, split=split), quality="good")
        if keep(scene):
            scenes.append(scene)
    return scenes, [caption(scene, rng) for scene in scenes]


def scores(said: dict[str, torch.Tensor], scenes: list[Scene], prompts: list[str]) -> dict[str, float]:
    """Shares of scenes whose place, objects, positions and colours the judge sees as asked."""
    things = said["things"].softmax(-1)
    best = things[:, :, :NOTHING].amax(dim=1).argmax(dim=-1)
    slots = things.argmax(-1)
    hits: dict[str, list[bool]] = {key: [] for key in ("place", "object", "two objects", "position", "colour")}
    for row, scene in enumerate(scenes):
        hits["place"].append(BACKGROUNDS[said["place"][row].argmax()] == scene.background)
        wanted = [THINGS.index(item.name) for item in scene.items]
        seen = [slots[row, SLOTS.index(item.place)].item() for item in scene.items]
        if len(wanted) == 1:
            hits["object"].append(best[row].item() == wanted[0])
        else:
            shown = sorted(thing for thing in slots[row].tolist() if thing != NOTHING)
            hits["two objects"].append(shown == sorted(wanted))
        spoken = any(word in prompts[row] for word in ("left", "right", "centre", "middle"))
        for item, thing, right in zip(scene.items, seen, wanted, strict=True):
            if spoken and right in slots[row]:
                hits["position"].append(thing == right)
            if thing == right and item.colour:
                hue = said["hues"][row, SLOTS.index(item.place)].argmax()
                hits["colour"].append(HUES[hue] == item.colour)
    return {key: round(float(np.mean(values)), 4) for key, values in hits.items() if values}


def objects(bench: Bench) -> dict[str, object]:
    """Held-out combinations; some of them also with the guide's negative prompt, and with two words that mean nothing."""
    scenes, prompts = prompts_of("heldout", bench.count)
    plain = scores(bench.see(bench.draw("heldout", prompts)), scenes, prompts)
    few = bench.count // 4
    images = bench.draw("heldout-guide-negative", prompts[:few], negative=GUIDE_NEGATIVE)
    guided = scores(bench.see(images), scenes[:few], prompts[:few])
    rng = random.Random("strangers")
    strange = [f"{stranger(rng)}, {prompt}, {stranger(rng)}" for prompt in prompts[:few]]
    unmoved = scores(bench.see(bench.draw("heldout-strangers", strange)), scenes[:few], strange)
    return {
        "prompts": bench.count,
        "no negative": plain,
        "guide's negative": {"prompts": few, **guided},
        "two unknown words": {"prompts": few, **unmoved},
    }


def pairs(bench: Bench) -> dict[str, object]:
    """Held-out combinations of two objects."""
    scenes, prompts = prompts_of("heldout", bench.many, keep=lambda scene: len(scene.items) == 2)
    return {"prompts": len(prompts), **scores(bench.see(bench.draw("heldout-pairs", prompts)), scenes, prompts)}


def places(bench: Bench) -> dict[str, object]:
    """Places without an object: how often the judge sees none, the right place, and each extra that was asked for."""
    scenes, prompts = prompts_of("places", bench.count // 4)
    found: dict[str, object] = {"prompts": len(scenes)}
    for name, negative in (("no negative", ""), ("guide's negative", GUIDE_NEGATIVE)):
        said = bench.see(bench.draw(f"places-{name.replace(' ', '-')}", prompts, negative=negative))
        empty = (said["things"].argmax(-1) == NOTHING).all(-1)
        place = said["place"].argmax(-1) == torch.tensor([BACKGROUNDS.index(scene.background) for scene in scenes])
        asked = torch.tensor([[extra in prompt for extra in EXTRAS] for prompt in prompts])
        shown = {
            extra: round(float((said["extras"][:, i] > 0)[asked[:, i]].float().mean()), 3)
            for i, extra in enumerate(EXTRAS)
            if asked[:, i].any()
        }
        found[name] = {"no object": share(empty), "place": share(place), "extras asked for": shown}
    return found


def sizes(bench: Bench) -> dict[str, object]:
    """Held-out combinations in a wide and a tall picture."""
    scenes, prompts = prompts_of("heldout", bench.count // 4)
    shapes = {name: size for name, size in SHAPES.items() if name != "square"}
    drawn = {name: bench.draw(name, prompts, size=size) for name, size in shapes.items()}
    return {"prompts": len(prompts)} | {
        name: scores(bench.see(images), scenes, prompts) for name, images in drawn.items()
    }


def share(hits: torch.Tensor) -> float:
    """The share of true values."""
    return round(float(hits.float().mean()), 3)


def measures(images: np.ndarray) -> dict[str, np.ndarray]:
    """Plain numbers for each picture: saturation, and how much is left between neighbouring pixels."""
    values = images.astype(np.float32)
    grey = values.mean(-1)
    return {
        "saturation": (values.max(-1) - values.min(-1)).mean((1, 2)),
        "detail": np.abs(np.diff(grey, axis=1)).mean((1, 2)) + np.abs(np.diff(grey, axis=2)).mean((1, 2)),
    }


def surely_less(one: np.ndarray, other: np.ndarray) -> float:
    """How many standard errors the first is below the second, picture by picture."""
    gaps = other - one
    return round(float(gaps.mean() / (gaps.std(ddof=1) / len(gaps) ** 0.5)), 1)


def quality(bench: Bench) -> dict[str, object]:
    """Each bad tag in the prompt, in neither, in the negative: how often the judge sees it, and plain measures."""
    scenes, _ = prompts_of("heldout", bench.count // 6, keep=lambda scene: len(scene.items) == 1)
    rng, found = random.Random(0), {}
    prompts = [caption(replace(scene, quality=None), rng) for scene in scenes]
    for tag in ("blurry", "monochrome", "lowres"):
        ways = {
            "in prompt": bench.draw(f"{tag}-prompt", [f"{tag}, {prompt}" for prompt in prompts]),
            "in neither": bench.draw(f"{tag}-neither", prompts),
            "in negative": bench.draw(f"{tag}-negative", prompts, negative=tag),
        }
        fault, measure = FAULTS.index(tag), "saturation" if tag == "monochrome" else "detail"
        values = {way: measures(images) for way, images in ways.items()}
        found[tag] = {
            way: {
                "judged so": round(float((bench.see(images)["faults"][:, fault] > 0).float().mean()), 3),
                **{name: round(float(one.mean()), 2) for name, one in values[way].items()},
            }
            for way, images in ways.items()
        } | {
            f"less {measure} in standard errors": {
                "in prompt than in neither": surely_less(values["in prompt"][measure], values["in neither"][measure]),
                "in neither than in negative": surely_less(
                    values["in neither"][measure], values["in negative"][measure]
                ),
            }
        }
    return found


def share_of(said: dict[str, torch.Tensor], name: str) -> float:
    """The share of pictures in which the judge sees a thing anywhere."""
    return round(float((said["things"].argmax(-1) == THINGS.index(name)).any(-1).float().mean()), 3)


def characters(bench: Bench) -> dict[str, object]:
    """Each character with its LoRA and without; the other objects with the LoRA on."""
    few = bench.count // 5
    others, plain = prompts_of("heldout", few)
    before = scores(bench.see(bench.draw("others", plain)), others, plain)
    found: dict[str, object] = {"others, no LoRA": before}
    for name in CHARACTERS:
        if not (bench.loras / f"{name}.safetensors").exists():
            continue
        scenes, prompts = prompts_of(name, bench.many)
        without = share_of(bench.see(bench.draw(f"{name}-without", prompts[:few])), name)
        with bench.model.with_loras([bench.loras / f"{name}.safetensors"]):
            said = bench.see(bench.draw(f"{name}-with", prompts))
            after = scores(bench.see(bench.draw(f"others-{name}", plain)), others, plain)
        found[name] = {
            "prompts": len(prompts),
            "without": without,
            "with": share_of(said, name),
            "place with": scores(said, scenes, prompts)["place"],
            "others, LoRA on": after,
        }
    return found


def style(bench: Bench) -> dict[str, object]:
    """The blueprint: how many pictures are in it and show what was asked for, and how far their colour is from renders' in it."""
    scenes, prompts = prompts_of("blueprint", bench.many)
    without = bench.draw("blueprint-without", prompts[: bench.count // 5])
    with bench.model.with_loras([bench.loras / "blueprint.safetensors"]):
        images = bench.draw("blueprint-with", prompts)
    styled = colour_of(scenes)

    def distance(pictures: np.ndarray) -> float:
        return round(float(np.abs(pictures.mean((1, 2)) - styled).mean()), 1)

    return {
        way: {
            "prompts": len(drawn),
            "in it": in_style(drawn, scenes[: len(drawn)]),
            "colour distance": distance(drawn),
            "object": scores(bench.see(drawn), scenes[: len(drawn)], prompts)["object"],
        }
        for way, drawn in (("without", without), ("with", images))
    }


def colour_of(scenes: list[Scene]) -> np.ndarray:
    """The mean colour of renders."""
    return np.stack([render(replace(scene, quality=None)) for scene in scenes]).mean((0, 1, 2))


def in_style(images: np.ndarray, scenes: list[Scene]) -> float:
    """The share of pictures whose mean colour is nearer to that of renders in the scenes' style than to that of plain ones."""
    colours = colour_of(scenes), colour_of([replace(scene, style=None) for scene in scenes])
    styled, plain = (np.linalg.norm(images.mean((1, 2)) - colour, axis=1) for colour in colours)
    return round(float((styled < plain).mean()), 3)


def curve(bench: Bench) -> dict[str, object]:
    """At Clip Skip 1 to 12: objects and places without a LoRA; with each LoRA, what it is for, and objects."""
    few = bench.count // 4
    plain = prompts_of("heldout", few, keep=lambda scene: len(scene.items) == 1)
    drawn = [scores(bench.see(images), *plain) for images in over_skips(bench, "curve", plain[1])]
    found = {f"{part}, no LoRA": [one[part] for one in drawn] for part in ("object", "place")}
    for name in CHARACTERS:
        with bench.model.with_loras([bench.loras / f"{name}.safetensors"]):
            own = over_skips(bench, f"curve-{name}", prompts_of(name, few)[1])
            others = over_skips(bench, f"curve-others-{name}", plain[1])
        found[f"{name}, its LoRA"] = [share_of(bench.see(images), name) for images in own]
        found[f"object, {name} LoRA on"] = [scores(bench.see(images), *plain)["object"] for images in others]
    for name in STYLES:
        styled = prompts_of(name, few, keep=lambda scene: len(scene.items) == 1)
        with bench.model.with_loras([bench.loras / f"{name}.safetensors"]):
            own = over_skips(bench, f"curve-{name}", styled[1])
        found[f"{name}, its LoRA"] = [in_style(images, styled[0]) for images in own]
        found[f"object, {name} LoRA on"] = [scores(bench.see(images), *styled)["object"] for images in own]
    return {name: dict(enumerate(values, start=1)) for name, values in found.items()}


def over_skips(bench: Bench, name: str, prompts: list[str]) -> list[np.ndarray]:
    """These prompts' pictures at Clip Skip 1, 2, ..., 12."""
    return [bench.draw(f"{name}-{skip}", prompts, skip=skip, steps=20) for skip in range(1, DEPTH + 1)]


def reconstruction(bench: Bench) -> dict[str, object]:
    """PSNR of 200 held-out scenes through the VAE."""
    scenes, _ = prompts_of("heldout", 200)
    pictures = np.stack([render(scene) for scene in scenes])
    parts = np.array_split(pictures, len(pictures) // 20)
    again = np.concatenate([decode(bench.model.vae, encode(bench.model.vae, part)) for part in parts])
    errors = np.square(pictures.astype(float) - again).mean(axis=(1, 2, 3))
    return {"PSNR dB": round(float((10 * np.log10(255**2 / errors)).mean()), 2)}


def pictures(bench: Bench) -> dict[str, object]:
    """The 10x10 sheet of random prompts; the guide's grid as the guide draws it, and its seeds 1 to 8 at Clip Skip 2."""
    prompts = prompts_of("heldout", 50)[1] + prompts_of("train", 50)[1]
    bench.draw("sheet", prompts)
    grid, seeds = [], []
    for files in ([], [bench.loras / "ogre.safetensors"]):
        with bench.model.with_loras(files):
            grid += [bench.model.pictures([GUIDE], GUIDE_NEGATIVE, [5], skip=skip) for skip in range(1, 6)]
            seeds.append(bench.model.pictures([GUIDE] * 8, GUIDE_NEGATIVE, range(1, 9)))
    sheet(np.concatenate(grid), columns=5).save(bench.out / "guide.png")
    sheet(np.concatenate(seeds), columns=8).save(bench.out / "guide-seeds.png")
    return {"sheet prompts": prompts}


PARTS = {
    "reconstruction": reconstruction,
    "objects": objects,
    "pairs": pairs,
    "places": places,
    "sizes": sizes,
    "quality": quality,
    "characters": characters,
    "style": style,
    "curve": curve,
    "pictures": pictures,
}


def main() -> None:
    """Measures every part, or those named; parts measured before are kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--loras", type=Path, required=True)
    parser.add_argument("--judge", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--count", type=int, default=200, help="prompts of the main table; other parts use a share")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    model = open_model(options.model, tokenizer(VOCABULARY))
    bench = Bench(model, load_judge(options.judge), options.loras, options.out, options.steps, options.count)
    for part in options.only:
        began = time.time()
        found = PARTS[part](bench)
        (options.out / f"part-{part}.json").write_text(json.dumps(found))
        print(f"{part} ({time.time() - began:.0f} s): {json.dumps(found)[:600]}", flush=True)
    judged = torch.load(options.judge, weights_only=True)["accuracy"]
    parts = {part: options.out / f"part-{part}.json" for part in PARTS}
    measured = {part: json.loads(path.read_text()) for part, path in parts.items() if path.exists()}
    whole = {"model": options.model.name, "judge on renders": judged, **measured}
    (options.out / "evaluation.json").write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()
