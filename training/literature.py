"""What the starter agrees with in what is published of text layers, padding and schedules; no pictures are drawn.

    python training/literature.py --model FILE --out docs/starter/literature.json [--scenes 16]

Held-out scenes are rendered, encoded and noised; the UNet predicts with the caption at every Clip Skip, and again with the
caption changed in one thing. A change is kept at a Clip Skip by `<d_s, d_2> / <d_2, d_2>`, d the difference between the two
predictions: 1 at the trained Clip Skip 2, 0 where the change is no longer heard or pushes elsewhere.
"""

import argparse
import json
import random
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from clip import tokenizer
from common import autocast
from drawing import render
from sampling import ALPHAS, Model, open_model
from torch import Tensor
from world import BACKGROUNDS, COLOURED, COLOURS, VOCABULARY, Item, Scene, held_out

from clipskip.image import encode

DEPTH, TRAINED = 12, 2
LEVELS = (850, 600)
ALL_LEVELS = (850, 700, 550, 250)


def said(scene: Scene) -> str:
    """One object, or two by their places; the same words in the same order for every change."""
    items = [f"{item.colour} {item.name}" if item.colour else item.name for item in scene.items]
    return f"best quality, {scene.background}, {' left of '.join(items)}"


def other(rng: random.Random, choices: tuple[str, ...], *not_these: str | None) -> str:
    """One of the choices that is none of these."""
    return rng.choice([choice for choice in choices if choice not in not_these])


def two_objects(rng: random.Random) -> Scene:
    """A scene of two coloured objects that differ in name and colour."""
    while True:
        background, names = rng.choice(BACKGROUNDS), rng.sample(COLOURED, 2)
        colours = rng.sample(tuple(COLOURS), 2)
        items = tuple(Item(*it) for it in zip(names, colours, ("left", "right"), strict=True))
        if all(held_out(background, item) for item in items):
            return Scene(background, items, (), None, rng.getrandbits(32))


def changes(scene: Scene, rng: random.Random) -> dict[str, str]:
    """The caption of a scene of two, changed in what is there and in what belongs to what."""
    a, b = scene.items
    return {
        "place": said(replace(scene, background=other(rng, BACKGROUNDS, scene.background))),
        "object": said(replace(scene, items=(replace(a, name=other(rng, COLOURED, a.name, b.name)), b))),
        "colour": said(replace(scene, items=(replace(a, colour=other(rng, tuple(COLOURS), a.colour, b.colour)), b))),
        "which colour is whose": said(replace(scene, items=(replace(a, colour=b.colour), replace(b, colour=a.colour)))),
        "which object is left": said(replace(scene, items=(b, a))),
    }


@dataclass(frozen=True)
class Bench:
    """The model with what every measurement needs."""

    model: Model
    scenes: int

    def noisy(self, scene: Scene, level: int) -> tuple[Tensor, Tensor]:
        """A rendered scene's latent at a noise level, [1, 4, 16, 16], and the v that belongs to it."""
        clean = encode(self.model.vae, render(scene)[None])
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(scene.seed + level))
        a, s = float(ALPHAS[level]) ** 0.5, float(1 - ALPHAS[level]) ** 0.5
        return a * clean + s * noise, a * noise - s * clean

    def predict(self, latent: Tensor, level: int, contexts: Tensor) -> Tensor:
        """v for each of the contexts, flat."""
        with torch.inference_mode(), autocast("cpu"):
            many = latent.expand(len(contexts), -1, -1, -1)
            return self.model.unet(many, level, contexts).sample.float().flatten(1)

    def layers(self, text: str) -> Tensor:
        """[12, 77, width]: the text at Clip Skip 1 to 12."""
        return torch.cat([self.model.conditioning([text], skip) for skip in range(1, DEPTH + 1)])


def relations(bench: Bench) -> dict[str, dict[str, list[float]]]:
    """Single things against what belongs to what: which share of each change is kept at Clip Skip 1 to 12."""
    rng, products = random.Random("relations"), {}
    for n in range(bench.scenes):
        scene = two_objects(rng)
        texts = {name: bench.layers(text) for name, text in changes(scene, rng).items()}
        for level in LEVELS:
            latent, _ = bench.noisy(scene, level)
            plain = bench.predict(latent, level, bench.layers(said(scene)))
            for name, context in texts.items():
                gap = plain - bench.predict(latent, level, context)
                products.setdefault(name, torch.zeros(bench.scenes, DEPTH))[n] += gap @ gap[TRAINED - 1]
    return {name: kept(sums) for name, sums in products.items()}


def kept(products: Tensor) -> dict[str, list[float]]:
    """Shares from each scene's `<d_s, d_2>`, with standard errors by leaving out one scene at a time."""
    rest = products.sum(0) - products
    left = rest / rest[:, TRAINED - 1 : TRAINED]
    error = ((len(left) - 1) * left.var(0, correction=0)).sqrt()
    share = products.sum(0) / products.sum(0)[TRAINED - 1]
    return {"kept": [round(float(x), 3) for x in share], "standard error": [round(float(x), 3) for x in error]}


def padding(bench: Bench) -> dict[str, list[float]]:
    """How far a prediction moves, of the guidance's length, when words or padding are taken from the empty prompt."""
    rng, moved = random.Random("padding"), {"the words": np.zeros(DEPTH), "the padding": np.zeros(DEPTH)}
    length = np.zeros(DEPTH)
    for _ in range(bench.scenes):
        scene = two_objects(rng)
        text, empty = bench.layers(said(scene)), bench.layers("")
        end = len(bench.model.tokenizer(said(scene))["input_ids"]) - 1
        words, pads = text.clone(), text.clone()
        words[:, 1:end], pads[:, end + 1 :] = empty[:, 1:end], empty[:, end + 1 :]
        for level in LEVELS:
            latent, _ = bench.noisy(scene, level)
            plain, none = (bench.predict(latent, level, context) for context in (text, empty))
            length += (plain - none).square().sum(1).numpy()
            for name, context in (("the words", words), ("the padding", pads)):
                moved[name] += (plain - bench.predict(latent, level, context)).square().sum(1).numpy()
    return {name: [round(float(share), 3) for share in (sums / length) ** 0.5] for name, sums in moved.items()}


def schedules(bench: Bench) -> dict[str, object]:
    """The error of v at every Clip Skip and noise level, less that at Clip Skip 2; a schedule could use the lowest of each row."""
    rng, errors = random.Random("schedules"), torch.zeros(bench.scenes, len(ALL_LEVELS), DEPTH)
    for n in range(bench.scenes):
        scene = two_objects(rng)
        contexts = bench.layers(said(scene))
        for i, level in enumerate(ALL_LEVELS):
            latent, v = bench.noisy(scene, level)
            errors[n, i] = (bench.predict(latent, level, contexts) - v.flatten(1)).square().mean(1)
    gaps = errors - errors[:, :, TRAINED - 1 : TRAINED]
    return {
        str(level): {
            "error at Clip Skip 2": round(float(errors[:, i, TRAINED - 1].mean()), 4),
            "more": [round(float(gap), 5) for gap in gaps[:, i].mean(0)],
            "standard errors": [round(float(gap), 5) for gap in gaps[:, i].std(0) / bench.scenes**0.5],
        }
        for i, level in enumerate(ALL_LEVELS)
    }


PARTS = {"relations": relations, "padding": padding, "schedules": schedules}


def main() -> None:
    """Measures every part and writes them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    bench = Bench(open_model(options.model, tokenizer(VOCABULARY)), options.scenes)
    found: dict[str, object] = {"model": options.model.name, "scenes": options.scenes}
    for name, part in PARTS.items():
        found[name] = part(bench)
        print(name, json.dumps(found[name])[:2000], flush=True)
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
