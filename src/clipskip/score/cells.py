"""A row of a sweep on an open model in; what each of its Clip Skips does to guidance, LoRAs and the picture, out.

The same as `prompted` measures of a prompt, without its phrases, and of what is really drawn: with fractions, two encoders' Clip
Skips, the negative prompt's own and phrases' own, and LoRAs at the row's weights.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clipskip.advise import LEAST_GUIDANCE
from clipskip.encode import TextReader, condition_all, one_text
from clipskip.errors import PromptError, SpecError
from clipskip.measures import (
    Answers,
    Curve,
    LatentView,
    Probe,
    TextRows,
    answers,
    change,
    conditioning_distance,
    guesses_of,
    share_kept,
    signs,
    view_rows,
    views_of,
)
from clipskip.spec import ClipSkip, EncoderSkips, LoraRef, Render, Skip
from clipskip.sweep import Extras, Measure, Model, not_finite

ADVISE = "advise"
KEPT, MOVED, CHANGED, SIGNS, UPTAKE = (
    "guidance_kept",
    "conditioning_moved",
    "picture_changed",
    "broken_signs",
    "lora_uptake",
)
PROMPT, NEGATIVE = "prompt", "negative"
INPAINTING_CHANNELS = 9
PLACES = 4
"""Decimals that are kept."""

Tell = Callable[[int], None]
"""Hears of UNet evaluations as they are done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """The Clip Skips that shares are of: the trained ones, as far as is known."""

    model: int
    loras: Mapping[str, int]
    """By a LoRA's hash."""


def measures_of(loras: Sequence[str]) -> tuple[Measure, ...]:
    """Return the measures of a sweep with LoRAs of these names."""
    share = [
        (KEPT, "guidance kept", True, True),
        (MOVED, "conditioning moved", False, False),
        (CHANGED, "guessed picture changed", False, True),
    ]
    if loras:
        share.append((UPTAKE, "LoRA uptake", True, True))
    if len(loras) > 1:
        share += [(uptake_name(name), f"LoRA uptake: {name}", True, True) for name in loras]
    signs = Measure(
        name=SIGNS, label="signs of breakage", unit="signs", higher_is_better=False, source=ADVISE, by_seed=False
    )
    shares = (
        Measure(name=name, label=label, unit="share", higher_is_better=higher, source=ADVISE, by_seed=by_seed)
        for name, label, higher, by_seed in share
    )
    return (*shares, signs)


def uptake_name(lora: str) -> str:
    """Return the measure of one LoRA's uptake, where there are several."""
    return f"{UPTAKE}.{lora}"


def same_to_model(render: Render) -> Render:
    """Return the render without what these measures do not look at: two rows that come out alike are measured once."""
    return replace(
        render, steps=20, sampler="Euler a", scheduler="Automatic", vae=None, hires=None, refiner=None, start=None,
        eta=None, s_churn=0.0, s_tmin=0.0, s_tmax=0.0, s_noise=1.0,
    )  # fmt: skip


def row_rows(render: Render, *, columns: int) -> int:
    """UNet evaluations that `measure_row` takes for so many Clip Skips, at most: those that shares are of come on top."""
    loras = len(render.loras)
    more = columns + 1 + loras
    return view_rows(1) + 4 * more * (2 + bool(loras) + (loras if loras > 1 else 0))


def measure_row(
    model: Model, row: Render, extras: Extras, *, skips: Sequence[Skip], references: References, tell: Tell
) -> dict[Skip, dict[str, float]]:
    """Return each measure at each of the row's Clip Skips; a schedule over steps has none.

    PromptError or SpecError for a row of which nothing can be measured, and why.
    """
    if model.unet.shape.in_channels == INPAINTING_CHANNELS:
        raise SpecError("inpainting models are not measured: they see a mask beside the noise", field="model")
    asked = [skip for skip in skips if isinstance(skip, ClipSkip | EncoderSkips)]
    own = {ref.hash: ClipSkip(references.loras[ref.hash]) for ref in row.loras}
    columns = list(dict.fromkeys([*asked, ClipSkip(references.model), *own.values()]))
    reference, at = columns.index(ClipSkip(references.model)), [columns.index(skip) for skip in asked]
    with model.with_loras(row.loras, extras) as reader:
        probe = Probe.of(model, reader, row.at(ClipSkip(references.model)), tell)
        texts = _texts(probe, row, columns)
        views = views_of(probe, seeds=[row.seed])
        tell(view_rows(1))
        said = answers(probe, views, texts)
    if not all(bool(answer.isfinite().all()) for answer in said.values()):
        raise not_finite(row)
    guidance = said[PROMPT] - said[NEGATIVE]
    if float(guidance.norm()) < LEAST_GUIDANCE * float(said[PROMPT].norm()):
        raise SpecError("prompt and negative prompt are the same to this model", field="negative_prompt")
    kept = share_kept(guidance, reference=reference)
    moved = conditioning_distance(texts[PROMPT].tokens, texts[NEGATIVE].tokens, reference=reference)
    guesses = guesses_of(probe, views, said[NEGATIVE] + row.cfg_scale * guidance)
    changed = change(guesses, reference=reference)
    curves: dict[str, Tensor] = {KEPT: kept, MOVED: moved, CHANGED: changed}
    curves[SIGNS] = signs(kept=kept, moved=moved, changed=changed)
    curves |= _uptakes(model, row, extras, views=views, columns=columns, own=own, whole=said[PROMPT], tell=tell)
    return {
        skip: {name: round(float(curve[column]), PLACES) for name, curve in curves.items()}
        for skip, column in zip(asked, at, strict=True)
    }


def _texts(probe: Probe, row: Render, columns: Sequence[Skip]) -> dict[str, TextRows]:
    """Return the texts that the cells at these Clip Skips are drawn with."""
    one_text(probe.reader, row.prompt)
    one_text(probe.reader, row.negative_prompt, negative=True)
    made = condition_all(probe.reader, [row.at(skip) for skip in columns])
    schedules = [(conditioning.positive[0].schedule, conditioning.negative) for conditioning in made]
    if any(len(side) > 1 for both in schedules for side in both):
        raise PromptError("the text's vectors change from step to step", field="clip_skip")
    return {
        PROMPT: TextRows.of([prompt[0][1] for prompt, _ in schedules]),
        NEGATIVE: TextRows.of([negative[0][1] for _, negative in schedules]),
    }


def _uptakes(
    model: Model,
    row: Render,
    extras: Extras,
    *,
    views: Sequence[LatentView],
    columns: Sequence[Skip],
    own: Mapping[str, ClipSkip],
    whole: Answers,
    tell: Tell,
) -> dict[str, Curve]:
    """Return how much of what each LoRA alone adds at its own Clip Skip is left at each Clip Skip; and the least of them."""
    acting = [ref for ref in row.loras if ref.text_encoder or ref.unet]
    if not acting:
        return {}

    def said(loras: Sequence[LoraRef]) -> Answers:
        with model.with_loras(loras, extras) as reader:
            return _prompt_answers(Probe.of(model, reader, row, tell), reader, row, columns, views)

    base = said(())
    uptakes: dict[str, Curve] = {}
    for ref in acting:
        added = (whole if len(row.loras) == 1 else said((ref,))) - base
        at = columns.index(own[ref.hash])
        if float(added[:, at].norm()) >= LEAST_GUIDANCE * float(base[:, at].norm()):  # else there is nothing to keep
            uptakes[uptake_name(ref.name)] = share_kept(added, reference=at)
    if not uptakes:
        return {}
    least = {UPTAKE: torch.stack(list(uptakes.values())).amin(0)}
    return least if len(row.loras) == 1 else least | uptakes


def _prompt_answers(
    probe: Probe, reader: TextReader, row: Render, columns: Sequence[Skip], views: Sequence[LatentView]
) -> Answers:
    made = condition_all(reader, [row.at(skip) for skip in columns])
    text = TextRows.of([conditioning.positive[0].schedule[0][1] for conditioning in made])
    return answers(probe, views, {PROMPT: text})[PROMPT]
