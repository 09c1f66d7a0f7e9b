"""Configs of trainers in; what they say of the Clip Skip that a LoRA was trained at, and what to write into them, out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipskip.advise.evidence import STATED, Evidence
from clipskip.spec import ClipSkip, Dialect, Family, to_dialect
from clipskip.weights.trainer import TrainerConfig, config_of, configs_beside


@dataclass(frozen=True, slots=True, kw_only=True)
class ToWrite:
    """A setting of a trainer for the Clip Skip that a model was trained at."""

    trainer: str
    setting: str
    """As it is typed into the config; empty where it is best left out."""
    note: str = ""


def configs_of(path: Path, metadata: Mapping[str, str]) -> tuple[TrainerConfig, ...]:
    """The configs that a LoRA was trained with, as far as they are in its metadata or lie beside it."""
    inside = config_of(metadata.get("ot_config", ""), path)
    return (*([inside] if inside else ()), *configs_beside(path, output_name=metadata.get("ss_output_name", "")))


def config_evidence(name: str, configs: Sequence[TrainerConfig], family: Family) -> Iterator[Evidence]:
    """What the configs say that a LoRA was trained at."""
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
    """What to write into each trainer's config to train at a Clip Skip."""
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
    """What to write, and how the configs differ from it."""
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
