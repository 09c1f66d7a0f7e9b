"""SwarmUI's records: LoRAs and embeddings as tags of the prompt, strengths in a list of their own, refiners by method."""

import re
from typing import Any

from clipskip.errors import SpecError
from clipskip.spec.fooocus import NOT_BY_NOISE
from clipskip.spec.graph_refiner import EVEN, switched_at
from clipskip.spec.record_reader import Record, Said, says_something
from clipskip.spec.sampler_names import comfy_names

USE_BASE = "(use base)"
"""What it has for a refiner's model where the base does that too."""
SWAPS = {
    "StepSwapNoisy": "",
    "StepSwap": "SwarmUI ends the base's at once and gives the refiner its own; here it goes on with the base's",
}
"""Its ways to hand over at a step, with what is done otherwise here."""

_TAG = re.compile(r"<(\w++)(?:\[[^\]<>]*\])?:([^<>]*)>")


def swarm(record: Record) -> Record:
    """SwarmUI's record with its tags, its LoRAs' strengths and its refiner as other records have them."""
    fields = dict(record)
    loras: list[list[object]] = []
    for key in ("prompt", "negativeprompt"):
        if isinstance(fields.get(key), str):
            fields[key] = _TAG.sub(lambda tag: _without(tag, loras), fields[key]).strip()
    if loras:
        fields["loras"] = [*_pairs_of(fields), *loras]
    ratio = fields.get("aspectratio")
    if says_something(ratio) and ratio != "Custom" and not fields.keys() & {"width", "height"}:
        raise SpecError(
            f"this SwarmUI record has the aspect ratio {str(ratio)[:20]} without a width and a height; give the size",
            field="size",
        )
    return _refined(fields)


def _pairs_of(fields: dict[str, Any]) -> list[object]:
    """SwarmUI's LoRAs, whose strengths are in a list of their own, with them."""
    names, weights = fields.get("loras") or [], fields.get("loraweights") or []
    if not isinstance(names, list) or not isinstance(weights, list) or len(weights) not in (0, len(names)):
        Said("loraweights", weights).nonsense("a strength for each LoRA")
    fields.pop("loraweights", None)
    return [[name, weight] for name, weight in zip(names, weights or [1.0] * len(names), strict=True)]


def _without(tag: re.Match[str], loras: list[list[object]]) -> str:
    """Return the text that replaces a tag: nothing for a LoRA, which joins the list."""
    kind, name = tag[1].lower(), tag[2]
    if kind in ("embed", "embedding"):
        return f"embedding:{name}"
    if kind != "lora":
        raise SpecError(
            f"this SwarmUI prompt has the tag {tag[0][:60]}, which is not known here; remove it", field="prompt"
        )
    file, _, weight = name.partition(":")
    loras.append([file, weight or 1.0])
    return ""


def _refined(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a refiner of its own takes over at a step (StepSwapNoisy, StepSwap); a second run over the picture is another thing.

    SwarmUI counts steps (WorkflowGeneratorSteps.cs) where this program goes by noise: the same on an even schedule.
    """
    name = fields.get("refinermodel")
    if not says_something(name):
        return fields
    if str(name).strip().lower() == USE_BASE or name == fields.get("model"):
        del fields["refinermodel"]
        return fields
    method = str(fields.pop("refinermethod", "PostApply"))
    if method not in SWAPS:
        raise SpecError(
            f"this SwarmUI record draws over its picture with the model {str(name)[:60]} ({method[:20]}), which cannot be "
            "repeated; records whose refiner swaps steps (StepSwap, StepSwapNoisy) can",
            field="refiner",
        )
    share = 1 - Said("refinercontrolpercentage", fields.pop("refinercontrolpercentage", 0.2)).number()
    steps = Said("steps", fields.get("steps", 20)).whole()
    scheduler = fields.get("scheduler", fields.get("comfyuischeduler", "normal"))
    _, schedule = comfy_names(str(fields.get("sampler", "euler")), str(scheduler))
    end = round(steps * share)
    if schedule in EVEN and 0 < end < steps:
        fields["refiner_switch_at"] = switched_at(end, steps=steps, schedule=schedule)
    else:
        fields |= {"refiner_switch_at": share, "when the refiner takes over": f"at {share:g} {NOT_BY_NOISE}"}
    return fields | ({"the refiner's noise": SWAPS[method]} if SWAPS[method] else {})
