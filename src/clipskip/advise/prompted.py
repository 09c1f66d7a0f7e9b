"""A prompt and its LoRAs on an open model in; what each Clip Skip does to every phrase and every LoRA out."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from jaxtyping import Float
from torch import Tensor

from clipskip.errors import SpecError
from clipskip.measures import (
    Answers,
    Curve,
    LatentView,
    Probe,
    TextRows,
    agreement,
    answers,
    broken_from,
    change,
    conditioning_distance,
    contrast,
    detail,
    distance,
    guesses_of,
    share_kept,
    size_beside,
    view_rows,
    views_of,
)
from clipskip.spec import ClipSkip, LoraRef, Render
from clipskip.sweep import Extras, Model, not_finite
from clipskip.weights.lora import report_lora

Numbers = tuple[float, ...]
"""One for each Clip Skip that was asked about."""

IGNORED = 0.1
"""A phrase whose removal changes the guidance by less than this share, at every Clip Skip, is taken to be ignored."""
LEAST_GUIDANCE = 1e-6
"""Of the prediction: less is rounding."""
MOST_PHRASES = 16
SEEDS = 1

PROMPT, NEGATIVE = "prompt", "negative"


@dataclass(frozen=True, slots=True, kw_only=True)
class PhraseReaction:
    """One phrase of the prompt."""

    phrase: str
    reaction: Numbers
    """How much the prediction changes when it is taken out, as a share of the whole guidance."""
    ignored: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraUptake:
    """One LoRA, alone on the model."""

    name: str
    uptake: Numbers
    """How much of what it adds at its own Clip Skip it still adds: 1 there."""
    text_shift: Numbers
    """How far it moves the conditioning, as a share of the prompt's distance from the negative prompt."""
    by_text: Numbers
    """How far the moved conditioning alone moves the prediction, as a share of the guidance without it."""
    by_unet: Numbers
    """How far the changed UNet alone moves the prediction, likewise."""
    whole: Numbers
    """Both together."""
    text_layers: tuple[int, ...]
    """Of the first text encoder, that it changes; 1 the first."""
    text_dead_from: int | None
    """The Clip Skip from which its text part cannot act, since every layer that it changes is skipped. None where it changes
    SDXL's second encoder, whose pooled vector comes from its last layer at every Clip Skip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pull:
    """Two effects, and whether they pull together."""

    one: str
    """A phrase, or "LoRA " and its name."""
    other: str
    cosine: Numbers
    """1 together, 0 apart, -1 against each other, in the prediction."""
    in_conditioning: Numbers | None
    """The same of how far two LoRAs move the conditioning; None where one is a phrase, or moves it nowhere."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Effect:
    """The effect of a phrase or a LoRA."""

    name: str
    predicted: Answers
    conditioning: Float[Tensor, "skips tokens width"] | None = None
    """Of a LoRA: of the same words, so that token stands by token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompted:
    """Everything that was measured of one prompt."""

    skips: tuple[int, ...]
    reference: int
    """The Clip Skip that shares are of: the trained one, as far as is known."""
    guidance_kept: Numbers
    """Share of the guidance at the reference that is still there."""
    guidance_size: Numbers
    """Length of the guidance as a share of that at the reference."""
    conditioning_distance: Numbers
    """How far the conditioning is from the reference's, as a share of its distance from the negative prompt's there."""
    contrast: Numbers
    """Of the guessed picture, over that at the reference."""
    detail: Numbers
    """Likewise: how far neighbouring cells differ."""
    change: Numbers
    """How far the guessed picture is from the reference's, over what there is to see in that."""
    broken_from: int | None
    """The Clip Skip from which on the picture is likely to fall apart."""
    phrases: tuple[PhraseReaction, ...]
    loras: tuple[LoraUptake, ...]
    pulls: tuple[Pull, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Question:
    """The measurement to make."""

    render: Render
    extras: Extras
    skips: tuple[int, ...]
    reference: int
    lora_references: Mapping[str, int]
    """By a LoRA's hash: the Clip Skip that it was trained at, as far as is known."""

    @property
    def columns(self) -> tuple[int, ...]:
        """The Clip Skips, with those that shares are of."""
        return tuple(sorted({*self.skips, self.reference, *self.lora_references.values()}))


def phrases_of(prompt: str) -> tuple[str, ...]:
    """Return the prompt's phrases: between commas that stand outside of brackets; of a sentence, its words of four letters or
    more."""
    parts = [part.strip() for part in re.split(r",(?![^()\[\]]*[)\]])", prompt) if part.strip()]
    return tuple(dict.fromkeys(parts if len(parts) > 1 else re.findall(r"\w{4,}", prompt)))[:MOST_PHRASES]


def without(prompt: str, phrase: str) -> str:
    """Return the prompt without one of its phrases."""
    pattern = rf"(?<!\w){re.escape(phrase)}(?!\w)" if re.match(r"\w", phrase) else re.escape(phrase)
    left = re.sub(pattern, "", prompt, count=1)
    return re.sub(r"\s*,(\s*,)+", ",", re.sub(r" {2,}", " ", left)).strip(" ,")


def prompted_rows(render: Render, *, columns: int) -> int:
    """Return how many UNet evaluations `measure` takes for so many Clip Skips, those that shares are of among them."""
    views, phrases, loras = 4 * SEEDS, len(phrases_of(render.prompt)), len(render.loras)
    return view_rows(SEEDS) + views * columns * (2 + phrases + (2 * bool(loras)) + 3 * loras)


def measure(model: Model, question: Question, *, tell: Callable[[int], None] = lambda rows: None) -> Prompted:
    """Ask the model what it makes of the prompt at each Clip Skip; nothing is drawn to the end."""
    asked = _ask_model(model, question, tell)
    predicted, layers, guidance = asked.predicted, asked.layers, asked.guidance
    columns = [question.columns.index(skip) for skip in question.skips]
    reference = question.columns.index(question.reference)
    kept = share_kept(guidance, reference=reference)
    size = size_beside(guidance, guidance[:, reference : reference + 1])
    moved = conditioning_distance(layers[PROMPT].tokens, layers[NEGATIVE].tokens, reference=reference)
    guesses = guesses_of(asked.probe, asked.views, predicted[NEGATIVE] + question.render.cfg_scale * guidance)
    changed = change(guesses, reference=reference)
    effects = [
        Effect(name=phrase, predicted=predicted[PROMPT] - predicted[f"without {number}"])
        for number, phrase in enumerate(phrases_of(question.render.prompt))
    ]
    loras, shifts = _loras(model, question, asked.views, tell=tell)
    return Prompted(
        skips=question.skips,
        reference=question.reference,
        guidance_kept=_numbers(kept, columns),
        guidance_size=_numbers(size, columns),
        conditioning_distance=_numbers(moved, columns),
        contrast=_numbers(contrast(guesses, reference=reference), columns),
        detail=_numbers(detail(guesses, reference=reference), columns),
        change=_numbers(changed, columns),
        broken_from=broken_from(question.skips, kept=kept[columns], moved=moved[columns], changed=changed[columns]),
        phrases=tuple(_reaction(effect.name, size_beside(effect.predicted, guidance), columns) for effect in effects),
        loras=loras,
        pulls=tuple(_pull(first, second, columns) for first, second in combinations((*shifts, *effects), 2)),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Asked:
    """The model's predictions with all LoRAs, and their inputs."""

    probe: Probe
    views: tuple[LatentView, ...]
    layers: Mapping[str, TextRows]
    """By the name of each text."""
    predicted: Mapping[str, Answers]

    @property
    def guidance(self) -> Answers:
        """The prompt's prediction less the negative prompt's."""
        return self.predicted[PROMPT] - self.predicted[NEGATIVE]


def _ask_model(model: Model, question: Question, tell: Callable[[int], None]) -> _Asked:
    """Return the predictions with the prompt, without each of its phrases, and with the negative prompt. Raises SpecError
    where nothing guides the picture."""
    render, columns = question.render, question.columns
    texts = {PROMPT: render.prompt}
    texts |= {f"without {n}": without(render.prompt, phrase) for n, phrase in enumerate(phrases_of(render.prompt))}
    with model.with_loras(render.loras, question.extras) as reader:
        start = replace(render, clip_skip=ClipSkip(question.reference), negative_clip_skip=None)
        probe = Probe.of(model, reader, start, tell)
        views = views_of(probe, seeds=[render.seed + n for n in range(SEEDS)])
        tell(view_rows(SEEDS))
        layers = {**probe.read(texts, columns), NEGATIVE: probe.negative(columns)}
        predicted = answers(probe, views, layers)
    if not all(bool(answer.isfinite().all()) for answer in predicted.values()):
        raise not_finite(start)
    asked = _Asked(probe=probe, views=views, layers=layers, predicted=predicted)
    if float(asked.guidance.norm()) < LEAST_GUIDANCE * float(predicted[PROMPT].norm()):
        raise SpecError(
            "prompt and negative prompt are the same to this model, so there is no guidance to measure; "
            "change one of them",
            field="negative_prompt",
        )
    return asked


def _reaction(phrase: str, share: Curve, at: Sequence[int]) -> PhraseReaction:
    reaction = _numbers(share, at)
    return PhraseReaction(phrase=phrase, reaction=reaction, ignored=max(reaction) < IGNORED)


def _pull(first: Effect, second: Effect, at: Sequence[int]) -> Pull:
    texts = None
    if first.conditioning is not None and second.conditioning is not None:
        both = [conditioning.flatten(1)[None] for conditioning in (first.conditioning, second.conditioning)]
        texts = _numbers(agreement(*both), at) if all(bool(text.any()) for text in both) else None
    return Pull(
        one=first.name,
        other=second.name,
        cosine=_numbers(agreement(first.predicted, second.predicted), at),
        in_conditioning=texts,
    )


def _loras(
    model: Model, question: Question, views: Sequence[LatentView], *, tell: Callable[[int], None]
) -> tuple[tuple[LoraUptake, ...], tuple[Effect, ...]]:
    """Return what each LoRA does alone, and what it adds to the prediction."""
    render, columns = question.render, question.columns
    if not render.loras:
        return (), ()
    with model.with_loras((), question.extras) as reader:
        probe = Probe.of(model, reader, render, tell)
        plain = {PROMPT: probe.layers(render.prompt, columns), NEGATIVE: probe.negative(columns)}
        base = answers(probe, views, plain)
    alone = [_alone(model, question, ref, views=views, plain=plain, base=base, tell=tell) for ref in render.loras]
    return tuple(uptake for uptake, _ in alone), tuple(effect for _, effect in alone)


def _alone(
    model: Model,
    question: Question,
    ref: LoraRef,
    *,
    views: Sequence[LatentView],
    plain: Mapping[str, TextRows],
    base: Mapping[str, Answers],
    tell: Callable[[int], None],
) -> tuple[LoraUptake, Effect]:
    columns = question.columns
    at = [columns.index(skip) for skip in question.skips]
    with model.with_loras((ref,), question.extras) as reader:
        probe = Probe.of(model, reader, question.render, tell)
        moved = probe.layers(question.render.prompt, columns)
        there = answers(probe, views, {"whole": moved, "unet": plain[PROMPT]})
    with model.with_loras((), question.extras) as reader:
        text = answers(Probe.of(model, reader, question.render, tell), views, {"text": moved})["text"]
    guidance, shift = base[PROMPT] - base[NEGATIVE], there["whole"] - base[PROMPT]
    own = columns.index(question.lora_references[ref.hash])
    report = report_lora(question.extras.loras[ref.hash], depth=model.reader.encoders[0].depth)
    before, after, away = plain[PROMPT].tokens, moved.tokens, plain[NEGATIVE].tokens
    uptake = LoraUptake(
        name=ref.name,
        uptake=_numbers(share_kept(shift, reference=own), at),
        text_shift=_numbers(distance(after, before) / distance(before, away), at),
        by_text=_numbers(size_beside(text - base[PROMPT], guidance), at),
        by_unet=_numbers(size_beside(there["unet"] - base[PROMPT], guidance), at),
        whole=_numbers(size_beside(shift, guidance), at),
        text_layers=report.text_layers,
        text_dead_from=None if report.text_2 else report.text_dead_from,
    )
    return uptake, Effect(name=f"LoRA {ref.name}", predicted=shift, conditioning=after - before)


def _numbers(curve: Curve, at: Sequence[int]) -> Numbers:
    return tuple(round(float(curve[column]), 4) for column in at)
