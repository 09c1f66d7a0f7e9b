"""Renders to conditioning: every different chunk of every text through each encoder once, for all Clip Skips."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from clipskip.encode.added import added_vector
from clipskip.encode.conditioning import Conditioning, Part, Schedule, TextVectors, splice
from clipskip.encode.phrases import check_phrase
from clipskip.encode.reader import TextReader
from clipskip.encode.run import Run
from clipskip.prompt import Emphasis, Prompt, Rules, read_prompt
from clipskip.spec import PhraseSkip, Render, Skip

HIGH_SCORE, LOW_SCORE = 6.0, 2.5
"""Aesthetic scores of the prompt and the negative prompt to a refiner: A1111's, ComfyUI's and diffusers' defaults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """What a picture says, before it is read."""

    prompt: str
    negative_prompt: str
    calls: int
    """Of the denoiser."""
    emphasis: str
    before: int | None = None
    """Calls of a first pass, where this is the second: prompt editing's steps go on counting from there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondPass:
    """What reading a text for a second pass takes beside its render."""

    first_calls: int
    """Denoiser calls of the first."""
    width: int
    height: int
    """Pixels of the second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What a picture of a family that is told sizes says beside its texts, in pixels."""

    height: int
    width: int
    crop: tuple[int, int]
    """Top and left."""
    zero_negative: bool
    """Whether an empty negative prompt is all zeros."""
    scored: bool = False
    """Whether an aesthetic score stands in the place of the target's size (the refiner)."""

    def numbers(self, *, score: float) -> tuple[float, ...]:
        """What stands beside a text, in A1111's order."""
        return (self.height, self.width, *self.crop, *((score,) if self.scored else (self.height, self.width)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """All that a picture's conditioning depends on."""

    texts: Texts
    skip: Skip
    negative_skip: Skip
    phrases: tuple[PhraseSkip, ...]
    sizes: Sizes | None = None
    """None where the family is not told any."""

    def over(self) -> tuple[tuple[int, "Wanted"], ...]:
        """(until_step, the same with one layer for each of its Clip Skips), for the calls up to and including its step."""
        ends = {until for skip in self.skips for until, _ in skip.over(self.texts.calls)}
        return tuple((end, self._at(end)) for end in sorted(ends))

    @property
    def skips(self) -> tuple[Skip, ...]:
        """All of its Clip Skips."""
        return (self.skip, self.negative_skip, *(phrase.skip for phrase in self.phrases))

    def _at(self, end: int) -> "Wanted":
        def now(skip: Skip) -> Skip:
            return next(layers for until, layers in skip.over(self.texts.calls) if end <= until)

        phrases = tuple(replace(phrase, skip=now(phrase.skip)) for phrase in self.phrases)
        return replace(self, skip=now(self.skip), negative_skip=now(self.negative_skip), phrases=phrases)


def condition_all(
    reader: TextReader,
    renders: Sequence[Render],
    *,
    calls: Callable[[Render], int] = lambda render: render.steps,
    second: Sequence[SecondPass] = (),
) -> list[Conditioning]:
    """The conditioning of each picture, one and the same for pictures that differ in neither text nor Clip Skip.

    One pass of each encoder serves them all. `calls` says how often the denoiser is called for a picture, which prompt
    editing counts: twice its steps for samplers of second order, as A1111 has it (processing.py setup_conds).
    `second` says of renders that are second passes, one for each, what came before them.
    """
    before_each: Sequence[SecondPass | None] = second or [None] * len(renders)
    passes = zip(renders, before_each, strict=True)
    wanted = [_wanted(reader, render, calls(render), before) for render, before in passes]
    read = {texts: _read(texts, reader) for texts in dict.fromkeys(one.texts for one in wanted)}
    for one in dict.fromkeys(wanted):
        for phrase in one.phrases:
            check_phrase(phrase, read[one.texts][0])
    run = Run(reader, [prompt for pair in read.values() for prompt in pair], (s for one in wanted for s in one.skips))
    spans = {one: one.over() for one in dict.fromkeys(wanted)}
    fixed = {
        turn: _condition(run, turn, read[turn.texts])
        for turns in spans.values()
        for turn in dict.fromkeys(turn for _, turn in turns)
    }
    made = {
        one: splice([(until, fixed[turn]) for until, turn in turns]) if len(turns) > 1 else fixed[turns[0][1]]
        for one, turns in spans.items()
    }
    return [made[one] for one in wanted]


def condition(reader: TextReader, render: Render, *, calls: int | None = None) -> Conditioning:
    """The conditioning of one picture; `calls` of the denoiser are its steps where they are not given."""
    return condition_all(reader, [render], calls=lambda one: calls or one.steps)[0]


def _wanted(reader: TextReader, render: Render, calls: int, second: SecondPass | None) -> Wanted:
    texts = Texts(
        prompt=render.prompt,
        negative_prompt=render.negative_prompt,
        calls=calls,
        emphasis=render.emphasis,
        before=second.first_calls if second else None,
    )
    sizes = Sizes(
        height=second.height if second else render.height,
        width=second.width if second else render.width,
        crop=(render.crop_top, render.crop_left),
        scored=reader.refines,
        zero_negative=render.empty_negative == "Zeros",
    )
    wanted = Wanted(
        texts=texts,
        skip=render.clip_skip,
        negative_skip=render.negative_clip_skip or render.clip_skip,
        phrases=render.phrase_skips,
        sizes=sizes if reader.pools else None,
    )
    for skip in wanted.skips:
        reader.check(skip)
    return wanted


def _read(texts: Texts, reader: TextReader) -> tuple[Prompt, Prompt]:
    """The prompt and the negative prompt."""
    known, steps, hires = reader.vector_counts, texts.calls, None
    if texts.before is not None:
        steps, hires = texts.before, texts.calls
    rules = Rules(emphasis=Emphasis.parse(texts.emphasis), hires_steps=hires)
    return (
        read_prompt(texts.prompt, steps=steps, embeddings=known, rules=rules),
        read_prompt(texts.negative_prompt, steps=steps, embeddings=known, rules=rules, negative=True),
    )


def _condition(run: Run, wanted: Wanted, read: tuple[Prompt, Prompt]) -> Conditioning:
    """At one layer for each Clip Skip."""
    positive, negative = read
    emphasis, sizes = positive.emphasis, wanted.sizes
    phrases = [(phrase.phrase, phrase.skip) for phrase in wanted.phrases]
    schedules = [run.schedule(part.schedule, emphasis, skip=wanted.skip, phrases=phrases) for part in positive.parts]
    below = run.schedule(negative.parts[0].schedule, emphasis, skip=wanted.negative_skip)
    if sizes is not None and sizes.zero_negative and not any(entry.text for entry in negative.parts[0].schedule):
        below = tuple((until, _zeros(vectors)) for until, vectors in below)
    parts = zip(positive.parts, _same_length(schedules), strict=True)
    return Conditioning(
        positive=tuple(
            Part(weight=part.weight, schedule=_with_sizes(schedule, sizes, score=HIGH_SCORE))
            for part, schedule in parts
        ),
        negative=_with_sizes(below, sizes, score=LOW_SCORE),
    )


def _zeros(vectors: TextVectors) -> TextVectors:
    """What A1111 makes of an empty negative prompt of SDXL (sd_models_xl.py force_zero_negative_prompt)."""
    pooled = None if vectors.pooled is None else torch.zeros_like(vectors.pooled)
    return TextVectors(tokens=torch.zeros_like(vectors.tokens), pooled=pooled)


def _with_sizes(schedule: Schedule, sizes: Sizes | None, *, score: float) -> Schedule:
    """The same with the vector beside each text; what was shared stays shared."""
    if sizes is None:
        return schedule
    made: dict[int, TextVectors] = {}
    for _, vectors in schedule:
        if id(vectors) not in made and vectors.pooled is not None:
            made[id(vectors)] = replace(vectors, added=added_vector(vectors.pooled, sizes.numbers(score=score)))
    return tuple((until, made[id(vectors)]) for until, vectors in schedule)


def _same_length(schedules: Sequence[Schedule]) -> list[Schedule]:
    """AND parts at the longest one's number of tokens: A1111 repeats the last vector (prompt_parser.py:307-317)."""
    longest = max(len(vectors.tokens) for schedule in schedules for _, vectors in schedule)

    def fill(vectors: TextVectors) -> TextVectors:
        tokens, missing = vectors.tokens, longest - len(vectors.tokens)
        return replace(vectors, tokens=torch.cat([tokens, tokens[-1:].expand(missing, -1)])) if missing else vectors

    return [tuple((until, fill(vectors)) for until, vectors in schedule) for schedule in schedules]
