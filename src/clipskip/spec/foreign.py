"""Other tools' records -> a Request: ComfyUI's graph, InvokeAI's, Fooocus', Easy Diffusion's and NovelAI's metadata.

Spellings read in InvokeAI's metadata.py, Fooocus' modules/meta_parser.py, Easy Diffusion's save_utils.py and A1111's
reading of NovelAI (modules/images.py). Their prompts are taken as they are: where A1111 reads weights otherwise than
the tool, so do we.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from clipskip.errors import SpecError
from clipskip.spec.family import Family
from clipskip.spec.graph import is_graph, read_graph, sampler_names, stem
from clipskip.spec.lora import LoraRef
from clipskip.spec.numbering import Dialect
from clipskip.spec.render import Request
from clipskip.spec.skip import ClipSkip

Record = Mapping[str, Any]  # JSON

PROMPT = ("prompt", "Prompt", "positive_prompt")
NEGATIVE = ("negative_prompt", "Negative Prompt", "negativePrompt", "Negative", "uc")
STEPS = ("steps", "num_inference_steps", "Steps")
CFG = ("cfg_scale", "guidance_scale", "Guidance Scale", "cfgScale", "cfg", "scale")
SEED = ("seed", "Seed")
WIDTH, HEIGHT = ("width", "Width"), ("height", "Height")
MODEL = ("use_stable_diffusion_model", "Stable Diffusion model", "base_model", "base_model_name", "Model", "model")
SKIP = ("clip_skip", "Clip Skip", "Clip_skip", "clipSkip")
LORA_NAMES, LORA_STRENGTHS = ("use_lora_model", "LoRA model"), ("lora_alpha", "LoRA Strength")
SAMPLERS = {
    "euler_a": ("Euler a", "Automatic"),
    "euler_k": ("Euler", "Karras"),
    "dpm2": ("DPM2", "Automatic"),
    "dpm2_a": ("DPM2 a", "Automatic"),
    "kdpm_2": ("DPM2", "Automatic"),
    "kdpm_2_a": ("DPM2 a", "Automatic"),
    "dpmpp_2s": ("DPM++ 2S a", "Automatic"),
    "dpmpp_2s_a": ("DPM++ 2S a", "Automatic"),
    "unipc": ("UniPC", "Automatic"),
    "plms": ("PLMS", "Automatic"),
}
"""InvokeAI's and Easy Diffusion's names beside ComfyUI's; a name that ends in _k is on Karras' schedule."""
FAMILIES = {"sd-1": Family.SD1, "sd-2": Family.SD2, "sdxl": Family.SDXL}
"""InvokeAI's `base`."""
NOVELAI_SKIP, NOVELAI_ENSD = ClipSkip(2), 31337
"""What A1111 adds to NovelAI's pictures."""


def read_record(text: str) -> Request | None:
    """The Request in another tool's record; None for a text that is none."""
    record = _json(text) or _lines(text)
    if record is None:
        return None
    if isinstance(record.get("prompt"), dict):
        record = record["prompt"]
    if is_graph(record):
        return read_graph(record)
    if isinstance(record.get("nodes"), list):
        raise SpecError(
            "this is ComfyUI's drawing of a workflow; save it in API form, or give the picture itself", field="settings"
        )
    if not any(isinstance(record.get(key), str) for key in PROMPT):
        raise SpecError(
            "this JSON is no record of ComfyUI, InvokeAI, Fooocus, Easy Diffusion or NovelAI; paste the settings text",
            field="settings",
        )
    return _request(record)


def _json(text: str) -> Record | None:
    if not text.lstrip().startswith("{"):
        return None
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _lines(text: str) -> Record | None:
    """Easy Diffusion's text file: a line for each setting."""
    pairs = [line.partition(":") for line in text.strip().split("\n")]
    record = {key.strip(): value.strip() for key, colon, value in pairs if colon}
    return record if "Prompt" in record and "Stable Diffusion model" in record else None


def _request(record: Record) -> Request:
    novelai = "uc" in record
    sampler, schedule = _sampler(record)
    width, height = _size(record)
    model = _first(record, MODEL)
    name = (model.get("name") or model.get("model_name")) if isinstance(model, dict) else model
    return Request(
        prompt=str(_first(record, PROMPT)),
        negative_prompt=str(_first(record, NEGATIVE) or ""),
        model=stem(str(name)) if name else None,
        model_hash=str(record["base_model_hash"]) if record.get("base_model_hash") else None,
        loras=tuple(_loras(record)),
        clip_skip=NOVELAI_SKIP if novelai else _clip_skip(record),
        steps=_whole(record, STEPS, 20),
        sampler=sampler,
        scheduler=schedule,
        cfg_scale=_number(record, CFG, 7.0),
        seed=_whole(record, SEED, -1),
        width=width,
        height=height,
        rng="GPU" if novelai or record.get("rand_device") == "cuda" else "CPU",
        ensd=NOVELAI_ENSD if novelai else 0,
        unused=tuple(_unused(record)),
    )


def _first(record: Record, keys: tuple[str, ...]) -> Any:  # JSON
    """The value under the first of the keys that has one."""
    return next((record[key] for key in keys if record.get(key) not in (None, "")), None)


def _clip_skip(record: Record) -> ClipSkip | None:
    """InvokeAI counts layers skipped, Easy Diffusion has a switch, the others count as A1111 does."""
    value = _first(record, SKIP)
    if value is None:
        return ClipSkip(1) if "positive_prompt" in record else None
    if "positive_prompt" in record:
        model = record.get("model")
        base = str(model.get("base") or model.get("base_model")) if isinstance(model, dict) else ""
        return ClipSkip.from_dialect(value, Dialect.INVOKEAI, family=FAMILIES.get(base, Family.SD1))
    if isinstance(value, bool) or str(value).strip().lower() in ("true", "false", "yes", "no"):
        return ClipSkip.from_dialect(str(value), Dialect.EASYDIFFUSION)
    return ClipSkip.parse(str(value))


def _sampler(record: Record) -> tuple[str, str]:
    """Sampler and schedule type; InvokeAI calls its sampler a scheduler."""
    said = _first(record, ("sampler_name", "sampler", "Sampler"))
    schedule = str(record.get("scheduler", "")) if said else ""
    name = str(said or record.get("scheduler") or "euler_a").removeprefix("k_")
    karras = name.removesuffix("_k")
    if name in SAMPLERS:
        return SAMPLERS[name]
    if karras != name:
        return sampler_names(karras, "karras")
    return sampler_names(name, schedule or "Automatic")


def _size(record: Record) -> tuple[int | None, int | None]:
    """Width and height; Fooocus writes "(896, 1152)"."""
    pair = re.findall(r"\d+", str(record.get("resolution", "")))
    if len(pair) == 2:
        return int(pair[0]), int(pair[1])
    return _whole(record, WIDTH, 0) or None, _whole(record, HEIGHT, 0) or None


def _loras(record: Record) -> Iterator[LoraRef]:
    """InvokeAI: a list of models; Fooocus: a list of name, weight, hash; Easy Diffusion: names and strengths apart."""
    for lora in _list(record.get("loras")):
        if isinstance(lora, dict):
            model = lora.get("model") or lora.get("lora")
            model = model if isinstance(model, dict) else {}
            yield _lora(model.get("name") or model.get("model_name"), lora.get("weight", 1.0))
        elif isinstance(lora, list) and len(lora) > 1:
            yield _lora(lora[0], lora[1])
        else:
            raise _nonsense("loras", lora, "a name with its weight")
    names, strengths = _list(_first(record, LORA_NAMES)), _list(_first(record, LORA_STRENGTHS))
    for i, name in enumerate(names):
        yield _lora(name, strengths[i] if i < len(strengths) else 1.0)


def _lora(name: object, strength: object) -> LoraRef:
    number = _number({"LoRA strength": strength}, ("LoRA strength",), 1.0)
    if not name:
        raise SpecError("settings: a LoRA has no name", field="lora")
    return LoraRef(name=stem(str(name)), text_encoder=number, unet=number)


def _list(value: object) -> list[object]:
    """The entries of a list, which a text file joins with commas."""
    if isinstance(value, list):
        return value
    parts = str(value or "").strip("[]").split(",")
    return [name for part in parts if (name := part.strip(" '\"")) not in ("", "None")]


def _unused(record: Record) -> Iterator[tuple[str, str]]:
    """Settings that change a picture and that we do not have."""
    for key in ("strength", "init_image", "controlnets", "refiner_model", "hrf_enabled", "use_face_correction", "Use Upscaling",
                "use_upscale", "use_controlnet_model", "use_hypernetwork_model", "styles", "sharpness", "freeu", "tiling"):  # fmt: skip
        value = record.get(key)
        if value not in (None, False, "", "None", "none", "False", "[]", []):
            yield key, str(value)[:80]


def _whole(record: Record, keys: tuple[str, ...], default: int) -> int:
    value = _first(record, keys)
    if value is None:
        return default
    text = str(value).strip().removesuffix(".0")
    if isinstance(value, bool) or not re.fullmatch(r"[-+]?[0-9]{1,20}", text):
        raise _nonsense(keys[0], value, "a whole number")
    return int(text)


def _number(record: Record, keys: tuple[str, ...], default: float) -> float:
    value = _first(record, keys)
    if value is None:
        return default
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise _nonsense(keys[0], value, "a number")
    return number


def _nonsense(key: str, value: object, wanted: str) -> SpecError:
    return SpecError(f"settings: {key.replace('_', ' ')} {str(value)[:40]!r} is not {wanted}", field=key)
