"""A picture's request in another tool's form: a ComfyUI graph, diffusers code, or a command line."""

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from clipskip.errors import SpecError
from clipskip.prompt import Emphasis, Rules, read_prompt
from clipskip.sample import find_sampler
from clipskip.spec import (
    COMFY_SAMPLERS,
    PICTURE,
    SCHEDULES,
    ClipSkip,
    Dialect,
    Family,
    LoraRef,
    Request,
    Skip,
    asked_negative_skip,
    asked_skip,
    to_dialect,
)

COMFY_SAMPLER = {label: name for name, label in reversed(COMFY_SAMPLERS.items()) if name != "ddim"} | {"DDIM": "ddim"}
COMFY_SCHEDULE = {label: name for name, label in SCHEDULES.items()} | {"Automatic": "normal", "DDIM": "ddim_uniform"}
COMFY_KNOWN = frozenset(
    {"normal", "karras", "exponential", "sgm_uniform", "simple", "ddim_uniform", "beta", "kl_optimal"}
)
DIFFUSERS = {
    "Euler a": "EulerAncestralDiscreteScheduler", "Euler": "EulerDiscreteScheduler", "Heun": "HeunDiscreteScheduler",
    "LMS": "LMSDiscreteScheduler", "DPM2": "KDPM2DiscreteScheduler", "DPM2 a": "KDPM2AncestralDiscreteScheduler",
    "DPM++ 2M": "DPMSolverMultistepScheduler", "DPM++ 2M SDE": "DPMSolverMultistepScheduler",
    "DPM++ SDE": "DPMSolverSDEScheduler", "DPM++ 2S a": "DPMSolverSinglestepScheduler", "DDIM": "DDIMScheduler",
    "PLMS": "PNDMScheduler", "UniPC": "UniPCMultistepScheduler", "LCM": "LCMScheduler",
}  # fmt: skip
KARRAS = frozenset(
    {"Euler", "Heun", "LMS", "DPM2", "DPM2 a", "DPM++ 2M", "DPM++ 2M SDE", "DPM++ SDE", "DPM++ 2S a", "UniPC"}
)
"""Samplers whose scheduler in diffusers takes `use_karras_sigmas`."""
SDCPP = {
    "Euler a": "euler_a", "Euler": "euler", "Heun": "heun", "DPM2": "dpm2", "DPM++ 2S a": "dpm++2s_a", "DPM++ 2M": "dpm++2m",
    "LCM": "lcm", "DDIM": "ddim_trailing",
}  # fmt: skip
SDCPP_SCHEDULE = {"Automatic": "discrete", "Normal": "discrete", "Karras": "karras", "Exponential": "exponential",
                  "Align Your Steps": "ays"}  # fmt: skip

INVOKE = {
    "Euler a": "euler_a", "Euler": "euler", "Heun": "heun", "LMS": "lms", "DPM2": "kdpm_2", "DPM2 a": "kdpm_2_a",
    "DPM++ 2M": "dpmpp_2m", "DPM++ SDE": "dpmpp_sde", "DPM++ 2M SDE": "dpmpp_2m_sde", "DPM++ 2S a": "dpmpp_2s",
    "DDIM": "ddim", "UniPC": "unipc", "LCM": "lcm",
}  # fmt: skip
INVOKE_BASE = {Family.SD1: "sd-1", Family.SD2: "sd-2", Family.SDXL: "sdxl"}
LEFT_OUT = frozenset(
    {"prediction", "noise_schedule", "eta", "s_churn", "s_tmin", "s_tmax", "ensd", "crop_top", "crop_left"}
)
"""Settings that no form has; they are named where they are set."""
UNSET = (None, 0, "Default")


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A picture in one tool's own form."""

    tool: str
    file: str
    """The name to save it under."""
    text: str
    notes: tuple[str, ...] = ()
    """What the tool does differently."""
    error: str = ""
    """Why there is no form; the text is then empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Picture:
    """The settings that every form contains."""

    request: Request
    prompt: str
    """The text without its LoRA tags."""
    loras: tuple[LoraRef, ...]
    sampler: str
    schedule: str
    skip: Skip
    negative: Skip
    width: int
    height: int
    family: Family
    embeddings: tuple[str, ...]


def forms_of(request: Request, *, family: Family) -> tuple[Form, ...]:
    """Return the forms of a picture whose Clip Skip, seed and size are fixed."""
    asked = asked_skip(request, family)
    return row_forms(request, [asked.skip if asked else ClipSkip(family.default_skip)], family=family)[0]


def row_forms(request: Request, skips: Sequence[Skip], *, family: Family) -> list[tuple[Form, ...]]:
    """Return the forms of pictures that differ in their Clip Skip alone."""
    rules = Rules(emphasis=Emphasis.parse(request.emphasis))
    sampler, schedule = find_sampler(request.sampler, request.scheduler)
    read = read_prompt(request.prompt, steps=request.steps * sampler.order, rules=rules)
    negative = asked_negative_skip(request, family)
    picture = _Picture(
        request=request, prompt=read.text.strip(), loras=(*read.loras, *request.loras), sampler=sampler.name,
        schedule=schedule, skip=skips[0], negative=negative or skips[0],
        width=request.width or 512, height=request.height or 512, family=family,
        embeddings=tuple(name for name, _ in request.embedding_hashes),
    )  # fmt: skip
    made = (
        ("ComfyUI", "workflow.json", _comfy), ("diffusers", "draw.py", _diffusers), ("SwarmUI", "swarmui.json", _swarm),
        ("InvokeAI", "invokeai.json", _invoke), ("stable-diffusion.cpp", "draw.sh", _sdcpp),
    )  # fmt: skip
    pictures = [replace(picture, skip=skip, negative=negative or skip) for skip in skips]
    return [tuple(_form(tool, file, write, picture) for tool, file, write in made) for picture in pictures]


def _form(tool: str, file: str, write: Callable[[_Picture], str], picture: _Picture) -> Form:
    try:
        _refuse(picture, tool)
        return Form(tool=tool, file=file, text=write(picture), notes=tuple(_notes(picture, tool)))
    except SpecError as error:
        return Form(tool=tool, file=file, text="", error=str(error))


def _refuse(picture: _Picture, tool: str) -> None:
    """Raise SpecError for what no form supports yet."""
    asked = picture.request
    unsaid = {
        "a Clip Skip of one phrase": asked.phrase_skips, "a picture to begin at": asked.start, "a hires pass": asked.hires,
        "a variation seed": asked.variation_strength, "a refiner": asked.refiner,
    }  # fmt: skip
    for what, there in unsaid.items():
        if there:
            raise SpecError(f"the form for {tool} does not support {what}; take the settings without it")


def _notes(picture: _Picture, tool: str) -> Iterator[str]:
    """Yield where the tool reads a prompt differently, or draws other noise."""
    text = f"{picture.prompt} {picture.request.negative_prompt}"
    if tool == "diffusers" and re.search(r"[()\[\]]|\bBREAK\b|\bAND\b", text):
        yield "diffusers reads weights, BREAK, AND and edits as plain words"
    if tool == "ComfyUI" and re.search(r"\[|\bBREAK\b|\bAND\b", text):
        yield "ComfyUI reads [..], BREAK and AND as plain words, and scales weights otherwise"
    left = [(row.label, getattr(picture.request, row.name)) for row in PICTURE if row.name in LEFT_OUT]
    told = [f"{label} {value}" for label, value in left if value not in UNSET]
    told += [f"VAE {picture.request.vae}"] if picture.request.vae and tool in ("diffusers", "InvokeAI") else []
    if told:
        yield f"left out here: {', '.join(told)}; set that in {tool} yourself, where it has it"
    if picture.request.rng != "CPU":
        yield f"the noise here was {picture.request.rng}'s; {tool} draws its own, so the picture differs"


def _tool_number(skip: Skip, picture: _Picture, dialect: Dialect) -> int:
    """Return a whole Clip Skip in a tool's numbers."""
    number = str(to_dialect(skip, dialect, family=picture.family))
    if not re.fullmatch(r"-?\d+", number):
        raise SpecError(
            f"{dialect.label} takes only whole Clip Skips, not {skip}; choose a whole one", field="clip_skip"
        )
    return int(number)


def _comfy(picture: _Picture) -> str:
    """Return a graph in API form, which ComfyUI opens and runs."""
    asked, nodes = picture.request, dict[str, Any]()  # Any: a node's inputs

    def add(kind: str, **inputs: object) -> str:
        nodes[str(len(nodes) + 1)] = {"class_type": kind, "inputs": inputs}
        return str(len(nodes))

    sampler, schedule = COMFY_SAMPLER.get(picture.sampler), COMFY_SCHEDULE.get(picture.schedule)
    if sampler is None or schedule not in COMFY_KNOWN:
        raise SpecError(
            f"ComfyUI has no sampler {picture.sampler} on the schedule {picture.schedule}; choose another",
            field="sampler",
        )
    loader = add("CheckpointLoaderSimple", ckpt_name=f"{asked.model}.safetensors")
    model, clip, vae = [loader, 0], [loader, 1], [loader, 2]
    for lora in picture.loras:
        node = add(
            "LoraLoader", model=model, clip=clip, lora_name=f"{lora.name}.safetensors", strength_model=lora.unet,
            strength_clip=lora.text_encoder,
        )  # fmt: skip
        model, clip = [node, 0], [node, 1]
    if asked.vae:
        vae = [add("VAELoader", vae_name=f"{asked.vae}.safetensors"), 0]
    skips = list(dict.fromkeys((picture.skip, picture.negative)))
    numbers = [_tool_number(skip, picture, Dialect.COMFYUI) for skip in skips]
    set_at = [[add("CLIPSetLastLayer", clip=clip, stop_at_clip_layer=number), 0] for number in numbers]
    above, below = set_at[0], set_at[-1]
    latent = add("EmptyLatentImage", width=picture.width, height=picture.height, batch_size=1)
    latents = add(
        "KSampler", model=model, seed=asked.seed, steps=asked.steps, cfg=asked.cfg_scale, sampler_name=sampler,
        scheduler=schedule, positive=[add("CLIPTextEncode", text=_called(picture.prompt, picture), clip=above), 0],
        negative=[add("CLIPTextEncode", text=_called(asked.negative_prompt, picture), clip=below), 0],
        latent_image=[latent, 0], denoise=1.0,
    )  # fmt: skip
    add("SaveImage", images=[add("VAEDecode", samples=[latents, 0], vae=vae), 0], filename_prefix="clipskip")
    return json.dumps(nodes, indent=2, ensure_ascii=False)


def _called(text: str, picture: _Picture) -> str:
    """Return a prompt whose embeddings are called in ComfyUI's syntax."""
    for name in picture.embeddings:
        text = re.sub(
            rf"(?<![\w:-]){re.escape(name)}(?![\w-])", lambda match: f"embedding:{match[0]}", text, flags=re.IGNORECASE
        )
    return text


CODE = '''\
import torch
from diffusers import {scheduler}, {pipeline}

MODEL = {model!r}  # the file, or a diffusers folder

load = {pipeline}.from_single_file if MODEL.endswith(".safetensors") else {pipeline}.from_pretrained
pipe = load(MODEL, safety_checker=None)
pipe.scheduler = {scheduler}.from_config(pipe.scheduler.config{options})
{loras}

def encode(text, clip_skip):
    """The text at a Clip Skip: layer 1 is the last. diffusers' own clip_skip counts otherwise and leaves the negative out."""
    ids = pipe.tokenizer(text, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        states = pipe.text_encoder(ids.to(pipe.device), output_hidden_states=True).hidden_states
        whole = getattr(pipe.text_encoder, "text_model", pipe.text_encoder)
        return whole.final_layer_norm(states[-clip_skip])


image = pipe(
    prompt_embeds=encode({prompt!r}, {skip}),
    negative_prompt_embeds=encode({negative!r}, {negative_skip}),
    num_inference_steps={steps},
    guidance_scale={cfg},
    width={width},
    height={height},
    generator=torch.Generator("cpu").manual_seed({seed}),
).images[0]
image.save("picture.png")
'''


def _adapters(loras: Sequence[LoraRef]) -> list[str]:
    """Return the lines that load the LoRAs into diffusers' pipeline and set their weights."""
    if not loras:
        return []
    lines = [
        f"pipe.load_lora_weights({f'{lora.name}.safetensors'!r}, adapter_name={f'lora{i}'!r})"
        for i, lora in enumerate(loras)
    ]
    weights = ", ".join(
        f"{lora.unet:g}"
        if lora.unet == lora.text_encoder
        else f"{{'unet': {lora.unet:g}, 'text_encoder': {lora.text_encoder:g}}}"
        for lora in loras
    )
    names = [f"lora{i}" for i in range(len(loras))]
    return [*lines, f"pipe.set_adapters({names!r}, adapter_weights=[{weights}])"]


def _diffusers(picture: _Picture) -> str:
    """Return a script that runs as it is once MODEL and the LoRAs' paths are right."""
    asked, scheduler = picture.request, DIFFUSERS.get(picture.sampler)
    if picture.family is not Family.SD1:
        raise SpecError(
            f"diffusers code is written only for SD 1.x, and this model is {picture.family.label}; take another form",
            field="model",
        )
    karras = picture.schedule == "Karras"
    if (
        scheduler is None
        or (karras and picture.sampler not in KARRAS)
        or picture.schedule not in ("Karras", "Automatic", "Normal", "DDIM")
    ):
        raise SpecError(
            f"diffusers has no sampler {picture.sampler} on the schedule {picture.schedule}; choose another",
            field="sampler",
        )
    options = (", use_karras_sigmas=True" if karras else "") + (
        ', algorithm_type="sde-dpmsolver++"' if picture.sampler == "DPM++ 2M SDE" else ""
    )
    return CODE.format(
        scheduler=scheduler, pipeline="StableDiffusionPipeline", model=f"{asked.model}.safetensors", options=options,
        loras="\n".join([*_adapters(picture.loras), ""]), prompt=picture.prompt, negative=asked.negative_prompt,
        skip=_whole_skip(picture.skip), negative_skip=_whole_skip(picture.negative), steps=asked.steps, cfg=f"{asked.cfg_scale:g}",
        width=picture.width, height=picture.height, seed=asked.seed,
    )  # fmt: skip


def _whole_skip(skip: Skip) -> int:
    if not isinstance(skip, ClipSkip) or skip.fraction:
        raise SpecError(f"this code takes only whole Clip Skips, not {skip}; choose a whole one", field="clip_skip")
    return skip.shallow


def _sdcpp(picture: _Picture) -> str:
    """Return a command line, with LoRAs as tags in the prompt."""
    asked, sampler, schedule = picture.request, SDCPP.get(picture.sampler), SDCPP_SCHEDULE.get(picture.schedule)
    if sampler is None or schedule is None:
        raise SpecError(
            f"stable-diffusion.cpp has no sampler {picture.sampler} on the schedule {picture.schedule}; choose another",
            field="sampler",
        )
    _one_skip(picture, "stable-diffusion.cpp")
    tags = "".join(f"<lora:{lora.name}:{_one_weight(lora, 'stable-diffusion.cpp'):g}>" for lora in picture.loras)
    words: Mapping[str, object] = {
        "-M": "img_gen", "-m": f"{asked.model}.safetensors", "-p": f"{picture.prompt} {tags}".strip(), "-n": asked.negative_prompt,
        "--clip-skip": _tool_number(picture.skip, picture, Dialect.SDCPP), "--sampling-method": sampler, "--scheduler": schedule,
        "--steps": asked.steps, "--cfg-scale": f"{asked.cfg_scale:g}", "--seed": asked.seed, "-W": picture.width,
        "-H": picture.height, "--rng": "cpu", "-o": "picture.png",
    }  # fmt: skip
    if tags:
        words = {**words, "--lora-model-dir": "loras"}
    if asked.vae:
        words = {**words, "--vae": f"{asked.vae}.safetensors"}
    return "sd-cli " + " ".join(f"{name} {shlex.quote(str(value))}" for name, value in words.items())


def _swarm(picture: _Picture) -> str:
    """Return the record that SwarmUI writes into its pictures and reads when it is pasted."""
    asked, sampler, schedule = picture.request, COMFY_SAMPLER.get(picture.sampler), COMFY_SCHEDULE.get(picture.schedule)
    if sampler is None or schedule not in COMFY_KNOWN:
        raise SpecError(
            f"SwarmUI has no sampler {picture.sampler} on the schedule {picture.schedule}; choose another",
            field="sampler",
        )
    _one_skip(picture, "SwarmUI")
    record: dict[str, object] = {
        "prompt": _embedded(picture.prompt, picture), "negativeprompt": _embedded(asked.negative_prompt, picture), "model": asked.model,
        "seed": asked.seed, "steps": asked.steps, "cfgscale": asked.cfg_scale, "width": picture.width, "height": picture.height,
        "sampler": sampler, "scheduler": schedule, "clipstopatlayer": _tool_number(picture.skip, picture, Dialect.SWARMUI),
    }  # fmt: skip
    if picture.loras:
        record |= {
            "loras": [lora.name for lora in picture.loras],
            "loraweights": [f"{_one_weight(lora, 'SwarmUI'):g}" for lora in picture.loras],
        }
    if asked.vae:
        record["vae"] = asked.vae
    return json.dumps({"sui_image_params": record}, indent=2, ensure_ascii=False)


def _embedded(text: str, picture: _Picture) -> str:
    """Return a prompt whose embeddings are called in SwarmUI's syntax."""
    return re.sub(r"embedding:([\w-]+)", r"<embed:\1>", _called(text, picture))


def _invoke(picture: _Picture) -> str:
    """Return the metadata that InvokeAI writes into its pictures and reads back from them."""
    asked, scheduler = picture.request, INVOKE.get(picture.sampler)
    base, karras = INVOKE_BASE.get(picture.family), picture.schedule == "Karras"
    if (
        scheduler is None
        or picture.schedule not in ("Automatic", "Normal", "DDIM", "Karras")
        or (karras and picture.sampler not in KARRAS)
    ):
        raise SpecError(
            f"InvokeAI has no sampler {picture.sampler} on the schedule {picture.schedule}; choose another",
            field="sampler",
        )
    if base is None:
        raise SpecError(f"InvokeAI has no Clip Skip on {picture.family.label}; choose another tool", field="model")
    _one_skip(picture, "InvokeAI")
    record = {
        "generation_mode": "txt2img", "positive_prompt": picture.prompt, "negative_prompt": asked.negative_prompt,
        "width": picture.width, "height": picture.height, "seed": asked.seed, "rand_device": "cpu", "cfg_scale": asked.cfg_scale,
        "steps": asked.steps, "scheduler": f"{scheduler}_k" if karras else scheduler,
        "clip_skip": _tool_number(picture.skip, picture, Dialect.INVOKEAI),
        "model": {"name": asked.model, "base": base, "type": "main"},
        "loras": [
            {"model": {"name": lora.name, "base": base, "type": "lora"}, "weight": _one_weight(lora, "InvokeAI")}
            for lora in picture.loras
        ],
    }  # fmt: skip
    return json.dumps(record, indent=2, ensure_ascii=False)


def _one_skip(picture: _Picture, tool: str) -> None:
    if picture.negative != picture.skip:
        raise SpecError(
            f"{tool} has one Clip Skip for both prompts; leave the negative prompt's out", field="negative_clip_skip"
        )


def _one_weight(lora: LoraRef, tool: str) -> float:
    if lora.unet != lora.text_encoder:
        raise SpecError(
            f"{tool} has one weight for a LoRA's text encoder and UNet; give it a single weight", field="loras"
        )
    return lora.unet
