"""One phrase's own Clip Skip: the phrase's tokens take their vectors from another layer."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from clipskip.errors import PromptError
from clipskip.prompt import Chunk, Prompt, token_ids
from clipskip.spec import PhraseSkip


def phrase_places(phrase: str, texts: Sequence[tuple[Chunk, ...]]) -> Bool[Tensor, "texts chunks tokens"]:
    """Return a mask of the phrase's tokens in texts that all have the same number of chunks."""
    ids = tuple(token_ids(phrase))
    mask = torch.zeros(len(texts), len(texts[0]), 77, dtype=torch.bool)
    for number, chunks in enumerate(texts):
        for chunk, position in _places(chunks, ids):
            mask[number, chunk, position] = True
    return mask


def check_phrase(phrase_skip: PhraseSkip, prompt: Prompt) -> None:
    """Raise PromptError for a phrase that the prompt has at no step."""
    texts = dict.fromkeys(entry.chunks for part in prompt.parts for entry in part.schedule)
    if not any(phrase_places(phrase_skip.phrase, [text]).any() for text in texts):
        raise PromptError(
            f"the prompt does not contain the phrase {phrase_skip.phrase[:60]!r}, to which Clip Skip {phrase_skip.skip} applies; "
            "write it as in the prompt, without brackets and weights",
            field="phrase_skip",
        )


def _places(chunks: Sequence[Chunk], ids: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield (chunk, position in its 77) for each token of each occurrence, across chunk borders too."""
    tokens = [token for chunk in chunks for token in chunk.tokens]
    places = [(number, at) for number, chunk in enumerate(chunks) for at in range(1, len(chunk.tokens) + 1)]
    for start in range(len(tokens) - len(ids) + 1):
        if ids and tuple(tokens[start : start + len(ids)]) == ids:
            yield from places[start : start + len(ids)]
