"""The LoRAs that nodes of a ComfyUI graph load: by one name, in numbered slots, in lists, in stacks, and as tags of a text.

Read in the nodes of ComfyUI, rgthree-comfy, Comfyroll, Efficiency Nodes, Easy-Use, LoRA Manager and Impact Pack as of
August 2026.
"""

import re
from collections.abc import Iterator, Mapping

from clipskip.spec.nodes import TAGGED, Graph, Node, broken, is_link, number_of
from clipskip.spec.record_reader import Said, one_line
from clipskip.spec.resources import stem

Loaded = tuple[str, float, float]
"""A LoRA's name, with its weight on the UNet and on the text encoder."""

POWER = "Power Lora Loader"
MANAGER = "(LoraManager)"
OWN_FIRST = ("Efficient", "LoRA Stacker")
"""Kinds that apply their own LoRAs before those of the stack that they are given; others do it the other way round."""
TOGETHER = ("lora_wt_{}", "strength_{}", "lora_{}_strength")
"""The weight of the LoRA in a numbered slot, for the UNet and the text encoder at once."""
APART = (
    ("model_str_{}", "clip_str_{}"), ("model_weight_{}", "clip_weight_{}"), ("lora_{}_model_strength", "lora_{}_clip_strength"),
)  # fmt: skip
"""The UNet's weight and the text encoder's."""
MODES: Mapping[object, bool] = {"simple": True, "advanced": False}
"""Whether weights count together, for nodes that have them both ways."""
OFF = ("Off", "False", "false", False)
DISABLED = "DISABLE LORAS"
"""The choice of rgthree's Power Prompt that takes LoRA tags out of the text and loads none."""

_SLOT = re.compile(r"lora_(?:name_([0-9]{1,2})|([0-9]{1,2})(?:_name)?)")
_STACK = re.compile(r"(?:optional_)?lora_stack_?(?:[0-9]{1,2}|[a-z])?")
_TAG = re.compile(r"<lora:([^<>]*)>")
_CHANCE = re.compile(r"random|chance|stride", re.IGNORECASE)


def loads_loras(node: Node) -> bool:
    """Return whether the node loads LoRAs, or lists them for another that does, in a way that is known."""
    if node.kind in TAGGED or node.kind.startswith(POWER) or (node.kind.endswith(MANAGER) and "loras" in node.inputs):
        return True
    return any(key == "lora_name" or _SLOT.fullmatch(key) or _is_stack(node, key) for key in node.inputs)


def loras_of(graph: Graph, node: Node, passed: tuple[Node, ...] = ()) -> list[Loaded]:
    """Return the LoRAs that a node loads, in the order in which it applies them; those that are off stay unused."""
    if any(node is other for other in passed):
        raise broken(f"takes its LoRAs in a circle through {node.kind}", field="lora")
    stacks = [key for key in node.inputs if _is_stack(node, key)]
    _check_inputs(node, stacks)
    stacked = [lora for key in stacks for lora in _stack(graph, node, key, (*passed, node))]
    if any(key in node.inputs and node.inputs[key] in OFF for key in ("switch", "toggle")):
        return stacked
    own = [*_single(graph, node), *_power(node), *_slots(graph, node), *_managed(node), *_tagged(graph, node)]
    for key in ("switch", "toggle") if own else ():
        node.take(key)
    return [*own, *stacked] if node.kind.startswith(OWN_FIRST) else [*stacked, *own]


def _check_inputs(node: Node, stacks: list[str]) -> None:
    """Raise SpecError for LoRAs that a node chooses by chance, and for those that come over a link which is no stack."""
    known = (*stacks, *TAGGED.get(node.kind, ()))
    if "block_vector" in node.inputs and "lora_name" in node.inputs:
        raise broken(
            f"weighs the blocks of its LoRA apart with {node.kind}, which cannot be repeated; LoraLoader can",
            field="lora",
        )
    for key, value in node.inputs.items():
        if "lora" not in key.lower() or key in known:
            continue
        if _CHANCE.search(node.kind) or any(map(_CHANCE.search, node.inputs)):
            raise broken(f"chooses LoRAs by chance with {node.kind}; name those that it chose", field="lora")
        if is_link(value):
            raise broken(
                f"has {key} of {node.kind} from another node; LoRAs can be repeated that a loader names", field="lora"
            )


def _is_stack(node: Node, key: str) -> bool:
    return _STACK.fullmatch(key) is not None and is_link(node.inputs[key])


def _stack(graph: Graph, node: Node, key: str, passed: tuple[Node, ...]) -> list[Loaded]:
    """Return the LoRAs of the stack that an input links to."""
    here = graph.link(node, key)
    while here is not None and not loads_loras(here[0]):
        if any(here[0] is other for other in passed):
            raise broken(f"takes its LoRAs in a circle through {here[0].kind}", field="lora")
        passed = (*passed, here[0])
        here = graph.onward(here[0], "LORA_STACK")
    return loras_of(graph, here[0], passed) if here else []


def _single(graph: Graph, node: Node) -> Iterator[Loaded]:
    """Yield the LoRA of a node that loads one; Custom Scripts' loader has its name in an object."""
    said = node.take("lora_name")
    if said is None:
        return
    name = Said("lora_name", said.value.get("content") if isinstance(said.value, dict) else said.value).name()
    unet, te = (_strength(graph, node, part) for part in ("model", "clip"))
    if name.lower() != "none":
        yield stem(name), unet, te


def _strength(graph: Graph, node: Node, part: str) -> float:
    """Return a LoRA's strength on the model or the clip; 0 for a node without a clip input."""
    key = next((key for key in (f"strength_{part}", f"lora_{part}_strength") if key in node.inputs), None)
    said = number_of(graph, node, key) if key else None
    if said is None and (part == "model" or "clip" in node.inputs):
        raise broken(f"has no strength_{part} for {node.kind}", field="lora")
    return said.number() if said else 0.0


def _power(node: Node) -> Iterator[Loaded]:
    """Yield the LoRAs of rgthree's Power Lora Loader, each an object with its switch."""
    for key in [key for key in node.inputs if node.kind.startswith(POWER) and key.lower().startswith("lora_")]:
        said = node.take(key)
        if said is None or not isinstance(said.value, dict) or "lora" not in said.value:
            raise broken(
                f"has {one_line(node.inputs[key])[:40]} for {key} of {node.kind}, which names no LoRA", field="lora"
            )
        entry = dict(said.value)
        file, unet = Said(key, entry.pop("lora")).name(), Said(f"{key} strength", entry.pop("strength", 1)).number()
        second = entry.pop("strengthTwo", None)
        on = entry.pop("on", True)
        if on is not True:
            node.leave(key, said.value)
            continue
        if file.lower() != "none":
            yield stem(file), unet, unet if second is None else Said(f"{key} strengthTwo", second).number()
        for inner, value in entry.items():
            node.leave(f"{key} {inner}", value)


def _slots(graph: Graph, node: Node) -> Iterator[Loaded]:
    """Yield the LoRAs of a node with numbered slots."""
    slots = {key: match[1] or match[2] for key in node.inputs if (match := _SLOT.fullmatch(key))}
    if not slots or node.kind.startswith(POWER):
        return
    counts = [said.whole() for key in ("lora_count", "num_loras") if (said := number_of(graph, node, key))]
    mode = next((said.value for key in ("input_mode", "mode") if (said := node.take(key))), None)
    for key, number in slots.items():
        name, switch = Said(key, node.inputs[key]).name(), f"switch_{number}"
        if name.lower() == "none":
            for unsaid in (key, switch, *_weights(node, number)[0], *_weights(node, number)[1]):
                node.take(unsaid)
        elif node.inputs.get(switch) not in OFF and not (counts and int(number) > counts[0]):
            node.take(key)
            node.take(switch)
            unet, te = (_weight(graph, node, weight) for weight in _chosen(node, key, number, mode))
            yield stem(name), unet, te


def _weights(node: Node, number: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the inputs that weigh the LoRA of a slot: one for both, and one for each."""
    both = tuple(key for form in TOGETHER if (key := form.format(number)) in node.inputs)
    each = tuple(key for pair in APART for form in pair if (key := form.format(number)) in node.inputs)
    return both, each


def _chosen(node: Node, key: str, number: str, mode: object) -> tuple[str, str]:
    """Return the inputs with the UNet's and the text encoder's weight of a slot; SpecError where that is not clear."""
    both, each = _weights(node, number)
    together = MODES.get(mode) if mode is not None or (both and each) else bool(both)
    if together and len(both) == 1:
        return both[0], both[0]
    if together is False and len(each) == 2:
        return each[0], each[1]
    raise broken(f"has {key} of {node.kind} with no weight in a way that is known", field="lora")


def _weight(graph: Graph, node: Node, key: str) -> float:
    said = number_of(graph, node, key)
    if said is None:
        raise broken(f"has no number for {key} of {node.kind}", field="lora")
    return said.number()


def _managed(node: Node) -> Iterator[Loaded]:
    """Yield the LoRAs of LoRA Manager's nodes, a list of objects with a switch each."""
    if not node.kind.endswith(MANAGER) or (said := node.take("loras")) is None:
        return
    entries = said.value.get("__value__") if isinstance(said.value, dict) else said.value
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise broken(
            f"has {one_line(said.value)[:40]} for loras of {node.kind}, which is no list of LoRAs", field="lora"
        )
    node.take("text")  # the same list as it is typed
    for entry in entries:
        rest = dict(entry)
        name, unet = (
            Said("loras name", rest.pop("name", None)).name(),
            Said("loras", rest.pop("strength", None)).number(),
        )
        te = Said("loras clipStrength", rest.pop("clipStrength", unet)).number()
        if rest.pop("active", False) is not True:
            node.leave(f"loras {name}", entry)
            continue
        yield stem(name), unet, te
        for inner, value in rest.items():
            node.leave(f"loras {name} {inner}", value)


def _tagged(graph: Graph, node: Node) -> Iterator[Loaded]:
    """Yield the LoRAs of a node that loads those that its text has tags of, each once."""
    if node.kind not in TAGGED or not takes_tags(node) or node.inputs.get("insert_lora") == DISABLED:
        return
    texts = [said.text() for key in TAGGED[node.kind] if (said := graph.value(node, key))]
    for tag in dict.fromkeys(tag for text in texts for tag in _TAG.findall(text)):
        name, *numbers = tag.rstrip(":").split(":")
        if len(numbers) > 2 or not name:
            raise broken(f"has the tag <lora:{tag[:60]}>, which is not known", field="lora")
        weights = [Said(f"the weight of <lora:{name[:40]}>", number or 1).number() for number in numbers]
        yield stem(name), weights[0] if weights else 1.0, weights[-1] if weights else 1.0


def takes_tags(node: Node) -> bool:
    """Return whether a node takes LoRA tags out of its text; rgthree's leaves them there as words where it can load none."""
    if not any(key.startswith("opt_") for key in node.inputs):
        return True
    linked = all(is_link(node.inputs.get(key)) for key in ("opt_model", "opt_clip"))
    return linked or node.inputs.get("insert_lora") == DISABLED


def without_tags(text: str) -> str:
    """Return a text as a node that knows LoRA tags encodes it."""
    return _TAG.sub("", text)
