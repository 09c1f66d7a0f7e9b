"""Records of Fooocus and of its forks RuinedFooocus and Fooocus-MRE, with their own ways of saying things in everybody's.

Read in Fooocus' modules/meta_parser.py and private_logger.py, RuinedFooocus' modules/async_worker.py and image_pipeline.py,
and Fooocus-MRE's modules/async_worker.py.
"""

import json
import re
from typing import Any

from clipskip.errors import SpecError
from clipskip.spec.record_reader import Record, Said, plain_key, says_something
from clipskip.spec.resources import NO_FILE

PERFORMANCE = {"speed": 30, "quality": 60}
"""Steps of Fooocus' presets; its others add a LoRA of their own."""
SWITCHES = ("refiner_switch", "Refiner Switch")
NOT_BY_NOISE = "by the share of the steps, where this program goes by the noise that is gone"

_PACKED = re.compile(r"\s*([-+0-9.]+)\s+-\s+(.+)", re.DOTALL)
"""RuinedFooocus' LoRA: weight and name in one text."""
_OLD_TAG = re.compile(r"<([^<>:]+):([^<>]*)>")
_TAG = re.compile(r"<lora:([^<>:]+):?([^<>:]*)>")
_SLOT = re.compile(r"l([0-9])")


def fooocus(record: Record) -> Record:
    """Fooocus: steps by the name of a preset; MRE's slots l1 and w1, and a Clip Skip that counts as ComfyUI does."""
    fields = dict(record)
    for key in ("Performance", "performance"):
        preset = fields.get(key)
        if isinstance(preset, str) and not {plain_key(name) for name in fields} & {"steps"}:
            if preset.lower() not in PERFORMANCE:
                raise SpecError(
                    f"this Fooocus record draws with performance {preset[:40]!r}, which adds a LoRA that it does not name; "
                    "records of Speed and Quality can be repeated",
                    field="lora",
                )
            fields["steps"] = PERFORMANCE[preset.lower()]
            del fields[key]
    slots = [match for key in record if (match := _SLOT.fullmatch(key))]
    loras = [[fields.pop(slot[0]), fields.pop(f"w{slot[1]}", 1.0)] for slot in slots]
    if named := [pair for pair in loras if str(pair[0]).lower() not in NO_FILE]:
        fields["loras"] = [*_lora_list(fields), *named]
    if "base_clip_skip" in fields:
        fields["clipstopatlayer"] = fields.pop("base_clip_skip")
    return _refined(untagged(fields))


def ruined_fooocus(record: Record) -> Record:
    """RuinedFooocus: LoRAs as [hash, "weight - name"], once as "Loras:<name:weight>"; a Clip Skip of 1 is the model's own."""
    fields = dict(record)
    loras = fields.get("loras")
    if isinstance(loras, str):
        loras = [[name, weight] for name, weight in _OLD_TAG.findall(loras) if name.strip().lower() not in NO_FILE]
        if not loras and "<" not in str(fields["loras"]):
            fields.pop("loras")
    if isinstance(loras, list):
        fields["loras"] = [_unpacked(entry) for entry in loras]
    if fields.get("clip_skip") in (1, "1") and not isinstance(fields["clip_skip"], bool):
        del fields["clip_skip"]
    return _refined(untagged(fields))


def _unpacked(entry: object) -> object:
    """Return a LoRA of RuinedFooocus as Fooocus has it: name, weight, hash."""
    if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str):
        packed = _PACKED.fullmatch(entry[1])
        if packed is not None:
            return [packed[2], packed[1], entry[0]]
    return entry


def _lora_list(fields: dict[str, Any]) -> list[object]:
    loras = fields.get("loras") or []
    if not isinstance(loras, list):
        Said("loras", loras).nonsense("a list of names with their weights")
    return loras


def untagged(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the prompts without A1111's LoRA tags, which these tools take out of them; those that no list has join it."""
    listed = json.dumps(
        [v for key, v in fields.items() if "lora" in key.lower() and "hash" not in key.lower()], default=str
    )
    tagged: list[list[str]] = []

    def taken(tag: re.Match[str]) -> str:
        if tag[1].strip() not in listed:
            tagged.append([tag[1].strip(), tag[2] or "1"])
        return ""

    for key in ("prompt", "Prompt", "negative_prompt", "Negative Prompt", "Negative"):
        if isinstance(fields.get(key), str):
            fields[key] = _TAG.sub(taken, fields[key]).strip()
    return fields | {"loras": [*_lora_list(fields), *tagged]} if tagged else fields


def _refined(fields: dict[str, Any]) -> dict[str, Any]:
    """Return where a refiner takes over: forks note the step, Fooocus the share of the steps."""
    name = next(
        (fields[key] for key in ("refiner_model", "Refiner Model", "refiner_model_name") if key in fields), None
    )
    if not isinstance(name, str) or name.strip().lower() in NO_FILE:
        return fields
    share = next((fields.pop(key) for key in SWITCHES if key in fields), None)
    if share is None and "switch" in fields and says_something(fields.get("steps")):
        share = Said("switch", fields.pop("switch")).number() / max(Said("steps", fields["steps"]).number(), 1)
    if share is None:
        return fields
    return fields | {"refiner_switch_at": share, "when the refiner takes over": f"at {share} {NOT_BY_NOISE}"}
