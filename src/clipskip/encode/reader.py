"""A family's text encoders and how each is read: its share of a Clip Skip, with the norm or without, and its
padding."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clipskip.encode.layer import layer_indices
from clipskip.errors import PromptError, SkipOutOfRange, SpecError
from clipskip.networks import TextEncoder, build_text_encoder
from clipskip.spec import ClipSkip, EncoderSkip, Family, Skip, TextReading, skip_for
from clipskip.weights import TEXT_PARTS, Embedding, EncoderFacts, check_encoders, load_text

ENCODERS = ("L", "G")
"""The names that users give to SDXL's two encoders, in order."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncoderReading:
    """One text encoder, with the rule by which its family reads it."""

    network: TextEncoder
    facts: EncoderFacts
    normed: bool = True
    """Whether the final norm is applied to the layer that was read."""

    @property
    def depth(self) -> int:
        """Number of layers in the whole network, from whose end Clip Skip counts."""
        return self.facts.depth

    @property
    def rule(self) -> TextReading:
        """Its padding, and whether its pooled vector conditions the picture."""
        return self.facts.rule

    @property
    def final_norm(self) -> nn.Module | None:
        """The norm applied to the layer that was read, if any."""
        return self.network.final_layer_norm if self.normed else None

    @property
    def device(self) -> torch.device:
        """The device that holds the weights."""
        return self.network.embeddings.token_embedding.weight.device

    def skip(self, skip: Skip) -> EncoderSkip:
        """Return this encoder's own Clip Skip from a value for all encoders."""
        return skip_for(skip, self.facts.number)

    def layers(self, skips: Iterable[ClipSkip]) -> tuple[int, ...]:
        """Return the k of each h[k] to keep, in rising order; SkipOutOfRange for one that the encoder or its file
        lacks."""
        needed, stored = layer_indices(skips, depth=self.depth), self.network.shape.depth
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

    encoders: tuple[EncoderReading, ...]
    family: Family = Family.SD1
    embeddings: tuple[Embedding, ...] = ()

    @classmethod
    def of(
        cls, *networks: TextEncoder, family: Family = Family.SD1, embeddings: Sequence[Embedding] = ()
    ) -> "TextReader":
        """Make a reader of all of a family's encoders, in its order."""
        normed = family.value.final_norm
        known = [
            EncoderFacts(part=part, shape=network.shape, rule=rule)
            for part, network, rule in zip(TEXT_PARTS, networks, family.value.encoders, strict=False)
        ]
        readings = [
            EncoderReading(network=n, facts=facts, normed=normed) for n, facts in zip(networks, known, strict=True)
        ]
        return cls(encoders=tuple(readings), family=family, embeddings=tuple(embeddings))

    @classmethod
    def build(
        cls, states: Sequence[dict[str, Tensor]], facts: Sequence[EncoderFacts], *, family: Family
    ) -> "TextReader":
        """Make a reader of the encoders in a file."""
        readings = [
            EncoderReading(
                network=build_text_encoder(state, known.shape),
                facts=known,
                normed=family.value.final_norm,
            )
            for state, known in zip(states, facts, strict=True)
        ]
        return cls(encoders=tuple(readings), family=family)

    def only(self, encoder: str) -> "TextReader":
        """Return a reader of one encoder only, "L" (CLIP-L) or "G" (OpenCLIP bigG); SpecError where the family has just
        one."""
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
        """Width of a token's vector, over all encoders."""
        return sum(encoder.network.shape.width for encoder in self.encoders)

    @property
    def pools(self) -> bool:
        """Return whether a pooled vector conditions the picture too."""
        return any(encoder.rule.pooled for encoder in self.encoders)

    @property
    def refines(self) -> bool:
        """Return whether this is SDXL's refiner, which takes an aesthetic score instead of a target size."""
        return self.pools and len(self.encoders) == 1

    @property
    def networks(self) -> dict[str, TextEncoder]:
        """The encoders under the names that LoRAs have for them: text_encoder and text_encoder_2."""
        return {encoder.facts.part: encoder.network for encoder in self.encoders}

    @property
    def vector_counts(self) -> dict[str, int]:
        """Return the number of vectors of each embedding, which reading a prompt needs."""
        return {embedding.name: embedding.count for embedding in self.embeddings}

    def check(self, skip: Skip) -> None:
        """Raise SkipOutOfRange for a Clip Skip that these encoders do not have."""
        check_encoders(skip, [encoder.facts for encoder in self.encoders])

    def vectors_of(self, name: str, encoder: EncoderReading) -> Float[Tensor, "vectors width"]:
        """Return the embedding's vectors for one encoder; PromptError where two different embeddings share the name."""
        same = {embedding.hash: embedding for embedding in self.embeddings if embedding.name == name}
        if len(same) > 1:
            raise PromptError(
                f"the prompt uses the embedding {name!r}, and {len(same)} different embeddings have that name; rename one",
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
    """Open the text encoders of a checkpoint for `prompt_embeds` and `encode_layers`; the rest is not read."""
    weights = load_text(path, dtype=dtype, device=device, allow_pickle=allow_pickle)
    return TextReader.build(weights.states, weights.encoders, family=weights.family)
