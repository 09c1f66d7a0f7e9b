"""ComfyUI's graph in API form -> a Request: its first sampler, and what the links lead to.

Nodes that are not known are gone through where they have one input of the kind that they give, and named; where that
would change the model, the text encoder or the words, the graph is refused.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from clipskip.errors import SpecError
from clipskip.spec.graph_files import check_checkpoints, checkpoint_of, loader_config, loras_on, vae_of
from clipskip.spec.graph_pipes import without_contexts
from clipskip.spec.graph_refiner import refining
from clipskip.spec.graph_ways import Words, texts_of, way
from clipskip.spec.nodes import Graph, Node, back_from, broken, is_sampler, number_of, word_of
from clipskip.spec.numbering import Dialect
from clipskip.spec.record_reader import Said, one_line
from clipskip.spec.render import Request
from clipskip.spec.sampler_names import comfy_names
from clipskip.spec.skip import ClipSkip

Size = tuple[int | None, int | None]
Needed = TypeVar("Needed")
SIGMAS: Mapping[str, str] = {
    "KarrasScheduler": "karras", "ExponentialScheduler": "exponential", "PolyexponentialScheduler": "polyexponential",
    "SDTurboScheduler": "turbo", "AlignYourStepsScheduler": "align_your_steps",
}  # fmt: skip
"""Nodes of one schedule; BasicScheduler names its own."""
SAMPLERS: Mapping[str, str] = {
    "SamplerEulerAncestral": "euler_ancestral", "SamplerDPMPP_SDE": "dpmpp_sde", "SamplerDPMPP_3M_SDE": "dpmpp_3m_sde",
    "SamplerDPMPP_2S_Ancestral": "dpmpp_2s_ancestral", "SamplerLMS": "lms",
}  # fmt: skip
"""Nodes of one sampler; KSamplerSelect names its own."""
NOISE_OF_ITS_DEVICE = ("Euler a", "DPM2 a", "DPM++ 2S a", "LCM")
"""Samplers whose noise ComfyUI draws on the device that it computes on, where the picture's first is a CPU's."""
PREDICTIONS: Mapping[str, str] = {"eps": "epsilon", "v_prediction": "v"}
"""ModelSamplingDiscrete's words for what the model predicts."""
LCM = "LCM"
SKIPS = ("stop_at_clip_layer", "clip_skip")
DISCARDS = ("DPM2", "DPM2 a", "UniPC bh1", "UniPC bh2")
"""Samplers for which ComfyUI's KSampler leaves out the level before the last."""
PLAIN_TRUTHS: Mapping[str, tuple[object, ...]] = {
    "denoise": (1, None), "start_at_step": (0, None), "add_noise": ("enable", True, None),
    "return_with_leftover_noise": ("disable", None), "batch_size": (1, None),
}  # fmt: skip
"""Inputs that say nothing at these values."""
NAME_SIZES = ("SDXLEmptyLatentSizePicker+", "SDXL Empty Latent Image (rgthree)", "EmptyLatentImagePresets")
"""Empty latents of Essentials, rgthree and KJNodes that name their size in one choice."""
NO_CHANGE: tuple[object, ...] = (
    "", "Off", "off", "None", "none", "custom", "Custom", "disabled", "width x height (custom)", "自定义 x 自定义", False, None, 1,
)  # fmt: skip
"""Values of inputs that might change a size, and do not."""

_CHANGES_SIZE = re.compile(
    r"ratio|aspect|swap|(?<!clip_)scale|factor|preset|resolution|orient|dimension|proportion|megapixel|multipl|divisible|landscape|"
    r"portrait|override|invert",
    re.IGNORECASE,
)
"""Inputs that change the width and height beside them, in some node or other."""
_NAMED_SIZE = re.compile(r"([0-9]{2,5}) ?[x×] ?([0-9]{2,5})(?![0-9])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """The settings of a sampler node, wherever ComfyUI keeps them."""

    node: Node
    model: Node
    """The node whose input `model` is the model."""
    seed: int
    steps: int
    cfg: float
    sampler: str
    scheduler: str
    custom: bool
    """Whether sampler and sigmas come from nodes of their own."""
    rest: Mapping[str, Any]
    """Eta and the size of noise, of nodes that have them."""


def read_graph(record: Mapping[str, Any], *, made: Size = (None, None)) -> Request:
    """Read the request of the graph's first picture; SpecError for nodes that cannot be repeated.

    `made` is the size of the picture that it made, for graphs that do not say it.
    """
    graph = Graph(without_contexts(record))
    sampled = _sampled(graph, _first_sampler(graph))
    models = way(graph, sampled.model, "model", "MODEL")
    positive = texts_of(graph, sampled.model, "positive")
    negative = texts_of(graph, sampled.model, "negative") if "negative" in sampled.model.inputs else None
    for text in filter(None, (positive, negative)):
        check_checkpoints(models, text.clip)
    width, height = _latent_size(graph, sampled.node, made)
    said = _prediction(models, sampled.sampler)
    loras = loras_on(graph, models, positive.clip)
    base, words = checkpoint_of(models[-1]), (positive, negative)
    finish = refining(graph, sampled.node, base=base, words=words, schedule=sampled.scheduler)
    if negative and loras_on(graph, models, negative.clip) != loras:
        raise broken("reads its prompt and its negative prompt with different LoRAs", field="lora")
    return Request(
        **sampled.rest,
        prompt=positive.text,
        negative_prompt=negative.text if negative else "",
        model=base,
        refiner=finish.model if finish else None,
        refiner_switch_at=finish.switch_at if finish else 0.8,
        vae=vae_of(graph, sampled.node, models[-1]),
        loras=loras,
        **_skips(positive, negative),
        steps=sampled.steps,
        sampler=sampled.sampler,
        scheduler=sampled.scheduler,
        cfg_scale=sampled.cfg,
        seed=sampled.seed,
        width=width,
        height=height,
        emphasis=positive.emphasis,
        prediction=said or loader_config(models[-1])[1],
        unused=(*graph.unused(), *_notes(sampled)),
    )


def _prediction(models: tuple[Node, ...], sampler: str) -> str | None:
    """Return the model's prediction if the graph sets it; the node nearest to the sampler counts. LCM is sampled as lcm."""
    samplings = [word_of(node, "sampling") or "" for node in models if node.kind == "ModelSamplingDiscrete"]
    if sampler == LCM:
        if samplings[:1] == ["lcm"]:
            return None
        raise broken("samples with lcm and a model that is not sampled so (ModelSamplingDiscrete lcm)", field="sampler")
    if samplings and samplings[0] not in PREDICTIONS:
        raise broken(
            f"samples with the model as {one_line(samplings[0])[:40]!r}; {' and '.join(PREDICTIONS)} can be repeated",
            field="model",
        )
    return PREDICTIONS[samplings[0]] if samplings else None


def _notes(sampled: Sampled) -> Iterator[tuple[str, str]]:
    if sampled.custom and sampled.sampler in DISCARDS:
        yield (
            f"{sampled.node.kind}'s levels",
            "ComfyUI keeps the one before the last there; here it is left out, as its KSampler does",
        )
    if sampled.sampler in NOISE_OF_ITS_DEVICE:
        yield (
            f"the noise of {sampled.sampler}'s steps",
            "ComfyUI on a GPU draws it there; here it is a CPU's, and the picture then differs in detail",
        )


def _first_sampler(graph: Graph) -> Node:
    """Return the sampler that goes on from no other."""
    samplers = [node for node in graph.nodes.values() if is_sampler(node)]
    for node in samplers:
        if not any(other in samplers for other, _ in back_from(graph, node)):
            return node
    others = dict.fromkeys(node.kind for node in graph.nodes.values() if node.inputs.keys() & {"sampler_name", "pipe"})
    told = f"; it samples in {', '.join(others)[:80]}, whose pipes are not known" if others else ""
    raise broken(f"has no KSampler{told}; text-to-image graphs with one can be repeated")


def _skips(positive: Words, negative: Words | None) -> dict[str, Any]:  # Any: a Request's fields
    """Return the Clip Skips of the prompt and of the negative prompt, in ComfyUI's numbers where no node sets one."""
    skip, is_set = _graph_skip(positive.clip), _sets_skip(positive.clip)
    below, below_set = (_graph_skip(negative.clip), _sets_skip(negative.clip)) if negative else (skip, is_set)
    return {
        "clip_skip": skip,
        "counted_by": None if is_set else Dialect.COMFYUI,
        "negative_clip_skip": None if (below, below_set) == (skip, is_set) else below,
        "negative_counted_by": None if below_set else Dialect.COMFYUI,
    }


def _guider_and_noise(graph: Graph, node: Node) -> tuple[Node, Node]:
    """Return the nodes that give the sampler its texts and its noise; a KSampler is both itself."""
    guider = graph.link(node, "guider") if "guider" in node.inputs else None
    if guider is None:
        return node, node
    model = guider[0]
    if model.kind not in ("CFGGuider", "BasicGuider"):
        raise broken(f"guides with {model.kind}; CFGGuider and BasicGuider can be repeated")
    source = graph.link(node, "noise")
    return model, source[0] if source else node


def _seed_of(graph: Graph, noise: Node) -> int:
    seed = _needed(number_of(graph, noise, "seed") or number_of(graph, noise, "noise_seed"), "seed", noise).whole()
    if seed < 0:
        raise broken(f"has the seed {seed}, for which a node drew one by chance; put in the one it drew", field="seed")
    return seed


def _sampled(graph: Graph, node: Node) -> Sampled:
    """Return the settings of a KSampler, a SamplerCustom or a SamplerCustomAdvanced."""
    for key, truths in PLAIN_TRUTHS.items():
        _drop(node, key, truths)
    model, noise = _guider_and_noise(graph, node)
    seed = _seed_of(graph, noise)
    rest: dict[str, Any] = {}
    if "sampler_name" in node.inputs:
        for key in ("sampler_name", "scheduler"):
            graph.settle(node, key)
        name, steps, schedule = (
            word_of(node, "sampler_name"),
            number_of(graph, node, "steps"),
            word_of(node, "scheduler"),
        )
        end = node.inputs.get("end_at_step")
        if isinstance(end, int | float) and steps and end >= steps.number():
            node.take("end_at_step")
    else:
        name = _custom_sampler(graph, node, rest)
        steps, schedule = _custom_sigmas(graph, node)
    cfg = None if model.kind == "BasicGuider" else _needed(number_of(graph, model, "cfg"), "cfg", model)
    sampler, kind = comfy_names(_needed(name, "sampler_name", node), _needed(schedule, "scheduler", node))
    return Sampled(
        node=node,
        model=model,
        seed=seed,
        steps=_needed(steps, "steps", node).whole(),
        cfg=cfg.number() if cfg else 1.0,
        sampler=sampler,
        scheduler=kind,
        custom="sampler_name" not in node.inputs,
        rest=rest,
    )


def _needed(said: Needed | None, key: str, node: Node) -> Needed:
    """Return a node's input that ComfyUI requires; SpecError where it is missing."""
    if said is None:
        raise broken(f"has no {key} for {node.kind}, without which ComfyUI draws nothing; give it whole", field=key)
    return said


def _custom_sampler(graph: Graph, node: Node, rest: dict[str, Any]) -> str | None:
    sampler = graph.link(node, "sampler")
    if sampler is None:
        raise broken("has a sampler node without a sampler", field="sampler")
    chosen = sampler[0]
    if name := SAMPLERS.get(chosen.kind):
        rest |= {key: said.number() for key in ("eta", "s_noise") if (said := chosen.take(key))}
        return name
    if chosen.kind != "KSamplerSelect":
        raise broken(f"samples with {chosen.kind}; KSamplerSelect can be repeated", field="sampler")
    graph.settle(chosen, "sampler_name")
    return word_of(chosen, "sampler_name")


def _custom_sigmas(graph: Graph, node: Node) -> tuple[Said | None, str | None]:
    """Steps and schedule of a custom sampler; nodes that change the sigmas on the way are named."""
    sigmas = graph.link(node, "sigmas")
    passed: set[int] = set()
    while sigmas and sigmas[0].kind not in (*SIGMAS, "BasicScheduler"):
        if id(sigmas[0]) in passed:
            raise broken("runs in a circle")
        passed.add(id(sigmas[0]))
        sigmas = graph.onward(sigmas[0], "SIGMAS")
    if sigmas is None:
        raise broken("has a sampler node without sigmas", field="scheduler")
    source = sigmas[0]
    _drop(source, "denoise", PLAIN_TRUTHS["denoise"])
    if isinstance(source.inputs.get("model"), list):
        source.take("model")
    graph.settle(source, "scheduler")
    return number_of(graph, source, "steps"), SIGMAS.get(source.kind) or word_of(source, "scheduler")


def _drop(node: Node, key: str, truths: tuple[object, ...]) -> None:
    """Take an input that says nothing."""
    if key in node.inputs and any(node.inputs[key] == truth for truth in truths):
        node.take(key)


def _sets_skip(way_to_clip: tuple[Node, ...]) -> bool:
    set_by_node = any(key in node.inputs for node in way_to_clip for key in SKIPS)
    return set_by_node or loader_config(way_to_clip[-1])[0] is not None


def _graph_skip(way: tuple[Node, ...]) -> ClipSkip:
    """Return the nearest CLIPSetLastLayer before the encoder counts, then the loader's config; without both it is the last layer."""
    said = [said.whole() for node in way for key in SKIPS if (said := node.take(key))]
    layer, _ = loader_config(way[-1])
    return ClipSkip.from_comfy(next((number for number in (*said, layer) if number is not None), -1))


def _latent_size(graph: Graph, node: Node, made: Size) -> Size:
    """Return the size of the empty latent, or of the picture that the graph begins with; SpecError where it is not known."""
    here = graph.link(node, "latent_image")
    if here is None and None in made and "image" not in node.inputs:
        _needed(here, "latent_image", node)
    passed: set[int] = set()
    kind = "LATENT"
    scaled = False
    while here is not None and id(here[0]) not in passed:
        source = here[0]
        passed.add(id(source))
        if size := _size_of(graph, source, made, scaled=scaled):
            return size
        scaled = scaled or bool(_changing_size(source))
        if "pixels" in source.inputs or "image" in source.inputs:
            kind = "IMAGE"
        if not any(isinstance(value, list) for value in source.inputs.values()):
            if kind == "LATENT" and None in made:
                raise broken(
                    f"begins at {source.kind}, which does not say its size in a way that is known; give the picture that it "
                    "made, whose size then counts",
                    field="size",
                )
            return made
        here = graph.onward(source, kind)
    return made


def _changing_size(node: Node) -> dict[str, object]:
    """Inputs that may make another size of the one beside them, or of the latent that comes in."""
    return {
        key: value
        for key, value in node.inputs.items()
        if _CHANGES_SIZE.search(key)
        and not key.endswith("upscale_method")
        and (value is True or value not in NO_CHANGE)
    }


def _size_of(graph: Graph, source: Node, made: Size, *, scaled: bool) -> Size | None:
    """Return the size that a node says; None for a node that says none. SpecError where something may change it, and the size of
    the picture is not known."""
    prefix = next((p for p in ("", "empty_latent_") if {f"{p}width", f"{p}height"} <= source.inputs.keys()), None)
    if prefix is None and source.kind not in NAME_SIZES:
        return None
    _drop(source, "batch_size", PLAIN_TRUTHS["batch_size"])
    others = _changing_size(source)
    named = [match for value in others.values() if isinstance(value, str) and (match := _NAMED_SIZE.search(value))]
    if len(named) == len(others) == 1 and not scaled:
        source.take(next(iter(others)))
        return int(named[0][1]), int(named[0][2])
    if prefix is None:
        return None  # one of its other inputs changes the size
    if (others or scaled) and None in made:
        what = f"{' and '.join(others)[:60]} of {source.kind}" if others else "a node between"
        raise broken(
            f"has a size that {what} may change, in a way that is not known; give the picture that it made, whose size then "
            "counts",
            field="size",
        )
    if others or scaled:
        return made
    try:
        sides = [graph.value(source, f"{prefix}{side}") for side in ("width", "height")]
    except SpecError:
        if None in made:
            raise
        source.take(f"{prefix}height")
        return made
    width, height = (_needed(side, name, source).whole() for side, name in zip(sides, ("width", "height"), strict=True))
    return width, height
