"""Evidence in files and trainers' configs for the Clip Skip that something was trained at, with its weight and doubt.

A weight is the probability that the saying is right. Those of metadata and names are judgements, not measurements;
docs/advise.md says so.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

import numpy as np

from clipskip.spec import ClipSkip, Dialect, Family, to_dialect
from clipskip.weights import SkipHint, TrainerConfig, configs_beside, parse_config
from clipskip.weights.lora import trained_skip, unused_skips

STATED, HASHED, BASED, NAMED = 0.9, 0.97, 0.75, 0.7
ADVISED, SHOWN, MOST_SHOWN = 0.6, 0.04, 0.7
"""A value that a maker advises; what each example picture adds to a half, and where that ends."""
DEEPEST = 12

PUBLISHED: Mapping[str, tuple[str, int]] = {
    "6ce0161689": ("Stable Diffusion 1.5 (v1-5-pruned-emaonly.safetensors)", 1),
    "cc6cb27103": ("Stable Diffusion 1.5 (v1-5-pruned-emaonly.ckpt)", 1),
    "1a189f0be6": ("Stable Diffusion 1.5 (v1-5-pruned.safetensors)", 1),
    "e1441589a6": ("Stable Diffusion 1.5 (v1-5-pruned.ckpt)", 1),
    "fe4efff1e1": ("Stable Diffusion 1.4 (sd-v1-4.ckpt)", 1),
    "89d59c3dde": ("NovelAI's animefull-final-pruned", 2),
    "22fa233c2d": ("NovelAI's animesfw", 2),
    "543bcbc212": ("Anything V3.0, from NovelAI's model", 2),
    "69528490df": ("anything-v4.0-pruned, from NovelAI's model", 2),
}
"""AutoV2 hashes of models whose training is published: Stable Diffusion 1.x's conditions on CLIP's last layer (Rombach
et al. 2022, the v1 model card), NovelAI's on the one before it (its blog of October 2022)."""

NAMES: Sequence[tuple[str, str, int]] = (
    (
        r"animefull|animesfw|novel ?ai|\bnai\b|anything ?v?\d|abyss ?orange|\baom\d|counterfeit|orange ?mix"
        r"|pastel ?mix|meina|7th ?anime|grape?fruit|any ?lora",
        "its name is that of NovelAI's model or one that was made from it",
        2,
    ),
    (
        r"v1 ?[45] ?(pruned|emaonly)|sd ?v?1 ?[45]\b|stable ?diffusion ?v?1 ?[45]|realistic ?vision|\bphoton|cyber ?realistic",
        "its name is that of Stable Diffusion 1.x or a photographic model made from it",
        1,
    ),
)
"""(Pattern over the name in small letters with spaces for its marks, what that means, Clip Skip)."""

FAMILIES: Mapping[Family, str] = {
    Family.SD2: "SD 2.x was trained on the layer before the last",
    Family.SDXL: "SDXL, and so Pony, Illustrious and NoobAI, was trained on the layer before the last",
}
"""Stability AI's configurations: v2-inference.yaml and sd_xl_base.yaml say `layer: penultimate` and `layer: hidden`, 11."""


UNNORMED = (
    "Clip Skip 1 on SDXL reads each encoder's last layer without the final norm, which no SDXL model was trained on: its numbers "
    "show how far off that is"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One saying."""

    about: str
    """The file: its name as users call it."""
    source: str
    """Where it stands or how it was found."""
    skip: int
    weight: float
    """0 to 1: how probable it is that this is right."""
    doubt: str
    """Why it may be wrong."""


def file_evidence(
    name: str, *, hashes: Sequence[str], metadata: Mapping[str, str], is_lora: bool, family: Family | None = None
) -> tuple[Evidence, ...]:
    """Return the evidence of a file's metadata, hash and name. `hashes` are AutoV2 (or longer); for a LoRA, those of its base."""
    if family is Family.SDXL or (family is Family.SD2 and not metadata.get("ss_clip_skip")):
        said = family_evidence(name, family)
        return (replace(said, source="; ".join([said.source, *unused_skips(metadata)])),)
    evidence: list[Evidence] = []
    stated = trained_skip(metadata, family)
    if stated.clip_skip is not None:
        evidence.append(
            Evidence(
                about=name,
                source=f"its metadata: {stated.source}",
                skip=stated.clip_skip,
                weight=STATED,
                doubt="metadata is copied when models are merged, and can be edited",
            )
        )
    base = _base_evidence(name, hashes=hashes, metadata=metadata, is_lora=is_lora)
    return (*evidence, *([base] if base else ()))


def advised_evidence(name: str, hints: Sequence[SkipHint]) -> tuple[Evidence, ...]:
    """Return the advice of the notes beside a file: a maker's words, or the value of most of the example pictures."""
    said = [hint for hint in hints if not hint.pictures]
    shown = max((hint for hint in hints if hint.pictures), key=lambda hint: hint.pictures, default=None)
    sources = [(hint, hint.source, ADVISED) for hint in said]
    if shown is not None:
        total = sum(hint.pictures for hint in hints)
        share = f"{shown.source}: {shown.pictures} of {total} that say one"
        sources.append((shown, share, min(MOST_SHOWN, 0.5 + SHOWN * (2 * shown.pictures - total))))
    return tuple(
        Evidence(
            about=name,
            source=source,
            skip=hint.clip_skip,
            weight=weight,
            doubt="makers advise what they like best, and pages copy this value from one another",
        )
        for hint, source, weight in sources
        if weight > 0.5
    )


def family_evidence(name: str, family: Family) -> Evidence:
    """Return the evidence of a family whose models were all trained at one Clip Skip, whatever they are called."""
    return Evidence(
        about=name,
        source=FAMILIES[family],
        skip=family.value.default_skip,
        weight=HASHED,
        doubt="a model may have been trained otherwise and not say so",
    )


def layer_notes(family: Family) -> tuple[str, ...]:
    """Return notes on what a Clip Skip of a family reads that its number does not show."""
    return () if family.value.final_norm else (UNNORMED,)


def _base_evidence(name: str, *, hashes: Sequence[str], metadata: Mapping[str, str], is_lora: bool) -> Evidence | None:
    """Yield evidence from the model itself, or from the one that a LoRA was trained on."""
    own = metadata.get("ss_sd_model_name", "") if is_lora else name
    digits = (metadata.get("ss_new_sd_model_hash", ""),) if is_lora else hashes
    weight = BASED if is_lora else HASHED
    for digest in digits:
        if digest[:10].lower() in PUBLISHED:
            whose, skip = PUBLISHED[digest[:10].lower()]
            what = f"it was trained on {whose}, by hash" if is_lora else f"it is {whose}, by its hash"
            doubt = "a LoRA may be trained at another Clip Skip than its base" if is_lora else "none worth naming"
            return Evidence(about=name, source=what, skip=skip, weight=weight, doubt=doubt)
    plain = re.sub(r"[\W_]+", " ", own.lower())
    for pattern, meaning, skip in NAMES:
        if re.search(pattern, plain):
            source = f"it was trained on {own}: {meaning}" if is_lora else meaning
            return Evidence(
                about=name,
                source=source,
                skip=skip,
                weight=NAMED,
                doubt="names are given freely, and merges mix both kinds",
            )
    return None


def combined(evidence: Sequence[Evidence], *, depth: int = DEEPEST) -> dict[int, float]:
    """Return each Clip Skip's probability when the sayings are taken as independent and nothing was known before."""
    every = range(1, depth + 1)
    if not evidence:
        return dict.fromkeys(every, 1 / depth)
    votes = (
        np.array([item.weight if skip == item.skip else (1 - item.weight) / (depth - 1) for skip in every])
        for item in evidence
        if item.skip <= depth
    )
    product = reduce(np.multiply, votes, np.ones(depth))
    return dict(zip(every, (product / product.sum()).tolist(), strict=True))


def contradictions(evidence: Sequence[Evidence]) -> tuple[tuple[Evidence, Evidence], ...]:
    """Pairs of sayings about one file that cannot both be right."""
    return tuple(
        (item, other)
        for at, item in enumerate(evidence)
        for other in evidence[at + 1 :]
        if item.about == other.about and item.skip != other.skip
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ToWrite:
    """A setting of a trainer for the Clip Skip that a model was trained at."""

    trainer: str
    setting: str
    """As it is typed into the config; empty where it is best left out."""
    note: str = ""


def configs_of(path: Path, metadata: Mapping[str, str]) -> tuple[TrainerConfig, ...]:
    """Return the configs that a LoRA was trained with, as far as they are in its metadata or lie beside it."""
    inside = parse_config(metadata.get("ot_config", ""), path)
    return (*([inside] if inside else ()), *configs_beside(path, output_name=metadata.get("ss_output_name", "")))


def config_evidence(name: str, configs: Sequence[TrainerConfig], family: Family) -> Iterator[Evidence]:
    """Yield the evidence of the configs that a LoRA was trained with."""
    for config in configs:
        skip, note = config.trained_at(family)
        if skip is not None and config.family in (None, family):
            yield Evidence(
                about=name,
                source=", ".join(
                    filter(None, (f"{config.tool.label}'s config {config.path.name}: {config.said}", note))
                ),
                skip=skip,
                weight=STATED,
                doubt="a config may have been changed after the training",
            )


def to_write(skip: int, family: Family) -> tuple[ToWrite, ...]:
    """Return what to write into each trainer's config to train at a Clip Skip."""
    kohya, onetrainer = "kohya sd-scripts", "OneTrainer"
    if family is Family.SDXL:
        first = ToWrite(
            trainer=kohya, setting="", note="leave clip_skip out: on SDXL it is not used, and 2 is what is read"
        )
    else:
        number = to_dialect(ClipSkip(skip), Dialect.KOHYA, family=family)
        usual = " (the same as leaving it out)" if skip == family.value.default_skip else ""
        first = ToWrite(
            trainer=kohya, setting=f"clip_skip = {number}", note=f"--clip_skip {number} on the command line{usual}"
        )
    layer = to_dialect(ClipSkip(skip), Dialect.ONETRAINER, family=family)
    second = f', "text_encoder_2_layer_skip": {layer}' if family is Family.SDXL else ""
    return first, ToWrite(
        trainer=onetrainer,
        setting=f'"text_encoder_layer_skip": {layer}{second}',
        note="the layers that are left out beyond the model's own",
    )


def training_lines(skip: int, sure: bool, family: Family, configs: Sequence[TrainerConfig]) -> Iterator[str]:
    """Yield what to write, and how the configs differ from it."""
    yield ""
    known = (
        "which this model was most probably trained at"
        if sure
        else "where this family begins: this model's own is not known"
    )
    yield f"To train on this model, use Clip Skip {skip}, {known}:"
    for write in to_write(skip, family):
        yield f"  {write.trainer}: {write.setting or write.note}{f' ({write.note})' if write.setting else ''}"
    for config in configs:
        own, note = config.trained_at(family)
        if config.is_dataset:
            yield f"  {config.path.name}: {note}."
        elif config.family not in (None, family):
            yield f"  {config.path.name} trains another family than {family.label}."
        else:
            read = f"Clip Skip {own}" if own is not None else "no one Clip Skip"
            judged = "as it should be" if own == skip else f"not {skip}"
            yield f"  {config.path.name} has {config.said}{f', {note}' if note else ''}: {read}, {judged}."
