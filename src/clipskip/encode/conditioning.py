"""What the denoiser is given: vectors per token, over its calls, for the prompt's parts and the negative prompt."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

FAR = 2.0
"""How many times larger or smaller restoring a mean may make vectors before its user is told: on SD 1.x it stays below 1.1."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextVectors:
    """What a text is to the UNet."""

    tokens: Float[Tensor, "_tokens width"]
    """A vector for each token, of all encoders side by side."""
    pooled: Float[Tensor, " pooled"] | None = None
    """One vector for the whole text, where a family has it."""
    added: Float[Tensor, " added"] | None = None
    """What stands beside the text: the pooled vector and the picture's sizes (SDXL)."""

    stretches: tuple[float, float] = (1.0, 1.0)
    """The least and the most that restoring the mean has multiplied an encoder's vectors by."""

    def to(self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "TextVectors":
        """The same on another device or in another dtype."""
        pooled, added = (
            None if part is None else part.to(device=device, dtype=dtype) for part in (self.pooled, self.added)
        )
        return replace(self, tokens=self.tokens.to(device=device, dtype=dtype), pooled=pooled, added=added)


Schedule = tuple[tuple[int, TextVectors], ...]
"""Vectors over the denoiser's calls: those up to and including call `until_step`, counted from 0; all of one length."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """One side of an AND."""

    weight: float
    """Its share of the guidance; 1 where the prompt has no AND."""
    schedule: Schedule


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Conditioning:
    """Everything that text says to one picture.

    The parts of the prompt all have one number of tokens, the negative prompt may have another: then A1111 calls the
    denoiser once for each, and so should a sampler. Where the same text returns (alternation), so do the same vectors.
    """

    positive: tuple[Part, ...]
    negative: Schedule

    @property
    def warnings(self) -> tuple[str, ...]:
        """What its user should know of how weights were applied."""
        schedules = (*(part.schedule for part in self.positive), self.negative)
        stretches = {end for schedule in schedules for _, vectors in schedule for end in vectors.stretches}
        far = sorted(end for end in stretches if not 1 / FAR < end < FAR)
        return tuple(
            f"the emphasis Original multiplies this prompt's vectors by {end:.3g} to bring back their mean, which is near 0 "
            'where no norm is applied: use the emphasis "No norm"'
            for end in far[:1]
        )

    def at(self, call: int) -> tuple[Float[Tensor, "parts tokens width"], Float[Tensor, "_tokens width"]]:
        """The tokens of the prompt's parts and of the negative prompt for the denoiser's `call`-th call, from 0."""
        parts = [vectors_at(part.schedule, call).tokens for part in self.positive]
        return torch.stack(parts), vectors_at(self.negative, call).tokens

    def to(self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Conditioning":
        """The same on another device or in another dtype; what was shared stays shared."""
        moved: dict[int, TextVectors] = {}

        def move(schedule: Schedule) -> Schedule:
            for _, vectors in schedule:
                if id(vectors) not in moved:
                    moved[id(vectors)] = vectors.to(device=device, dtype=dtype)
            return tuple((until, moved[id(vectors)]) for until, vectors in schedule)

        parts = tuple(Part(weight=part.weight, schedule=move(part.schedule)) for part in self.positive)
        return Conditioning(positive=parts, negative=move(self.negative))


def vectors_at(schedule: Schedule, call: int) -> TextVectors:
    """The first entry with call <= until_step, as A1111 chooses it (prompt_parser.py reconstruct_cond_batch)."""
    return next((vectors for until, vectors in schedule if call <= until), schedule[-1][1])


def splice(spans: Sequence[tuple[int, Conditioning]]) -> Conditioning:
    """Conditionings of the same texts by turns, each up to and including its call: a Clip Skip that changes by step."""
    parts = zip(*(one.positive for _, one in spans), strict=True)
    untils = [until for until, _ in spans]
    return Conditioning(
        positive=tuple(
            Part(weight=same[0].weight, schedule=_splice(untils, [one.schedule for one in same])) for same in parts
        ),
        negative=_splice(untils, [one.negative for _, one in spans]),
    )


def _splice(untils: Sequence[int], schedules: Sequence[Schedule]) -> Schedule:
    ends = sorted({*untils, *(until for schedule in schedules for until, _ in schedule)})
    turns = tuple(zip(untils, schedules, strict=True))
    current = (next((one for until, one in turns if end <= until), schedules[-1]) for end in ends)
    return tuple((end, vectors_at(schedule, end)) for end, schedule in zip(ends, current, strict=True))
