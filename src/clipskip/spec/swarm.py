"""SwarmUI's records: LoRAs and embeddings as tags of the prompt, strengths in a list of their own, refiners by method."""

import re
from typing import Any

from clipskip.errors import SpecError
from clipskip.spec.reader import Record, Said, says_something

USE_BASE = "(use base)"
"""What it has for a refiner's model where the base does that too."""

_TAG = re.compile(r"<(\w++)(?:\[[^\]<>]*\])?:([^<>]*)>")


def swarm(record: Record) -> Record:
    """SwarmUI's record with its tags, its LoRAs' strengths and its refiner as other records have them."""
    found = dict(record)
    loras: list[list[object]] = []
    for key in ("prompt", "negativeprompt"):
        if isinstance(found.get(key), str):
            found[key] = _TAG.sub(lambda tag: _without(tag, loras), found[key]).strip()
    if loras:
        found["loras"] = [*_pairs_of(found), *loras]
    return _refined(found)


def _pairs_of(found: dict[str, Any]) -> list[object]:
    """SwarmUI's LoRAs, whose strengths are in a list of their own, with them."""
    names, weights = found.get("loras") or [], found.get("loraweights") or []
    if not isinstance(names, list) or not isinstance(weights, list) or len(weights) not in (0, len(names)):
        Said("loraweights", weights).nonsense("a strength for each LoRA")
    found.pop("loraweights", None)
    return [[name, weight] for name, weight in zip(names, weights or [1.0] * len(names), strict=True)]


def _without(tag: re.Match[str], loras: list[list[object]]) -> str:
    """What stands in a tag's place; a LoRA's is nothing, and it joins the list."""
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


def _refined(found: dict[str, Any]) -> dict[str, Any]:
    """A refiner of its own takes over for a share of the noise at the end (StepSwap); a second run over it is another thing."""
    name = found.get("refinermodel")
    if not says_something(name):
        return found
    if str(name).strip().lower() == USE_BASE:
        del found["refinermodel"]
        return found
    method = str(found.pop("refinermethod", "PostApply"))
    if method.lower() not in ("stepswap", "step-swap"):
        raise SpecError(
            f"this SwarmUI record draws over its picture with the model {str(name)[:60]} ({method[:20]}), which cannot be "
            "repeated; records whose refiner swaps steps (StepSwap) can",
            field="refiner",
        )
    share = Said("refinercontrolpercentage", found.pop("refinercontrolpercentage", 0.2)).number()
    return found | {"refiner_switch_at": 1 - share}
