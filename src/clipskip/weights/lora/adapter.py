"""What peft keeps outside the weights: alpha, in the metadata that diffusers writes or in a neighbouring JSON file."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clipskip.errors import ClipskipError
from clipskip.weights.container import Header, read_json

METADATA = "lora_adapter_metadata"
NEIGHBOUR = "adapter_config.json"
JSON_LIMIT = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterConfig:
    """The part of peft's LoraConfig that scales a LoRA."""

    settings: Mapping[str, object]
    source: str
    """Where it was found, for messages."""

    def alpha(self, module: str) -> float | None:
        """The alpha of a module by its canonical full name, or None when the settings do not tell."""
        part, _, local = module.partition(".")
        pattern = self._setting(part, "alpha_pattern")
        found = self._setting(part, "lora_alpha")
        if isinstance(pattern, Mapping):
            found = next((alpha for key, alpha in pattern.items() if _ends(local, str(key))), found)
        if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
            return None
        return float(found)

    def scale(self, module: str, rank: int) -> float | None:
        """What peft multiplies a module's change by, or None when the settings do not tell."""
        alpha = self.alpha(module)
        if alpha is None:
            return None
        stabilized = self._setting(module.partition(".")[0], "use_rslora")
        return alpha / (math.sqrt(rank) if stabilized is True else rank)

    def _setting(self, part: str, name: str) -> object:
        """diffusers writes `unet.lora_alpha`; peft alone, for one model, `lora_alpha`."""
        return self.settings.get(f"{part}.{name}", self.settings.get(name))


def _ends(module: str, key: str) -> bool:
    """Whether peft's pattern names this module; read as a plain name, since a file's regex may never end."""
    return module == key or module.endswith(f".{key.removeprefix('text_model.')}")


def read_adapter(header: Header) -> AdapterConfig | None:
    """The adapter's configuration, from the metadata or from peft's JSON beside its own file name; None without."""
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
        return AdapterConfig(settings=read_json(path, limit=JSON_LIMIT), source=path.name)
    except ClipskipError:
        return None
