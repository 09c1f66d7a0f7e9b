"""A LoRA's epochs on an open model in; what each adds and what it changes besides, at each Clip Skip, and which to use, out."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipskip.advise.advice import SCENES, evidence_without_drawing
from clipskip.advise.files import Evidence, combined, config_evidence, configs_of
from clipskip.advise.prompted import NEGATIVE, PROMPT
from clipskip.advise.trained import HIGHEST, Captioned, read_pictures
from clipskip.advise.verdict import Cells, EpochChoice, choose_epoch
from clipskip.errors import SpecError
from clipskip.measures import TINY, Answers, LatentView, Probe, RowCounter, answers, spread_out, view_rows, views_of
from clipskip.prompt import read_prompt
from clipskip.spec import ClipSkip, LoraRef, Render, Request
from clipskip.sweep import Extras, Model, not_finite, resolve
from clipskip.weights import Library, TrainerConfig
from clipskip.weights.lora import Epoch, Lora, tag_counts, trigger_words

SEEDS = 2
"""Seeds of the prompt, and everyday prompts that do not call the LoRA: four noise levels of each are looked at."""
LOOKS = 48
"""Looks at the captioned pictures."""
PHRASES = 6
Table = tuple[tuple[float, ...], ...]
"""A row for each epoch, a column for each Clip Skip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """The epochs to compare, and how."""

    request: Request
    """Without LoRAs. Its prompt may be empty: then the LoRA's own words are its prompt."""
    epochs: tuple[Epoch, ...]
    strength: LoraRef
    """Whose strengths count for every epoch."""
    skips: tuple[int, ...]
    images: Path | None = None
    config: TrainerConfig | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The result of comparing epochs."""

    model: str
    family: str
    prompt: str
    prompt_source: str
    epochs: tuple[Epoch, ...]
    skips: tuple[int, ...]
    model_skip: int
    model_sure: float
    lora_skip: int
    """That it was trained at, as far as is known."""
    evidence: tuple[Evidence, ...]
    configs: tuple[TrainerConfig, ...]
    uptake: Table
    """What it adds in the direction that the epochs have in common, over the most that any of them adds at `lora_skip`."""
    effect: Table
    """The same as a share of the guidance."""
    besides: Table
    """How far it moves everyday prompts that do not call it, as a share of their guidance."""
    error: Table | None
    """On captioned pictures: the error of denoising them, over that without the LoRA at the model's own Clip Skip, minus 1."""
    pictures: int
    chance: Table
    """How probable it is that each is the best of all."""
    choice: EpochChoice
    rows: int
    """UNet evaluations."""
    seconds: float


def compared_rows(epochs: int, skips: int, *, pictures: bool) -> int:
    """Return how many UNet evaluations `compare` takes."""
    looks = 4 * SEEDS * 2
    return 2 * view_rows(SEEDS) + looks * skips * (2 + epochs) + (LOOKS * (1 + skips * epochs) if pictures else 0)


def compare(
    model: Model,
    wanted: Compared,
    library: Library,
    *,
    allow_pickle: bool = False,
    tell: Callable[[int, int], None] = lambda rows, most: None,
) -> Comparison:
    """Measure all epochs on the same latents. `tell` is called with the UNet evaluations done so far, and how many there
    will be."""
    began = time.monotonic()
    most = compared_rows(len(wanted.epochs), len(wanted.skips), pictures=wanted.images is not None)
    counter = RowCounter(most, tell)
    render, extras = _resolved(model, wanted, library, allow_pickle=allow_pickle)
    known = _read_files(model, wanted, render, extras)
    plain = replace(render, prompt=known.prompt, loras=())
    called, besides, most_added = _added(model, plain, render.loras, extras, known, wanted.skips, counter)
    pictures = read_pictures(wanted.images, model)[:LOOKS] if wanted.images is not None else ()
    error = _errors(
        model, plain, render.loras, extras, pictures, skips=wanted.skips, reference=known.model_skip, count=counter.add
    )
    choice, chance = choose_epoch(called, besides, error, skips=wanted.skips, trained=known.lora_skip)
    return Comparison(
        model=model.facts.ref.name,
        family=model.facts.family.label,
        prompt=known.prompt,
        prompt_source=known.prompt_source,
        epochs=wanted.epochs,
        skips=wanted.skips,
        model_skip=known.model_skip,
        model_sure=known.model_sure,
        lora_skip=known.lora_skip,
        evidence=known.evidence,
        configs=known.configs,
        uptake=_table(called.mean(0) / most_added),
        effect=_table(called.mean(0)),
        besides=_table(besides.mean(0)),
        error=None if error is None else _table(np.expm1(error.mean(0))),
        pictures=len(pictures),
        chance=_table(chance),
        choice=choice,
        rows=counter.rows,
        seconds=round(time.monotonic() - began, 2),
    )


def _resolved(model: Model, wanted: Compared, library: Library, *, allow_pickle: bool) -> tuple[Render, Extras]:
    """Return the request's render with every epoch as a LoRA at the strength that was asked for."""
    loras = tuple(replace(wanted.strength, name=str(epoch.path)) for epoch in wanted.epochs)
    asked = replace(wanted.request, seed=max(wanted.request.seed, 0), clip_skip=None, loras=loras)
    if read_prompt(asked.prompt, steps=1).loras:
        raise SpecError("epochs are compared alone: take the <lora:...> tags out of the prompt", field="prompt")
    return resolve(asked, model.facts, library, allow_pickle=allow_pickle)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Known:
    """The facts that the files state, before anything is measured."""

    prompt: str
    prompt_source: str
    lora: Lora
    """The last epoch."""
    configs: tuple[TrainerConfig, ...]
    evidence: tuple[Evidence, ...]
    model_skip: int
    """The Clip Skip that the model was most probably trained at."""
    model_sure: float
    lora_skip: int
    """The Clip Skip that the LoRA was most probably trained at."""


def _read_files(model: Model, wanted: Compared, render: Render, extras: Extras) -> _Known:
    """Return what the files of the model and of the last epoch say."""
    ref = render.loras[-1]
    lora = extras.loras[ref.hash]
    configs = ((wanted.config,) if wanted.config else ()) + configs_of(lora.path, lora.metadata)
    prompt, source = (render.prompt, "given") if render.prompt else calling_prompt(lora, configs)
    alone = replace(render, prompt=prompt, loras=(ref,))
    by_file = evidence_without_drawing(model, alone, Extras(loras={lora.hash: lora}))
    given = config_evidence(lora.name, configs[:1] if wanted.config else (), model.facts.family)
    of_model, of_lora = by_file[model.facts.ref.name], (*by_file[lora.name], *given)
    model_chances, lora_chances = _chances(of_model, model), _chances(of_lora, model)
    model_skip = max(model_chances, key=model_chances.__getitem__)
    return _Known(
        prompt=prompt,
        prompt_source=source,
        lora=lora,
        configs=configs,
        evidence=(*of_model, *of_lora),
        model_skip=model_skip,
        model_sure=model_chances[model_skip],
        lora_skip=max(lora_chances, key=lora_chances.__getitem__),
    )


def calling_prompt(lora: Lora, configs: Sequence[TrainerConfig]) -> tuple[str, str]:
    """Return a prompt that calls the LoRA, and where it is from: its trigger words and the tags that most of its captions had."""
    triggers = list(trigger_words(lora.metadata)) + [word for config in configs for word in config.words]
    counts = tag_counts(lora.metadata)
    tags = [tag for tag, _ in counts.most_common(PHRASES)] if counts else []
    words = list(dict.fromkeys(word for word in [*triggers, *tags] if word))[:PHRASES]
    if not words:
        raise SpecError(
            "these files do not name the LoRA's trigger words; give a prompt that has them, as in: clipskip advise "
            "\"swamp, ogre\" --lora 'out/ogre-*.safetensors'",
            field="prompt",
        )
    return re.sub(r"([()\[\]])", r"\\\1", ", ".join(words)), "its trigger words and the tags of most of its captions"


def everyday(lora: Lora, prompt: str) -> tuple[str, ...]:
    """Return prompts of common things that share no word with the LoRA's prompt, nor with what it was trained on."""
    counts = tag_counts(lora.metadata)
    words = set(re.findall(r"\w{4,}", " ".join([prompt, *(counts or ())]).lower()))
    apart = [scene for scene in SCENES if not words & set(re.findall(r"\w{4,}", scene))]
    return tuple((apart or SCENES)[:SEEDS])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Effects:
    """The effect of each epoch on the predictions, and the guidance that it is measured against."""

    guidance: Answers
    added: Sequence[Answers]
    """By epoch, to the prompt that calls it."""
    everyday_guidance: Answers
    everyday_added: Sequence[Answers]

    def called(self, *, reference: int) -> Cells:
        """Return how far each epoch moves the prediction in the direction that they have in common at the Clip Skip of column
        `reference`, as a share of the guidance."""
        common = torch.stack([added[:, reference] for added in self.added]).mean(0)[:, None]
        length = common.norm(dim=-1).clamp_min(TINY)
        along = [(added * common).sum(-1) / length for added in self.added]
        return _cells(along, self.guidance.norm(dim=-1))

    def besides(self) -> Cells:
        """Return how far each moves everyday prompts, as a share of their guidance."""
        return _cells([added.norm(dim=-1) for added in self.everyday_added], self.everyday_guidance.norm(dim=-1))


def _cells(effects: Sequence[Tensor], guidance: Tensor) -> Cells:
    """Return [looks, epochs, skips], as shares of the looks' mean guidance at each Clip Skip."""
    whole = guidance.square().mean(0).sqrt().clamp_min(TINY)
    return (torch.stack(list(effects), dim=1) / whole).double().numpy()


def _added(
    model: Model,
    render: Render,
    refs: Sequence[LoraRef],
    extras: Extras,
    known: _Known,
    asked: Sequence[int],
    counter: RowCounter,
) -> tuple[Cells, Cells, float]:
    """Return what each epoch adds at the Clip Skips asked about, what it changes besides, and the most that any adds where the
    LoRA was trained."""
    skips = tuple(sorted({*asked, known.lora_skip}))
    effects = _effects(
        model, render, refs, extras, skips=skips, reference=known.model_skip, lora=known.lora, count=counter.add
    )
    trained, columns = skips.index(known.lora_skip), [skips.index(skip) for skip in asked]
    called = effects.called(reference=trained)
    most_added = max(float(called[:, :, trained].mean(0).max()), TINY)
    return called[..., columns], effects.besides()[..., columns], most_added


def _effects(
    model: Model,
    render: Render,
    refs: Sequence[LoraRef],
    extras: Extras,
    *,
    skips: Sequence[int],
    reference: int,
    lora: Lora,
    count: Callable[[int], None],
) -> _Effects:
    """Ask the model about the same latents without and with each epoch."""
    start = replace(render, clip_skip=ClipSkip(reference), negative_clip_skip=None)
    scenes = everyday(lora, render.prompt)
    renders = [replace(start, seed=render.seed + n) for n in range(SEEDS)]
    renders += [replace(start, prompt=scene, seed=render.seed + n) for n, scene in enumerate(scenes)]
    with model.with_loras((), extras) as reader:
        views: list[Sequence[LatentView]] = []
        for seeded in renders:
            views.append(views_of(Probe.of(model, reader, seeded), seeds=[seeded.seed]))
            count(view_rows(1))
        probes = [Probe.of(model, reader, seeded, count) for seeded in renders]
        plain = [_ask_unet(probe, seen, skips, negative=True) for probe, seen in zip(probes, views, strict=True)]
    if not all(bool(answer.isfinite().all()) for by_text in plain for answer in by_text.values()):
        raise not_finite(start)
    added = []
    for ref in refs:
        with model.with_loras((ref,), extras) as reader:
            probes = [Probe.of(model, reader, seeded, count) for seeded in renders]
            with_lora = [_ask_unet(probe, seen, skips) for probe, seen in zip(probes, views, strict=True)]
        added.append([there[PROMPT] - base[PROMPT] for there, base in zip(with_lora, plain, strict=True)])
        if not all(bool(effect.isfinite().all()) for effect in added[-1]):
            raise not_finite(replace(start, loras=(ref,)))
    guidance = [base[PROMPT] - base[NEGATIVE] for base in plain]
    return _Effects(
        guidance=torch.cat(guidance[:SEEDS]),
        added=[torch.cat(by_render[:SEEDS]) for by_render in added],
        everyday_guidance=torch.cat(guidance[SEEDS:]),
        everyday_added=[torch.cat(by_render[SEEDS:]) for by_render in added],
    )


def _ask_unet(
    probe: Probe, views: Sequence[LatentView], skips: Sequence[int], *, negative: bool = False
) -> Mapping[str, Answers]:
    texts = {PROMPT: probe.layers(probe.render.prompt, skips)} | ({NEGATIVE: probe.negative(skips)} if negative else {})
    return answers(probe, views, texts)


def _errors(
    model: Model,
    render: Render,
    refs: Sequence[LoraRef],
    extras: Extras,
    pictures: Sequence[Captioned],
    *,
    skips: Sequence[int],
    reference: int,
    count: Callable[[int], None],
) -> Cells | None:
    """Return [pictures, epochs, skips]: the logarithm of the error of denoising each picture with each epoch, over that without
    it at the Clip Skip `reference`. None without pictures.

    The same noise and noise levels for all, so that nothing else differs (see `by_pictures`)."""

    if not pictures:
        return None
    square = replace(render, width=model.facts.native_px, height=model.facts.native_px)

    def log_errors(loras: tuple[LoraRef, ...], skips: Sequence[int]) -> Cells:
        with model.with_loras(loras, extras) as reader:
            probe = Probe.of(model, reader, square, count)
            losses = np.full((len(pictures), -(-LOOKS // len(pictures)), len(skips)), np.nan)
            for look in range(LOOKS):
                turn, at = divmod(look, len(pictures))
                picture = pictures[at]
                noisy = probe.add_noise(picture.latent, HIGHEST * spread_out(look + 1), seed=look)
                predicted = probe.predict(noisy.latent, noisy.timestep, probe.layers(picture.caption, skips))
                losses[at, turn] = (predicted - noisy.target.cpu()).square().mean(dim=(1, 2, 3)).double().log().numpy()
        means: Cells = np.nanmean(losses, axis=1)
        return means

    without = log_errors((), [reference])
    ratios: Cells = np.stack([log_errors((ref,), skips) - without for ref in refs], axis=1)
    return ratios


def _chances(evidence: Sequence[Evidence], model: Model) -> dict[int, float]:
    """Return the chance of each Clip Skip; where there is no evidence, the family's own without certainty."""
    return combined(evidence, depth=model.facts.depth) if evidence else {model.facts.family.value.default_skip: 0.0}


def _table(cells: NDArray[np.float64]) -> Table:
    return tuple(tuple(round(float(value), 4) for value in row) for row in cells)
