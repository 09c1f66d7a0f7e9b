"""The ways through a ComfyUI graph: to the loader of a checkpoint, and to the text that is encoded for a side."""

from collections.abc import Mapping
from dataclasses import dataclass

from clipskip.errors import SpecError
from clipskip.spec.nodes import Graph, Link, Node, broken
from clipskip.spec.reader import plain, says_something, shown

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
}  # fmt: skip
"""Nodes that make another model or other words than are drawn with here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """One prompt: its text and the way to its text encoder."""

    text: str
    clip: tuple[Node, ...]
    emphasis: str


def way(graph: Graph, start: Node, key: str, kind: str) -> tuple[Node, ...]:
    """The nodes from an input on to the loader of a checkpoint, by links of a kind."""
    here: Link | None = graph.link(start, key)
    gone: list[Node] = []
    while here is not None:
        node, _ = here
        if any(node is other for other in gone):
            raise broken(f"takes its {kind} in a circle through {node.kind}")
        gone.append(node)
        if "ckpt_name" in node.inputs:
            return tuple(gone)
        _check_known(graph, node)
        here = graph.link(node, kind.lower()) if _is_known(node) else graph.onward(node, kind)
    raise broken(
        f"has a {kind} that comes from {gone[-1].kind if gone else start.kind}, which is no loader of checkpoints",
        field="model",
    )


def _is_known(node: Node) -> bool:
    return (
        "lora_name" in node.inputs or "stop_at_clip_layer" in node.inputs or node.kind.startswith("Power Lora Loader")
    )


def _refused(graph: Graph, does: str, node: Node, what: str, *, field: str) -> SpecError:
    """The error for a node of another model or other words, with the files or the text that it names."""
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
    """An error for a node that is not repeated, and for one that has a LoRA or a Clip Skip in a way that is not known."""
    if (what := NOT_REPEATED.get(node.kind)) or node.kind.startswith("ModelMerge") or node.kind.startswith("CLIPMerge"):
        raise _refused(graph, "draws with", node, what or "a merge of models", field="model")
    if _is_known(node):
        return
    lora = next((key for key, value in node.inputs.items() if "lora" in key.lower() and _names_file(value)), None)
    if lora or "lora" in node.kind.lower():
        raise broken(f"loads LoRAs with {node.kind}, which is not known; LoraLoader is", field="lora")
    for key, value in node.inputs.items():
        if plain(key) in ("clipskip", "stopatcliplayer", "clipstopatlayer") and says_something(value):
            raise broken(f"sets Clip Skip with {node.kind}, which is not known; CLIPSetLastLayer is", field="clip_skip")


def _names_file(value: object) -> bool:
    return not isinstance(value, list) and says_something(value) and str(value).lower() not in ("none", "false", "0")


def words_of(graph: Graph, start: Node, side: str) -> Words:
    """The one text that is encoded for a side, and the way to its text encoder."""
    key = side if side in start.inputs else "conditioning"
    here = graph.link(start, key)
    name = "prompt" if side == "positive" else "negative prompt"
    passed: set[int] = set()
    while here is not None:
        node, output = here
        if "ckpt_name" in node.inputs and side in node.inputs:
            return _loader_words(graph, node, side)
        if what := NOT_REPEATED.get(node.kind):
            raise _refused(graph, f"makes its {name} with", node, what, field="prompt")
        if "clip" in node.inputs and (keys := [key for key in ("text", "text_g", "text_l") if key in node.inputs]):
            texts = {said.text() if (said := graph.value(node, key)) else "" for key in keys}
            if len(texts) != 1:
                raise broken(f"gives its two text encoders different texts for the {name}", field="prompt")
            return Words(text=texts.pop(), clip=way(graph, node, "clip", "CLIP"), emphasis=_emphasis(node))
        if id(node) in passed or "ckpt_name" in node.inputs:
            break
        passed.add(id(node))
        here = graph.onward(node, "CONDITIONING", side=side if output < 2 else "")
    raise broken(f"makes its {name} of no text; graphs with CLIPTextEncode can be repeated", field="prompt")


def _emphasis(node: Node) -> str:
    """How weights count; nodes of other packs say so: BNK's by weight_interpretation, smZ's by parser."""
    kind = node.inputs.get("weight_interpretation")
    if kind in ("A1111", "comfy"):
        node.take("weight_interpretation")
    parser = node.take("parser")
    if parser is not None and parser.value not in ("A1111", "comfy"):
        raise broken(
            f"reads its prompt with the parser {shown(parser.value)[:40]}; A1111 and comfy can be repeated",
            field="prompt",
        )
    if parser is not None and parser.value == "A1111":
        normed = node.take("mean_normalization")
        return "No norm" if normed is not None and normed.value is False else "Original"
    return "Original" if kind == "A1111" else EMPHASIS


def _loader_words(graph: Graph, node: Node, side: str) -> Words:
    """Efficient Loader and its like hold both texts themselves."""
    said = graph.value(node, side)
    return Words(text=said.text() if said else "", clip=(node,), emphasis=_emphasis(node))
