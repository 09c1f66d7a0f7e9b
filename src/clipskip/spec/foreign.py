"""Other tools' records -> a Request: ComfyUI's graphs, and the JSON and texts of the tools in SOURCES.

Spellings read in InvokeAI's metadata.py, Fooocus' modules/meta_parser.py and private_logger.py, Easy Diffusion's
save_utils.py, SwarmUI's T2IParamInput, A1111's api/models.py and its reading of NovelAI (modules/images.py). Weights
of words become A1111's; what else a prompt holds is taken as it is.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from clipskip.errors import SpecError
from clipskip.spec.asking import A1111, Source, read_request, read_size
from clipskip.spec.fooocus import fooocus, ruined_fooocus
from clipskip.spec.graph import read_graph
from clipskip.spec.mac_apps import draw_things, draw_things_names, mochi, mochi_names
from clipskip.spec.nodes import is_graph
from clipskip.spec.numbering import Dialect
from clipskip.spec.record_reader import BLANKS, SPELLINGS, Reader, Said, one_line, plain_key
from clipskip.spec.render import Request
from clipskip.spec.sampler_names import comfy_names, comfy_text_names, is_comfy
from clipskip.spec.skip import ClipSkip
from clipskip.spec.swarm import swarm
from clipskip.spec.word_weights import invoke_words, novelai_words
from clipskip.spec.workflow import as_graph, is_workflow

Record = Mapping[str, Any]  # JSON

INVOKEAI = Source(
    label="InvokeAI", scheduler_is_sampler=True, sampler="euler", dialect=Dialect.INVOKEAI, words=invoke_words
)
OLD_INVOKEAI = Source(label="InvokeAI 2", sampler="k_lms", clip_skip=ClipSkip(1), words=invoke_words)
NOVELAI = Source(label="NovelAI", rng="GPU", ensd=31337, clip_skip=ClipSkip(2), words=novelai_words)
"""A1111's additions to NovelAI's pictures."""
FOOOCUS = Source(label="Fooocus", names=comfy_names, sampler="dpmpp_2m_sde_gpu", emphasis="ComfyUI")
FOOOCUS_TEXT = replace(FOOOCUS, names=comfy_text_names)
"""Its settings in A1111's form, with A1111's names of samplers."""
RUINED_FOOOCUS = replace(FOOOCUS, label="RuinedFooocus")
EASY_DIFFUSION = Source(label="Easy Diffusion", switch=True)
SWARMUI = Source(label="SwarmUI", names=comfy_names, sampler="euler", emphasis="ComfyUI")
A1111_API = replace(A1111, label="A1111's API", sampler="Euler", steps=50, px=512)
"""What its txt2img draws with where a body leaves it out (1.10 modules/processing.py, modules/api/models.py)."""
TENSORART = replace(A1111, label="TensorArt", sampler="")
STABILITY_MATRIX = replace(A1111, label="StabilityMatrix", sampler="")
DRAW_THINGS = Source(label="Draw Things", names=draw_things_names, clip_skip=ClipSkip(1), counted_by=Dialect.DRAWTHINGS)
MOCHI_DIFFUSION = Source(label="Mochi Diffusion", names=mochi_names, clip_skip=ClipSkip(1))
OTHER = Source(label="other JSON")
MARKS: tuple[tuple[Source, frozenset[str]], ...] = (
    (SWARMUI, frozenset({"swarmversion", "clipstopatlayer", "suiimageparams"})),
    (DRAW_THINGS, frozenset({"c", "seedmode"})),
    (MOCHI_DIFFUSION, frozenset({"mlcomputeunit", "generator"})),
    (NOVELAI, frozenset({"uc", "comment"})),
    (STABILITY_MATRIX, frozenset({"modelname"})),
    (INVOKEAI, frozenset({"positiveprompt"})),
    (OLD_INVOKEAI, frozenset({"appid", "appversion"})),
    (EASY_DIFFUSION, frozenset({"usestablediffusionmodel", "stablediffusionmodel"})),
    (RUINED_FOOOCUS, frozenset({"basemodelname"})),
    (FOOOCUS, frozenset({"metadatascheme", "performance", "admguidance", "fooocusv2expansion", "baseclipskip"})),
    (TENSORART, frozenset({"modelfileid", "basemodelid"})),
    (A1111_API, frozenset({"overridesettings", "samplerindex", "enablehr", "alwaysonscripts"})),
    (A1111, frozenset({"cfgscale", "resources", "civitairesources", "modelhash"})),
)
"""Keys that only one tool's records have, as `plain` spells them; the first that fits counts."""
UNWRAPPED = ("sui_image_params", "meta", "image", "reqBody", "override_settings", "extra_generation_params")
"""Keys under which tools keep a record's settings: SwarmUI, Civitai's lists, InvokeAI 2, Easy Diffusion's button that copies them,
A1111's API."""
WRAPPING = frozenset({"infotext", "parameters", "info", "usercomment"})
"""Keys of JSON that hold a whole settings text: A1111's API, and what other programs print of a picture's own."""
PROMPTS = frozenset({"prompt", "positiveprompt"})
APP = "invoke-ai/InvokeAI"
MOST_LINES = 2_000

_JSON_BEGINS = re.compile(r"""[\[{]\s*[\[{]?\s*(?:"[^"\n]{1,60}"|'[^'\n]{1,60}')\s*:""")
"""What no prompt begins with: an object in braces, perhaps in a list, whose first key is quoted."""
_QUOTED_KEY = re.compile(r"""["']([\w -]{1,40})["']\s{0,9}:""")
_DREAM = re.compile(r'\s*"((?:[^"\\]|\\.)*)"((?:\s+--?[A-Za-z][^\n]*)?)\s*', re.DOTALL)
_OPTION = re.compile(r"-(-[A-Za-z]\w*|cf|ft|tm|[A-Za-z])=?(.*)", re.DOTALL)
"""One letter may stand at its value; InvokeAI has three short options of two (2.3 ldm/invoke/args.py)."""
DREAM_OPTIONS = {
    "s": "steps", "S": "seed", "W": "width", "H": "height", "C": "cfg_scale", "A": "sampler",
    "-steps": "steps", "-seed": "seed", "-width": "width", "-height": "height", "-cfg_scale": "cfg_scale",
    "-sampler": "sampler",
}  # fmt: skip
MEAN_RESTORED = (
    "the mean of weighed words",
    "Fooocus restores a text's mean after weighing its words, ComfyUI and this program do not: pictures differ in detail",
)
"""Its modules/patch_clip.py, encode_token_weights_fooocus."""
_WEIGHT = re.compile(r"(?<!\\)\(")
_AIR = re.compile(r"urn:air:[a-z0-9_]{1,20}:([a-z0-9_]{1,20}):civitai:[0-9]{1,12}@([0-9]{1,12})")
"""Civitai's name of a file: its kind and the number of its version."""
_NEGATIVE_WORDS = re.compile(r"\[([^\[\]]*)\]")


def read_record(text: str) -> Request | None:
    """Return the Request in another tool's record; None for any other text."""
    text = text.strip(BLANKS)
    record, rest = _json(text)
    if record is None and _JSON_BEGINS.match(text) and _names_settings(text):
        raise _broken_json(text)
    if record is None:
        record = _lines(text) or _dream(text) or mochi(text)
    if record is None:
        return None
    asked = _read_record(record)
    return replace(asked, unused=(*asked.unused, ("text after the record", one_line(rest)))) if rest else asked


def wrapped_text(text: str) -> tuple[str, Reader] | None:
    """Return the settings text that JSON without a prompt of its own holds, and what stands beside it; None for any other text."""
    record = _json(text.strip(BLANKS))[0]
    if record is None or {plain_key(key) for key in record} & PROMPTS:
        return None
    texts = [key for key in record if plain_key(key) in WRAPPING and isinstance(record[key], str)]
    key = next((key for key in texts if record[key].strip() and not record[key].lstrip().startswith(("{", "["))), None)
    return (
        None if key is None else (record[key], Reader({name: value for name, value in record.items() if name != key}))
    )


def _read_record(record: Record) -> Request:
    if graph := _graph_in(record):
        beside = Reader({key: value for key, value in record.items() if key != graph})
        made = read_size(beside)
        asked = read_graph(record[graph], made=made)
        told = [("size", f"{made[0]}x{made[1]}")] if None not in made and made != (asked.width, asked.height) else []
        return replace(asked, unused=(*asked.unused, *told, *beside.left()))
    if is_graph(record):
        return read_graph(record)
    if isinstance(body := record.get("input"), dict) and _graph_in(body):
        return _read_record({key: value for key, value in record.items() if key != "input"} | body)
    if answer := _api_answer(record):
        return answer
    if whole := _civitai_graph(record):
        return whole
    if is_workflow(record):
        return read_graph(as_graph(record))
    if isinstance(record.get("nodes"), list):
        raise SpecError(
            "this is a workflow of nodes that is not ComfyUI's; give the picture that it made instead", field="settings"
        )
    source = _source(record)
    record = _flat(record)
    if source in PREPARED:
        record = PREPARED[source](record)
    if not {plain_key(key) for key in record} & PROMPTS:
        raise SpecError(
            "this JSON is not a record of a known tool: it has no prompt; paste the settings text",
            field="settings",
        )
    asked = read_request(Reader(record), source)
    if source is FOOOCUS:
        return replace(asked, unused=(*asked.unused, *mean_restored(asked.prompt, asked.negative_prompt)))
    if source.clip_skip == ClipSkip(1) and source.counted_by is None:
        return replace(asked, counted_by=counted_by(record.get("Version", record.get("version", "")), record))
    if source.switch:  # Easy Diffusion's, which on SDXL changes as little as A1111's number
        return replace(asked, counted_by=Dialect.A1111)
    if source is SWARMUI and asked.clip_skip is None:
        return replace(asked, clip_skip=ClipSkip(1), counted_by=Dialect.COMFYUI)
    return asked


def counted_by(version: object, fields: Record) -> Dialect | None:
    """Return the tool whose numbers settings in A1111's form use; A1111's for a left-out default, ours for a typed value."""
    text = str(version).lower()
    if text.startswith(("clipskip", "comfyui")) or is_comfy(str(fields.get("Sampler", ""))):
        return None
    if "CLiP-skip" in fields or fields.get("App") == "SD.Next":
        return Dialect.SDNEXT
    if text.startswith("f1.") or ("v1.10.1rc" in text and "f2." not in text):
        return Dialect.REFORGE
    marks = {
        "f": Dialect.FORGE, "neo": Dialect.FORGE_NEO, "classic": Dialect.FORGE_CLASSIC, "v": Dialect.A1111,
        "1": Dialect.A1111,
    }  # fmt: skip
    tool = next((dialect for mark, dialect in marks.items() if text.startswith(mark)), None)
    typed = any(plain_key(name) in SPELLINGS["clip_skip"] for name in fields)
    return tool or (None if typed else Dialect.A1111)


def mean_restored(*prompts: str) -> tuple[tuple[str, str], ...]:
    """What is told of Fooocus' prompts that weigh words."""
    return (MEAN_RESTORED,) if any(map(_WEIGHT.search, prompts)) else ()


def _api_answer(record: Record) -> Request | None:
    """A whole answer of A1111's API: what was drawn is in its `info`, and what was asked is beside it."""
    info = record.get("info")
    told = _json(info)[0] if isinstance(info, str) and "parameters" in record else None
    if told is None:
        return None
    asked = _read_record(told)
    rest = Reader({key: value for key, value in record.items() if key != "info"})
    return replace(asked, unused=(*asked.unused, *rest.left()))


def _civitai_graph(record: Record) -> Request | None:
    """Return a picture of Civitai's own generator: the nodes of a graph, and beside them the settings that it was made of, which
    count: they alone have the Clip Skip and what a second pass over the picture began with. Older ones have the graph alone, with a list
    of its files in `extra`."""
    extra = record.get("extraMetadata")
    nodes = {key: node for key, node in record.items() if isinstance(node, dict) and "class_type" in node}
    told = _json(extra)[0] if isinstance(extra, str) else None
    if not nodes or (told is None and not isinstance(record.get("extra"), dict)):
        return None
    beside = {
        key: value for key, value in record.items() if key not in nodes and (told is None or key != "extraMetadata")
    }
    if told is None:
        asked = read_graph(nodes)
        return replace(asked, unused=(*asked.unused, *Reader(beside).left()))
    kinds = ", ".join(dict.fromkeys(one_line(node["class_type"]) for node in nodes.values()))
    resources = told.get("resources", [])
    if isinstance(resources, list):
        airs = {match[2]: match[1] for match in _AIR.finditer(json.dumps([nodes, beside]))}
        resources = [
            {"type": airs[str(entry.get("modelVersionId"))], **entry}
            if isinstance(entry, dict) and str(entry.get("modelVersionId")) in airs
            else entry
            for entry in resources
        ]
    return _read_record({**told, "resources": resources, "graph's nodes": kinds, **beside})


def _graph_in(record: Record) -> str:
    """Return the key that holds a graph: `prompt` in ComfyUI's API, `comfy` (JSON as text) in Civitai's lists, `workflow` in bodies
    of hosts of ComfyUI (under their `input`), `output` in what its page makes of a drawing."""
    for key in ("prompt", "comfy", "workflow", "output"):
        if isinstance(record.get(key), dict) and is_graph(record[key]):
            return key
    return ""


def _source(record: Record) -> Source:
    """Whose record it is."""
    names = {
        plain_key(key)
        for part in (record, *(record.get(key) for key in UNWRAPPED))
        if isinstance(part, dict)
        for key in part
    }
    if isinstance(record.get("baseModel"), dict):
        return TENSORART
    if record.get("app_id") == APP:  # whose option -c is Draw Things' prompt
        return OLD_INVOKEAI
    if record.get("software") == RUINED_FOOOCUS.label:
        return RUINED_FOOOCUS
    if isinstance(record.get("base_model"), str) and "guidance_scale" in record:
        return FOOOCUS
    return next((source for source, marks in MARKS if names & marks), OTHER)


def _flat(record: Record) -> Record:
    """Return the record with the settings that it keeps in an object of their own, whose keys win."""
    merged = dict(record)
    for key in UNWRAPPED:
        inner = merged.get(key)
        if isinstance(inner, dict):
            del merged[key]
            outside = {name: merged[name] for name, value in inner.items() if name in merged and merged[name] != value}
            merged |= inner
            merged |= {f"{name} (outside {key})": value for name, value in outside.items()}
        elif inner not in (None, "", []) and key in ("override_settings", "sui_image_params"):
            Said(key, inner).nonsense("an object of settings")
    return merged


def _json(text: str) -> tuple[Record | None, str]:
    """Return the JSON object that a text starts with, and what follows it."""
    if not text.startswith(("{", "[")):
        return None, ""
    try:
        record, end = json.JSONDecoder(object_pairs_hook=_once, parse_int=_int).raw_decode(text)
    except (ValueError, RecursionError):
        return None, ""
    rest = text[end:].strip(BLANKS)
    if isinstance(record, list) and len(record) == 1:
        record = record[0]
    if not isinstance(record, dict) or not record:
        return None, ""
    for key in ("comfy", "prompt"):
        inner = _json(record[key])[0] if isinstance(record.get(key), str) else None
        inner = inner and inner.get("prompt", inner)
        if isinstance(inner, dict) and (key == "comfy" or is_graph(inner)):
            record[key] = inner
    return record, rest


def _names_settings(text: str) -> bool:
    """Return whether a text has the quoted key of a setting, or of a graph's node."""
    keys = {plain_key(key) for key in _QUOTED_KEY.findall(text)}
    return bool(keys & {"classtype", *(name for names in SPELLINGS.values() for name in names)})


def _broken_json(text: str) -> SpecError:
    """Return the error for a text that is meant as JSON and is none that can be read."""
    try:
        value = json.loads(text, parse_int=_int)
    except RecursionError:
        what = "is nested too deeply"
    except ValueError as error:
        what = f"is broken ({str(error)[:80]})"
    else:
        what = f"is a list of {len(value)} records"
    return SpecError(f"these settings begin as JSON, which {what}; give one whole record", field="settings")


def _int(digits: str) -> int | float:
    """Return a whole number; one of more digits than Python reads is infinite, and refused where it is used."""
    return int(digits) if len(digits) < 400 else float(digits)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object whose keys are all different."""
    pairs_once = dict(pairs)
    if len(pairs_once) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise SpecError(f"this JSON has the key {twice[:60]!r} twice; leave one of them", field="settings")
    return pairs_once


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
    """Return the command of InvokeAI's first releases: "a fox [blurry]" -s 50 -S 7 -W 512 -H 512 -C 7.5 -A k_lms."""
    command = _DREAM.fullmatch(text)
    if command is None or not re.search(r"\s-(?:S|-seed)", command[2]):
        return None
    fields: dict[str, Any] = {"app_id": APP, "prompt": command[1]}
    option = ""
    for word in command[2].split():
        match = _OPTION.fullmatch(word)
        if match:
            option, word = DREAM_OPTIONS.get(match[1], f"-{match[1]}"), match[2]
        fields[option] = f"{fields[option]} {word}".strip() if option in fields else word
    return {key: value or "on" for key, value in fields.items()}


def _old_invoke(record: Record) -> Record:
    """InvokeAI 2: prompts in a list, the model under model_weights, negative words in [square brackets]."""
    fields = {key: value for key, value in record.items() if key != "prompt" and (key, value) != ("app_id", APP)}
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
        fields |= {f"prompt {key}": value for key, value in inner.items()}
    if not isinstance(prompts, str):
        Said("prompt", prompts).nonsense("a text")
    if "model_weights" in fields:
        fields = {
            "Model": fields.pop("model_weights"),
            **{("model kind" if k == "model" else k): v for k, v in fields.items()},
        }
    words = [match.strip() for match in _NEGATIVE_WORDS.findall(prompts)]
    return {
        **fields,
        "prompt": _NEGATIVE_WORDS.sub("", prompts).strip(),
        "negative_prompt": " ".join(filter(None, words)),
    }


def _novelai(record: Record) -> Record:
    """NovelAI: its source is its model; some pictures have all of a PNG's texts in one, the settings as JSON in a comment."""
    comment = record.get("Comment")
    inner = _json(comment)[0] if isinstance(comment, str) else None
    if inner is not None:
        beside = {key: value for key, value in record.items() if key not in ("Comment", "Description", "Software")}
        record = {**beside, "prompt": record.get("Description", ""), "uc": "", **inner}
    if "Source" in record and not {plain_key(key) for key in record} & set(SPELLINGS["model"]):
        record = {("model" if key == "Source" else key): value for key, value in record.items()}
    return record


def _a1111(record: Record) -> Record:
    """Civitai's meta, which is A1111's: its base model is a family's name, as in SDXL 1.0."""
    if not isinstance(record.get("baseModel"), str):
        return record
    return {("base model's family" if key == "baseModel" else key): value for key, value in record.items()}


def _tensorart(record: Record) -> Record:
    """TensorArt's picture has the graph that drew it, which has the sampler and the seed where the record has none."""
    if not isinstance(record.get("graph"), dict):
        return record
    nodes = [node["inputs"] for node in record["graph"].values() if isinstance(node, dict) and "inputs" in node]
    named = [node for node in nodes if isinstance(node, dict) and isinstance(node.get("sampler_name"), str)]
    fields = {key: value for key, value in record.items() if key != "graph"}
    seeds = {node["seed"] for node in named if isinstance(node.get("seed"), int)}
    if str(record.get("seed")) == "-1" and len(seeds) == 1:
        fields["seed"] = seeds.pop()
    if {plain_key(key) for key in fields} & set(SPELLINGS["sampler"]):
        return fields
    if len({node["sampler_name"] for node in named}) != 1:
        return record
    name, kind = comfy_names(named[0]["sampler_name"], str(named[0].get("scheduler") or "normal"))
    return fields | {"samplerName": name} | ({"scheduler": kind} if "scheduler" in named[0] else {})


PREPARED: Mapping[Source, Callable[[Record], Record]] = {
    OLD_INVOKEAI: _old_invoke, FOOOCUS: fooocus, RUINED_FOOOCUS: ruined_fooocus, SWARMUI: swarm, NOVELAI: _novelai,
    DRAW_THINGS: draw_things, A1111: _a1111, A1111_API: _a1111, TENSORART: _tensorart,
}  # fmt: skip
"""What is done to a tool's records so that they say things as others do."""
