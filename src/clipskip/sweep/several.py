"""Draws a sweep over several checkpoints: each picture with the one that it names."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import final

from clipskip.spec import Render
from clipskip.sweep.drawn import Advance, Drawn, Extras, Halt
from clipskip.sweep.model import Model
from clipskip.weights import CheckpointFacts


@final
class Several:
    """Checkpoints that are opened one after the other."""

    def __init__(self, first: Model, open: Callable[[CheckpointFacts], Model]) -> None:
        self.first, self._open = first, open

    def draw(
        self, renders: Sequence[Render], extras: Extras, *, previews: bool = False, halt: Halt | None = None
    ) -> Iterator[Advance | Drawn]:
        """Yield each picture when it is done; those of one checkpoint together, so that each is opened once."""
        places = sorted(range(len(renders)), key=lambda place: (renders[place].model.name, renders[place].model.hash))
        for ref, some in groupby(places, key=lambda place: renders[place].model):
            own = list(some)
            model = self.first if ref == self.first.facts.ref else self._open(extras.models[ref])
            for event in model.draw([renders[place] for place in own], extras, previews=previews, halt=halt):
                if isinstance(event, Drawn):
                    yield replace(event, index=own[event.index])
                else:
                    yield replace(event, indices=tuple(own[index] for index in event.indices))
            del model
