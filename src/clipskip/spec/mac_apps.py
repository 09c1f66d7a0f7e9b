"""Records of Draw Things and Mochi Diffusion, in everybody's words.

Read in Draw Things' Libraries/LocalImageGenerator/Sources/ImageConverter.swift (it writes a JSON comment and a line of
settings) and Mochi Diffusion's captions.
"""

import re
from collections.abc import Mapping
from typing import Any

from clipskip.errors import SpecError
from clipskip.spec.record_reader import Record, Said, disagree, plain_key, says_something
from clipskip.spec.sampler_names import other_names

NAMES: Mapping[str, str] = {
    "c": "prompt", "uc": "negative_prompt", "scale": "cfg_scale", "refiner_start": "refiner_switch_at",
}  # fmt: skip
NOISE: Mapping[str, str] = {"torchcpucompatible": "CPU", "nvidiagpucompatible": "GPU"}
"""Draw Things' seed modes that draw the noise of others; its Legacy and Scale Alike are its own."""
MOCHI: Mapping[str, str] = {
    "include in image": "prompt", "exclude from image": "negative_prompt", "guidance scale": "cfg_scale",
    "scheduler": "sampler",
}  # fmt: skip

LABELS: Mapping[str, str] = {"Seed Mode": "seed_mode", "Refiner Start": "refiner_start"}
"""Keys of its line of settings that its JSON has in other words."""

_LORA = re.compile(r"LoRA (?:([0-9]+) )?(Model|Weight)")
_PAIR = re.compile(r"([A-Z][A-Za-z ]{2,30}): (.*)", re.DOTALL)


def draw_things(record: Record) -> Record:
    """Draw Things' JSON: short names for prompts and guidance, LoRAs by file, the noise by the seed's mode."""
    fields = {NAMES.get(key, key): value for key, value in record.items()}
    fields = _with_v2(fields)
    if "lora" in fields:
        fields["loras"] = _loras(fields.pop("lora"))
    mode = fields.get("seed_mode")
    if isinstance(mode, str) and plain_key(mode) in NOISE:
        fields["rng"] = NOISE[plain_key(fields.pop("seed_mode"))]
    return fields


def _with_v2(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of `v2`, in the app's own words, that the record has nowhere else."""
    second = fields.get("v2")
    if not isinstance(second, dict):
        return fields
    loras = second.get("loras")
    if not says_something(fields.get("lora")) and says_something(loras) and isinstance(loras, list):
        fields["lora"] = [
            {("model" if key == "file" else key): value for key, value in entry.items()}
            if isinstance(entry, dict)
            else entry
            for entry in loras
        ]
    if says_something(second.get("clipSkip")):
        if not says_something(fields.get("clip_skip")):
            fields["clip_skip"] = second["clipSkip"]
        elif str(fields["clip_skip"]) != str(second["clipSkip"]):
            raise disagree(
                Said("clip_skip", fields["clip_skip"]), Said("v2 clipSkip", second["clipSkip"]), field="clip_skip"
            )
    return fields


def draw_things_fields(fields: Mapping[str, str], prompt: str) -> tuple[Record, str, str]:
    """Return the same of its line of settings: the pairs, the prompt and the negative prompt, which is a line that starts with -."""
    settings: dict[str, object] = {}
    slots: dict[str, dict[str, object]] = {}
    for key, value in fields.items():
        if match := _LORA.fullmatch(key):
            slots.setdefault(match[1] or "1", {})[match[2].lower()] = value
        else:
            settings[LABELS.get(key, key)] = value
    if slots:
        settings["lora"] = list(slots.values())
    start = settings.get("refiner_start")
    if isinstance(start, str) and start.endswith("%"):
        settings["refiner_start"] = Said("Refiner Start", start[:-1]).number() / 100
    before, sign, negative = prompt.rpartition("\n-")
    return draw_things(settings), (before if sign else prompt), negative if sign else ""


def _loras(value: object) -> object:
    """Return its LoRAs by name; SpecError for one that the refiner alone has."""
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        Said("lora", value).nonsense("a list of LoRAs with their weights")
    named = []
    for entry in value:
        rest = {("name" if key == "model" else key): inner for key, inner in entry.items()}
        if rest.get("mode") == "refiner":
            raise SpecError(
                f"this Draw Things record puts the LoRA {str(rest.get('name'))[:60]} on its refiner alone, which cannot be "
                "repeated",
                field="lora",
            )
        named.append(
            {key: inner for key, inner in rest.items() if (key, inner) not in (("mode", "all"), ("mode", "base"))}
        )
    return named


def mochi_names(sampler: str, schedule: str) -> tuple[str, str]:
    """A1111's name of its sampler: DPM-Solver++ is the multistep one of order 2."""
    return other_names("DPM++ 2M" if sampler == "DPM-Solver++" else sampler, schedule)


def draw_things_names(sampler: str, schedule: str) -> tuple[str, str]:
    """A1111's names of its samplers, which hold the schedule: AYS is Align Your Steps, Trailing is SGM Uniform."""
    name, kind = sampler.strip(), schedule
    for end, label in ((" AYS", "Align Your Steps"), (" Trailing", "SGM Uniform")):
        if name.endswith(end):
            name, kind = name.removesuffix(end), label
    return other_names({"Euler Ancestral": "Euler a", "Euler A": "Euler a"}.get(name, name), kind)


def mochi(text: str) -> Record | None:
    """Mochi Diffusion's caption: "Include in Image: a fox; Model: sd; Seed: 42; ...", or None for another text."""
    if not text.startswith("Include in Image: ") or "; Generator: " not in text:
        return None
    fields: dict[str, str] = {}
    name = "prompt"
    for part in text.split("; "):
        pair = _PAIR.fullmatch(part)
        label = MOCHI.get(pair[1].lower(), pair[1]) if pair else ""
        if pair and label not in fields:
            name = label
            fields[name] = pair[2]
        else:
            fields[name] += f"; {part}"
    return fields
