"""Trains the starter's text encoder contrastively against a small image tower on rendered scenes; resumable.

    python training/clip.py --data DIR --out DIR --vocabulary FILE --minutes 30 [--device cuda --batch 512]

Twelve layers that each do something: residual branches start large beside the embeddings, so that every layer writes
into the stream (for independent branches the cosine of layers k and k+1 is then near sqrt(k / (k+1))); the contrastive
head reads layer 12, and two coarser heads read middle layers: the place at layer 4, the objects at layer 8. Each
picture also meets one caption with nearly the same words that says another scene.
"""

import argparse
import gzip
import math
import random
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from common import autocast, load_images, load_words, log, save
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from world import BACKGROUNDS, OBJECTS, Scene, caption, hard_negative, scene_of

WIDTH, DEPTH, TOKENS, EMBED = 128, 12, 40, 192
PLACE_LAYER, OBJECT_LAYER = 4, 8
START, END = 49406, 49407


def tokenizer(vocabulary: Path) -> CLIPTokenizer:
    """CLIP's tokenizer from OpenAI's merges file (49,408 tokens)."""
    lines = gzip.decompress(vocabulary.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    merges = [tuple(line.split()) for line in lines]
    letters = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    names = [chr(i) for i in letters] + [chr(256 + n) for n in range(256 - len(letters))]
    ends = [name + "</w>" for name in names]
    words = names + ends + ["".join(pair) for pair in merges] + ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=merges)


def new_text_encoder(seed: int = 0) -> CLIPTextModel:
    """The untrained encoder, its branches started large and every word's vector its own."""
    torch.manual_seed(seed)
    config = CLIPTextConfig(
        vocab_size=49408, hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=DEPTH,
        num_attention_heads=2, projection_dim=EMBED, hidden_act="quick_gelu",
        bos_token_id=START, eos_token_id=END, pad_token_id=END,
    )  # fmt: skip
    model = CLIPTextModel(config)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "token_embedding" in name:
                value.normal_(std=0.5)
            elif "position_embedding" in name:
                value.normal_(std=0.1)
            elif name.endswith("weight") and value.ndim == 2:
                value.normal_(std=(1.6 if "fc2" in name or "out_proj" in name else 1.0) / value.shape[1] ** 0.5)
            elif name.endswith("bias"):
                value.zero_()
    return model


def convolutions(inside: int, outside: int) -> list[nn.Module]:
    """Half the size, twice convolved."""
    first = [nn.Conv2d(inside, outside, 3, 2, 1), nn.GroupNorm(8, outside), nn.SiLU()]
    return [*first, nn.Conv2d(outside, outside, 3, 1, 1), nn.GroupNorm(8, outside), nn.SiLU()]


class ImageTower(nn.Module):
    """Pictures [batch, 3, 64, 64] to one vector."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 48, 96, 160, 224)
        pairs = pairwise(widths)
        self.body = nn.Sequential(*(layer for a, b in pairs for layer in convolutions(a, b)))
        self.out = nn.Linear(224 * 16, EMBED)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, EMBED]"""
        return F.normalize(self.out(self.body(x).flatten(1)).float(), dim=-1)


class Heads(nn.Module):
    """What reads the layers during training; nothing of it ships."""

    def __init__(self) -> None:
        super().__init__()
        self.text = nn.Linear(WIDTH, EMBED, bias=False)
        self.scale = nn.Parameter(torch.tensor(2.3))
        self.place = nn.Linear(WIDTH, len(BACKGROUNDS))
        self.objects = nn.Linear(WIDTH, len(OBJECTS))


class Clip(nn.Module):
    """The text encoder with the image tower and heads it is trained against."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.tower, self.heads = new_text_encoder(), ImageTower(), Heads()

    def said(self, ids: Tensor, ends: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The captions' unit vectors, and every layer's normed vector at the end token."""
        out = self.text(ids, output_hidden_states=True)
        row = torch.arange(len(ids), device=ids.device)
        layers = [self.text.final_layer_norm(state[row, ends]) for state in out.hidden_states]
        return F.normalize(self.heads.text(layers[-1]).float(), dim=-1), layers


@dataclass(frozen=True)
class Batch:
    """Pictures, and tokens of their captions followed by those of as many wrong captions."""

    images: Tensor
    ids: Tensor
    ends: Tensor
    place: Tensor
    objects: Tensor


def tokens(tok: CLIPTokenizer, texts: list[str]) -> tuple[Tensor, Tensor]:
    """Ids [batch, at most TOKENS] padded with the end token, and where the first end token stands."""
    ids: Tensor = tok(texts, padding=True, max_length=TOKENS, truncation=True, return_tensors="pt")["input_ids"]
    return ids, (ids == END).int().argmax(dim=1)


def small(images: np.ndarray) -> Tensor:
    """uint8 [n, 128, 128, 3] to float [n, 3, 64, 64]."""
    return F.avg_pool2d(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1, 2)


def batch(tok: CLIPTokenizer, images: np.ndarray, scenes: list[Scene], *, rng: random.Random) -> Batch:
    """Fresh captions and fresh wrong captions of these scenes."""
    right, wrong = [caption(s, rng) for s in scenes], [hard_negative(s, rng) or "" for s in scenes]
    ids, ends = tokens(tok, right + wrong)
    place = torch.tensor([BACKGROUNDS.index(s.background) for s in scenes])
    objects = torch.tensor([[float(any(item.name == o for item in s.items)) for o in OBJECTS] for s in scenes])
    return Batch(small(images), ids, ends, place, objects)


def objective(clip: Clip, given: Batch) -> tuple[Tensor, Tensor]:
    """The loss, and how often the picture finds its own caption among all of the batch's, wrong ones included."""
    count = len(given.images)
    text, layers = clip.said(given.ids, given.ends)
    logits = clip.heads.scale.exp().clamp(max=100) * clip.tower(given.images) @ text.T
    target = torch.arange(count, device=logits.device)
    loss = 0.5 * F.cross_entropy(logits, target) + 0.5 * F.cross_entropy(logits[:, :count].T, target)
    loss = loss + 0.2 * F.cross_entropy(clip.heads.place(layers[PLACE_LAYER][:count]).float(), given.place)
    objects = clip.heads.objects(layers[OBJECT_LAYER][:count]).float()
    loss = loss + 2.0 * F.binary_cross_entropy_with_logits(objects, given.objects)
    return loss, (logits.argmax(dim=1) == target).float().mean()


@torch.no_grad()
def layer_cosines(text: CLIPTextModel, ids: Tensor) -> list[float]:
    """Mean cosine of each layer's normed, centred vectors with those of layer 11 (Clip Skip 2), layers 0 to 12."""
    states = [text.final_layer_norm(h).float() for h in text(ids, output_hidden_states=True).hidden_states]
    states = [h - h.mean(dim=(0, 1)) for h in states]
    return [round(float(F.cosine_similarity(h, states[11], dim=-1).mean()), 3) for h in states]


@torch.no_grad()
def measured(clip: Clip, given: Batch) -> str:
    """How well held-out pictures find their captions, and how far the layers lie apart."""
    clip.eval()
    count = len(given.images)
    text, image = clip.said(given.ids, given.ends)[0], clip.tower(given.images)
    found = (image @ text.T).argmax(dim=1) == torch.arange(count, device=image.device)
    bound = (image * text[:count]).sum(-1) > (image * text[count:]).sum(-1)
    cosines = layer_cosines(clip.text, given.ids[:64])
    clip.train()
    return (
        f"held-out: own caption of {2 * count} {found.float().mean():.2f}, right one of two "
        f"{bound.float().mean():.2f}; cosine with layer 11, layers 0-12: {cosines}"
    )


def on(given: Batch, device: str) -> Batch:
    """The batch, moved."""
    return Batch(*(x.to(device) for x in (given.images, given.ids, given.ends, given.place, given.objects)))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vocabulary", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def main() -> None:
    """Trains for the given minutes, in all, then publishes text_encoder/."""
    options = arguments()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    tok, clip = tokenizer(options.vocabulary), Clip().to(options.device)
    optimizer = torch.optim.AdamW(clip.parameters(), lr=options.lr, betas=(0.9, 0.98), weight_decay=0.0)
    path, step, spent = options.out / "clip.pt", 0, 0.0
    if path.exists():
        state = torch.load(path, weights_only=True)
        clip.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["spent"]
    images, scenes = load_images(options.data, "train"), [scene_of(s) for s in load_words(options.data, "train")[2]]
    rng, saved, total = random.Random(step), time.time(), 60 * options.minutes
    held_scenes = [scene_of(s) for s in load_words(options.data, "heldout")[2][:256]]
    held_images = load_images(options.data, "heldout", limit=256)
    held = on(batch(tok, held_images, held_scenes, rng=random.Random(0)), options.device)
    while spent < total:
        began = time.time()
        for group in optimizer.param_groups:
            falling = 0.03 + 0.97 * (0.5 + 0.5 * math.cos(math.pi * spent / total))
            group["lr"] = options.lr * min(1, (step + 1) / 200) * falling
        chosen = [rng.randrange(len(scenes)) for _ in range(options.batch)]
        given = on(batch(tok, images[chosen], [scenes[i] for i in chosen], rng=rng), options.device)
        with autocast(options.device):
            loss, right = objective(clip, given)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(clip.parameters(), 1.0)
        optimizer.step()
        step, spent = step + 1, spent + time.time() - began
        if step % 50 == 0:
            log(options.out, f"step {step} {spent / 60:.1f} min loss {loss:.3f} right {right:.2f}")
        if time.time() - saved > 170 or spent >= total:
            saved, kept = time.time(), {"model": clip.state_dict(), "optimizer": optimizer.state_dict()}
            save(path, {**kept, "step": step, "spent": spent})
            log(options.out, f"step {step} {measured(clip, held)}")
    clip.text.eval().save_pretrained(options.out / "text_encoder")
    (options.out / "READY").write_text(f"step {step}\n")


if __name__ == "__main__":
    main()
