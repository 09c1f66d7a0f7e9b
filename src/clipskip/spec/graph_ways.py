"""The ways through a ComfyUI graph: to the loader of a checkpoint, and to the text that is encoded for a side."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from clipskip.errors import SpecError
from clipskip.spec.graph_loras import DISABLED, loads_loras, takes_tags, without_tags
from clipskip.spec.nodes import TAGGED, Graph, Link, Node, broken, is_link
from clipskip.spec.record_reader import one_line, says_something

EMPHASIS = "ComfyUI"
MOST_HOPS = 20
"""Links that are followed to the text of a node that is refused."""
NOT_REPEATED: Mapping[str, str] = {
    "UNETLoader": "a UNet of its own", "UnetLoaderGGUF": "a UNet of its own", "DiffusersLoader": "a folder of diffusers'",
    "CLIPLoader": "a text encoder of its own", "DualCLIPLoader": "text encoders of their own",
    "HypernetworkLoader": "a hypernetwork", "unCLIPCheckpointLoader": "a model that takes pictures",
    "ImageOnlyCheckpointLoader": "a model that takes pictures", "ConditioningZeroOut": "zeros in the place of a text",
    "ConditioningSetArea": "a text for a part of the picture", "ConditioningSetMask": "a text for a part of the picture",
    "ConditioningSetAreaPercentage": "a text for a part of the picture", "GLIGENTextBoxApply": "texts at places (GLIGEN)",
    "ConditioningCombine": "two texts", "ConditioningConcat": "two texts", "ConditioningAverage": "two texts",
    "ConditioningAverage ": "two texts",
}  # fmt: skip
"""Nodes that make another model or other words than are drawn with here. In older graphs the name of one ends with a space."""


ENCODED = (("text", "text_g", "text_l"), ("populated_text",), ("prompt",), ("prompt_g", "prompt_l"))
"""Inputs that hold the texts of nodes which encode them. smZ's has the first three; with_SDXL says which of them count."""

LOADERS_SIDES: Mapping[tuple[str, int], str] = {
    ("Efficient Loader", 1): "positive",
    ("Efficient Loader", 2): "negative",
}
"""Which text the outputs of a loader with both texts are, whatever side they are linked to."""

_SKIPS = re.compile(
    r"skip|(?:last|clip|stop|hidden)[\W_]*(?:at[\W_]*)?(?:clip[\W_]*)?layer|stop[\W_]*at|layer[\W_]*(?:idx|index)",
    re.IGNORECASE,
)
"""Names of nodes and inputs that may choose the text encoder's layer."""
_DYNAMIC = re.compile(r"\bBREAK\b|\{[^{}]*\|[^{}]*\}|__[\w./*-]+__")
"""What Impact Pack makes more of than the text: parts that are encoded apart, choices, wildcards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """One prompt: its text and the way to its text encoder."""

    text: str
    clip: tuple[Node, ...]
    emphasis: str


def way(graph: Graph, start: Node, key: str, kind: str) -> tuple[Node, ...]:
    """Return the nodes from an input on to the loader of a checkpoint, by links of a kind."""
    here: Link | None = graph.link(start, key)
    gone: list[Node] = []
    while here is not None:
        node, _ = here
        if any(node is other for other in gone):
            raise broken(f"takes its {kind} in a circle through {node.kind}")
        gone.append(node)
        for key in ("stop_at_clip_layer", "clip_skip"):
            graph.settle(node, key)
        if "ckpt_name" in node.inputs:
            graph.settle(node, "ckpt_name")
            _check_loader(graph, node)
            for between in gone[:-1] if kind == "CLIP" else ():
                _check_skip(between)
            return tuple(gone)
        _check_known(graph, node)
        own = kind.lower() in node.inputs and (loads_loras(node) or "stop_at_clip_layer" in node.inputs)
        here = graph.link(node, kind.lower()) if own else graph.onward(node, kind)
    raise broken(
        f"has a {kind} that comes from {gone[-1].kind if gone else start.kind}, which is no loader of checkpoints",
        field="model",
    )


def _check_loader(graph: Graph, node: Node) -> None:
    """SpecError for a loader of checkpoints that draws with another model than the one it names, or with pictures."""
    if what := NOT_REPEATED.get(node.kind):
        raise _refused(graph, "draws with", node, what, field="model")
    for key in ("model_override", "clip_override"):
        if is_link(node.inputs.get(key)):
            raise broken(
                f"gives {node.kind} a {key.partition('_')[0]} of another node; graphs whose loader has its own can be repeated",
                field="model",
            )


def _refused(graph: Graph, does: str, node: Node, what: str, *, field: str) -> SpecError:
    """Return the error for a node of another model or other words, with the files or the text that it names."""
    here, names = node, [value for value in node.inputs.values() if isinstance(value, str)]
    for _ in range(MOST_HOPS):
        links = [value for value in here.inputs.values() if isinstance(value, list) and value]
        if names or not links:
            break
        here = graph.nodes.get(str(links[0][0]), here)
        names = [here.inputs["text"]] if isinstance(here.inputs.get("text"), str) else []
    of = f": {', '.join(map(repr, names))}"[:120] if names else ""
    return broken(
        f"{does} {node.kind} ({what}{of}), which cannot be repeated; take the node out, or give the prompt and the settings "
        "themselves",
        field=field,
    )


def _check_known(graph: Graph, node: Node) -> None:
    """Raise SpecError for a node that cannot be repeated, and for one with a LoRA or a Clip Skip in an unknown form."""
    if (what := NOT_REPEATED.get(node.kind)) or node.kind.startswith("ModelMerge") or node.kind.startswith("CLIPMerge"):
        raise _refused(graph, "draws with", node, what or "a merge of models", field="model")
    _check_hooks(node)
    if loads_loras(node) or "stop_at_clip_layer" in node.inputs:
        return
    lora = next((key for key, value in node.inputs.items() if "lora" in key.lower() and _names_file(value)), None)
    if lora or "lora" in node.kind.lower():
        raise broken(f"loads LoRAs with {node.kind}, which is not known; LoraLoader is", field="lora")


def _check_skip(node: Node) -> None:
    """Raise SpecError for a node before the text encoder that may choose its layer in an unknown way."""
    if says_something(node.inputs.get("stop_at_clip_layer")):
        return
    named = any(_SKIPS.search(name) for name in (node.kind, *node.inputs))
    numbered = not loads_loras(node) and any(map(_is_layer, node.inputs.values()))
    if named or node.kind == "CLIPSetLastLayer" or numbered:
        raise broken(f"may set Clip Skip with {node.kind}, which is not known; CLIPSetLastLayer is", field="clip_skip")


def _is_layer(value: object) -> bool:
    """Return whether a value may be a layer that is counted from the end, as ComfyUI counts."""
    return isinstance(value, int | float) and value in range(-24, 0)


def _check_hooks(node: Node) -> None:
    """Raise SpecError for hooks, which add LoRAs and other weights to one text or some of the steps."""
    if is_link(node.inputs.get("hooks")):
        raise broken(
            f"adds hooks (LoRAs or weights for one text or some steps) with {node.kind}, which cannot be repeated; take them out",
            field="lora",
        )


def _names_file(value: object) -> bool:
    return not isinstance(value, list) and says_something(value) and str(value).lower() not in ("none", "false", "0")


def texts_of(graph: Graph, start: Node, side: str) -> Words:
    """Return the one text that is encoded for a side, and the way to its text encoder."""
    key = side if side in start.inputs else "conditioning"
    here = graph.link(start, key)
    name = "prompt" if side == "positive" else "negative prompt"
    passed: set[int] = set()
    while here is not None:
        node, output = here
        if "ckpt_name" in node.inputs and side in node.inputs:
            return _loader_words(graph, node, LOADERS_SIDES.get((node.kind, output), side))
        if what := NOT_REPEATED.get(node.kind):
            raise _refused(graph, f"makes its {name} with", node, what, field="prompt")
        if words := _encoded(graph, node, name):
            return words
        if id(node) in passed or "ckpt_name" in node.inputs:
            break
        passed.add(id(node))
        _check_hooks(node)
        if node.kind == "ConditioningSetTimestepRange" and not _whole_range(node):
            raise _refused(graph, f"makes its {name} with", node, "a text for some of the steps", field="prompt")
        here = graph.onward(node, "CONDITIONING", side=side)
    raise broken(f"makes its {name} of no text; graphs with CLIPTextEncode can be repeated", field="prompt")


def _whole_range(node: Node) -> bool:
    return (node.inputs.get("start", 0), node.inputs.get("end", 1)) == (0, 1)


def _encoded(graph: Graph, node: Node, name: str) -> Words | None:
    """Return the words of a node that encodes a text of its own; None for another node."""
    clip = next((key for key in ("clip", "opt_clip") if key in node.inputs), None)
    keys = next((present for group in ENCODED if (present := [key for key in group if key in node.inputs])), None)
    if clip is None or keys is None:
        return None
    if sdxl := node.take("with_SDXL"):
        keys = [key for key in keys if (key == "text") != (sdxl.value is True)]
    texts = [said.text() if (said := graph.value(node, key)) else "" for key in keys]
    _check_skip(node)
    on = way(graph, node, clip, "CLIP")
    if node.kind in TAGGED:
        texts = [without_tags(text) for text in texts] if takes_tags(node) else texts
        on = (node, *on)
    for key in ("insert_lora", "insert_embedding", "insert_saved"):
        if node.inputs.get(key) in ("CHOOSE", DISABLED):
            node.take(key)
    if keys == ["prompt_g", "prompt_l"] and "opt_clip_width" not in node.inputs:
        texts = ["\n".join(texts)]
    if len(set(texts)) != 1:
        raise broken(f"gives its two text encoders different texts for the {name}", field="prompt")
    if keys == ["populated_text"] and (sign := _DYNAMIC.search(texts[0])):
        raise broken(
            f"has {sign[0]!r} in the text of {node.kind}, which makes several texts or another of it; type in what it made",
            field="prompt",
        )
    return Words(text=texts[0], clip=on, emphasis=_emphasis(node))


def _emphasis(node: Node, side: str = "") -> str:
    """Return the emphasis that nodes of other packs set: BNK's by weight_interpretation, smZ's by parser."""
    key = next((key for key in (f"{side}_weight_interpretation", "weight_interpretation") if key in node.inputs), "")
    kind = node.inputs.get(key)
    if kind in ("A1111", "comfy"):
        node.take(key)
    parser = node.take("parser")
    if parser is not None and parser.value not in ("A1111", "comfy"):
        raise broken(
            f"reads its prompt with the parser {one_line(parser.value)[:40]}; A1111 and comfy can be repeated",
            field="prompt",
        )
    if parser is not None and parser.value == "A1111":
        normed = node.take("mean_normalization")
        return "No norm" if normed is not None and normed.value is False else "Original"
    return "Original" if kind == "A1111" else EMPHASIS


def _loader_words(graph: Graph, node: Node, side: str) -> Words:
    """Efficient Loader and its like hold both texts themselves."""
    said = graph.value(node, side)
    return Words(text=said.text() if said else "", clip=(node,), emphasis=_emphasis(node, side))
