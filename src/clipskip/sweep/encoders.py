"""The text encoders of an open model, which give way to the picture where they are large."""

from collections.abc import Sequence
from typing import final

import torch

from clipskip.encode import TextReader
from clipskip.networks import tensors_of
from clipskip.sample import empty_cache, free_bytes
from clipskip.weights import CheckpointFacts, State, is_pickle, read_again
from clipskip.weights.lora import MOST_KEPT


def most_kept(device: torch.device) -> int:
    """Return how many bytes that the file holds too may stay in memory: 2 GB, on a GPU up to a quarter of what is free."""
    return MOST_KEPT if device.type == "cpu" else max(MOST_KEPT, free_bytes(device) // 4)


@final
class Encoders:
    """A model's text encoders: read from its file again after they were freed."""

    def __init__(
        self, states: Sequence[State], facts: CheckpointFacts, *, device: torch.device, kept: int | None = None
    ) -> None:
        self._facts, self._device = facts, device
        self._dtype = next(iter(states[0].values())).dtype
        self._reader: TextReader | None = TextReader.build(states, facts.encoders, family=facts.family)
        size = sum(tensor.nbytes for state in states for tensor in state.values())
        self.give_way = size > (most_kept(device) if kept is None else kept) and not is_pickle(facts.source.path)
        """Whether they are freed while pictures are drawn. A pickle cannot be read in parts."""

    @property
    def reader(self) -> TextReader:
        """The reader of texts; DamagedFile where the encoders were freed and their file has changed since."""
        if self._reader is None:
            parts = {encoder.part: encoder for encoder in self._facts.encoders}
            names = [f"{part}.{name}" for part, encoder in parts.items() for name in tensors_of(encoder.shape)]
            states: dict[str, State] = {part: {} for part in parts}
            for full, tensor in read_again(self._facts.source, names, dtypes=dict.fromkeys(parts, self._dtype)):
                part, _, name = full.partition(".")
                states[part][name] = tensor.to(self._device)
            self._reader = TextReader.build(list(states.values()), self._facts.encoders, family=self._facts.family)
        return self._reader

    def free(self) -> None:
        """Free them, if they are large."""
        if self.give_way:
            self._reader = None
            empty_cache(self._device)
