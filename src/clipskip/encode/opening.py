"""A checkpoint's file -> its text encoder alone, for those who bring their own sampler."""

import os

import torch

from clipskip.encode.texts import TextReader
from clipskip.networks import build_text_encoder
from clipskip.weights import load_text


def open_text_encoder(
    path: str | os.PathLike[str],
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    allow_pickle: bool = False,
) -> TextReader:
    """The text encoder of a checkpoint, ready for `prompt_embeds` and `encode_layers`; the rest is not read."""
    weights = load_text(path, dtype=dtype, device=device, allow_pickle=allow_pickle)
    return TextReader(encoder=build_text_encoder(weights.state, weights.shape), family=weights.family)
