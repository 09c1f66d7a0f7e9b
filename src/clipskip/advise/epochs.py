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
from clipskip.advise.chances import DRAWS, chances, spread_out
from clipskip.advise.files import Evidence, combined, config_evidence, configs_of
from clipskip.advise.measures import TINY, Answers, View, answers, view_rows, views_of
from clipskip.advise.probe import Probe
from clipskip.advise.prompted import NEGATIVE, PROMPT
from clipskip.advise.trained import HIGHEST, Captioned, read_pictures
from clipskip.advise.verdict import Answer
from clipskip.errors import SpecError
from clipskip.prompt import read_prompt
from clipskip.spec import ClipSkip, LoraRef, Render, Request
from clipskip.sweep import Extras, Model, not_finite, resolve
from clipskip.weights import Library, TrainerConfig
from clipskip.weights.lora import Epoch, Lora, tag_counts, trigger_words

SEEDS = 2
"""Seeds of the prompt, and everyday prompts that do not call the LoRA: four noise levels of each are looked at."""
LOOKS = 48
"""Looks at the captioned pictures."""
ALIKE = 0.05
"""An epoch and Clip Skip that is better than the best with at least this chance counts as no worse."""
MODEST = 0.6
"""Without pictures nothing is surer than this: what a LoRA adds is not yet what it was to learn."""
SPECIFIC = 1.2
"""A LoRA of which no epoch adds so many times what it changes besides acts on every prompt alike, as a style does."""
PHRASES = 6
FITS = "With it the model denoises the captioned pictures best"
STANDS_OUT = "There what its prompt calls stands out most from what it changes besides"
EVERYWHERE = (
    "It acts on prompts that do not call it as much as on those that do, as styles do, so what it adds cannot be told from what it "
    "spoils; captioned pictures of what it was to learn (--images) would tell"
)

Table = tuple[tuple[float, ...], ...]
"""A row for each epoch, a column for each Clip Skip."""
Cells = NDArray[np.float64]
"""[looks, epochs, skips]"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What is to be compared."""

    request: Request
    """Without LoRAs. Its prompt may be empty: then the LoRA's own words are its prompt."""
    epochs: tuple[Epoch, ...]
    strength: LoraRef
    """Whose strengths count for every epoch."""
    skips: tuple[int, ...]
    images: Path | None = None
    config: TrainerConfig | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochChoice:
    """Which to use."""

    answer: Answer
    epoch: int
    """Its place among the epochs, from 0; where nothing is known, where to start."""
    skip: int
    sure: float
    """0 to 1: that nothing else is better by more than noise."""
    alike: tuple[tuple[int, int], ...]
    """(Place, Clip Skip) of all that the measure cannot tell from the best, itself among them."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What was found out."""

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
    """UNet evaluations that `compare` takes."""
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
    """Measures all epochs on the same latents; `tell` hears of UNet evaluations as they are done, and how many there will be."""
    began, rows = time.monotonic(), [0]
    most = compared_rows(len(wanted.epochs), len(wanted.skips), pictures=wanted.images is not None)

    def count(done: int) -> None:
        rows[0] += done
        tell(rows[0], most)

    loras = tuple(replace(wanted.strength, name=str(epoch.path)) for epoch in wanted.epochs)
    asked = replace(wanted.request, seed=max(wanted.request.seed, 0), clip_skip=None, loras=loras)
    if read_prompt(asked.prompt, steps=1).loras:
        raise SpecError("epochs are compared alone: take the <lora:...> tags out of the prompt", field="prompt")
    render, extras = resolve(asked, model.facts, library, allow_pickle=allow_pickle)
    refs = render.loras
    last = extras.loras[refs[-1].hash]
    configs = ((wanted.config,) if wanted.config else ()) + configs_of(last.path, last.metadata)
    prompt, source = (asked.prompt, "given") if asked.prompt else words_of(last, configs)
    plain = replace(render, prompt=prompt, loras=())
    said = evidence_without_drawing(model, replace(plain, loras=refs[-1:]), Extras(loras={last.hash: last}))
    given = tuple(config_evidence(last.name, configs[:1] if wanted.config else (), model.facts.family))
    model_chances = _chances(said[model.facts.ref.name], model)
    lora_chances = _chances((*said[last.name], *given), model)
    own, trained = (max(found, key=found.__getitem__) for found in (model_chances, lora_chances))
    skips = tuple(sorted({*wanted.skips, trained}))
    effects = _effects(model, plain, refs, extras, skips=skips, reference=own, lora=last, count=count)
    at = [skips.index(skip) for skip in wanted.skips]
    called, besides = effects.called(reference=skips.index(trained)), effects.besides()
    error, seen = None, 0
    if wanted.images is not None:
        pictures, side = read_pictures(wanted.images, model)[:LOOKS], model.facts.native_px
        square = replace(plain, width=side, height=side)
        error = _errors(model, square, refs, extras, pictures, skips=wanted.skips, reference=own, count=count)
        seen = len(pictures)
    choice, chance = _choose(called[..., at], besides[..., at], error, skips=wanted.skips, trained=trained)
    top = called[:, :, skips.index(trained)].mean(0).max()
    return Comparison(
        model=model.facts.ref.name,
        family=model.facts.family.label,
        prompt=prompt,
        prompt_source=source,
        epochs=wanted.epochs,
        skips=wanted.skips,
        model_skip=own,
        model_sure=model_chances[own],
        lora_skip=trained,
        evidence=(*said[model.facts.ref.name], *said[last.name], *given),
        configs=configs,
        uptake=_table(called[..., at].mean(0) / max(float(top), TINY)),
        effect=_table(called[..., at].mean(0)),
        besides=_table(besides[..., at].mean(0)),
        error=None if error is None else _table(np.expm1(error.mean(0))),
        pictures=seen,
        chance=_table(chance),
        choice=choice,
        rows=rows[0],
        seconds=round(time.monotonic() - began, 2),
    )


def words_of(lora: Lora, configs: Sequence[TrainerConfig]) -> tuple[str, str]:
    """A prompt that calls the LoRA, and where it is from: its trigger words and the tags that most of its captions had."""
    triggers = list(trigger_words(lora.metadata)) + [word for config in configs for word in config.words]
    counts = tag_counts(lora.metadata)
    tags = [tag for tag, _ in counts.most_common(PHRASES)] if counts else []
    words = list(dict.fromkeys(word for word in [*triggers, *tags] if word))[:PHRASES]
    if not words:
        raise SpecError(
            "nothing in these files says which words call the LoRA; give a prompt that does, as in: clipskip advise "
            "\"swamp, ogre\" --lora 'out/ogre-*.safetensors'",
            field="prompt",
        )
    return re.sub(r"([()\[\]])", r"\\\1", ", ".join(words)), "its trigger words and the tags of most of its captions"


def everyday(lora: Lora, prompt: str) -> tuple[str, ...]:
    """Prompts of common things that share no word with the LoRA's prompt, nor with what it was trained on."""
    counts = tag_counts(lora.metadata)
    words = set(re.findall(r"\w{4,}", " ".join([prompt, *(counts or ())]).lower()))
    apart = [scene for scene in SCENES if not words & set(re.findall(r"\w{4,}", scene))]
    return tuple((apart or SCENES)[:SEEDS])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Effects:
    """What each epoch adds to the predictions, and the guidance that this is a share of."""

    guidance: Answers
    added: Sequence[Answers]
    """By epoch, to the prompt that calls it."""
    everyday_guidance: Answers
    everyday_added: Sequence[Answers]

    def called(self, *, reference: int) -> Cells:
        """How far each epoch moves the prediction in the direction that they have in common at the Clip Skip of column
        `reference`, as a share of the guidance."""
        common = torch.stack([added[:, reference] for added in self.added]).mean(0)[:, None]
        length = common.norm(dim=-1).clamp_min(TINY)
        along = [(added * common).sum(-1) / length for added in self.added]
        return _cells(along, self.guidance.norm(dim=-1))

    def besides(self) -> Cells:
        """How far each moves everyday prompts, as a share of their guidance."""
        return _cells([added.norm(dim=-1) for added in self.everyday_added], self.everyday_guidance.norm(dim=-1))


def _cells(found: Sequence[Tensor], guidance: Tensor) -> Cells:
    """[looks, epochs, skips], as shares of the looks' mean guidance at each Clip Skip."""
    whole = guidance.square().mean(0).sqrt().clamp_min(TINY)
    return (torch.stack(list(found), dim=1) / whole).double().numpy()


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
    """Asks the model about the same latents without and with each epoch."""
    start = replace(render, clip_skip=ClipSkip(reference), negative_clip_skip=None)
    scenes = everyday(lora, render.prompt)
    renders = [replace(start, seed=render.seed + n) for n in range(SEEDS)]
    renders += [replace(start, prompt=scene, seed=render.seed + n) for n, scene in enumerate(scenes)]
    with model.with_loras((), extras) as reader:
        views: list[Sequence[View]] = []
        for one in renders:
            views.append(views_of(Probe.of(model, reader, one), seeds=[one.seed]))
            count(view_rows(1))
        probes = [Probe.of(model, reader, one, count) for one in renders]
        plain = [_asked(probe, seen, skips, negative=True) for probe, seen in zip(probes, views, strict=True)]
    if not all(bool(answer.isfinite().all()) for said in plain for answer in said.values()):
        raise not_finite(start)
    added = []
    for ref in refs:
        with model.with_loras((ref,), extras) as reader:
            probes = [Probe.of(model, reader, one, count) for one in renders]
            said = [_asked(probe, seen, skips) for probe, seen in zip(probes, views, strict=True)]
        added.append([there[PROMPT] - base[PROMPT] for there, base in zip(said, plain, strict=True)])
        if not all(bool(effect.isfinite().all()) for effect in added[-1]):
            raise not_finite(replace(start, loras=(ref,)))
    guidance = [base[PROMPT] - base[NEGATIVE] for base in plain]
    return _Effects(
        guidance=torch.cat(guidance[:SEEDS]),
        added=[torch.cat(one[:SEEDS]) for one in added],
        everyday_guidance=torch.cat(guidance[SEEDS:]),
        everyday_added=[torch.cat(one[SEEDS:]) for one in added],
    )


def _asked(
    probe: Probe, views: Sequence[View], skips: Sequence[int], *, negative: bool = False
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
) -> Cells:
    """[pictures, epochs, skips]: the logarithm of the error of denoising each picture with each epoch, over that without it at
    the Clip Skip `reference`.

    The same noise and noise levels for all, so that nothing else differs (see `by_pictures`)."""

    def asked(loras: tuple[LoraRef, ...], skips: Sequence[int]) -> Cells:
        with model.with_loras(loras, extras) as reader:
            probe = Probe.of(model, reader, render, count)
            found = np.full((len(pictures), -(-LOOKS // len(pictures)), len(skips)), np.nan)
            for look in range(LOOKS):
                turn, at = divmod(look, len(pictures))
                picture = pictures[at]
                noisy = probe.add_noise(picture.latent, HIGHEST * spread_out(look + 1), seed=look)
                said = probe.predict(noisy.latent, noisy.timestep, probe.layers(picture.caption, skips))
                found[at, turn] = (said - noisy.target.cpu()).square().mean(dim=(1, 2, 3)).double().log().numpy()
        means: Cells = np.nanmean(found, axis=1)
        return means

    without = asked((), [reference])
    found: Cells = np.stack([asked((ref,), skips) - without for ref in refs], axis=1)
    return found


def _chances(said: Sequence[Evidence], model: Model) -> dict[int, float]:
    """By Clip Skip; where nothing says anything, the family's own and no certainty."""
    return combined(said, depth=model.facts.depth) if said else {model.facts.family.value.default_skip: 0.0}


def _choose(
    called: Cells, besides: Cells, error: Cells | None, *, skips: Sequence[int], trained: int
) -> tuple[EpochChoice, NDArray[np.float64]]:
    """The earliest epoch that nothing beats by more than noise, at the Clip Skip where it was trained if that is among them."""
    epochs, columns = called.shape[1:]
    losses = besides - called if error is None else error
    flat = losses.reshape(len(losses), -1)
    chance = chances(flat)
    best = int(flat.mean(0).argmin())
    alike = [divmod(int(cell), columns) for cell in np.flatnonzero(no_worse(flat, best) >= ALIKE)]
    epoch = min(row for row, _ in alike)
    own = [column for row, column in alike if row == epoch]
    column = next(
        (at for at in own if skips[at] == trained), min(own, key=lambda at: float(losses[:, epoch, at].mean()))
    )
    sure = float(sum(chance[row * columns + at] for row, at in alike))
    answer, text = Answer.VALUE, FITS if error is not None else STANDS_OUT
    if len(alike) == epochs * columns:
        answer, text = Answer.NO_DIFFERENCE, "What tells all of them apart is noise, so the earliest will do"
    elif error is None and not bool((called.mean(0) >= SPECIFIC * besides.mean(0)).any()):
        answer, text = Answer.NOT_KNOWN, EVERYWHERE
    elif len(alike) > 1:
        text += f"; {len(alike)} of {epochs * columns} cannot be told from the best, and this is the earliest of them"
    choice = EpochChoice(
        answer=answer,
        epoch=epoch,
        skip=skips[column],
        sure=sure if error is not None else min(sure, MODEST),
        alike=tuple((row, skips[at]) for row, at in alike),
        text=text,
    )
    return choice, chance.reshape(epochs, columns)


def no_worse(losses: NDArray[np.float64], best: int) -> NDArray[np.float64]:
    """[cells]: how probable it is that each one's mean is no higher than that of column `best` (Bayesian bootstrap, as in
    `chances`)."""
    shares = np.random.default_rng(1).dirichlet(np.ones(len(losses)), DRAWS)
    share: NDArray[np.float64] = ((shares @ (losses - losses[:, [best]])) <= 0).mean(axis=0)
    return share


def _table(cells: NDArray[np.float64]) -> Table:
    return tuple(tuple(round(float(value), 4) for value in row) for row in cells)
