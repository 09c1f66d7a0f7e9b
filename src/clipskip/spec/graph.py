"""ComfyUI's graph in API form -> a Request: its first sampler, and what the links lead to."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clipskip.errors import SpecError
from clipskip.spec.lora import LoraRef
from clipskip.spec.render import Request
from clipskip.spec.resources import stem
from clipskip.spec.sampler_names import comfy_names as sampler_names
from clipskip.spec.skip import ClipSkip

Node = Mapping[str, Any]  # JSON: a class, and inputs that are values or links [node, output]
Graph = Mapping[str, Node]

CONDITIONING = ("conditioning", "conditioning_1", "conditioning_2", "conditioning_to", "conditioning_from")
LATENT = ("latent_image", "samples", "latent")


def is_graph(record: Node) -> bool:
    """Whether the JSON is a graph in API form."""
    return bool(record) and all(isinstance(node, dict) and "class_type" in node for node in record.values())


def read_graph(graph: Graph) -> Request:
    """What the graph draws first; SpecError where it says so in nodes that are not known here."""
    sampler, others = _samplers(graph)
    inputs = _inputs(sampler)
    models = list(_chain(graph, inputs.get("model"), ("model",)))
    encoder, passed = _encoder(graph, inputs.get("positive"), "prompt")
    below, also = _encoder(graph, inputs.get("negative"), "negative prompt")
    skip, below_skip = _clip_skip(graph, encoder), _clip_skip(graph, below)
    latent = next((i for i in map(_inputs, _chain(graph, inputs.get("latent_image"), LATENT)) if "width" in i), {})
    name, schedule = sampler_names(str(inputs["sampler_name"]), str(inputs.get("scheduler", "normal")))
    seed = inputs.get("seed", inputs.get("noise_seed", -1))
    return Request(
        prompt=_text(graph, _inputs(encoder)["text"]),
        negative_prompt=_text(graph, _inputs(below)["text"]),
        model=next((stem(str(i["ckpt_name"])) for i in map(_inputs, models) if "ckpt_name" in i), None),
        loras=_loras(graph, models, encoder),
        clip_skip=skip,
        negative_clip_skip=None if below_skip == skip else below_skip,
        steps=_whole(graph, inputs.get("steps", 20), "steps"),
        sampler=name,
        scheduler=schedule,
        cfg_scale=_number(graph, inputs.get("cfg", 7.0), "cfg"),
        seed=_whole(graph, seed, "seed"),
        width=_whole(graph, latent["width"], "width") if latent else None,
        height=_whole(graph, latent.get("height"), "height") if latent else None,
        unused=tuple(_unused(graph, inputs, [*others, *passed, *also])),
    )


def _inputs(node: Node) -> Node:
    found = node.get("inputs")
    return found if isinstance(found, dict) else {}


def _linked(graph: Graph, link: object) -> Node:
    """The node that a link leads to, or one without inputs."""
    return graph.get(str(link[0]), {}) if isinstance(link, list) and link else {}


def _chain(graph: Graph, link: object, keys: Sequence[str]) -> Iterator[Node]:
    """The nodes from a link on, along the first of the keys that is a link; each once."""
    seen: set[int] = set()
    node = _linked(graph, link)
    while node and id(node) not in seen:
        seen.add(id(node))
        yield node
        node = next((n for key in keys if (n := _linked(graph, _inputs(node).get(key)))), {})


def _samplers(graph: Graph) -> tuple[Node, list[Node]]:
    """The sampler that starts from an empty latent, and those that go on from a picture."""
    found = [n for n in graph.values() if {"sampler_name", "positive", "negative"} <= _inputs(n).keys()]
    for node in found:
        before = _chain(graph, _inputs(node).get("latent_image"), LATENT)
        if not any(other is earlier for earlier in before for other in found):
            return node, [other for other in found if other is not node]
    raise SpecError(
        "this ComfyUI graph has no KSampler; text-to-image graphs with one can be repeated", field="settings"
    )


def _encoder(graph: Graph, link: object, name: str) -> tuple[Node, list[Node]]:
    """The one node that encodes a text for this link, and the nodes that it passes."""
    waiting, passed, found = [_linked(graph, link)], list[Node](), list[Node]()
    while waiting:
        node = waiting.pop()
        inputs = _inputs(node)
        if "text" in inputs and "clip" in inputs:
            found.append(node)
        elif node and not any(node is other for other in passed):
            passed.append(node)
            links = [inputs.get(key) for key in (*CONDITIONING, "positive" if name == "prompt" else "negative")]
            waiting += [_linked(graph, one) for one in links if isinstance(one, list)]
    if len(found) != 1:
        raise SpecError(
            f"this ComfyUI graph makes its {name} of {len(found)} texts; graphs with one CLIPTextEncode can be repeated",
            field="settings",
        )
    return found[0], passed


def _clip_skip(graph: Graph, encoder: Node) -> ClipSkip:
    """The nearest CLIPSetLastLayer before the encoder counts; without one it is the last layer."""
    for node in _chain(graph, _inputs(encoder).get("clip"), ("clip",)):
        if "stop_at_clip_layer" in _inputs(node):
            value = _whole(graph, _inputs(node)["stop_at_clip_layer"], "stop_at_clip_layer")
            return ClipSkip.from_comfy(value)
    return ClipSkip(1)


def _loras(graph: Graph, models: Sequence[Node], encoder: Node) -> tuple[LoraRef, ...]:
    """The LoRAs on the UNet's way and on the text encoder's, in the order they are applied."""
    clips = list(_chain(graph, _inputs(encoder).get("clip"), ("clip",)))
    nodes = [*models, *(n for n in clips if not any(n is other for other in models))]
    found = []
    for node in reversed(nodes):
        inputs = _inputs(node)
        if "lora_name" in inputs:
            te, unet = (
                _number(graph, inputs.get(key, 0.0), key) if any(node is n for n in way) else 0.0
                for key, way in (("strength_clip", clips), ("strength_model", models))
            )
            found.append(LoraRef(name=stem(str(inputs["lora_name"])), text_encoder=te, unet=unet))
        elif "lora" in str(node.get("class_type")).lower():
            raise SpecError(
                f"this ComfyUI graph loads LoRAs with {node['class_type']}, which is not known; LoraLoader is",
                field="settings",
            )
    return tuple(found)


def _unused(graph: Graph, sampler: Node, passed: Sequence[Node]) -> Iterator[tuple[str, str]]:
    for key, usual in (("denoise", 1.0), ("start_at_step", 0.0)):
        value = _number(graph, sampler.get(key, usual), key)
        if value != usual:
            yield key, f"{value:g}"
    for node in passed:
        yield "ComfyUI node", str(node.get("class_type"))


def _text(graph: Graph, value: object) -> str:
    """A text, or the one text of the node that a link leads to."""
    if isinstance(value, str):
        return value
    node = _linked(graph, value)
    texts = [text for text in _inputs(node).values() if isinstance(text, str)]
    if len(texts) != 1:
        made = node.get("class_type", "a missing node")
        raise SpecError(f"this ComfyUI graph makes a prompt with {made}; type the text into it", field="prompt")
    return texts[0]


def _number(graph: Graph, value: object, name: str) -> float:
    """A number, or the one number of the node that a link leads to."""
    if isinstance(value, list):
        numbers = [n for n in _inputs(_linked(graph, value)).values() if isinstance(n, int | float)]
        value = numbers[0] if len(numbers) == 1 else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e20:
        raise SpecError(f"this ComfyUI graph: {name} is {str(value)[:40]!r}, which is not a number", field=name)
    return value


def _whole(graph: Graph, value: object, name: str) -> int:
    number = _number(graph, value, name)
    if not abs(number) < 1e20 or number != int(number):
        raise SpecError(f"this ComfyUI graph: {name} is {str(number)[:40]}, which is not a whole number", field=name)
    return int(number)
