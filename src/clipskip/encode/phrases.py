"""A Clip Skip of its own for one phrase of the prompt: its tokens take their vectors from another layer."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from clipskip.errors import PromptError
from clipskip.prompt import Chunk, Prompt, token_ids
from clipskip.spec import PhraseSkip


def phrase_places(phrase: str, texts: Sequence[tuple[Chunk, ...]]) -> Bool[Tensor, "texts chunks tokens"]:
    """Where the phrase stands in some texts of as many chunks each."""
    ids = tuple(token_ids(phrase))
    found = torch.zeros(len(texts), len(texts[0]), 77, dtype=torch.bool)
    for number, chunks in enumerate(texts):
        for chunk, position in _places(chunks, ids):
            found[number, chunk, position] = True
    return found


def check_phrase(one: PhraseSkip, prompt: Prompt) -> None:
    """PromptError for a phrase that the prompt does not have, at any step."""
    texts = dict.fromkeys(entry.chunks for part in prompt.parts for entry in part.schedule)
    if not any(phrase_places(one.phrase, [text]).any() for text in texts):
        raise PromptError(
            f"the prompt has no phrase {one.phrase[:60]!r}, which clip skip {one.skip} is for; write it as the prompt does, "
            "without brackets and weights",
            field="phrase_skip",
        )


def _places(chunks: Sequence[Chunk], ids: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """(chunk, position among its 77) of each token of each occurrence, those across two chunks included."""
    tokens = [token for chunk in chunks for token in chunk.tokens]
    places = [(number, at) for number, chunk in enumerate(chunks) for at in range(1, len(chunk.tokens) + 1)]
    for start in range(len(tokens) - len(ids) + 1):
        if ids and tuple(tokens[start : start + len(ids)]) == ids:
            yield from places[start : start + len(ids)]
