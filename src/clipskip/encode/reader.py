"""A family's text encoders and how each is read: which number of a Clip Skip, through a norm or not, padded with what."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clipskip.encode.layer import layers_read
from clipskip.errors import PromptError, SkipOutOfRange, SpecError
from clipskip.networks import TextEncoder, build_text_encoder
from clipskip.spec import ClipSkip, EncoderSkip, Family, Skip, skip_for
from clipskip.spec.family import TextReading
from clipskip.weights import TEXT_PARTS, Embedding, EncoderFacts, check_encoders, load_text

ENCODERS = ("L", "G")
"""What users call SDXL's two, in their order."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reading:
    """One text encoder, as its family reads it."""

    network: TextEncoder
    facts: EncoderFacts
    normed: bool = True
    """Whether the final norm follows the layer that was read."""

    @property
    def depth(self) -> int:
        """Layers of the whole network, from whose end Clip Skip counts."""
        return self.facts.depth

    @property
    def rule(self) -> TextReading:
        """Its padding, and whether its pooled vector conditions."""
        return self.facts.rule

    @property
    def final_norm(self) -> nn.Module | None:
        """What follows the layer that was read."""
        return self.network.final_layer_norm if self.normed else None

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.network.embeddings.token_embedding.weight.device

    def skip(self, skip: Skip) -> EncoderSkip:
        """Its own Clip Skip, of a value for all encoders."""
        return skip_for(skip, self.facts.number)

    def layers(self, skips: Iterable[ClipSkip]) -> tuple[int, ...]:
        """The k of each h[k] to keep, rising; SkipOutOfRange for one that this encoder or its file does not have."""
        needed, stored = layers_read(skips, depth=self.depth), self.network.shape.depth
        if needed[-1] > stored:
            raise SkipOutOfRange(
                f"clip skip {self.depth + 1 - needed[-1]} needs layer {needed[-1]}, and this file holds {stored} of the "
                f"text encoder's {self.depth} layers; use {self.depth + 1 - stored} to {self.depth}, or the whole model",
                field="clip_skip",
            )
        return needed


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextReader:
    """A family's text encoders, and the embeddings that prompts may name."""

    encoders: tuple[Reading, ...]
    family: Family = Family.SD1
    embeddings: tuple[Embedding, ...] = ()

    @classmethod
    def of(
        cls, *networks: TextEncoder, family: Family = Family.SD1, embeddings: Sequence[Embedding] = ()
    ) -> "TextReader":
        """A reader of all of a family's encoders, in its order."""
        normed = family.value.final_norm
        known = [
            EncoderFacts(part=part, shape=network.shape, rule=rule)
            for part, network, rule in zip(TEXT_PARTS, networks, family.value.encoders, strict=False)
        ]
        readings = [Reading(network=n, facts=facts, normed=normed) for n, facts in zip(networks, known, strict=True)]
        return cls(encoders=tuple(readings), family=family, embeddings=tuple(embeddings))

    @classmethod
    def build(
        cls, states: Sequence[dict[str, Tensor]], facts: Sequence[EncoderFacts], *, family: Family
    ) -> "TextReader":
        """A reader of the encoders that a file has."""
        readings = [
            Reading(
                network=build_text_encoder(state, known.shape),
                facts=known,
                normed=family.value.final_norm,
            )
            for state, known in zip(states, facts, strict=True)
        ]
        return cls(encoders=tuple(readings), family=family)

    def only(self, encoder: str) -> "TextReader":
        """The same with one encoder alone, "L" (CLIP-L) or "G" (OpenCLIP bigG); SpecError where there is one anyway."""
        if len(self.encoders) == 1 or encoder.upper() not in ENCODERS:
            names = f"{self.family.label} has one text encoder" if len(self.encoders) == 1 else "give L or G"
            raise SpecError(f"encoder {encoder[:20]!r} cannot be chosen: {names}", field="encoder")
        return replace(self, encoders=(self.encoders[ENCODERS.index(encoder.upper())],))

    @property
    def depth(self) -> int:
        """The deepest Clip Skip that every encoder has."""
        return min(encoder.depth for encoder in self.encoders)

    @property
    def width(self) -> int:
        """Numbers per token, of all encoders together."""
        return sum(encoder.network.shape.width for encoder in self.encoders)

    @property
    def pools(self) -> bool:
        """Whether a pooled vector conditions too."""
        return any(encoder.rule.pooled for encoder in self.encoders)

    @property
    def refines(self) -> bool:
        """Whether it is a refiner's, which is told an aesthetic score in the place of a target size."""
        return self.pools and len(self.encoders) == 1

    @property
    def networks(self) -> dict[str, TextEncoder]:
        """The encoders under the names that LoRAs have for them: text_encoder and text_encoder_2."""
        return {encoder.facts.part: encoder.network for encoder in self.encoders}

    @property
    def vector_counts(self) -> dict[str, int]:
        """How many vectors each embedding has: what reading a prompt takes."""
        return {embedding.name: embedding.count for embedding in self.embeddings}

    def check(self, skip: Skip) -> None:
        """SkipOutOfRange for a Clip Skip that these encoders do not have."""
        check_encoders(skip, [encoder.facts for encoder in self.encoders])

    def vectors_of(self, name: str, encoder: Reading) -> Float[Tensor, "vectors width"]:
        """The embedding's vectors for one encoder; PromptError where two different ones have the name."""
        same = {embedding.hash: embedding for embedding in self.embeddings if embedding.name == name}
        if len(same) > 1:
            raise PromptError(
                f"the prompt uses the embedding {name!r}, and {len(same)} different ones have that name; rename one",
                field="prompt",
            )
        vectors = next(iter(same.values())).vectors
        return vectors[encoder.facts.number if len(vectors) > 1 else 0]


def open_text_encoder(
    path: str | os.PathLike[str],
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    allow_pickle: bool = False,
) -> TextReader:
    """The text encoders of a checkpoint, ready for `prompt_embeds` and `encode_layers`; the rest is not read."""
    weights = load_text(path, dtype=dtype, device=device, allow_pickle=allow_pickle)
    return TextReader.build(weights.states, weights.encoders, family=weights.family)
