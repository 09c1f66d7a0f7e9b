"""One pass of each text encoder over all distinct chunks of some prompts, and the vectors read from it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipskip.encode.conditioning import TextVectors, VectorSchedule
from clipskip.encode.emphasis import apply_weights, emphasise, from_empty
from clipskip.encode.layer import read_layer
from clipskip.encode.phrases import phrase_places
from clipskip.encode.reader import EncoderReading, TextReader
from clipskip.networks import Injection
from clipskip.prompt import Chunk, Emphasis, Entry, Prompt
from clipskip.spec import Skip

GPU_ROWS = 32
"""Chunks in one batch of an encoder on a GPU. A CPU reads them one by one: batches are no faster there, and a text's
bits would depend on the texts beside it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pass:
    """The layers that one encoder computed for every chunk."""

    encoder: EncoderReading
    states: Mapping[int, Float[Tensor, "rows tokens width"]]
    """h[k] by k, for the layers that are read."""
    pooled: Float[Tensor, "rows pooled"] | None
    """The last layer at the end token, normed and projected; Clip Skip does not change it."""

    def at(self, skip: Skip, rows: Int[Tensor, "texts chunks"]) -> Float[Tensor, "texts chunks tokens width"]:
        """Return the vectors of some chunks at this encoder's Clip Skip."""
        encoder = self.encoder
        layer = read_layer(self.states, encoder.skip(skip).first, depth=encoder.depth, final_norm=encoder.final_norm)
        return layer[rows.to(layer.device)].float()


@final
class EncoderRun:
    """The prompts' chunks after one pass of each encoder, for some Clip Skips."""

    @torch.no_grad()
    def __init__(self, reader: TextReader, prompts: Iterable[Prompt], skips: Iterable[Skip]) -> None:
        chunks = list(dict.fromkeys(_contents(prompts)))
        wanted = tuple(dict.fromkeys(skips))
        self._rows = {chunk: row for row, chunk in enumerate(chunks)}
        self._passes = tuple(_pass(reader, encoder, chunks, wanted) for encoder in reader.encoders)

    @torch.no_grad()
    def schedule(
        self,
        entries: Sequence[Entry],
        emphasis: Emphasis,
        *,
        skip: Skip,
        phrases: Sequence[tuple[str, Skip]] = (),
    ) -> VectorSchedule:
        """Return the weighted vectors of each entry, in float32; the same objects where a text comes again.

        Each of `phrases` is read at its own Clip Skip. Weights apply to each encoder by itself, but not to the pooled
        vector, which is the first chunk's.
        """
        counts = Counter(entry.chunks for entry in entries)
        texts = list(counts)
        rows = torch.tensor([[self._rows[_content(chunk)] for chunk in text] for text in texts])
        weights = torch.tensor([[chunk.multipliers for chunk in text] for text in texts])
        encoded, stretches = [], [1.0]
        for encoder_pass in self._passes:
            vectors = self._read(encoder_pass, skip, rows, weights=weights, emphasis=emphasis)
            for phrase, phrase_skip in phrases:
                places = phrase_places(phrase, texts).to(vectors.device)[..., None]
                own = self._read(encoder_pass, phrase_skip, rows, weights=weights, emphasis=emphasis)
                vectors = torch.where(places, own, vectors)
            if emphasis in (Emphasis.ORIGINAL, Emphasis.NO_NORM):
                plain, original, often = vectors, emphasis is Emphasis.ORIGINAL, list(counts.values())
                vectors = emphasise(plain, weights, counts=often, restore_mean=original)
                stretches += [apply_weights(plain, weights, counts=often)] if original else []
            encoded.append(vectors)
        joined = torch.cat(encoded, -1).flatten(1, 2) if len(encoded) > 1 else encoded[0].flatten(1, 2)
        pooled: Sequence[Tensor | None] = self._pooled(rows[:, 0]) or [None] * len(texts)
        extremes = (min(stretches), max(stretches))
        vectors_of = {
            text: TextVectors(tokens=tokens, pooled=vector, stretches=extremes)
            for text, tokens, vector in zip(texts, joined, pooled, strict=True)
        }
        return tuple((entry.until_step, vectors_of[entry.chunks]) for entry in entries)

    def _pooled(self, rows: Int[Tensor, " texts"]) -> list[Tensor]:
        """Return each text's pooled vector in float32, from its first chunk's row; empty where no encoder has one."""
        pooled = [encoder_pass.pooled for encoder_pass in self._passes if encoder_pass.pooled is not None]
        return [vector.float() for vector in pooled[0][rows.to(pooled[0].device)]] if pooled else []

    def _read(
        self,
        encoder_pass: Pass,
        skip: Skip,
        rows: Int[Tensor, "texts chunks"],
        *,
        weights: Float[Tensor, "texts chunks tokens"],
        emphasis: Emphasis,
    ) -> Float[Tensor, "texts chunks tokens width"]:
        """Return one encoder's vectors at a Clip Skip.

        ComfyUI's weights are applied here, because they depend on the empty prompt's vectors at the same Clip Skip.
        """
        vectors = encoder_pass.at(skip, rows)
        if emphasis is not Emphasis.COMFYUI:
            return vectors
        return from_empty(vectors, weights, encoder_pass.at(skip, torch.tensor([[self._rows[Chunk()]]])))


def _pass(reader: TextReader, encoder: EncoderReading, chunks: Sequence[Chunk], skips: Sequence[Skip]) -> Pass:
    """Run one encoder over all chunks, up to the last layer that is needed, and keep the layers that are read."""
    kept = encoder.layers(part for skip in skips for part in encoder.skip(skip).parts)
    pools = encoder.rule.pooled
    upto = encoder.network.shape.depth if pools else kept[-1]
    batches = []
    pooled = []
    rows = 1 if encoder.device.type == "cpu" else GPU_ROWS
    for start in range(0, len(chunks), rows):
        batch = chunks[start : start + rows]
        ids = torch.tensor([chunk.ids(pad=encoder.rule.padding) for chunk in batch], device=encoder.device)
        injected = [
            Injection(row=row, position=slot.position, vectors=reader.vectors_of(slot.name, encoder))
            for row, chunk in enumerate(batch)
            for slot in chunk.slots
        ]
        states = encoder.network.layers(ids, upto=upto, injected=injected)
        batches.append([states[layer] for layer in kept])
        if pools:
            ends = torch.tensor([len(chunk.tokens) + 1 for chunk in batch], device=encoder.device)
            pooled.append(encoder.network.pool(states[-1], ends))
    states_of = {layer: torch.cat(same) for layer, same in zip(kept, zip(*batches, strict=True), strict=True)}
    return Pass(encoder=encoder, states=states_of, pooled=torch.cat(pooled) if pools else None)


def _contents(prompts: Iterable[Prompt]) -> Iterator[Chunk]:
    """Yield every chunk of the prompts without its weights, which apply after the encoder."""
    for prompt in prompts:
        for part in prompt.parts:
            for text in dict.fromkeys(entry.chunks for entry in part.schedule):
                yield from map(_content, text)
        if prompt.emphasis is Emphasis.COMFYUI:
            yield Chunk()


def _content(chunk: Chunk) -> Chunk:
    return replace(chunk, weights=())
