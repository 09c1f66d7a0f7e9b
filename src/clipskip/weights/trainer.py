"""A trainer's config in; the Clip Skip that it trains at, in the trainer's own words and in ours, out.

kohya's sd-scripts (`--config_file`, TOML, whose sections count for nothing: library/train_util.py read_config_from_file), its GUI
(JSON, where 0 is not set: kohya_gui/lora_gui.py) and OneTrainer (JSON, where what is not named is 0: modules/util/config/TrainConfig.py;
`ot_config` in a LoRA's metadata is the same).
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from clipskip.errors import NotFound, SpecError, WrongKind
from clipskip.spec import Dialect, Family, translate

LARGEST = 4_000_000
"""Bytes of a config."""
MOST_FILES = 500
"""Files of a folder that are looked at."""
KOHYA = {"pretrained_model_name_or_path", "network_module", "network_dim", "output_name", "train_data_dir", "LoRA_type"}
"""Settings of which a kohya config has at least one."""
DATASET = {"general", "datasets"}
"""Tables of kohya's dataset config, beside which it has nothing."""
ONETRAINER_FAMILIES = (
    ("STABLE_DIFFUSION_XL", Family.SDXL),
    ("STABLE_DIFFUSION_2", Family.SD2),
    ("STABLE_DIFFUSION_15", Family.SD1),
)
"""How the names of its model types begin."""
TIME = r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d"
Values = Mapping[str, Any]  # a stranger's file: every field is checked where it is read


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerConfig:
    """The facts of a trainer's config that matter here."""

    path: Path
    tool: Dialect
    """Dialect.KOHYA or Dialect.ONETRAINER."""
    values: tuple[int | None, ...] = (None,)
    """The setting as it counts there, for each text encoder that it names; None is not set."""
    is_dataset: bool = False
    """Whether it is kohya's dataset config, which has no Clip Skip."""
    family: Family | None = None
    """What it trains, where it says so."""
    output: str = ""
    """The name of the files that it writes, without ending."""
    words: tuple[str, ...] = ()
    """That its captions begin with: kohya's class_tokens."""

    @property
    def said(self) -> str:
        """The setting as the file has it."""
        if self.tool is Dialect.KOHYA:
            return "no clip_skip" if self.values[0] is None else f"clip_skip = {self.values[0]}"
        names = ("text_encoder_layer_skip", "text_encoder_2_layer_skip")
        return ", ".join(f"{name} = {value or 0}" for name, value in zip(names, self.values, strict=False))

    def trained_at(self, family: Family) -> tuple[int | None, str]:
        """Return the Clip Skip that it trains a family at, and what to know of it; None where it is none, or one for each encoder."""
        if self.is_dataset:
            return None, "it is the dataset config, which has no Clip Skip; the one that trains has (--config_file)"
        if self.tool is Dialect.KOHYA and family is Family.SDXL:
            note = "" if self.values[0] is None else "which sd-scripts does not use on SDXL"
            return 2, note
        both = self.values if family is Family.SDXL else self.values[:1]
        try:
            read = [translate(None if value is None else value, self.tool, family=family) for value in both]
        except SpecError as error:
            return None, f"which trains at no Clip Skip: {error}"
        skips = [config.skip for config in read]
        if len(set(map(str, skips))) > 1:
            return None, f"which is Clip Skip {skips[0]} of CLIP-L and {skips[-1]} of OpenCLIP-bigG"
        return int(str(skips[0])), read[0].remark


def read_trainer_config(path: Path) -> TrainerConfig:
    """Return the config in a file; WrongKind for a file that is none."""
    try:
        if path.stat().st_size > LARGEST:
            raise WrongKind(
                f"{path.name} is too large for a trainer's config; give its .toml or .json", field="trainer_config"
            )
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise NotFound(f"{path}: {error.strerror or error}; give a trainer's config", field="trainer_config") from None
    except UnicodeDecodeError:
        raise WrongKind(
            f"{path.name} is not a text file; give a trainer's config, .toml or .json", field="trainer_config"
        ) from None
    config = parse_config(text, path)
    if config is None:
        raise WrongKind(
            f"{path.name} is not a config of kohya's sd-scripts, of its GUI or of OneTrainer; give one of those",
            field="trainer_config",
        )
    return config


def parse_config(text: str, path: Path) -> TrainerConfig | None:
    """Return the config in a text; None where it is none."""
    try:
        values = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or not values:
        return None
    if text.lstrip().startswith("{"):
        return _onetrainer(values, path) or _kohya(values, path, gui=True)
    if values.keys() <= DATASET:
        return TrainerConfig(path=path, tool=Dialect.KOHYA, is_dataset=True, words=tuple(_class_tokens(values)))
    flat = {name: value for name, value in values.items() if not isinstance(value, dict)}
    for section in values.values():
        flat |= section if isinstance(section, dict) else {}
    return _kohya(flat, path, gui=False)


def configs_beside(lora: Path, *, output_name: str = "") -> tuple[TrainerConfig, ...]:
    """Return the configs of a LoRA's training that lie beside it: those that name its file as what they write, and the last that
    OneTrainer put into its workspace before it saved the file."""
    names = {name for name in (lora.stem, output_name, re.sub(r"-(step)?\d{6,8}$", "", lora.stem)) if name}
    beside = [config for config in _configs_in(lora.parent) if config.output in names or config.path.stem == lora.stem]
    return (*beside, *_of_workspace(lora))


def _of_workspace(lora: Path) -> Iterator[TrainerConfig]:
    """OneTrainer: workspace/config/PREFIXtime.json beside workspace/save/PREFIXtime-save-...safetensors."""
    saved = re.fullmatch(rf"(.*?)({TIME})-save-.*", lora.stem)
    folder = lora.parent.parent / "config"
    if saved is None or not folder.is_dir():
        return
    times = (
        (re.fullmatch(rf"{re.escape(saved[1])}({TIME})", config.path.stem), config) for config in _configs_in(folder)
    )
    before = [(time[1], config) for time, config in times if time and time[1] <= saved[2]]
    if before:
        yield max(before, key=lambda pair: pair[0])[1]


def _configs_in(folder: Path) -> Iterator[TrainerConfig]:
    files = (path for path in folder.iterdir() if path.suffix in (".toml", ".json") and path.is_file())
    for path in sorted(islice(files, MOST_FILES)):
        try:
            yield read_trainer_config(path)
        except (NotFound, WrongKind):
            continue


def _kohya(values: Values, path: Path, *, gui: bool) -> TrainerConfig | None:
    if not values.keys() & KOHYA:
        return None
    number = _int_or_none(values.get("clip_skip"))
    family = None
    if gui:
        number = number or None
        family = Family.SDXL if values.get("sdxl") is True else Family.SD2 if values.get("v2") is True else None
    elif values.get("v2") is True:
        family = Family.SD2
    return TrainerConfig(
        path=path, tool=Dialect.KOHYA, values=(number,), family=family, output=_text(values.get("output_name"))
    )


def _onetrainer(values: Values, path: Path) -> TrainerConfig | None:
    kind = values.get("model_type")
    if not isinstance(kind, str) or not {"training_method", "text_encoder", "unet"} & values.keys():
        return None
    family = next((family for start, family in ONETRAINER_FAMILIES if kind.startswith(start)), None)
    names = (
        ("text_encoder_layer_skip", "text_encoder_2_layer_skip")
        if family is Family.SDXL
        else ("text_encoder_layer_skip",)
    )
    output = _text(values.get("output_model_destination"))
    return TrainerConfig(
        path=path,
        tool=Dialect.ONETRAINER,
        values=tuple(_int_or_none(values.get(name)) or 0 for name in names),
        family=family,
        output=re.sub(r"\.(safetensors|ckpt)$", "", output.replace("\\", "/").rpartition("/")[2]),
    )


def _class_tokens(values: Values) -> Iterator[str]:
    """Yield the class tokens of every subset of a dataset config."""
    datasets = values.get("datasets")
    for dataset in datasets if isinstance(datasets, list) else []:
        subsets = dataset.get("subsets") if isinstance(dataset, dict) else None
        for subset in subsets if isinstance(subsets, list) else []:
            words = _text(subset.get("class_tokens")) if isinstance(subset, dict) else ""
            if words:
                yield words


def _int_or_none(value: object) -> int | None:
    """Return a whole number, which the GUI also writes as text."""
    text = str(value).strip().removesuffix(".0") if isinstance(value, str | int | float) else ""
    return int(text) if not isinstance(value, bool) and re.fullmatch(r"-?[0-9]{1,3}", text) else None


def _text(value: object) -> str:
    return " ".join(value.split())[:200] if isinstance(value, str) else ""
