"""A model, perhaps a prompt, LoRAs and pictures in; the Clip Skip to use, with everything that was measured, out."""

import itertools
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipskip.advise.files import (
    FAMILIES,
    Evidence,
    advised_evidence,
    combined,
    config_evidence,
    configs_of,
    contradictions,
    family_evidence,
    file_evidence,
    layer_notes,
    training_lines,
)
from clipskip.advise.prompted import Prompted, Question, measure, phrases_of, prompted_rows
from clipskip.advise.trained import (
    CANDIDATES,
    DRAWING_ROWS,
    DRAWINGS,
    MOST,
    Trained,
    by_difference,
    by_drawings,
    by_footprint,
    by_pictures,
    read_pictures,
)
from clipskip.advise.verdict import KNOWN, Answer, Verdict, decide
from clipskip.errors import SpecError
from clipskip.measures import ClipScores, Probe, RowCounter, Scorer, clip_scores
from clipskip.spec import ClipSkip, Family, LoraRef, Render, Request
from clipskip.sweep import Drawn, Extras, Model, find_model, resolve
from clipskip.weights import CheckpointFacts, FileKind, Library, TrainerConfig, identify, read_allowed, read_hints
from clipskip.weights.lora import Lora, tag_counts

SCENES = (
    "a green frog on a leaf in a swamp", "an owl on a branch in the forest, night", "a red car in a city street",
    "a sailing boat on the sea, blue sky", "a whale under the sea", "a snowman in the snow, winter",
    "a castle on a hill, sunset", "a cat on a chair", "a brown dog in a meadow", "a crab on the beach, sand",
    "a bowl of red apples on a table", "a lighthouse at the coast, storm", "a portrait of an old man, grey hair",
    "a girl with a yellow umbrella, rain", "a cactus in the desert, sand dunes", "a purple butterfly on a flower",
    "a train in the mountains", "a fox in the snow", "a yellow duck on a pond, reeds", "a full moon in the night sky",
    "a penguin on the ice", "a bridge over a river, fog", "a bee on a flower, meadow", "a turtle on the beach",
)  # fmt: skip
"""What a model is asked to draw when the user names nothing: things that any model was shown."""
TEXTS, TAGS = 48, 8
"""Texts that are read for a LoRA's footprint, and tags in each, as often as they were in its captions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """The verdict and what it rests on."""

    model: str
    hash: str
    """Empty where the file was not read."""
    family: str
    depth: int
    verdict: Verdict
    evidence: tuple[Evidence, ...]
    """What the files say, then what was measured."""
    contradictions: tuple[str, ...]
    model_chances: tuple[tuple[int, float], ...]
    """(Clip Skip, probability that the model was trained at it), all of the evidence taken together."""
    lora_chances: tuple[tuple[str, tuple[tuple[int, float], ...]], ...]
    measured: tuple[tuple[str, Trained], ...]
    """(File, what was measured of the Clip Skip that it was trained at)."""
    prompted: Prompted | None
    clip: ClipScores | None
    """Where the user has a CLIP model: scores of one picture at each Clip Skip. They do not enter the verdict."""
    notes: tuple[str, ...]
    """What a Clip Skip of this family reads that its number does not say."""
    training: tuple[str, ...]
    """Lines on what to write into a trainer's config, and on those that were found or given; none where there is no LoRA."""
    rows: int
    """UNet evaluations: a guided step of a picture is two."""
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A question to `advise`."""

    request: Request
    """Its prompt may be empty: then only what model and LoRAs were trained at."""
    skips: tuple[int, ...]
    images: Path | None = None
    base: str | None = None
    """The checkpoint that the model was made from, by name, path or hash: the mark of its training is then read."""
    config: TrainerConfig | None = None
    """That of the last LoRA's training, or that a LoRA is to be trained with."""
    clip: str | None = None
    """A CLIP model, as a folder or by its name on a hub: the prompt is then drawn at each Clip Skip, and scored."""


def most_rows(model: Model, wanted: Wanted, render: Render) -> int:
    """Return how many UNet evaluations the advice takes at most."""
    rows = MOST * len(CANDIDATES) if wanted.images else 0
    if _asks_drawings(model, wanted):
        rows += DRAWINGS * DRAWING_ROWS
    if wanted.request.prompt:
        columns = min(model.facts.depth, len(wanted.skips) + 1 + len(render.loras))
        rows += prompted_rows(render, columns=columns)
        rows += len(wanted.skips) * _drawn_rows(render) if wanted.clip else 0
    return rows


def advise(
    model: Model,
    wanted: Wanted,
    library: Library,
    *,
    allow_pickle: bool = False,
    tell: Callable[[int, int], None] = lambda rows, most: None,
) -> Advice:
    """Find out which Clip Skip to use. `tell` is called with the UNet evaluations done so far, and how many there may
    be."""
    began, scorer = time.monotonic(), _scorer(wanted)
    asked = replace(wanted.request, seed=max(wanted.request.seed, 0), clip_skip=None)
    render, extras = resolve(asked, model.facts, library, allow_pickle=allow_pickle)
    counter = RowCounter(most_rows(model, wanted, render), tell)
    measured = dict(_measured(model, wanted, render, extras, count=counter.add))
    if wanted.base and not wanted.images:
        measured[model.facts.ref.name] = _since(model, wanted.base, library, allow_pickle=allow_pickle)
    by_name = _evidence_by_name(model, wanted, render, extras, measured)
    chances = {name: combined(evidence, depth=model.facts.depth) for name, evidence in by_name.items()}
    prompted = _ask_prompt(model, wanted, render, extras, chances, counter) if wanted.request.prompt else None
    scores = _scores(model, scorer, render, extras, wanted.skips, count=counter.add) if scorer else None
    family, own_chances = model.facts.family, chances[model.facts.ref.name]
    loras = {name: chances[name] for name in _names(render.loras)}
    configs = _configs(wanted, extras)
    evidence = tuple(itertools.chain.from_iterable(by_name.values()))
    return Advice(
        model=model.facts.ref.name,
        hash=model.facts.ref.hash[:10],
        family=family.label,
        depth=model.facts.depth,
        verdict=decide(own_chances, loras, prompted, default=family.value.default_skip),
        evidence=evidence,
        contradictions=tuple(_contradiction(*pair) for pair in contradictions(evidence)),
        model_chances=_sorted_chances(own_chances),
        lora_chances=tuple((name, _sorted_chances(by_skip)) for name, by_skip in loras.items()),
        measured=tuple(measured.items()),
        prompted=prompted,
        clip=scores,
        notes=layer_notes(family),
        training=_training(model, own_chances, configs) if configs or loras else (),
        rows=counter.rows,
        seconds=round(time.monotonic() - began, 2),
    )


def _scorer(wanted: Wanted) -> Scorer | None:
    if wanted.clip and not wanted.request.prompt:
        raise SpecError("CLIP scores are of a prompt's pictures; give a prompt", field="clip")
    return Scorer.open(wanted.clip) if wanted.clip else None


def _contradiction(first: Evidence, second: Evidence) -> str:
    return f"{first.about}: {first.source} says {first.skip}, {second.source} says {second.skip}"


def _evidence_by_name(
    model: Model, wanted: Wanted, render: Render, extras: Extras, measured: Mapping[str, Trained]
) -> dict[str, list[Evidence]]:
    """Return the evidence on the model and on each LoRA: what the files say, then what was measured."""
    evidence = list(_on_file(model, extras))
    if render.loras and wanted.config:
        evidence += config_evidence(render.loras[-1].name, (wanted.config,), model.facts.family)
    evidence += [_as_evidence(name, trained) for name, trained in measured.items()]
    names = (model.facts.ref.name, *_names(render.loras))
    return {name: [item for item in evidence if item.about == name] for name in names}


def _ask_prompt(
    model: Model,
    wanted: Wanted,
    render: Render,
    extras: Extras,
    chances: Mapping[str, Mapping[int, float]],
    counter: RowCounter,
) -> Prompted:
    """Return what each Clip Skip does to the prompt, as shares of what the likeliest Clip Skips of training do."""
    likeliest = {name: max(by_skip, key=by_skip.__getitem__) for name, by_skip in chances.items()}
    question = Question(
        render=render,
        extras=extras,
        skips=wanted.skips,
        reference=likeliest[model.facts.ref.name],
        lora_references={ref.hash: likeliest[ref.name] for ref in render.loras},
    )
    return measure(model, question, tell=counter.add)


def _configs(wanted: Wanted, extras: Extras) -> tuple[TrainerConfig, ...]:
    """Return the trainer's configs: the given one, and those beside the LoRAs."""
    beside = (configs_of(lora.path, lora.metadata) for lora in extras.loras.values())
    return (*((wanted.config,) if wanted.config else ()), *itertools.chain.from_iterable(beside))


def advise_by_family(
    path: Path, asked: Request, *, measured: bool = False, allow_pickle: bool = False
) -> tuple[Advice, Family] | None:
    """Return the answer for a checkpoint of a family that has one Clip Skip for all (SD 2.x; SDXL with Pony, Illustrious and NoobAI),
    from its header alone. None for any other file, and where a prompt or LoRAs are to be measured on it, or `measured` asks for
    something else that takes an open model."""
    if asked.prompt or asked.loras or measured:
        return None
    identity = identify(read_allowed(path, allow_pickle=allow_pickle)[0])
    family = identity.family
    if identity.kind is not FileKind.CHECKPOINT or family not in (Family.SD2, Family.SDXL):
        return None
    own = family_evidence(path.stem, family)
    text = f"{own.source[0].upper()}{own.source[1:]}: it is the default there, so leave the setting alone"
    return Advice(
        model=path.stem,
        hash="",
        family=family.label,
        depth=family.depth,
        verdict=Verdict(answer=Answer.VALUE, skip=own.skip, sure=own.weight, text=text),
        evidence=(own,),
        contradictions=(),
        model_chances=_sorted_chances(combined([own], depth=family.depth)),
        lora_chances=(),
        measured=(),
        prompted=None,
        clip=None,
        notes=layer_notes(family),
        training=(),
        rows=0,
        seconds=0.0,
    ), family


def evidence_without_drawing(model: Model, render: Render, extras: Extras) -> dict[str, tuple[Evidence, ...]]:
    """Return for each file of a render, by its name, what it and the weights of its LoRAs say of the Clip Skip of its training."""
    names = (model.facts.ref.name, *_names(render.loras))
    weights = [_as_evidence(name, trained) for name, trained in _footprints(model, render, extras)]
    evidence = [*_on_file(model, extras), *weights]
    return {name: tuple(item for item in evidence if item.about == name) for name in names}


def _names(loras: Sequence[LoraRef]) -> Iterator[str]:
    return (ref.name for ref in loras)


def _sorted_chances(chances: Mapping[int, float]) -> tuple[tuple[int, float], ...]:
    return tuple((skip, round(chance, 4)) for skip, chance in chances.items())


def _training(model: Model, chances: Mapping[int, float], configs: Sequence[TrainerConfig]) -> tuple[str, ...]:
    """Return lines on training at the Clip Skip that the model was most probably trained at, or at its family's own."""
    family, best = model.facts.family, max(chances, key=lambda skip: chances[skip])
    known = chances[best] >= KNOWN
    return tuple(training_lines(best if known else family.value.default_skip, known, family, configs))


def evidence_of_checkpoint(facts: CheckpointFacts) -> Iterator[Evidence]:
    """Yield what a checkpoint's file, and the notes beside it, say of the Clip Skip that it was trained at."""
    source = facts.source
    yield from file_evidence(
        source.name, hashes=(source.sha256,), metadata=facts.metadata, is_lora=False, family=facts.family
    )
    yield from advised_evidence(source.name, read_hints(source.path))


def _on_file(model: Model, extras: Extras) -> Iterator[Evidence]:
    yield from evidence_of_checkpoint(model.facts)
    for lora in extras.loras.values():
        yield from file_evidence(lora.name, hashes=(), metadata=lora.metadata, is_lora=True, family=model.facts.family)
        yield from config_evidence(lora.name, configs_of(lora.path, lora.metadata), model.facts.family)
        yield from advised_evidence(lora.name, read_hints(lora.path))


def _measured(
    model: Model, wanted: Wanted, render: Render, extras: Extras, *, count: Callable[[int], None]
) -> Iterator[tuple[str, Trained]]:
    """Return what was trained at which Clip Skip: pictures tell of the last LoRA, or of the model where there is none."""
    if not wanted.images:
        yield from _footprints(model, render, extras)
    if wanted.images:
        pictures, side = read_pictures(wanted.images, model), model.facts.native_px
        square = replace(render, width=side, height=side)
        with model.with_loras(render.loras, extras) as reader:
            name = render.loras[-1].name if render.loras else model.facts.ref.name
            yield name, list(by_pictures(Probe.of(model, reader, square, count), pictures))[-1]
    elif _asks_drawings(model, wanted):
        renders = [replace(render, prompt=text, loras=(), seed=n) for n, text in enumerate(SCENES * 2)]
        with model.with_loras((), extras) as reader:
            yield (
                model.facts.ref.name,
                list(by_drawings(Probe.of(model, reader, render, count), renders[:DRAWINGS]))[-1],
            )


def _footprints(model: Model, render: Render, extras: Extras) -> Iterator[tuple[str, Trained]]:
    """Return what the weights of each LoRA say."""
    for ref in render.loras:
        lora = extras.loras[ref.hash]
        with model.with_loras((ref,), extras) as reader:
            trained = by_footprint(lora, reader, tag_texts(lora, render.prompt), skips=CANDIDATES)
        if trained is not None:
            yield lora.name, trained


def _since(model: Model, base: str, library: Library, *, allow_pickle: bool) -> Trained:
    """Return what was trained since the base."""
    path = find_model(base, hash=None, library=library)
    with model.with_loras((), Extras(loras={})) as reader:
        return by_difference(model.facts.source.path, path, reader, SCENES, skips=CANDIDATES, allow_pickle=allow_pickle)


def _asks_drawings(model: Model, wanted: Wanted) -> bool:
    """Return whether the model's own drawings are asked: where there is nothing better, and its family has no one Clip Skip."""
    return not (wanted.images or wanted.base or wanted.request.prompt) and model.facts.family not in FAMILIES


def _drawn_rows(render: Render) -> int:
    return render.steps * (2 if render.cfg_scale > 1 else 1)


def _scores(
    model: Model, scorer: Scorer, render: Render, extras: Extras, skips: Sequence[int], *, count: Callable[[int], None]
) -> ClipScores:
    """Draw the prompt at each Clip Skip, everything else the same, and score the pictures."""
    renders = [replace(render, clip_skip=ClipSkip(skip), negative_clip_skip=None) for skip in skips]
    pictures: dict[int, NDArray[np.uint8]] = {}
    for event in model.draw(renders, extras):
        if isinstance(event, Drawn):
            pictures[event.index] = event.pixels
        else:
            count(len(event.indices) * _drawn_rows(render) // render.steps)
    drawn = [pictures[index] for index in range(len(skips))]
    return clip_scores(scorer, drawn, skips=skips, prompt=render.prompt, phrases=phrases_of(render.prompt))


def _as_evidence(name: str, trained: Trained) -> Evidence:
    doubts = {
        "captioned pictures": "the pictures may be of another kind than those it was trained on",
        "its own drawings": "a short fine-tune may still draw as its base does",
        "the change from its base": "a merge of several models carries several marks",
        "the LoRA's weights": "weights that were merged or resized may have lost the mark",
    }
    return Evidence(
        about=name,
        source=f"measured on {trained.way} ({trained.looks} looks, {trained.rows} UNet evaluations)",
        skip=trained.skip,
        weight=trained.sure,
        doubt=doubts[trained.way],
    )


def tag_texts(lora: Lora, prompt: str) -> tuple[str, ...]:
    """Return texts like the LoRA's training captions: its tags, as often as they were; else the prompt and common scenes."""
    counts = tag_counts(lora.metadata)
    if not counts:
        return (*([prompt] if prompt else []), *SCENES)
    rng = random.Random(0)
    drawn = (rng.choices(list(counts), list(counts.values()), k=TAGS) for _ in range(TEXTS))
    return tuple(", ".join(dict.fromkeys(tags)) for tags in drawn)


def whole_skips(skips: Sequence[ClipSkip], *, depth: int) -> tuple[int, ...]:
    """Return the layers to compare. Raises SpecError for one between two layers or beyond the model's."""
    for skip in skips:
        skip.check(depth)
        if skip.fraction:
            raise SpecError(f"clip skip {skip} lies between two layers; advise compares whole ones", field="clip_skip")
    return tuple(dict.fromkeys(skip.shallow for skip in skips))
