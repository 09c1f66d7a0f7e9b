"""transformers' CLIP with random weights, and A1111's published rules worked out again: what ours is held against."""

import gzip
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources

import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from clipskip.networks import TextEncoder, TextShape, build_text_encoder

TINY = TextShape(depth=5, width=32, heads=4, mlp_width=64, vocabulary=200)
SMALL = TextShape(depth=12, width=32, heads=4, mlp_width=64)
CLIP_L = TextShape(depth=12, width=768, heads=12, mlp_width=3072)

BREAK = ("BREAK", -1.0)
SPARE = 16
"""Rows behind the vocabulary that hold textual inversions, as diffusers' load_textual_inversion puts them."""

Segments = Sequence[tuple[str, float]]


def random_model(shape: TextShape, *, spare: int = 0) -> CLIPTextModel:
    """transformers' model with random weights whose norms and biases are far from trivial."""
    known = {**shape.config(), "vocab_size": shape.vocabulary + spare}
    config = CLIPTextConfig(**known, bos_token_id=shape.vocabulary - 2, eos_token_id=shape.vocabulary - 1)
    model = CLIPTextModel(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(5)
    for name, value in model.named_parameters():
        noise = torch.randn(value.shape, generator=generator)
        if "norm" in name:
            value.copy_(noise * 0.3 + (1.0 if name.endswith("weight") else 0.0))
        elif "embedding" in name:
            value.copy_(noise * 0.3)
        elif name.endswith("bias"):
            value.copy_(noise * 0.1)
        else:
            value.copy_(noise * value.shape[1] ** -0.5)
    return model


def our_encoder(model: CLIPTextModel, shape: TextShape) -> TextEncoder:
    """Ours with the same weights, without the rows behind the vocabulary."""
    state = model.state_dict()
    tokens = "embeddings.token_embedding.weight"
    return build_text_encoder({**state, tokens: state[tokens][: shape.vocabulary]}, shape)


def relative(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, over the largest number."""
    assert ours.shape == theirs.shape
    return float((ours.float() - theirs).abs().max() / theirs.abs().max())


@cache
def tokenizer() -> CLIPTokenizer:
    """transformers' own tokenizer over OpenAI's file."""
    packed = resources.files("clipskip.prompt").joinpath("bpe_simple_vocab_16e6.txt.gz").read_bytes()
    merges = [tuple(line.split()) for line in gzip.decompress(packed).decode().split("\n")[1 : 49152 - 256 - 2 + 1]]
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    letters = [chr(b) for b in visible] + [chr(256 + n) for n, _ in enumerate(hidden)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: n for n, word in enumerate(words)}, merges=merges)


class Chunks:
    """75 tokens at a time, with the comma rule: A1111 1.8.0 sd_hijack_clip.py tokenize_line, as described."""

    def __init__(self) -> None:
        self.done: list[tuple[list[int], list[float]]] = []
        self.ids: list[int] = []
        self.weights: list[float] = []
        self.comma = -1

    def close(self) -> None:
        self.done.append((self.ids, self.weights))
        self.ids, self.weights, self.comma = [], [], -1

    def make_room(self, *, comma: bool) -> None:
        full = len(self.ids) == 75
        if comma:
            self.comma = len(self.ids)
        elif full and self.comma >= 0 and 75 - self.comma <= 20:
            cut = self.comma + 1
            moved = self.ids[cut:], self.weights[cut:]
            self.ids, self.weights = self.ids[:cut], self.weights[:cut]
            self.close()
            self.ids, self.weights = moved
            full = False
        if full:
            self.close()

    def add(self, ids: Sequence[int], weight: float) -> None:
        if len(self.ids) + len(ids) > 75:
            self.close()
        self.ids += ids
        self.weights += [weight] * len(ids)


def chunk(segments: Segments, slots: Mapping[str, range]) -> list[tuple[list[int], list[float]]]:
    """Ids and weights, 77 each; "@name" is an embedding, whose vectors are the rows that `slots` gives."""
    chunks = Chunks()
    for text, weight in segments:
        if (text, weight) == BREAK:
            chunks.close()
        elif text.startswith("@"):
            chunks.make_room(comma=False)
            chunks.add(slots[text[1:]], weight)
        else:
            for token in tokenizer()(text, add_special_tokens=False).input_ids:
                chunks.make_room(comma=token == 267)
                chunks.add([token], weight)
    if chunks.ids or not chunks.done:
        chunks.close()
    return [
        ([49406, *ids, *[49407] * (76 - len(ids))], [1.0, *weights, *[1.0] * (76 - len(weights))])
        for ids, weights in chunks.done
    ]


def expected(
    model: CLIPTextModel,
    texts: Sequence[Segments],
    *,
    slots: Mapping[str, range] | None = None,
    emphasis: str = "Original",
) -> dict[float, Tensor]:
    """[texts, tokens, width] by Clip Skip, for the texts of one schedule, as A1111 encodes them in one batch."""
    chunked = [chunk(segments, slots or {}) for segments in texts]
    count = max(map(len, chunked))
    empty = chunk([("", 1.0)], {})
    parts: dict[float, list[Tensor]] = {n: [] for n in skips_of(model)}
    for i in range(count):
        row = [(one + empty * count)[i] for one in chunked]
        hidden = model(torch.tensor([ids for ids, _ in row]), output_hidden_states=True).hidden_states
        weights = torch.tensor([weights for _, weights in row])[..., None]
        for n in parts:
            a, f = int(n), n - int(n)
            layer = hidden[-a] if not f else (1 - f) * hidden[-a] + f * hidden[-(a + 1)]
            parts[n].append(weigh(model.final_layer_norm(layer), weights, emphasis))
    return {n: torch.hstack(found) for n, found in parts.items()}


def skips_of(model: CLIPTextModel) -> list[float]:
    return [*range(1, model.config.num_hidden_layers + 1), 1.5, 3.25]


def weigh(z: Tensor, weights: Tensor, emphasis: str) -> Tensor:
    """A1111's sd_emphasis.py."""
    if emphasis in ("None", "Ignore"):
        return z
    weighted = z * weights
    return weighted * (z.mean() / weighted.mean()) if emphasis == "Original" else weighted
