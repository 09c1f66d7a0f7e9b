"""Prompts to conditioning: every different chunk of every text through the encoder once, for all Clip Skips."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from clipskip.encode.conditioning import Conditioning, Part, Schedule, splice
from clipskip.encode.emphasis import emphasise
from clipskip.encode.layer import last_layer_needed, layers_read, read_layer
from clipskip.encode.phrases import check_phrase, phrase_places
from clipskip.errors import PromptError, SkipOutOfRange
from clipskip.networks.clip import Injection, TextEncoder
from clipskip.prompt import Chunk, Emphasis, Entry, Prompt, Rules, read_prompt
from clipskip.spec import ClipSkip, EncoderSkip, Family, PhraseSkip, Render, check_depths, skip_for
from clipskip.weights import Embedding

ROWS = 32
"""Chunks in one batch of the encoder: more are no faster, and take memory."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextReader:
    """A text encoder as its family reads it, and the embeddings that prompts may name."""

    encoder: TextEncoder
    family: Family = Family.SD1
    embeddings: tuple[Embedding, ...] = ()

    @property
    def depth(self) -> int:
        """Layers of the whole network, from whose end Clip Skip counts: a file may lack the last (SD 2.x folders)."""
        own = self.encoder.shape
        return max([own.depth, *(e.depth for e in self.family.value.encoders if e.width == own.width)])

    @property
    def vector_counts(self) -> dict[str, int]:
        """How many vectors each embedding has: what reading a prompt takes."""
        return {one.name: len(one.vectors) for one in self.embeddings}

    def vectors_of(self, name: str) -> Float[Tensor, "vectors width"]:
        """The embedding's vectors; PromptError where two different ones have the name."""
        found = {one.hash: one.vectors for one in self.embeddings if one.name == name}
        if len(found) > 1:
            raise PromptError(
                f"the prompt uses the embedding {name!r}, and {len(found)} different ones have that name; rename one",
                field="prompt",
            )
        return next(iter(found.values()))

    def last_needed(self, skips: Iterable[ClipSkip]) -> int:
        """The last layer to run; SkipOutOfRange for one that this encoder does not have."""
        needed, own = last_layer_needed(skips, depth=self.depth), self.encoder.shape.depth
        if needed > own:
            raise SkipOutOfRange(
                f"clip skip {self.depth + 1 - needed} needs layer {needed}, and this file holds {own} of the text "
                f"encoder's {self.depth} layers; use {self.depth + 1 - own} to {self.depth}, or the whole model",
                field="clip_skip",
            )
        return needed


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """What a picture says, before it is read."""

    prompt: str
    negative_prompt: str
    calls: int
    """Of the denoiser."""
    emphasis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """All that a picture's conditioning depends on."""

    texts: Texts
    skip: EncoderSkip
    negative_skip: EncoderSkip
    phrases: tuple[PhraseSkip, ...]

    def over(self) -> tuple[tuple[int, "Wanted"], ...]:
        """(until_step, the same with one layer for each of its Clip Skips), for the calls up to and including its step."""
        ends = {until for skip in self.skips for until, _ in skip.over(self.texts.calls)}
        return tuple((end, self._at(end)) for end in sorted(ends))

    @property
    def skips(self) -> tuple[EncoderSkip, ...]:
        """All of its Clip Skips."""
        return (self.skip, self.negative_skip, *(skip_for(one.skip, 0) for one in self.phrases))

    def _at(self, end: int) -> "Wanted":
        def layer(skip: EncoderSkip) -> ClipSkip:
            return next(one for until, one in skip.over(self.texts.calls) if end <= until)

        phrases = tuple(replace(one, skip=layer(skip_for(one.skip, 0))) for one in self.phrases)
        return replace(self, skip=layer(self.skip), negative_skip=layer(self.negative_skip), phrases=phrases)


def condition_all(
    reader: TextReader, renders: Sequence[Render], *, calls: Callable[[Render], int] = lambda render: render.steps
) -> list[Conditioning]:
    """The conditioning of each picture, one and the same for pictures that differ in neither text nor Clip Skip.

    One pass of the encoder serves them all. `calls` says how often the denoiser is called for a picture, which prompt
    editing counts: twice its steps for samplers of second order, as A1111 has it (processing.py setup_conds).
    """
    wanted = [_wanted(render, calls(render), depth=reader.depth) for render in renders]
    read = {texts: _read(texts, reader) for texts in dict.fromkeys(one.texts for one in wanted)}
    for one in dict.fromkeys(wanted):
        for phrase in one.phrases:
            check_phrase(phrase, read[one.texts][0])
    layers = dict.fromkeys(part for one in wanted for skip in one.skips for part in skip.parts)
    run = Run(reader, [prompt for pair in read.values() for prompt in pair], layers)
    spans = {one: one.over() for one in dict.fromkeys(wanted)}
    fixed = {
        one: _condition(run, one, read[one.texts])
        for turns in spans.values()
        for one in dict.fromkeys(o for _, o in turns)
    }
    made = {
        one: splice([(until, fixed[turn]) for until, turn in turns]) if len(turns) > 1 else fixed[turns[0][1]]
        for one, turns in spans.items()
    }
    return [made[one] for one in wanted]


def condition(reader: TextReader, render: Render, *, calls: int | None = None) -> Conditioning:
    """The conditioning of one picture; `calls` of the denoiser are its steps where they are not given."""
    return condition_all(reader, [render], calls=lambda one: calls or one.steps)[0]


def _wanted(render: Render, calls: int, *, depth: int) -> Wanted:
    negative = render.negative_clip_skip or render.clip_skip
    for skip in (render.clip_skip, negative, *(one.skip for one in render.phrase_skips)):
        check_depths(skip, [depth])
    texts = Texts(prompt=render.prompt, negative_prompt=render.negative_prompt, calls=calls, emphasis=render.emphasis)
    return Wanted(
        texts=texts,
        skip=skip_for(render.clip_skip, 0),
        negative_skip=skip_for(negative, 0),
        phrases=render.phrase_skips,
    )


def _read(texts: Texts, reader: TextReader) -> tuple[Prompt, Prompt]:
    """The prompt and the negative prompt."""
    rules, known = Rules(emphasis=Emphasis.parse(texts.emphasis)), reader.vector_counts
    return (
        read_prompt(texts.prompt, steps=texts.calls, embeddings=known, rules=rules),
        read_prompt(texts.negative_prompt, steps=texts.calls, embeddings=known, rules=rules, negative=True),
    )


def _condition(run: "Run", wanted: Wanted, read: tuple[Prompt, Prompt]) -> Conditioning:
    """At one layer for each Clip Skip."""
    positive, negative = read
    emphasis = positive.emphasis
    skip, phrases = wanted.skip.first, [(one.phrase, one.skip.first) for one in wanted.phrases]
    schedules = [run.schedule(part.schedule, emphasis, skip=skip, phrases=phrases) for part in positive.parts]
    parts = zip(positive.parts, _same_length(schedules), strict=True)
    return Conditioning(
        positive=tuple(Part(weight=part.weight, schedule=schedule) for part, schedule in parts),
        negative=run.schedule(negative.parts[0].schedule, emphasis, skip=wanted.negative_skip.first),
    )


@final
class Run:
    """One run of the encoder over every different chunk of some prompts, and what can be read from it."""

    @torch.no_grad()
    def __init__(self, reader: TextReader, prompts: Iterable[Prompt], skips: Iterable[ClipSkip]) -> None:
        self._reader = reader
        self._rows = {chunk: row for row, chunk in enumerate(dict.fromkeys(_contents(prompts)))}
        wanted = tuple(skips)
        upto = reader.last_needed(wanted)
        kept = layers_read(wanted, depth=reader.depth)
        batches = [_states(reader, chunks, upto=upto, kept=kept) for chunks in _batches(list(self._rows))]
        self._states = {layer: torch.cat([batch[layer] for batch in batches]) for layer in kept}

    @torch.no_grad()
    def schedule(
        self,
        entries: Sequence[Entry],
        emphasis: Emphasis,
        *,
        skip: ClipSkip,
        phrases: Sequence[tuple[str, ClipSkip]] = (),
    ) -> Schedule:
        """The vectors of each entry, in float32, weighted; the same tensor where a text comes again.

        `phrases` are read at their own Clip Skips.
        """
        counts = Counter(entry.chunks for entry in entries)
        texts = list(counts)
        weights = torch.tensor([[chunk.multipliers for chunk in text] for text in texts])
        vectors = self._read(texts, skip)
        for phrase, own in phrases:
            places = phrase_places(phrase, texts).to(vectors.device)[..., None]
            vectors = torch.where(places, self._read(texts, own), vectors)
        if emphasis in (Emphasis.ORIGINAL, Emphasis.NO_NORM):
            vectors = emphasise(
                vectors, weights, counts=list(counts.values()), restore_mean=emphasis is Emphasis.ORIGINAL
            )
        done = dict(zip(counts, vectors.flatten(1, 2), strict=True))
        return tuple((entry.until_step, done[entry.chunks]) for entry in entries)

    def _read(self, texts: Sequence[tuple[Chunk, ...]], skip: ClipSkip) -> Float[Tensor, "texts chunks tokens width"]:
        """The vectors of some texts of as many chunks each, at a Clip Skip."""
        reader = self._reader
        norm = reader.encoder.final_layer_norm if reader.family.value.final_norm else None
        layer = read_layer(self._states, skip, depth=reader.depth, final_norm=norm)
        rows = torch.tensor([[self._rows[_content(chunk)] for chunk in text] for text in texts], device=layer.device)
        return layer[rows].float()


def _contents(prompts: Iterable[Prompt]) -> Iterator[Chunk]:
    """Every chunk that prompts hold, without its weights: they come after the encoder."""
    for prompt in prompts:
        for part in prompt.parts:
            for text in dict.fromkeys(entry.chunks for entry in part.schedule):
                yield from map(_content, text)


def _content(chunk: Chunk) -> Chunk:
    return replace(chunk, weights=())


def _batches(chunks: Sequence[Chunk]) -> Iterator[Sequence[Chunk]]:
    return (chunks[start : start + ROWS] for start in range(0, len(chunks), ROWS))


def _states(
    reader: TextReader, chunks: Sequence[Chunk], *, upto: int, kept: Iterable[int]
) -> Mapping[int, Float[Tensor, "chunks tokens width"]]:
    """The layers to keep, of some chunks."""
    ids = torch.tensor(
        [chunk.ids() for chunk in chunks], device=reader.encoder.embeddings.token_embedding.weight.device
    )
    injected = [
        Injection(row=row, position=slot.position, vectors=reader.vectors_of(slot.name))
        for row, chunk in enumerate(chunks)
        for slot in chunk.slots
    ]
    states = reader.encoder.layers(ids, upto=upto, injected=injected)
    return {layer: states[layer] for layer in kept}


def _same_length(schedules: Sequence[Schedule]) -> list[Schedule]:
    """AND parts at the longest one's number of tokens: A1111 repeats the last vector (prompt_parser.py:307-317)."""
    tokens = max(vectors.shape[0] for schedule in schedules for _, vectors in schedule)
    return [
        tuple((until, torch.cat([v, v[-1:].expand(tokens - len(v), -1)]) if len(v) < tokens else v) for until, v in one)
        for one in schedules
    ]
