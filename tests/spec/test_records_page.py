"""The manual's table of what is read from each tool's records is measured: a key belongs to the field that it changes.

`python tests/spec/test_records_page.py` writes it anew.
"""

import copy
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from spec.test_graphs import EFFICIENT, PARTS, PLAIN, POWER, advanced, node, with_nodes
from spec.test_json_records import A1111_BODY, CIVITAI, FOOOCUS, INVOKE, OLD_FOOOCUS, OLD_INVOKE, SWARM, TENSORART
from spec.test_more_tools import DRAW_THINGS, RUINED

from clipskip.errors import SpecError
from clipskip.spec import Request
from clipskip.spec.settings import request_from_text

Json = dict[str, Any]
PAGE = Path(__file__).parents[2] / "docs" / "other-tools-settings.md"
PLACE = re.compile(r"<!-- fields -->\n.*?<!-- end -->", re.DOTALL)
LINE: Json = {
    "Steps": 20, "Sampler": "DPM++ 2M", "Schedule type": "Karras", "CFG scale": 7, "Seed": 5, "Size": "512x768",
    "Model hash": "0123456789", "Model": "foxmix", "VAE hash": "abcdef01", "VAE": "kl-f8", "Variation seed": 3,
    "Variation seed strength": 0.5, "Denoising strength": 0.5, "Clip skip": 2, "ENSD": 31337, "RNG": "CPU", "Eta": 0.25,
    "Hires upscale": 2, "Hires upscaler": "Latent", "Emphasis": "No norm", "Negative clip skip": 3,
    "Refiner": "ref [0123456789]", "Refiner switch at": 0.3,
    "Lora hashes": "ogre: 0123456789ab", "TI hashes": "easy: 0123456789ab", "AddNet Model 1": "ink",
    "Phrase clip skips": "red frog=4",
}  # fmt: skip
MODULE_LINE: Json = {key: value for key, value in LINE.items() if not key.startswith("VAE")} | {"Module 1": "kl-f8"}
SDNEXT_LINE: Json = {key: value for key, value in LINE.items() if key != "Schedule type"} | {"Sampler sigma": "karras"}
FULL_BODY = A1111_BODY | {
    "subseed": 3, "subseed_strength": 0.5, "eta": 0.25, "s_churn": 0.5, "s_noise": 1.0, "denoising_strength": 0.5,
    "override_settings": A1111_BODY["override_settings"] | {"sd_vae": "kl-f8", "eta_noise_seed_delta": 31337, "randn_source": "CPU"},
}  # fmt: skip
EASY: Json = {
    "prompt": "a swamp", "negative_prompt": "lowres", "seed": 42, "use_stable_diffusion_model": "sd-v1-5", "clip_skip": True,
    "sampler_name": "dpmpp_2m", "width": 512, "height": 640, "num_inference_steps": 25, "guidance_scale": 7.5,
    "use_vae_model": "kl-f8", "use_lora_model": ["ogre"], "lora_alpha": [0.5],
}  # fmt: skip
NOVELAI: Json = {
    "prompt": "a swamp", "uc": "lowres", "steps": 28, "sampler": "k_euler_ancestral", "seed": 7, "scale": 11.0, "width": 512,
    "height": 768,
}  # fmt: skip
LORAS = with_nodes(
    {"model": ["30", 0]},
    n30=POWER,
    n12=node("VAEDecode", samples=["3", 0], vae=["11", 0]),
    n11=node("VAELoader", vae_name="a.pt"),
)
GUIDED = advanced(node("CFGGuider", model=["4", 0], positive=["6", 0], negative=["7", 0], cfg=6.5))
LOADED = copy.deepcopy(PLAIN) | {
    "30": node("LoraLoader", lora_name="ogre", strength_model=0.5, strength_clip=0.25, model=["4", 0], clip=["4", 1])
}
LOADED["3"]["inputs"]["model"], LOADED["10"]["inputs"]["clip"] = ["30", 0], ["30", 1]
TOOLS: dict[str, list[Json]] = {
    "A1111's text": [LINE, MODULE_LINE, SDNEXT_LINE],
    "A1111's API": [FULL_BODY],
    "Civitai": [CIVITAI],
    "ComfyUI": [LOADED, LORAS, GUIDED, PLAIN | PARTS, EFFICIENT],
    "SwarmUI": [SWARM],
    "InvokeAI": [INVOKE | {"vae": {"name": "kl-f8"}}],
    "InvokeAI 2": [OLD_INVOKE],
    "Fooocus": [FOOOCUS, OLD_FOOOCUS],
    "RuinedFooocus": [RUINED],
    "Draw Things": [DRAW_THINGS | {"seed_mode": "Torch CPU Compatible", "refiner": "ref", "refiner_start": 0.5}],
    "Easy Diffusion": [EASY],
    "NovelAI": [NOVELAI],
    "TensorArt": [TENSORART],
}
NEGATIVE = "a swamp\nNegative prompt: lowres"


def read(record: Json) -> Request:
    if record.get("Steps") and "Sampler" in record and "Prompt" not in record:
        pairs = (
            f'{key}: "{value}"' if "," in str(value) or ":" in str(value) else f"{key}: {value}"
            for key, value in record.items()
        )
        return request_from_text(f"{NEGATIVE}\n{', '.join(pairs)}")
    return request_from_text(json.dumps(record))


def leaves(value: Any, label: str) -> Iterator[tuple[str, Callable[[Any], Any], Any]]:
    """Label, a setter and the value of each text, number and switch in a record; links of a graph are none."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(items):
        name = f"{label}[]" if isinstance(key, int) else f"{label}.{key}".lstrip(".")
        if isinstance(inner, dict) and "class_type" in inner:
            yield from leaves(inner["inputs"], f"{inner['class_type']}")
        elif isinstance(inner, list) and len(inner) == 2 and isinstance(inner[0], str) and inner[0].isdecimal():
            continue
        elif isinstance(inner, dict | list):
            yield from leaves(inner, name)
        elif inner is not None:
            yield name, lambda new, key=key: value.__setitem__(key, new), inner


def other(name: str, value: Any) -> Any:
    """Another value that is as good."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 8 if value >= 0 else value - 8
    if isinstance(value, float):
        return value + 0.5 if value != 1.0 or "noise" in name else 0.5
    if "sampler" in name.lower() or (name == "scheduler" and "dpm" in value):
        return "heun"
    if "schedule" in name.lower() or name == "Sampler sigma":
        return "exponential"
    if name in ("RNG", "rand_device") or name.endswith("randn_source"):
        return "GPU" if value == "CPU" else "cuda"
    if name == "seed_mode":
        return "NVIDIA GPU Compatible"
    if name == "Emphasis":
        return "None"
    numbers = re.fullmatch(r"[\d\s()x,.]*\d[\d\s()x,.]*", value)
    return re.sub(r"\d+", lambda match: str(int(match[0]) + 8), value) if numbers else f"{value}x"


def measured(samples: list[Json]) -> dict[str, list[str]]:
    """The keys that change each field of the request."""
    found: dict[str, list[str]] = {}
    for sample in samples:
        before = read(sample)
        for number in range(len(list(leaves(sample, "")))):
            changed = copy.deepcopy(sample)
            name, put, value = list(leaves(changed, ""))[number]
            name = re.sub(r"lora_\d", "lora_N", name)
            put(other(name, value))
            try:
                after = read(changed)
            except SpecError as error:
                field_name = "hires" if str(error.field).startswith("hires") else str(error.field)
                if field_name in ("clip_skip", "size", "width", "height", "hires"):
                    found.setdefault(field_name, []).append(name)
                continue
            for field in fields(Request):
                if field.name not in ("unused",) and getattr(before, field.name) != getattr(after, field.name):
                    found.setdefault(field.name, []).append(name)
    return found


def table() -> str:
    keys = {tool: measured(samples) for tool, samples in TOOLS.items()}
    keys["A1111's text"] |= {"prompt": ["the lines before it"], "negative_prompt": ["Negative prompt"]}
    rows = [field.name for field in fields(Request) if any(field.name in found for found in keys.values())]
    lines = [f"| | {' | '.join(TOOLS)} |", f"|---|{'---|' * len(TOOLS)}"]
    for row in rows:
        cells = (", ".join(f"`{key}`" for key in dict.fromkeys(keys[tool].get(row, []))) for tool in TOOLS)
        lines.append(f"| {row.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def filled(page: str) -> str:
    return PLACE.sub(lambda _: f"<!-- fields -->\n{table()}\n<!-- end -->", page)


def test_the_table_is_what_the_readers_do() -> None:
    page = PAGE.read_text("utf-8")
    assert "<!-- end -->" in page and filled(page) == page


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text("utf-8")), "utf-8")
