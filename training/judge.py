"""Trains the judge: a small network that says what a picture shows. It learns from rendered scenes only.

    python training/judge.py --data DIR --out DIR --minutes 8

Reads 64 px copies. Heads: the place; for each of left, centre and right which object stands there (or nothing) and in
which colour; which extras; which faults. Training pictures are shifted, slightly softened, tinted and noised, so that
the judge does not depend on pixels which no VAE keeps. Its own accuracy on held-out renders is logged and saved.
"""

import argparse
import itertools
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from common import autocast, load_words, log, save, shards
from torch import Tensor, nn
from world import BACKGROUNDS, BAD_TAGS, BASE, CHARACTERS, COLOURS, EXTRAS, OBJECTS, PLACES, STYLES, Scene, scene_of

THINGS = (*OBJECTS, *CHARACTERS)
NOTHING = len(THINGS)
FAULTS = tuple(BAD_TAGS)
HUES = (*COLOURS, "natural")
SLOTS = tuple(PLACES)
HEADS = {
    "place": len(BACKGROUNDS),
    "things": len(SLOTS) * (NOTHING + 1),
    "hues": len(SLOTS) * len(HUES),
    "extras": len(EXTRAS),
    "faults": len(FAULTS),
}


class Judge(nn.Module):
    """Pictures [batch, 3, 64, 64] in [-1, 1] to the logits of every head."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 128, 192)
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(widths):
            layers += [
                nn.Conv2d(a, b, 3, 2, 1),
                nn.GroupNorm(8, b),
                nn.SiLU(),
                nn.Conv2d(b, b, 3, 1, 1),
                nn.GroupNorm(8, b),
                nn.SiLU(),
            ]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.1), nn.Linear(192 * 16, 320), nn.SiLU())
        self.heads = nn.ModuleDict({name: nn.Linear(320, width) for name, width in HEADS.items()})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Logits by head; things [batch, slots, classes], hues [batch, slots, hues]."""
        h = self.body(x)
        out = {name: head(h) for name, head in self.heads.items()}
        out["things"] = out["things"].unflatten(1, (len(SLOTS), NOTHING + 1))
        out["hues"] = out["hues"].unflatten(1, (len(SLOTS), len(HUES)))
        return out


def truth(scenes: list[Scene]) -> dict[str, Tensor]:
    """What the judge should say; -100 where there is no colour to tell."""
    things = torch.full((len(scenes), len(SLOTS)), NOTHING)
    hues = torch.full((len(scenes), len(SLOTS)), -100)
    for row, scene in enumerate(scenes):
        for item in scene.items:
            slot = SLOTS.index(item.place)
            things[row, slot] = THINGS.index(item.name)
            if scene.quality not in ("monochrome", "sketch") and scene.style is None:
                hues[row, slot] = HUES.index(item.colour or "natural")
    return {
        "place": torch.tensor([BACKGROUNDS.index(scene.background) for scene in scenes]),
        "things": things,
        "hues": hues,
        "extras": torch.tensor([[float(name in scene.extras) for name in EXTRAS] for scene in scenes]),
        "faults": torch.tensor([[float(name == scene.quality) for name in FAULTS] for scene in scenes]),
    }


def small(images: np.ndarray) -> Tensor:
    """uint8 [n, height, width, 3] to uint8 [n, 3, 64, 64], each pixel a mean; wide and tall pictures are squeezed."""
    parts = [
        torch.from_numpy(part).permute(0, 3, 1, 2).float()
        for part in np.array_split(images, max(1, len(images) // 500))
    ]
    return torch.cat([F.adaptive_avg_pool2d(part, 64).round().byte() for part in parts])


def load(data: Path, split: str) -> tuple[Tensor, list[Scene]]:
    """Small pictures and scenes of a split."""
    images = torch.cat([small(np.load(path)["images"]) for path in shards(data, split)])
    return images, [scene_of(found) for found in load_words(data, split)[2]]


def augment(x: Tensor) -> Tensor:
    """Shifts by up to 2 px, softens half of the pictures a little, tints and noises."""
    dy, dx = (int(v) for v in torch.randint(-2, 3, (2,)))
    x = F.pad(x, (2, 2, 2, 2), mode="replicate")[:, :, 2 + dy : 66 + dy, 2 + dx : 66 + dx]
    soft = 0.5 * x + 0.5 * F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, soft, x)
    x = x * (1 + 0.1 * torch.randn(len(x), 1, 1, 1)) + 0.05 * torch.randn(len(x), 3, 1, 1)
    return x + 0.06 * torch.rand(len(x), 1, 1, 1) * torch.randn_like(x)


def objective(said: dict[str, Tensor], true: dict[str, Tensor]) -> Tensor:
    """The sum of the heads' losses."""
    loss = F.cross_entropy(said["place"], true["place"])
    loss = loss + 3 * F.cross_entropy(said["things"].flatten(0, 1), true["things"].flatten())
    loss = loss + F.cross_entropy(said["hues"].flatten(0, 1), true["hues"].flatten(), ignore_index=-100)
    loss = loss + F.binary_cross_entropy_with_logits(said["extras"], true["extras"])
    return loss + 2 * F.binary_cross_entropy_with_logits(said["faults"], true["faults"])


@torch.no_grad()
def look(judge: Judge, images: Tensor) -> dict[str, Tensor]:
    """Logits for uint8 [n, 3, 64, 64]."""
    judge.eval()
    parts = [judge(part.float() / 127.5 - 1) for part in images.split(256)]
    return {name: torch.cat([part[name] for part in parts]).float() for name in HEADS}


def accuracy(judge: Judge, images: Tensor, scenes: list[Scene]) -> dict[str, float]:
    """How often each head is right."""
    said, true = look(judge, images), truth(scenes)
    told = true["hues"] != -100
    shown = true["things"] != NOTHING
    return {
        "place": float((said["place"].argmax(-1) == true["place"]).float().mean()),
        "things": float((said["things"].argmax(-1) == true["things"])[shown].float().mean()),
        "all things": float((said["things"].argmax(-1) == true["things"]).all(-1).float().mean()),
        "hues": float((said["hues"].argmax(-1) == true["hues"])[told].float().mean()) if told.any() else 1.0,
        "extras": float(((said["extras"] > 0) == (true["extras"] > 0)).float().mean()),
        "faults": float(((said["faults"] > 0) == (true["faults"] > 0)).all(-1).float().mean()),
    }


def load_judge(path: Path) -> Judge:
    """The trained judge."""
    judge = Judge()
    judge.load_state_dict(torch.load(path, weights_only=True)["model"])
    return judge.eval()


def main() -> None:
    """Trains for the given minutes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=96)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    options.out.mkdir(parents=True, exist_ok=True)
    images, scenes = load(options.data, "train")
    for split in BASE[1:]:
        if any(options.data.glob(f"{split}-*.npz")):
            more, told = load(options.data, split)
            images, scenes = torch.cat([more, images]), told + scenes
    tests = {"heldout": load(options.data, "heldout")}
    more_images: list[Tensor] = []
    more_scenes: list[Scene] = []
    for name in (*CHARACTERS, *STYLES):
        more, told = load(options.data, name)
        more_images, more_scenes = [*more_images, more[200:]], more_scenes + told[200:]
        tests[name] = more[:200], told[:200]
    tests["kept out of train, with faults"] = images[-500:], scenes[-500:]
    images, scenes = torch.cat([images[:-500], *more_images]), scenes[:-500] + more_scenes
    true, judge = truth(scenes), Judge()
    styled = torch.tensor([scene.style is not None for scene in scenes])
    rare = (true["faults"].any(dim=1) | styled).nonzero().flatten()
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=1e-2)
    began, step, total = time.process_time(), 0, 60 * options.minutes
    while (spent := time.process_time() - began) < total:
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 100) * (0.5 + 0.5 * float(np.cos(np.pi * min(1, spent / total))))
        chosen = torch.randint(len(images), (options.batch,))
        third = options.batch // 3
        chosen[:third] = rare[torch.randint(len(rare), (third,))]
        with autocast("cpu"):
            said = judge(augment(images[chosen].float() / 127.5 - 1))
        loss = objective(
            {name: value.float() for name, value in said.items()}, {name: value[chosen] for name, value in true.items()}
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step % 100 == 0:
            log(options.out, f"step {step} {spent / 60:.1f} min loss {loss:.3f}")
        if step % 1000 == 0:
            log(options.out, f"step {step} heldout {accuracy(judge, *tests['heldout'])}")
            judge.train()
    found = {name: accuracy(judge, *test) for name, test in tests.items()}
    save(options.out / "judge.pt", {"model": judge.state_dict(), "accuracy": found, "steps": step})
    for name, values in found.items():
        log(options.out, f"{name}: " + ", ".join(f"{head} {value:.3f}" for head, value in values.items()))


if __name__ == "__main__":
    main()
