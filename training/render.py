"""Renders training scenes into shards: pictures, three captions each, scenes.

python training/render.py --data DIR --shard 0 --shards 4 --count 6000 [--split train]
"""

import argparse
import dataclasses
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
from drawing import render
from world import SHAPES, caption, hard_negative, sample_scene

CAPTIONS = 3


def main() -> None:
    """Renders one shard; a shard that exists is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--shard", type=int, default=0)
    parser.add_argument("--count", type=int, default=6000)
    parser.add_argument("--split", default="train", help="also wide and tall: scenes as in train, 192x128 and 128x192")
    options = parser.parse_args()
    options.data.mkdir(parents=True, exist_ok=True)
    path = options.data / f"{options.split}-{options.shard:03d}.npz"
    if path.exists():
        return
    rng = random.Random(f"{options.split}{options.shard}")
    split, (width, height) = options.split, SHAPES.get(options.split, SHAPES["square"])
    split = "train" if split in SHAPES else split
    scenes = [replace(sample_scene(rng, split=split), width=width, height=height) for _ in range(options.count)]
    captions = [[caption(scene, rng) for _ in range(CAPTIONS)] for scene in scenes]
    negatives = [hard_negative(scene, rng) for scene in scenes]
    images = np.stack([render(scene) for scene in scenes])
    partial = path.with_suffix(".partial.npz")
    np.savez(
        partial, images=images, captions=json.dumps(captions), negatives=json.dumps(negatives),
        scenes=json.dumps([dataclasses.asdict(scene) for scene in scenes]),
    )  # fmt: skip
    partial.rename(path)


if __name__ == "__main__":
    main()
