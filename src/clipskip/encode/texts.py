"""Renders to conditioning: each distinct chunk of all texts goes through each encoder once, for all Clip Skips."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from clipskip.encode.added import added_vector
from clipskip.encode.conditioning import Conditioning, TextVectors, VectorSchedule, WeightedSchedule, splice
from clipskip.encode.encoder_run import EncoderRun
from clipskip.encode.phrases import check_phrase
from clipskip.encode.reader import TextReader
from clipskip.prompt import Emphasis, Prompt, Rules, read_prompt
from clipskip.spec import PhraseSkip, Render, Skip

HIGH_SCORE, LOW_SCORE = 6.0, 2.5
"""Aesthetic scores that a refiner is given for the prompt and the negative prompt: the defaults of A1111, ComfyUI and
diffusers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptTexts:
    """A picture's texts before they are read."""

    prompt: str
    negative_prompt: str
    calls: int
    """Number of denoiser calls."""
    emphasis: str
    before: int | None = None
    """Number of calls in the first pass, where this is the second: prompt editing counts its steps on from there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondPass:
    """The inputs that reading a text for a second pass needs beside its render."""

    first_calls: int
    """Number of denoiser calls in the first pass."""
    width: int
    height: int
    """Size of the second pass, in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The sizes, in pixels, that a family with a vector beside the text is told."""

    height: int
    width: int
    crop: tuple[int, int]
    """Top and left."""
    zero_negative: bool
    """Whether an empty negative prompt becomes zeros."""
    scored: bool = False
    """Whether an aesthetic score replaces the target's size (SDXL's refiner)."""

    def numbers(self, *, score: float) -> tuple[float, ...]:
        """Return the numbers beside a text, in A1111's order."""
        return (self.height, self.width, *self.crop, *((score,) if self.scored else (self.height, self.width)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditioningKey:
    """All that a picture's conditioning depends on."""

    texts: PromptTexts
    skip: Skip
    negative_skip: Skip
    phrases: tuple[PhraseSkip, ...]
    sizes: Sizes | None = None
    """None where the family takes no sizes."""

    def over(self) -> tuple[tuple[int, "ConditioningKey"], ...]:
        """Return (until_step, these settings with one layer for each Clip Skip), each up to and including its step."""
        ends = {until for skip in self.skips for until, _ in skip.over(self.texts.calls)}
        return tuple((end, self._at(end)) for end in sorted(ends))

    @property
    def skips(self) -> tuple[Skip, ...]:
        """All its Clip Skips."""
        return (self.skip, self.negative_skip, *(phrase.skip for phrase in self.phrases))

    def _at(self, end: int) -> "ConditioningKey":
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
    """Return the conditioning of each picture; pictures of the same texts and Clip Skips share one object.

    One pass of each encoder serves them all. `calls` gives the number of denoiser calls for a picture, which prompt
    editing counts: twice its steps for samplers of second order, as in A1111 (processing.py setup_conds). Where the
    renders are second passes, `second` has for each of them what came before it.
    """
    before_each: Sequence[SecondPass | None] = second or [None] * len(renders)
    passes = zip(renders, before_each, strict=True)
    keys = [_key(reader, render, calls(render), before) for render, before in passes]
    prompts = {texts: _read_texts(texts, reader) for texts in dict.fromkeys(key.texts for key in keys)}
    distinct = list(dict.fromkeys(keys))
    for key in distinct:
        for phrase in key.phrases:
            check_phrase(phrase, prompts[key.texts][0])
    run = EncoderRun(
        reader, [prompt for pair in prompts.values() for prompt in pair], (s for key in keys for s in key.skips)
    )
    spans = {key: key.over() for key in distinct}
    fixed = {
        turn: _condition(run, turn, prompts[turn.texts])
        for turns in spans.values()
        for turn in dict.fromkeys(turn for _, turn in turns)
    }
    conditionings = {
        key: splice([(until, fixed[turn]) for until, turn in turns]) if len(turns) > 1 else fixed[turns[0][1]]
        for key, turns in spans.items()
    }
    return [conditionings[key] for key in keys]


def condition(reader: TextReader, render: Render, *, calls: int | None = None) -> Conditioning:
    """Return the conditioning of one picture; `calls` is the number of denoiser calls, its steps by default."""
    return condition_all(reader, [render], calls=lambda render: calls or render.steps)[0]


def _key(reader: TextReader, render: Render, calls: int, second: SecondPass | None) -> ConditioningKey:
    texts = PromptTexts(
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
    key = ConditioningKey(
        texts=texts,
        skip=render.clip_skip,
        negative_skip=render.negative_clip_skip or render.clip_skip,
        phrases=render.phrase_skips,
        sizes=sizes if reader.pools else None,
    )
    for skip in key.skips:
        reader.check(skip)
    return key


def _read_texts(texts: PromptTexts, reader: TextReader) -> tuple[Prompt, Prompt]:
    """Return the prompt and the negative prompt."""
    known, steps, hires = reader.vector_counts, texts.calls, None
    if texts.before is not None:
        steps, hires = texts.before, texts.calls
    rules = Rules(emphasis=Emphasis.parse(texts.emphasis), hires_steps=hires)
    return (
        read_prompt(texts.prompt, steps=steps, embeddings=known, rules=rules),
        read_prompt(texts.negative_prompt, steps=steps, embeddings=known, rules=rules, negative=True),
    )


def _condition(run: EncoderRun, key: ConditioningKey, prompts: tuple[Prompt, Prompt]) -> Conditioning:
    """Return the conditioning for settings with one layer for each Clip Skip."""
    positive, negative = prompts
    emphasis, sizes = positive.emphasis, key.sizes
    phrases = [(phrase.phrase, phrase.skip) for phrase in key.phrases]
    schedules = [run.schedule(part.schedule, emphasis, skip=key.skip, phrases=phrases) for part in positive.parts]
    below = run.schedule(negative.parts[0].schedule, emphasis, skip=key.negative_skip)
    if sizes is not None and sizes.zero_negative and not any(entry.text for entry in negative.parts[0].schedule):
        below = tuple((until, _zeros(vectors)) for until, vectors in below)
    parts = zip(positive.parts, _same_length(schedules), strict=True)
    return Conditioning(
        positive=tuple(
            WeightedSchedule(weight=part.weight, schedule=_with_sizes(schedule, sizes, score=HIGH_SCORE))
            for part, schedule in parts
        ),
        negative=_with_sizes(below, sizes, score=LOW_SCORE),
    )


def _zeros(vectors: TextVectors) -> TextVectors:
    """Return zeros, as A1111 does for an empty negative prompt of SDXL (sd_models_xl.py force_zero_negative_prompt)."""
    pooled = None if vectors.pooled is None else torch.zeros_like(vectors.pooled)
    return TextVectors(tokens=torch.zeros_like(vectors.tokens), pooled=pooled)


def _with_sizes(schedule: VectorSchedule, sizes: Sizes | None, *, score: float) -> VectorSchedule:
    """Return the schedule with the vector beside each text; shared vectors stay shared."""
    if sizes is None:
        return schedule
    with_sizes: dict[int, TextVectors] = {}
    for _, vectors in schedule:
        if id(vectors) not in with_sizes and vectors.pooled is not None:
            with_sizes[id(vectors)] = replace(vectors, added=added_vector(vectors.pooled, sizes.numbers(score=score)))
    return tuple((until, with_sizes[id(vectors)]) for until, vectors in schedule)


def _same_length(schedules: Sequence[VectorSchedule]) -> list[VectorSchedule]:
    """Fill AND parts up to the longest one's tokens: A1111 repeats the last vector (prompt_parser.py:307-317)."""
    longest = max(len(vectors.tokens) for schedule in schedules for _, vectors in schedule)

    def fill(vectors: TextVectors) -> TextVectors:
        tokens, missing = vectors.tokens, longest - len(vectors.tokens)
        return replace(vectors, tokens=torch.cat([tokens, tokens[-1:].expand(missing, -1)])) if missing else vectors

    return [tuple((until, fill(vectors)) for until, vectors in schedule) for schedule in schedules]
