"""ComfyUI's graph as nodes whose inputs are taken one by one; those that nobody takes are left over by name."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, final

from clipskip.errors import SpecError
from clipskip.spec.record_reader import Said, one_line, says_something

Link = tuple["Node", int]
"""A node, and the number of one of its outputs."""

OUTPUTS: Mapping[str, tuple[str, ...]] = {
    "CheckpointLoaderSimple": ("MODEL", "CLIP", "VAE"), "CheckpointLoader": ("MODEL", "CLIP", "VAE"),
    "Efficient Loader": ("MODEL", "CONDITIONING", "CONDITIONING", "LATENT", "VAE", "CLIP"),
    "VAELoader": ("VAE",), "UNETLoader": ("MODEL",), "CLIPLoader": ("CLIP",), "DualCLIPLoader": ("CLIP",),
    "LoraLoader": ("MODEL", "CLIP"), "LoraLoaderModelOnly": ("MODEL",), "CLIPSetLastLayer": ("CLIP",),
    "Power Lora Loader (rgthree)": ("MODEL", "CLIP"),
    "CLIPTextEncode": ("CONDITIONING",), "CLIPTextEncodeSDXL": ("CONDITIONING",),
    "ConditioningCombine": ("CONDITIONING",), "ConditioningConcat": ("CONDITIONING",),
    "ConditioningAverage": ("CONDITIONING",), "ConditioningZeroOut": ("CONDITIONING",),
    "ConditioningSetTimestepRange": ("CONDITIONING",), "ControlNetApply": ("CONDITIONING",),
    "ControlNetApplyAdvanced": ("CONDITIONING", "CONDITIONING"),
    "EmptyLatentImage": ("LATENT",), "VAEEncode": ("LATENT",), "VAEEncodeForInpaint": ("LATENT",),
    "LatentUpscale": ("LATENT",), "LatentUpscaleBy": ("LATENT",), "KSampler": ("LATENT",), "KSamplerAdvanced": ("LATENT",),
    "SamplerCustom": ("LATENT", "LATENT"), "SamplerCustomAdvanced": ("LATENT", "LATENT"),
    "VAEDecode": ("IMAGE",), "LoadImage": ("IMAGE", "MASK"), "ImageScale": ("IMAGE",), "ImageScaleBy": ("IMAGE",),
    "CFGGuider": ("GUIDER",), "BasicGuider": ("GUIDER",), "BasicScheduler": ("SIGMAS",), "KSamplerSelect": ("SAMPLER",),
    "RandomNoise": ("NOISE",), "ModelSamplingDiscrete": ("MODEL",), "RescaleCFG": ("MODEL",), "FreeU": ("MODEL",),
    "FreeU_V2": ("MODEL",),
}  # fmt: skip
"""The outputs of core nodes and of two packs' loaders (ComfyUI 0.3 nodes.py and comfy_extras)."""
NAMED: Mapping[str, str] = {
    "model": "MODEL", "clip": "CLIP", "vae": "VAE", "conditioning": "CONDITIONING", "positive": "CONDITIONING",
    "negative": "CONDITIONING", "samples": "LATENT", "latent": "LATENT", "latent_image": "LATENT", "sigmas": "SIGMAS",
    "sampler": "SAMPLER", "guider": "GUIDER", "noise": "NOISE", "image": "IMAGE", "images": "IMAGE", "pixels": "IMAGE",
    "mask": "MASK", "control_net": "CONTROL_NET", "clip_vision": "CLIP_VISION", "lora_stack": "LORA_STACK",
}  # fmt: skip
"""The kind that inputs of these names take, in any node."""
TAGGED: Mapping[str, tuple[str, ...]] = {
    "Power Prompt (rgthree)": ("prompt",), "SDXL Power Prompt - Positive (rgthree)": ("prompt_g", "prompt_l"),
    "ImpactWildcardEncode": ("populated_text",), "LoraTagLoader": ("text",), "LoRA Text Loader (LoraManager)": ("lora_syntax",),
}  # fmt: skip
"""Nodes that load the LoRAs whose tags stand in these texts."""
CONTROLS = ("fixed", "randomize", "increment", "decrement")
"""What a seed's widget does after a run."""
TEXTS = frozenset(
    {"text", "text_g", "text_l", "positive", "negative", "prompt", "prompt_g", "prompt_l", "populated_text"}
)
"""Inputs that hold prompts."""
WORDS = TEXTS | {"sampler_name", "scheduler", "ckpt_name", "vae_name", "lora_syntax"}
"""Inputs that hold texts and names; the values of others are numbers."""
SIGNS = ("boolean", "switch")
"""Inputs of switches that are true for the first of two inputs."""
NUMBERS = ("select", "Input", "index")
"""Inputs of switches with the number of the input that they choose (Impact Pack's, Comfyroll's, Easy-Use's)."""
SEVERAL: Mapping[str, Mapping[str, str]] = {
    "KSampler Config (rgthree)": {
        "steps": "steps_total", "cfg": "cfg", "sampler_name": "sampler_name", "scheduler": "scheduler",
    },
    "Input Parameters (Image Saver)": {
        "seed": "seed", "noise_seed": "seed", "steps": "steps", "cfg": "cfg", "sampler_name": "sampler", "scheduler": "scheduler",
    },
}  # fmt: skip
"""Nodes that hold several settings of a sampler, and the input that each is."""
SHOWS_TEXT = "ShowText|pysssss"
"""It keeps the text of its last run beside the link to this one's."""
MUTED, BYPASSED = 2, 4
MOST_NODES, MOST_DECISIONS = 2_000, 50
"""Of a graph, and of switches whose choice depends on another's."""


def is_graph(record: Mapping[str, Any]) -> bool:
    """Return whether the JSON is a graph in API form."""
    return bool(record) and all(isinstance(node, dict) and "class_type" in node for node in record.values())


def broken(message: str, *, field: str = "settings") -> SpecError:
    """Return the error for a graph that cannot be repeated."""
    return SpecError(f"this ComfyUI graph {message}", field=field)


@final
class Node:
    """One node: its class, and inputs that are values or links [node, output]."""

    def __init__(self, name: str, record: Mapping[str, Any]) -> None:
        self.name, self.kind = name, one_line(record.get("class_type"))
        inputs = record.get("inputs")
        self.inputs: dict[str, Any] = dict(inputs) if isinstance(inputs, dict) else {}  # Any: JSON
        self.off = record.get("mode") in (MUTED, BYPASSED)
        self.nameless = bool(record.get("nameless"))
        self.untaken = {key: value for key, value in self.inputs.items() if says_something(value)}
        self.more = {} if isinstance(inputs, dict) or not says_something(inputs) else {"inputs": inputs}
        self.seen = False

    def take(self, key: str) -> Said | None:
        """Take an input that has a value."""
        self.seen = self.seen or key in self.inputs
        self.untaken.pop(key, None)
        value = self.inputs.get(key)
        return None if value is None or value == "" else Said(key, value)

    def leave(self, key: str, value: object) -> None:
        """Record something inside a taken input that nothing here uses."""
        self.untaken[key] = value

    def unused(self) -> Iterator[tuple[str, str]]:
        """Yield what nobody took, as one line for a node that was not read at all."""
        left = self.untaken | self.more
        if not self.seen:
            yield self.kind, ", ".join(f"{key} {_value(value)}" for key, value in left.items())
        else:
            yield from ((f"{self.kind} {key}", _value(value)) for key, value in left.items())


def _value(value: object) -> str:
    return f"of node {one_line(value[0])}" if is_link(value) else one_line(value)  # type: ignore[index]  # a list


def is_link(value: object) -> bool:
    """Return whether an input's value is a link to another node: its name and the number of one of its outputs."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int) and isinstance(value[1], int)


@final
class Graph:
    """The nodes of a graph, with the ways along its links."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        if len(record) > MOST_NODES:
            raise broken(f"has {len(record):,} nodes; at most {MOST_NODES:,} are read")
        self.nodes = {name: Node(name, node) for name, node in record.items()}
        self._deciding = 0

    def unused(self) -> Iterator[tuple[str, str]]:
        """Yield what nobody took of any node."""
        for node in self.nodes.values():
            yield from node.unused()

    def link(self, node: Node, key: str) -> Link | None:
        """Take an input and return the node that it links to; an error where that is missing, as muted nodes are."""
        said = node.take(key)
        if said is None:
            return None
        if not is_link(said.value):
            raise broken(f"has {one_line(said.value)[:40]!r} for {key} of {node.kind}, which is not a link")
        linked = self.nodes.get(str(said.value[0]))
        if linked is None:
            raise broken(
                f"takes {key} of {node.kind} from node {one_line(said.value[0])[:20]}, which is not in it: muted and removed "
                "nodes are left out; queue it again whole"
            )
        if linked.off:
            raise broken(
                f"goes through {linked.kind}, which is muted or bypassed; queue it again, and save what ComfyUI then saves"
            )
        if linked.nameless:
            raise broken(
                f"goes through {linked.kind}, whose values have no names in this workflow; save it in API form"
            )
        return linked, said.value[1]

    def onward(self, node: Node, kind: str, *, side: str = "") -> Link:
        """Follow an unknown node to the source of its output: its only input of that kind.

        `side` is positive or negative, for nodes that have both.
        """
        if (chosen := self._chosen(node)) and (source := self.link(node, chosen)):
            return source
        links = [key for key, value in node.inputs.items() if is_link(value)]
        fit = [key for key in links if self._kind(node, key) == kind]
        if side and side in fit:
            fit = [side]
        if not fit:
            fit = [key for key in links if self._kind(node, key) is None]
        if len(fit) != 1:
            what = f"{len(fit)} inputs that may be it" if fit else "no input that may be it"
            raise broken(
                f"takes its {kind} through {node.kind}, which has {what}; graphs whose nodes have one can be repeated"
            )
        seen = node.seen
        source = self.link(node, fit[0])
        node.seen = seen
        assert source is not None
        return source

    def _chosen(self, node: Node) -> str | None:
        """Return the name of the input that a switch has chosen; None for a node that is no switch."""
        inputs = node.inputs
        sign = next((key for key in SIGNS if key in inputs), None)
        pair = ("on_true", "on_false") if "on_true" in inputs else _lettered(node)
        if sign and pair and set(pair) <= inputs.keys():
            self._decide(node, sign)
            if not isinstance(inputs[sign], bool):
                return None
            for key in (sign, *pair):
                node.take(key)
            return pair[0] if inputs[sign] else pair[1]
        number = next((key for key in NUMBERS if key in inputs), None)
        if number and "switch" in node.kind.lower():
            self._decide(node, number)
            node.take(number)
            fit = [key for key in inputs if re.fullmatch(f"[a-z_]+{re.escape(str(inputs[number]))}", key)]
            return fit[0] if len(fit) == 1 else None
        if node.kind == "Any Switch (rgthree)":
            return min((key for key, value in inputs.items() if is_link(value)), default=None)
        return None

    def _decide(self, node: Node, key: str) -> None:
        """Settle what a switch chooses by; SpecError for switches that choose by each other."""
        self._deciding += 1
        if self._deciding > MOST_DECISIONS:
            raise broken("runs in a circle")
        self.settle(node, key)
        self._deciding -= 1

    def _kind(self, node: Node, key: str) -> str | None:
        """Return the kind of an input, by its node's outputs or else its name; None where neither is known."""
        seen: set[int] = set()
        while id(node) not in seen:
            seen.add(id(node))
            source = self.nodes.get(str(node.inputs[key][0]))
            outputs = OUTPUTS.get(source.kind, ()) if source else ()
            output: int = node.inputs[key][1]
            if 0 <= output < len(outputs):
                return outputs[output]
            if named := NAMED.get(key.removeprefix("optional_").removeprefix("opt_").rstrip("0123456789_")):
                return named
            inner = [name for name, value in source.inputs.items() if is_link(value)] if source else []
            if source is None or len(inner) != 1:
                return None
            node, key = source, inner[0]
        return None

    def value(self, node: Node, key: str) -> Said | None:
        """Take an input's value; where it is a link, the value of the node that it leads to, which must say no other."""
        said = node.take(key)
        passed: set[int] = set()
        while said is not None and is_link(said.value):
            source = self.link(node, said.key)
            assert source is not None
            node = source[0]
            name = None if id(node) in passed else self._chosen(node) or self._only(node, key)
            if name is None:
                told = key if key not in TEXTS else "a prompt"
                raise broken(f"makes {told} with {node.kind}; type it in", field="prompt" if key in TEXTS else key)
            passed.add(id(node))
            said = node.take(name)
        return said and Said(key, said.value)

    def settle(self, node: Node, key: str) -> None:
        """Put the value that an input links to in the link's place."""
        if is_link(node.inputs.get(key)):
            said = self.value(node, key)
            node.inputs[key] = said.value if said else None

    def _only(self, node: Node, key: str) -> str | None:
        """Return the one input that a node can make a value of, a link among them; None where there are several."""
        if node.kind in TAGGED and key in TEXTS:
            return None
        if node.kind == SHOWS_TEXT:
            return "text"
        if (named := SEVERAL.get(node.kind, {}).get(key)) in node.inputs:
            return named
        kinds: tuple[type, ...] = (bool,) if key in SIGNS else (int, float) if key not in WORDS else (str,)
        fits = [name for name, value in node.inputs.items() if _is_kind(value, kinds)]
        if "populated_text" in fits and key in TEXTS:
            return "populated_text"
        if key in TEXTS and any("seed" in name.lower() for name in node.inputs):
            return None  # it chooses words by chance
        other = [name for name, value in node.inputs.items() if isinstance(value, str) and value not in ("", *CONTROLS)]
        return fits[0] if len(fits) == 1 and (key in WORDS or not other) else None


def _is_kind(value: object, kinds: tuple[type, ...]) -> bool:
    return is_link(value) or (
        isinstance(value, kinds) and isinstance(value, bool) == (bool in kinds) and value not in CONTROLS
    )


def _lettered(node: Node) -> tuple[str, str] | None:
    """Return the inputs of WAS' switches, as model_a and model_b."""
    first = next((key for key in node.inputs if key.endswith("_a") and node.kind.endswith("Input Switch")), None)
    return (first, f"{first[:-1]}b") if first else None


def is_sampler(node: Node) -> bool:
    keys = node.inputs.keys()
    return ({"positive", "negative"} <= keys and ("sampler_name" in keys or {"sampler", "sigmas"} <= keys)) or (
        {"guider", "sampler", "sigmas"} <= keys
    )


def back_from(graph: Graph, node: Node) -> Iterator[tuple[Node, str]]:
    """Yield the nodes that a sampler's latent comes from; nothing is taken."""
    seen: set[int] = set()
    waiting = [node]
    while waiting:
        here = waiting.pop()
        for key, value in here.inputs.items():
            other = graph.nodes.get(str(value[0])) if isinstance(value, list) and value else None
            near = key in ("latent_image", "samples", "latent", "pixels", "image", "images")
            if near and other is not None and id(other) not in seen:
                seen.add(id(other))
                yield other, key
                waiting.append(other)


def number_of(graph: Graph, node: Node, key: str) -> Said | None:
    said = graph.value(node, key)
    if said is not None:
        said.number()
    return said


def word_of(node: Node, key: str) -> str | None:
    said = node.take(key)
    if said is not None and not isinstance(said.value, str):
        raise broken(f"has {one_line(said.value)[:40]!r} for {key} of {node.kind}, which is not a name", field=key)
    return said.value if said else None
