"""What each layer of the text encoder says: cosines between layers, and what a linear reading of the end token finds.

    python training/layers.py --model FILE --vocabulary FILE [--out layers.json]

Ridge regressions on 3000 fresh captions, scored on 1000 whose combinations of place, object and colour are new. Each
reads one layer (through the final norm) at the end token. A bag of words gets at most one half of the last two
questions: what stands left, of two objects named, and which of the two colours it has.
"""

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from clip import END, tokenizer
from common import autocast
from torch import Tensor
from world import BACKGROUNDS, COLOURS, OBJECTS, Scene, caption, sample_scene

from clipskip.networks import build_text_encoder
from clipskip.weights import load_checkpoint

KINDS = tuple(COLOURS)


def bound(split: str, rng: random.Random) -> Scene:
    """A scene of two coloured objects whose colours differ."""
    while True:
        scene = sample_scene(rng, split=split)
        a, b = (*scene.items, *scene.items)[:2]
        if len(scene.items) == 2 and a.colour and b.colour and a.colour != b.colour and a.name != b.name:
            return scene


def single(split: str, rng: random.Random) -> Scene:
    """A scene of one object."""
    while len((scene := sample_scene(rng, split=split)).items) != 1:
        pass
    return scene


def placed(scene: Scene, rng: random.Random) -> str:
    """The caption, said again until the places can be told from it."""
    while not any(word in (text := caption(scene, rng)) for word in ("left", "right")):
        pass
    return text


QUESTIONS: dict[str, tuple[Callable[[str, random.Random], Scene], Callable[[Scene], int], int]] = {
    "place": (single, lambda s: BACKGROUNDS.index(s.background), len(BACKGROUNDS)),
    "object": (single, lambda s: OBJECTS.index(s.items[0].name), len(OBJECTS)),
    "left object of two": (bound, lambda s: OBJECTS.index(s.items[0].name), len(OBJECTS)),
    "left colour of two": (bound, lambda s: KINDS.index(str(s.items[0].colour)), len(KINDS)),
}


@torch.no_grad()
def readings(model: Path, vocabulary: Path, texts: list[str]) -> Tensor:
    """Every layer's normed vector at the end token: [layers, texts, width]."""
    loaded, tok = load_checkpoint(model, dtype=torch.float32), tokenizer(vocabulary)
    text = build_text_encoder(loaded.text[0], loaded.facts.encoders[0].shape)
    ids = tok(texts, padding="max_length", max_length=48, truncation=True, return_tensors="pt")["input_ids"]
    found = []
    for part in ids.split(100):
        ends = (part == END).int().argmax(dim=1)
        with autocast("cpu"):
            states = text.layers(part)
        rows = torch.arange(len(part))
        found.append(torch.stack([text.final_layer_norm(state[rows, ends].float()) for state in states]))
    return torch.cat(found, dim=1)


def accuracy(x: Tensor, y: Tensor, *, kinds: int, train: int) -> float:
    """Of a ridge regression to one-hot answers, on what it was not fitted to."""
    x = torch.cat([(x - x[:train].mean(0)) / (x[:train].std(0) + 1e-6), torch.ones(len(x), 1)], dim=1).double()
    target = F.one_hot(y[:train], kinds).double()
    fitted = torch.linalg.solve(x[:train].T @ x[:train] + 3 * torch.eye(x.shape[1]).double(), x[:train].T @ target)
    return float(((x[train:] @ fitted).argmax(dim=1) == y[train:]).double().mean())


def main() -> None:
    """Prints a table and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--vocabulary", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rng, found = random.Random(5), {}
    for question, (draw, answer, kinds) in QUESTIONS.items():
        scenes = [draw("train", rng) for _ in range(3000)] + [draw("heldout", rng) for _ in range(1000)]
        texts = [placed(s, rng) if len(s.items) == 2 else caption(s, rng) for s in scenes]
        layers = readings(options.model, options.vocabulary, texts)
        y = torch.tensor([answer(s) for s in scenes])
        found[question] = [round(accuracy(x, y, kinds=kinds, train=3000), 3) for x in layers]
        if question == "place":
            centred = layers - layers.mean(dim=1, keepdim=True)
            found["cosine with Clip Skip 2"] = [
                round(float(F.cosine_similarity(x, centred[11], dim=-1).mean()), 3) for x in centred
            ]
        print(question, found[question], flush=True)
    print(json.dumps(found))
    if options.out:
        options.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
