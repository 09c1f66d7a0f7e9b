"""The alpha that peft keeps outside the weights: in the metadata that diffusers writes, or in a JSON file beside it."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clipskip.errors import ClipskipError
from clipskip.weights.container import Header, read_json_file

METADATA = "lora_adapter_metadata"
NEIGHBOUR = "adapter_config.json"
JSON_LIMIT = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterConfig:
    """The part of peft's LoraConfig that scales a LoRA."""

    settings: Mapping[str, object]
    source: str
    """Where the settings were found, for messages."""

    def alpha(self, module: str) -> float | None:
        """Return the alpha of a module by its canonical full name; None when the settings do not tell."""
        part, _, local = module.partition(".")
        pattern = self._setting(part, "alpha_pattern")
        stated = self._setting(part, "lora_alpha")
        if isinstance(pattern, Mapping):
            stated = next((value for key, value in pattern.items() if _ends(local, str(key))), stated)
        if isinstance(stated, bool) or not isinstance(stated, int | float) or not math.isfinite(stated):
            return None
        return float(stated)

    def scale(self, module: str, rank: int) -> float | None:
        """Return the factor that peft applies to a module's change; None when the settings do not tell."""
        alpha = self.alpha(module)
        if alpha is None:
            return None
        stabilized = self._setting(module.partition(".")[0], "use_rslora")
        return alpha / (math.sqrt(rank) if stabilized is True else rank)

    def _setting(self, part: str, name: str) -> object:
        """Return a setting: diffusers writes `unet.lora_alpha`, peft alone, for one model, `lora_alpha`."""
        return self.settings.get(f"{part}.{name}", self.settings.get(name))


def _ends(module: str, key: str) -> bool:
    """Return whether peft's pattern names this module. It is read as a plain name, because a file's regex may never end."""
    return module == key or module.endswith(f".{key.removeprefix('text_model.')}")


def read_adapter(header: Header) -> AdapterConfig | None:
    """Return the adapter's configuration, from the metadata or from peft's JSON beside the file; None without
    either."""
    text = header.metadata.get(METADATA)
    if text is not None and len(text) <= JSON_LIMIT:
        try:
            settings = json.loads(text)
        except (ValueError, RecursionError):
            settings = None
        if isinstance(settings, dict):
            return AdapterConfig(settings=settings, source=f"its metadata {METADATA}")
    neighbour = header.path.with_name(NEIGHBOUR)
    if header.path.name == "adapter_model.safetensors" and neighbour.is_file():
        return _read_neighbour(neighbour)
    return None


def _read_neighbour(path: Path) -> AdapterConfig | None:
    try:
        return AdapterConfig(settings=read_json_file(path, limit=JSON_LIMIT), source=path.name)
    except ClipskipError:
        return None
