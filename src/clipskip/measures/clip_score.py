"""Finished pictures and texts in; how well a CLIP model finds that they go together, out.

The CLIP score of Hessel et al. 2021, "CLIPScore: A Reference-free Evaluation Metric for Image Captioning", with the factor
100 that torchmetrics gives it: 100 max(cosine, 0).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from clipskip.errors import NotFound
from clipskip.prompt import CHUNK, END, START, token_ids


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipScores:
    """One picture at each Clip Skip, scored."""

    model: str
    """The CLIP model."""
    skips: tuple[int, ...]
    prompt: tuple[float, ...]
    """Against the whole prompt, or as much of it as a CLIP model reads: 75 tokens."""
    phrases: tuple[tuple[str, tuple[float, ...]], ...]
    """Against each phrase alone."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scorer:
    """A CLIP model with both of its halves."""

    name: str
    model: Any  # transformers' CLIPModel
    processor: Any  # its picture processor

    @classmethod
    def open(cls, name: str) -> "Scorer":
        """Return a folder, or the name of a model on the Hugging Face hub; NotFound where it cannot be had."""
        try:
            from transformers import CLIPImageProcessor, CLIPModel
        except ImportError:
            raise NotFound(
                "CLIP scores need transformers, which is not installed; pip install 'clipskip[clip]'", field="clip"
            ) from None
        try:
            model = CLIPModel.from_pretrained(name).eval()
            processor = CLIPImageProcessor.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise NotFound(f"no CLIP model in {name!r}: {str(error).splitlines()[0][:200]}", field="clip") from None
        return cls(name=name, model=model, processor=processor)

    @torch.no_grad()
    def score(self, pictures: Sequence[NDArray[np.uint8]], texts: Sequence[str]) -> Float[Tensor, "pictures texts"]:
        """100 max(cosine, 0) of each picture [height, width, 3] with each text."""
        pixels = self.processor(images=list(pictures), return_tensors="pt")["pixel_values"]
        ids = [[START, *token_ids(text)[:CHUNK], END] for text in texts]
        length = max(map(len, ids))
        padded = torch.tensor([row + [END] * (length - len(row)) for row in ids])
        out = self.model(input_ids=padded, pixel_values=pixels)
        cosines: Tensor = out.image_embeds @ out.text_embeds.T
        return 100 * cosines.clamp_min(0)


def clip_scores(
    scorer: Scorer, pictures: Sequence[NDArray[np.uint8]], *, skips: Sequence[int], prompt: str, phrases: Sequence[str]
) -> ClipScores:
    """Return the scores of the pictures that were drawn at these Clip Skips."""
    whole, *parts = scorer.score(pictures, [prompt, *phrases]).T.tolist()
    return ClipScores(
        model=scorer.name,
        skips=tuple(skips),
        prompt=tuple(round(score, 2) for score in whole),
        phrases=tuple(
            (phrase, tuple(round(score, 2) for score in part)) for phrase, part in zip(phrases, parts, strict=True)
        ),
    )
