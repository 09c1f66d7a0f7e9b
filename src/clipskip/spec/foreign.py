"""Other tools' records -> a Request: ComfyUI's graphs, and the JSON and texts of the tools in SOURCES.

Spellings read in InvokeAI's metadata.py, Fooocus' modules/meta_parser.py and private_logger.py, Easy Diffusion's
save_utils.py, SwarmUI's T2IParamInput, A1111's api/models.py and its reading of NovelAI (modules/images.py). Weights
of words become A1111's; what else a prompt holds is taken as it is.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from clipskip.errors import SpecError
from clipskip.spec.asking import A1111, Source, read_request, read_size
from clipskip.spec.graph import read_graph
from clipskip.spec.nodes import is_graph
from clipskip.spec.numbering import Dialect
from clipskip.spec.reader import SPELLINGS, Reader, Said, plain, shown
from clipskip.spec.render import Request
from clipskip.spec.sampler_names import comfy_names
from clipskip.spec.skip import ClipSkip
from clipskip.spec.word_weights import invoke_words, novelai_words

Record = Mapping[str, Any]  # JSON

INVOKEAI = Source(
    label="InvokeAI", scheduler_is_sampler=True, sampler="euler", dialect=Dialect.INVOKEAI, words=invoke_words
)
OLD_INVOKEAI = Source(label="InvokeAI 2", sampler="k_lms", clip_skip=ClipSkip(1), words=invoke_words)
NOVELAI = Source(label="NovelAI", rng="GPU", ensd=31337, clip_skip=ClipSkip(2), words=novelai_words)
"""What A1111 adds to NovelAI's pictures."""
FOOOCUS = Source(label="Fooocus", names=comfy_names, sampler="dpmpp_2m_sde_gpu")
EASY_DIFFUSION = Source(label="Easy Diffusion", switch=True)
SWARMUI = Source(label="SwarmUI", names=comfy_names, sampler="euler", emphasis="ComfyUI")
TENSORART = replace(A1111, label="TensorArt", sampler="")
STABILITY_MATRIX = replace(A1111, label="StabilityMatrix", sampler="")
OTHER = Source(label="other JSON")
PERFORMANCE = {"speed": 30, "quality": 60}
"""Steps of Fooocus' presets; its others add a LoRA of their own."""
MARKS: tuple[tuple[Source, frozenset[str]], ...] = (
    (NOVELAI, frozenset({"uc"})),
    (STABILITY_MATRIX, frozenset({"modelname"})),
    (INVOKEAI, frozenset({"positiveprompt"})),
    (OLD_INVOKEAI, frozenset({"appid", "appversion"})),
    (EASY_DIFFUSION, frozenset({"usestablediffusionmodel", "stablediffusionmodel"})),
    (FOOOCUS, frozenset({"metadatascheme", "performance", "admguidance", "fooocusv2expansion", "basemodelname"})),
    (TENSORART, frozenset({"modelfileid", "basemodelid"})),
    (A1111, frozenset({"cfgscale", "overridesettings", "samplerindex", "resources", "civitairesources", "modelhash"})),
)
"""Keys that only one tool's records have, as `plain` spells them; the first that fits counts."""
UNWRAPPED = ("sui_image_params", "meta", "image", "override_settings")
"""Keys under which tools keep settings of a record: SwarmUI, Civitai's lists, InvokeAI 2, A1111's API."""
APP = "invoke-ai/InvokeAI"
MOST_LINES = 2_000

_DREAM = re.compile(r'\s*"((?:[^"\\]|\\.)*)"((?:\s+--?[A-Za-z][^\n]*)?)\s*', re.DOTALL)
_OPTION = re.compile(r"-(-[A-Za-z]\w*|[A-Za-z])=?(.*)", re.DOTALL)
DREAM_OPTIONS = {
    "s": "steps", "S": "seed", "W": "width", "H": "height", "C": "cfg_scale", "A": "sampler",
    "-steps": "steps", "-seed": "seed", "-width": "width", "-height": "height", "-cfg_scale": "cfg_scale",
    "-sampler": "sampler",
}  # fmt: skip
_NEGATIVE_WORDS = re.compile(r"\[([^\[\]]*)\]")
_SWARM_TAG = re.compile(r"<(\w++)(?:\[[^\]<>]*\])?:([^<>]*)>")


def read_record(text: str) -> Request | None:
    """The Request in another tool's record; None for a text that is none."""
    text = text.strip("\0 \r\n\t")
    record, rest = _json(text)
    if record is None:
        record = _lines(text) or _dream(text)
    if record is None:
        return None
    asked = _read(record)
    return replace(asked, unused=(*asked.unused, ("text after the record", shown(rest)))) if rest else asked


def _read(record: Record) -> Request:
    if graph := _graph_in(record):
        beside = Reader({key: value for key, value in record.items() if key != graph})
        made = read_size(beside)
        asked = read_graph(record[graph], made=made)
        told = [("size", f"{made[0]}x{made[1]}")] if None not in made and made != (asked.width, asked.height) else []
        return replace(asked, unused=(*asked.unused, *told, *beside.left()))
    if is_graph(record):
        return read_graph(record)
    if isinstance(record.get("nodes"), list):
        raise SpecError(
            "this is ComfyUI's drawing of a workflow; save it in API form, or give the picture itself", field="settings"
        )
    record = _flat(record)
    names = {plain(key) for key in record}
    if not names & {"prompt", "positiveprompt"}:
        raise SpecError(
            "this JSON is no record of ComfyUI, InvokeAI, Fooocus, Easy Diffusion or NovelAI; paste the settings text",
            field="settings",
        )
    source = SWARMUI if "swarmversion" in names or "clipstopatlayer" in names else _source(names, record)
    if source is OLD_INVOKEAI:
        record = _old_invoke(record)
    if source is FOOOCUS:
        record = _fooocus(record)
    if source is SWARMUI:
        record = _swarm(record)
    if source is NOVELAI and "Source" in record and not names & set(SPELLINGS["model"]):
        record = {("model" if key == "Source" else key): value for key, value in record.items()}
    if source is A1111 and isinstance(record.get("baseModel"), str):  # Civitai's word for a family, as "SDXL 1.0"
        record = {("base model's family" if key == "baseModel" else key): value for key, value in record.items()}
    if source is TENSORART and isinstance(record.get("graph"), dict):
        record = _tensorart(record)
    return read_request(Reader(record), source)


def _graph_in(record: Record) -> str:
    """The key that holds a graph: ComfyUI's API body has it as prompt, Civitai's lists as comfy, in a text of JSON."""
    for key in ("prompt", "comfy"):
        if isinstance(record.get(key), dict) and is_graph(record[key]):
            return key
    return ""


def _source(names: set[str], record: Record) -> Source:
    if isinstance(record.get("baseModel"), dict):
        return TENSORART
    if isinstance(record.get("base_model"), str) and "guidance_scale" in record:
        return FOOOCUS
    return next((source for source, marks in MARKS if names & marks), OTHER)


def _flat(record: Record) -> Record:
    """The record with the settings that it keeps in an object of their own, whose keys win."""
    found = dict(record)
    for key in UNWRAPPED:
        inner = found.get(key)
        if isinstance(inner, dict):
            del found[key]
            outside = {name: found[name] for name, value in inner.items() if name in found and found[name] != value}
            found |= inner
            found |= {f"{name} (outside {key})": value for name, value in outside.items()}
        elif inner not in (None, "", []) and key in ("override_settings", "sui_image_params"):
            Said(key, inner).nonsense("an object of settings")
    return found


def _json(text: str) -> tuple[Record | None, str]:
    """The JSON object that a text starts with, and what follows it."""
    if not text.startswith("{"):
        return None, ""
    try:
        record, end = json.JSONDecoder(object_pairs_hook=_once, parse_int=_int).raw_decode(text)
    except (ValueError, RecursionError):
        return None, ""
    rest = text[end:].strip("\0 \r\n\t")
    if not isinstance(record, dict) or not record:
        return None, ""
    comfy = record.get("comfy")
    if isinstance(comfy, str):
        inner, _ = _json(comfy)
        record["comfy"] = inner.get("prompt", inner) if inner else comfy
    return record, rest


def _int(digits: str) -> int | float:
    """A whole number; one of more digits than Python reads is infinite, and refused where it is used."""
    return int(digits) if len(digits) < 400 else float(digits)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are all different."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise SpecError(f"this JSON has the key {twice[:60]!r} twice; leave one of them", field="settings")
    return found


def _lines(text: str) -> Record | None:
    """Easy Diffusion's text file: a line for each setting."""
    lines = text.split("\n")
    if len(lines) > MOST_LINES:
        return None
    pairs = [line.partition(":") for line in lines]
    record = {key.strip(): value.strip() for key, colon, value in pairs if colon}
    if "Prompt" not in record or "Stable Diffusion model" not in record:
        return None
    others = [line.strip() for line, (_, colon, _) in zip(lines, pairs, strict=True) if line.strip() and not colon]
    return {**record, **({"lines without a name": "\n".join(others)} if others else {})}


def _dream(text: str) -> Record | None:
    """The command of InvokeAI's first releases: "a fox [blurry]" -s 50 -S 7 -W 512 -H 512 -C 7.5 -A k_lms."""
    command = _DREAM.fullmatch(text)
    if command is None or not re.search(r"\s-(?:S|-seed)", command[2]):
        return None
    found: dict[str, Any] = {"app_id": APP, "prompt": command[1]}
    option = ""
    for word in command[2].split():
        match = _OPTION.fullmatch(word)
        if match:
            option, word = DREAM_OPTIONS.get(match[1], f"-{match[1]}"), match[2]
        found[option] = f"{found[option]} {word}".strip() if option in found else word
    return {key: value or "on" for key, value in found.items()}


def _old_invoke(record: Record) -> Record:
    """InvokeAI 2: prompts in a list, the model under model_weights, negative words in [square brackets]."""
    found = {key: value for key, value in record.items() if key != "prompt" and (key, value) != ("app_id", APP)}
    prompts = record.get("prompt")
    if isinstance(prompts, list):
        if len(prompts) != 1 or not isinstance(prompts[0], dict) or not isinstance(prompts[0].get("prompt"), str):
            raise SpecError(
                f"this InvokeAI record blends {len(prompts)} prompts; records of one prompt can be repeated",
                field="prompt",
            )
        inner = dict(prompts[0])
        prompts = inner.pop("prompt")
        if inner.pop("weight", 1) not in (1, 1.0):
            raise SpecError("this InvokeAI record weighs its prompt; give the prompt itself", field="prompt")
        found |= {f"prompt {key}": value for key, value in inner.items()}
    if not isinstance(prompts, str):
        Said("prompt", prompts).nonsense("a text")
    if "model_weights" in found:
        found = {
            "Model": found.pop("model_weights"),
            **{("model kind" if k == "model" else k): v for k, v in found.items()},
        }
    words = [match.strip() for match in _NEGATIVE_WORDS.findall(prompts)]
    return {
        **found,
        "prompt": _NEGATIVE_WORDS.sub("", prompts).strip(),
        "negative_prompt": " ".join(filter(None, words)),
    }


def _fooocus(record: Record) -> Record:
    """Fooocus: steps by the name of a preset; "None" and "Default (model)" are no files."""
    found = dict(record)
    for key in ("Performance", "performance"):
        preset = found.get(key)
        if isinstance(preset, str) and not {plain(name) for name in found} & {"steps"}:
            if preset.lower() not in PERFORMANCE:
                raise SpecError(
                    f"this Fooocus record draws with performance {preset[:40]!r}, which adds a LoRA that it does not name; "
                    "records of Speed and Quality can be repeated",
                    field="lora",
                )
            found["steps"] = PERFORMANCE[preset.lower()]
            del found[key]
    return found


def _tensorart(record: Record) -> Record:
    """TensorArt's picture has the graph that drew it, which names the sampler where the record does not."""
    nodes = [node["inputs"] for node in record["graph"].values() if isinstance(node, dict) and "inputs" in node]
    named = [node for node in nodes if isinstance(node, dict) and isinstance(node.get("sampler_name"), str)]
    found = {key: value for key, value in record.items() if key != "graph"}
    if len({node["sampler_name"] for node in named}) != 1:
        return record
    name, kind = comfy_names(named[0]["sampler_name"], str(named[0].get("scheduler") or "normal"))
    return found | {"samplerName": name} | ({"scheduler": kind} if "scheduler" in named[0] else {})


def _swarm(record: Record) -> Record:
    """SwarmUI: LoRAs and embeddings as tags of the prompt, <lora:name:0.8> and <embed:name>."""
    found = dict(record)
    loras: list[list[object]] = []
    for key in ("prompt", "negativeprompt"):
        if isinstance(found.get(key), str):
            found[key] = _SWARM_TAG.sub(lambda tag: _swarm_tag(tag, loras), found[key]).strip()
    if loras:
        found["loras"] = [*_pairs_of(found), *loras]
    return found


def _pairs_of(found: dict[str, Any]) -> list[object]:
    """SwarmUI's LoRAs, whose strengths are in a list of their own, with them."""
    names, weights = found.get("loras") or [], found.get("loraweights") or []
    if not isinstance(names, list) or not isinstance(weights, list) or len(weights) not in (0, len(names)):
        Said("loraweights", weights).nonsense("a strength for each LoRA")
    found.pop("loraweights", None)
    return [[name, weight] for name, weight in zip(names, weights or [1.0] * len(names), strict=True)]


def _swarm_tag(tag: re.Match[str], loras: list[list[object]]) -> str:
    """What stands in a tag's place; a LoRA's is nothing, and it joins the list."""
    kind, name = tag[1].lower(), tag[2]
    if kind in ("embed", "embedding"):
        return f"embedding:{name}"
    if kind != "lora":
        raise SpecError(
            f"this SwarmUI prompt has the tag {tag[0][:60]}, which is not known here; remove it", field="prompt"
        )
    file, _, weight = name.partition(":")
    loras.append([file, weight or 1.0])
    return ""
