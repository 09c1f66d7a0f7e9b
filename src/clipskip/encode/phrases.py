"""A Clip Skip of its own for one phrase of the prompt: its tokens take their vectors from another layer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from clipskip.errors import PromptError
from clipskip.prompt import Chunk, Prompt, token_ids
from clipskip.spec import ClipSkip


@dataclass(frozen=True, slots=True, kw_only=True)
class PhraseSkip:
    """The Clip Skip of a phrase, wherever the prompt has it."""

    phrase: str
    """As the prompt spells it, without brackets and weights; case does not matter."""
    skip: ClipSkip

    def __post_init__(self) -> None:
        if not token_ids(self.phrase):
            raise PromptError(f"the phrase {self.phrase!r} has no words; give some of the prompt's", field="clip_skip")

    def places(self, texts: Sequence[tuple[Chunk, ...]]) -> Bool[Tensor, "texts chunks tokens"]:
        """Where the phrase stands in some texts of as many chunks each."""
        ids = tuple(token_ids(self.phrase))
        found = torch.zeros(len(texts), len(texts[0]), 77, dtype=torch.bool)
        for number, chunks in enumerate(texts):
            for chunk, position in _places(chunks, ids):
                found[number, chunk, position] = True
        return found

    def check(self, prompt: Prompt) -> None:
        """PromptError for a phrase that the prompt does not have, at any step."""
        texts = dict.fromkeys(entry.chunks for part in prompt.parts for entry in part.schedule)
        if not any(self.places([text]).any() for text in texts):
            raise PromptError(
                f"the prompt has no phrase {self.phrase!r}, which clip skip {self.skip} is for; write it as the prompt does",
                field="clip_skip",
            )


def _places(chunks: Sequence[Chunk], ids: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """(chunk, position among its 77) of each token of each occurrence, those across two chunks included."""
    tokens = [token for chunk in chunks for token in chunk.tokens]
    places = [(number, at) for number, chunk in enumerate(chunks) for at in range(1, len(chunk.tokens) + 1)]
    for start in range(len(tokens) - len(ids) + 1):
        if tuple(tokens[start : start + len(ids)]) == ids:
            yield from places[start : start + len(ids)]
