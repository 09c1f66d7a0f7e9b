"""Other tools' metadata in JSON -> a Request: ComfyUI's graph, InvokeAI's, Fooocus' and NovelAI's records."""

import json
from collections.abc import Mapping
from typing import Any

from clipskip.errors import SpecError
from clipskip.spec.render import Request
from clipskip.spec.skip import ClipSkip

Node = Mapping[str, Any]  # JSON: numbers, texts and links

COMFY_SAMPLERS = {
    "euler": "Euler", "euler_ancestral": "Euler a", "heun": "Heun", "lms": "LMS", "dpm_2": "DPM2", "dpm_2_ancestral": "DPM2 a",
    "dpmpp_2m": "DPM++ 2M", "dpmpp_sde": "DPM++ SDE", "dpmpp_2m_sde": "DPM++ 2M SDE", "dpmpp_3m_sde": "DPM++ 3M SDE",
    "dpmpp_2s_ancestral": "DPM++ 2S a", "ddim": "DDIM", "uni_pc": "UniPC", "lcm": "LCM",
}  # fmt: skip
COMFY_SCHEDULES = {
    "normal": "Normal", "karras": "Karras", "exponential": "Exponential", "sgm_uniform": "SGM Uniform", "simple": "Simple",
    "ddim_uniform": "DDIM", "beta": "Beta",
}  # fmt: skip


def read_graph(text: str) -> Request | None:
    """The Request in a JSON record of another tool; None for a text that is not JSON."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        record = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    if isinstance(record.get("prompt"), dict):
        record = record["prompt"]
    if any(isinstance(node, dict) and "class_type" in node for node in record.values()):
        return _comfy(record)
    if "positive_prompt" in record:
        return _invoke(record)
    if "uc" in record and "prompt" in record:
        return _novelai(record)
    if "prompt" in record:
        return _fooocus(record)
    raise SpecError(
        "this JSON is no record of ComfyUI, InvokeAI, Fooocus or NovelAI; paste the settings text", field="settings"
    )


def _comfy(graph: Mapping[str, Node]) -> Request:
    """The first sampler of a ComfyUI graph in API form, with what its links lead to."""
    sampler = next(
        (node for node in graph.values() if "sampler_name" in node.get("inputs", {}) and "positive" in node["inputs"]),
        None,
    )
    if sampler is None:
        raise SpecError("this ComfyUI graph has no KSampler; clipskip repeats text-to-image graphs", field="settings")
    inputs = sampler["inputs"]
    prompt, skip = _comfy_text(graph, inputs.get("positive"))
    negative, negative_skip = _comfy_text(graph, inputs.get("negative"))
    latent = _linked(graph, inputs.get("latent_image")).get("inputs", {})
    name = str(inputs["sampler_name"])
    checkpoint = next(
        (str(n["inputs"]["ckpt_name"]) for n in graph.values() if "ckpt_name" in n.get("inputs", {})), None
    )
    return Request(
        prompt=prompt,
        negative_prompt=negative,
        model=checkpoint,
        clip_skip=skip,
        negative_clip_skip=None if negative_skip == skip else negative_skip,
        steps=_int(inputs.get("steps", 20), "steps"),
        sampler=COMFY_SAMPLERS.get(name, name),
        scheduler=COMFY_SCHEDULES.get(str(inputs.get("scheduler", "normal")), str(inputs.get("scheduler"))),
        cfg_scale=float(inputs.get("cfg", 7.0)),
        seed=_int(inputs.get("seed", inputs.get("noise_seed", -1)), "seed"),
        width=_int(latent["width"], "size") if "width" in latent else None,
        height=_int(latent["height"], "size") if "height" in latent else None,
    )


def _comfy_text(graph: Mapping[str, Node], link: object) -> tuple[str, ClipSkip]:
    """A conditioning's text, and the Clip Skip of the CLIP that read it: the last CLIPSetLastLayer counts."""
    node = _linked(graph, link)
    for _ in range(len(graph)):
        inputs = node.get("inputs", {})
        if "text" in inputs and "clip" in inputs:
            break
        node = _linked(graph, inputs.get("conditioning", inputs.get("conditioning_1")))
    inputs = node.get("inputs", {})
    text = inputs.get("text", "")
    if isinstance(text, list):
        source = _linked(graph, text).get("inputs", {})
        text = next((value for value in source.values() if isinstance(value, str)), "")
    clip = _linked(graph, inputs.get("clip"))
    for _ in range(len(graph)):
        if "stop_at_clip_layer" in clip.get("inputs", {}):
            return str(text), ClipSkip.from_comfy(_int(clip["inputs"]["stop_at_clip_layer"], "clip_skip"))
        clip = _linked(graph, clip.get("inputs", {}).get("clip"))
    return str(text), ClipSkip(1)


def _linked(graph: Mapping[str, Node], link: object) -> Node:
    """The node that a link leads to, or one without inputs."""
    return graph.get(str(link[0]), {}) if isinstance(link, list) and link else {}


def _invoke(record: Node) -> Request:
    """InvokeAI's metadata: its clip_skip counts layers skipped, so 0 is the last layer."""
    model = record.get("model")
    return Request(
        prompt=str(record["positive_prompt"]),
        negative_prompt=str(record.get("negative_prompt") or ""),
        model=str(model.get("name") or model.get("model_name")) if isinstance(model, dict) else None,
        clip_skip=ClipSkip.from_invoke(_int(record.get("clip_skip") or 0, "clip_skip")),
        steps=_int(record.get("steps", 20), "steps"),
        sampler=str(record.get("scheduler", "euler_a")).replace("euler_a", "Euler a").replace("euler", "Euler"),
        cfg_scale=float(record.get("cfg_scale", 7.0)),
        seed=_int(record.get("seed", -1), "seed"),
        width=record.get("width"),
        height=record.get("height"),
    )


def _novelai(record: Node) -> Request:
    """NovelAI's comment: its first models were read at Clip Skip 2, with an eta noise seed delta of 31337 (A1111 images.py)."""
    name = str(record.get("sampler", "k_euler_ancestral")).removeprefix("k_")
    return Request(
        prompt=str(record["prompt"]),
        negative_prompt=str(record["uc"]),
        clip_skip=ClipSkip(2),
        steps=_int(record.get("steps", 28), "steps"),
        sampler=COMFY_SAMPLERS.get(name, name),
        cfg_scale=float(record.get("scale", 11.0)),
        seed=_int(record.get("seed", -1), "seed"),
        width=record.get("width"),
        height=record.get("height"),
        ensd=31337,
    )


def _fooocus(record: Node) -> Request:
    """Fooocus' metadata; it counts Clip Skip as A1111 does."""
    size = str(record.get("resolution", "")).strip("()").split(",")
    skip = record.get("clip_skip", record.get("Clip_skip"))
    return Request(
        prompt=str(record["prompt"]),
        negative_prompt=str(record.get("negative_prompt") or ""),
        model=str(record["base_model"]) if "base_model" in record else None,
        model_hash=str(record["base_model_hash"]) if "base_model_hash" in record else None,
        clip_skip=None if skip is None else ClipSkip(_int(skip, "clip_skip")),
        steps=_int(record.get("steps", 20), "steps"),
        cfg_scale=float(record.get("guidance_scale", 7.0)),
        seed=_int(record.get("seed", -1), "seed"),
        width=_int(size[0], "size") if len(size) == 2 else None,
        height=_int(size[1], "size") if len(size) == 2 else None,
    )


def _int(value: object, field: str) -> int:
    try:
        return int(str(value))
    except ValueError:
        raise SpecError(
            f"settings: {field.replace('_', ' ')} is {str(value)[:40]!r}, which is not a whole number", field=field
        ) from None
