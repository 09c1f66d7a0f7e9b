"""The denoiser's conditioning: vectors per token, over its calls, for the prompt's parts and the negative prompt."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

FAR = 2.0
"""Restoring a mean may scale vectors up or down by this factor before it warns; on SD 1.x the factor stays below
1.1."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextVectors:
    """One text as the UNet reads it."""

    tokens: Float[Tensor, "_tokens width"]
    """A vector for each token; several encoders' vectors are concatenated."""
    pooled: Float[Tensor, " pooled"] | None = None
    """One vector for the whole text, where the family uses one."""
    added: Float[Tensor, " added"] | None = None
    """The vector beside the text: pooled vector and picture sizes (SDXL)."""

    stretches: tuple[float, float] = (1.0, 1.0)
    """The least and the greatest factor by which restoring the mean has scaled an encoder's vectors."""

    def to(self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "TextVectors":
        """Return the vectors on another device or in another dtype."""
        pooled, added = (
            None if part is None else part.to(device=device, dtype=dtype) for part in (self.pooled, self.added)
        )
        return replace(self, tokens=self.tokens.to(device=device, dtype=dtype), pooled=pooled, added=added)


VectorSchedule = tuple[tuple[int, TextVectors], ...]
"""Vectors over the denoiser's calls: each entry holds up to and including call `until_step`, counted from 0. All have
one length."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WeightedSchedule:
    """One side of an AND, with its vectors over the denoiser's calls."""

    weight: float
    """Its share of the guidance; 1 where the prompt has no AND."""
    schedule: VectorSchedule


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Conditioning:
    """The conditioning of one picture.

    The prompt's parts all have one number of tokens; the negative prompt may have another, and then A1111 calls the
    denoiser once for each, as a sampler should. Where a text returns (alternation), its vectors are the same objects.
    """

    positive: tuple[WeightedSchedule, ...]
    negative: VectorSchedule

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about how weights were applied, for the user."""
        schedules = (*(part.schedule for part in self.positive), self.negative)
        stretches = {end for schedule in schedules for _, vectors in schedule for end in vectors.stretches}
        far = sorted(end for end in stretches if not 1 / FAR < end < FAR)
        return tuple(
            f"the emphasis Original multiplies this prompt's vectors by {end:.3g} to restore their mean, which is near 0 "
            'where no norm is applied: use the emphasis "No norm"'
            for end in far[:1]
        )

    def at(self, call: int) -> tuple[Float[Tensor, "parts tokens width"], Float[Tensor, "_tokens width"]]:
        """Return the tokens of the prompt's parts and of the negative prompt for the denoiser's `call`-th call, from
        0."""
        parts = [vectors_at(part.schedule, call).tokens for part in self.positive]
        return torch.stack(parts), vectors_at(self.negative, call).tokens

    def to(self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Conditioning":
        """Return the conditioning on another device or in another dtype; shared vectors stay shared."""
        moved: dict[int, TextVectors] = {}

        def move(schedule: VectorSchedule) -> VectorSchedule:
            for _, vectors in schedule:
                if id(vectors) not in moved:
                    moved[id(vectors)] = vectors.to(device=device, dtype=dtype)
            return tuple((until, moved[id(vectors)]) for until, vectors in schedule)

        parts = tuple(WeightedSchedule(weight=part.weight, schedule=move(part.schedule)) for part in self.positive)
        return Conditioning(positive=parts, negative=move(self.negative))


def vectors_at(schedule: VectorSchedule, call: int) -> TextVectors:
    """Return the first entry with call <= until_step, as A1111 chooses it (prompt_parser.py reconstruct_cond_batch)."""
    return next((vectors for until, vectors in schedule if call <= until), schedule[-1][1])


def splice(spans: Sequence[tuple[int, Conditioning]]) -> Conditioning:
    """Join conditionings of the same texts, each used up to and including its call: a Clip Skip that changes by
    step."""
    parts = zip(*(conditioning.positive for _, conditioning in spans), strict=True)
    untils = [until for until, _ in spans]
    return Conditioning(
        positive=tuple(
            WeightedSchedule(weight=same[0].weight, schedule=_splice(untils, [part.schedule for part in same]))
            for same in parts
        ),
        negative=_splice(untils, [conditioning.negative for _, conditioning in spans]),
    )


def _splice(untils: Sequence[int], schedules: Sequence[VectorSchedule]) -> VectorSchedule:
    ends = sorted({*untils, *(until for schedule in schedules for until, _ in schedule)})
    turns = tuple(zip(untils, schedules, strict=True))
    current = (next((candidate for until, candidate in turns if end <= until), schedules[-1]) for end in ends)
    return tuple((end, vectors_at(schedule, end)) for end, schedule in zip(ends, current, strict=True))
