"""Trained weights in; the Clip Skip that left its mark in them, and how sure that is, out. The UNet is not asked.

Training moves a matrix only along the inputs that it saw: its gradient is a sum of (something) times input (for a
LoRA's `down`: Hu et al. 2021, h = W x + B A x). In cross-attention those inputs are the text's vectors at the trained
Clip Skip. So there the change answers most, for its size, to how the text's vectors vary.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from clipskip.advise.chances import chances
from clipskip.advise.trained import Trained
from clipskip.encode import TextReader, encode_layers
from clipskip.errors import WrongKind
from clipskip.prompt import token_ids
from clipskip.spec import ClipSkip
from clipskip.weights import load_checkpoint
from clipskip.weights.lora import Lora

CROSS = ("attn2.to_k", "attn2.to_v")
"""The only modules of the UNet that see the text."""
LEAST = 8
"""Modules below which nothing is concluded."""
FLAW = 0.1


def by_footprint(lora: Lora, reader: TextReader, texts: Sequence[str], *, skips: Sequence[int]) -> Trained | None:
    """What the LoRA's cross-attention says; None for one that has too few plain down matrices there.

    `reader` reads texts with this LoRA merged, and the texts should be like those that it was trained on.
    """
    downs = {
        name: module.parts["down"].float().flatten(1)
        for name, module in lora.modules.items()
        if name.endswith(CROSS) and "down" in module.parts
    }
    return _read(downs, reader, texts, skips=skips, way="the LoRA's weights") if len(downs) >= LEAST else None


def by_difference(
    model: Path,
    base: Path,
    reader: TextReader,
    texts: Sequence[str],
    *,
    skips: Sequence[int],
    allow_pickle: bool = False,
) -> Trained:
    """What the difference between a checkpoint and the one that it was made from says.

    WrongKind where their cross-attention has other shapes, or does not differ.
    """
    own, other = (_cross_attention(path, allow_pickle=allow_pickle) for path in (model, base))
    if {name: one.shape for name, one in own.items()} != {name: one.shape for name, one in other.items()}:
        raise WrongKind(f"{base.name} is not what {model.name} was made from: its UNet has other shapes", field="base")
    changes = {name: one - other[name] for name, one in own.items()}
    changes = {name: change for name, change in changes.items() if change.any()}
    if len(changes) < LEAST:
        raise WrongKind(
            f"{model.name} reads texts with the weights of {base.name}: no training is between them; give the "
            "checkpoint that it was made from",
            field="base",
        )
    return _read(changes, reader, texts, skips=skips, way="the change from its base")


def _cross_attention(path: Path, *, allow_pickle: bool) -> dict[str, Tensor]:
    weights = load_checkpoint(path, dtype=torch.float32, allow_pickle=allow_pickle).unet
    return {name: value for name, value in weights.items() if name.removesuffix(".weight").endswith(CROSS)}


def _read(
    matrices: Mapping[str, Float[Tensor, "rank width"]],
    reader: TextReader,
    texts: Sequence[str],
    *,
    skips: Sequence[int],
    way: str,
) -> Trained:
    known = [skip for skip in skips if skip <= reader.depth]
    answers = gains(matrices, _variations(reader, texts, known)).log().double().numpy()
    now = chances(-answers)
    best = int(now.argmax())
    return Trained(
        way=way,
        skip=known[best],
        sure=(1 - FLAW) * float(now[best]) + FLAW / len(known),
        scores=tuple(
            (skip, round(float(worse), 5))
            for skip, worse in zip(known, (answers[:, best : best + 1] - answers).mean(0), strict=True)
        ),
        chances=tuple((skip, round(float(chance), 4)) for skip, chance in zip(known, now, strict=True)),
        pictures=0,
        looks=len(matrices),
        rows=0,
    )


def gains(
    downs: Mapping[str, Float[Tensor, "rank width"]], variations: Float[Tensor, "skips tokens width"]
) -> Float[Tensor, "modules skips"]:
    """How strongly each module answers to each Clip Skip's vectors, for their size: |down x|^2 / |x|^2, summed."""
    size = variations.square().sum((1, 2))
    return torch.stack([(variations @ down.T).square().sum((1, 2)) / size for down in downs.values()])


def _variations(reader: TextReader, texts: Sequence[str], skips: Sequence[int]) -> Float[Tensor, "skips tokens width"]:
    """The texts' vectors at each Clip Skip without their mean: what differs from word to word."""
    wanted = [ClipSkip(skip) for skip in skips]
    found = []
    for text in texts:
        layers = encode_layers(reader, text, wanted)
        found.append(torch.stack([layers[skip][1 : _said(text, layers[skip])] for skip in wanted]))
    whole = torch.cat(found, dim=1).float().cpu()
    return whole - whole.mean(dim=1, keepdim=True)


def _said(text: str, vectors: Tensor) -> int:
    """The place after the text's last token, in its first chunk."""
    return min(1 + max(1, len(token_ids(text))), 76, len(vectors))
