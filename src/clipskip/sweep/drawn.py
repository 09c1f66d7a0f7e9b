"""The inputs of drawing beside renders, and the events that it yields."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from clipskip.errors import SpecError
from clipskip.spec import FileRef, Render
from clipskip.weights import CheckpointFacts, Embedding, UpscalerFile, VAEFile
from clipskip.weights.lora import Lora


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """One finished picture."""

    index: int
    """Its place among the renders that were asked for."""
    render: Render
    pixels: NDArray[np.uint8]
    """[height, width, 3]"""
    half_done: int | None = None
    """The step after which somebody stopped it; None for a finished picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A cell of a sweep that could not be drawn."""

    place: tuple[int, int]
    """Its row and its column."""
    reason: str
    field: str | None = None
    """The setting at fault."""


def not_drawn(failed: Sequence[Failed], *, cells: int) -> SpecError:
    """Return the error for a sweep of which some cells could not be drawn."""
    reasons = list(dict.fromkeys(cell.reason for cell in failed))
    more = f" (and {len(reasons) - 1} other reasons)" if len(reasons) > 1 else ""
    return SpecError(
        f"{len(failed)} of {cells} pictures could not be drawn: {reasons[0]}{more}; the others are there",
        field=failed[0].field,
    )


@final
class Halt:
    """A signal from another thread while pictures are drawn: to end all of them, or to stop those at hand."""

    def __init__(self, *, at_hand: int | None = None) -> None:
        self.at_hand = at_hand
        """How many pictures are left half done at once; None for all that are drawn together."""
        self.ended, self._skipped = threading.Event(), threading.Event()

    def skip(self) -> None:
        """Stop the pictures at hand half done, and go on with the next."""
        self._skipped.set()

    def taken(self) -> bool:
        """Return whether to stop the pictures at hand now; a skip counts once."""
        skipped = self._skipped.is_set()
        self._skipped.clear()
        return skipped or self.ended.is_set()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Advance:
    """These pictures have finished a step."""

    indices: tuple[int, ...]
    step: int
    """Counted from 1."""
    steps: int
    previews: tuple[NDArray[np.uint8], ...] = ()
    """Rough previews [height / 8, width / 8, 3], one for each index; empty when not asked for."""
    warnings: tuple[str, ...] = ()
    """What the user should know about how the prompts were read."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Extras:
    """The files besides the checkpoint that renders use."""

    loras: Mapping[str, Lora]
    """By hash."""
    embeddings: tuple[Embedding, ...] = ()
    starts: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    """Pictures to begin at [height, width, 3], by the hash of their pixels."""
    notes: tuple[str, ...] = ()
    """What the user should know about settings that were filled in."""
    vaes: Mapping[str, VAEFile] = field(default_factory=dict)
    """By hash."""
    upscalers: Mapping[str, UpscalerFile] = field(default_factory=dict)
    """Models for second passes, by hash."""
    refiner: CheckpointFacts | None = None
    """The checkpoint that finishes the pictures."""
    models: Mapping[FileRef, CheckpointFacts] = field(default_factory=dict)
    """Checkpoints that an axis names besides the sweep's own."""

    def with_more(self, other: "Extras") -> "Extras":
        """Return these files together with those of another request for the same model."""
        embeddings = {embedding.name: embedding for embedding in (*self.embeddings, *other.embeddings)}
        return replace(
            self,
            loras={**self.loras, **other.loras},
            embeddings=tuple(embeddings.values()),
            notes=tuple(dict.fromkeys((*self.notes, *other.notes))),
            vaes={**self.vaes, **other.vaes},
            upscalers={**self.upscalers, **other.upscalers},
            models={**self.models, **other.models},
        )
