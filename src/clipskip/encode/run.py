"""One pass of each text encoder over every different chunk of some prompts, and what can be read from it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipskip.encode.conditioning import Schedule, TextVectors
from clipskip.encode.emphasis import emphasise, from_empty, stretch
from clipskip.encode.layer import read_layer
from clipskip.encode.phrases import phrase_places
from clipskip.encode.reader import Reading, TextReader
from clipskip.networks import Injection
from clipskip.prompt import Chunk, Emphasis, Entry, Prompt
from clipskip.spec import Skip

GPU_ROWS = 32
"""Chunks in one batch of an encoder on a GPU. A CPU reads them one by one: more are no faster, and a text's bits would depend
on the texts beside it."""
Text = tuple[Chunk, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pass:
    """What one encoder made of every chunk."""

    encoder: Reading
    states: Mapping[int, Float[Tensor, "rows tokens width"]]
    """h[k] by k, of the layers that are read."""
    pooled: Float[Tensor, "rows pooled"] | None
    """The end token's last layer, normed and projected: no Clip Skip changes it."""

    def at(self, skip: Skip, rows: Int[Tensor, "texts chunks"]) -> Float[Tensor, "texts chunks tokens width"]:
        """The vectors of some chunks at this encoder's Clip Skip."""
        encoder = self.encoder
        layer = read_layer(self.states, encoder.skip(skip).first, depth=encoder.depth, final_norm=encoder.final_norm)
        return layer[rows.to(layer.device)].float()


@final
class Run:
    """The prompts' chunks through the encoders, for some Clip Skips."""

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
    ) -> Schedule:
        """The vectors of each entry, in float32, weighted; the same ones where a text comes again.

        `phrases` are read at their own Clip Skips. Weights count for each encoder by itself, and not for the pooled
        vector, which is the first chunk's.
        """
        counts = Counter(entry.chunks for entry in entries)
        texts = list(counts)
        rows = torch.tensor([[self._rows[_content(chunk)] for chunk in text] for text in texts])
        weights = torch.tensor([[chunk.multipliers for chunk in text] for text in texts])
        sides, stretches = [], [1.0]
        for one in self._passes:
            vectors = self._read(one, skip, rows, weights=weights, emphasis=emphasis)
            for phrase, own in phrases:
                places = phrase_places(phrase, texts).to(vectors.device)[..., None]
                read = self._read(one, own, rows, weights=weights, emphasis=emphasis)
                vectors = torch.where(places, read, vectors)
            often = list(counts.values())
            if emphasis in (Emphasis.ORIGINAL, Emphasis.NO_NORM):
                plain, original = vectors, emphasis is Emphasis.ORIGINAL
                vectors = emphasise(plain, weights, counts=often, restore_mean=original)
                stretches += [stretch(plain, weights, counts=often)] if original else []
            sides.append(vectors)
        joined = torch.cat(sides, -1).flatten(1, 2) if len(sides) > 1 else sides[0].flatten(1, 2)
        pooled = next(
            (one.pooled[rows[:, 0].to(one.pooled.device)] for one in self._passes if one.pooled is not None), None
        )
        done = {
            text: TextVectors(
                tokens=tokens,
                pooled=None if pooled is None else pooled[number].float(),
                stretches=(min(stretches), max(stretches)),
            )
            for number, (text, tokens) in enumerate(zip(texts, joined, strict=True))
        }
        return tuple((entry.until_step, done[entry.chunks]) for entry in entries)

    def _read(
        self,
        one: Pass,
        skip: Skip,
        rows: Int[Tensor, "texts chunks"],
        *,
        weights: Float[Tensor, "texts chunks tokens"],
        emphasis: Emphasis,
    ) -> Float[Tensor, "texts chunks tokens width"]:
        """One encoder's vectors at a Clip Skip; ComfyUI's weights, which ask what the empty prompt is there, in them."""
        vectors = one.at(skip, rows)
        if emphasis is not Emphasis.COMFYUI:
            return vectors
        return from_empty(vectors, weights, one.at(skip, torch.tensor([[self._rows[Chunk()]]])))


def _pass(reader: TextReader, encoder: Reading, chunks: Sequence[Chunk], skips: Sequence[Skip]) -> Pass:
    """The layers to keep, of all chunks; layers after the last that is needed are not run."""
    kept = encoder.layers(part for skip in skips for part in encoder.skip(skip).parts)
    pools = encoder.rule.pooled
    upto = encoder.network.shape.depth if pools else kept[-1]
    batches = []
    pooled = []
    rows = 1 if encoder.device.type == "cpu" else GPU_ROWS
    for start in range(0, len(chunks), rows):
        some = chunks[start : start + rows]
        ids = torch.tensor([chunk.ids(pad=encoder.rule.padding) for chunk in some], device=encoder.device)
        injected = [
            Injection(row=row, position=slot.position, vectors=reader.vectors_of(slot.name, encoder))
            for row, chunk in enumerate(some)
            for slot in chunk.slots
        ]
        states = encoder.network.layers(ids, upto=upto, injected=injected)
        batches.append([states[layer] for layer in kept])
        if pools:
            ends = torch.tensor([len(chunk.tokens) + 1 for chunk in some], device=encoder.device)
            pooled.append(encoder.network.pool(states[-1], ends))
    states_of = {layer: torch.cat(same) for layer, same in zip(kept, zip(*batches, strict=True), strict=True)}
    return Pass(encoder=encoder, states=states_of, pooled=torch.cat(pooled) if pools else None)


def _contents(prompts: Iterable[Prompt]) -> Iterator[Chunk]:
    """Every chunk that prompts hold, without its weights: they come after the encoder."""
    for prompt in prompts:
        for part in prompt.parts:
            for text in dict.fromkeys(entry.chunks for entry in part.schedule):
                yield from map(_content, text)
        if prompt.emphasis is Emphasis.COMFYUI:
            yield Chunk()


def _content(chunk: Chunk) -> Chunk:
    return replace(chunk, weights=())
