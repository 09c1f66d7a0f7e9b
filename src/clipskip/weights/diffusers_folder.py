"""The table of contents of a diffusers folder. What it names is checked against a list, and no weight is read."""

import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from clipskip.errors import DamagedFile, FileError, UnsafeFile, WrongKind
from clipskip.weights.container import Header, Stamp, TensorInfo, read_file_header, read_json_file

JSON_LIMIT = 1_000_000
INDEX_LIMIT = 20_000_000
INDEX = "model_index.json"
LIBRARIES = ("diffusers", "transformers", "stable_diffusion", "onnxruntime")
"""A model_index names classes of these libraries; `stable_diffusion` is diffusers' older name for its own."""
READ = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
"""Components whose weights are listed; others (safety checker, image encoder) are never used."""
CLASS = re.compile(
    r"(StableDiffusion|StableUnCLIP|Flux|Chroma|Lumina|PixArt|Sana|Hunyuan|Kolors|AuraFlow|QwenImage|ZImage|Wan|LatentConsistency)\w*Pipeline"
    r"|\w*(UNet2DConditionModel|Transformer2DModel|Transformer3DModel|AutoencoderKL\w*|AutoencoderTiny|ConsistencyDecoderVAE)"
    r"|(CLIP|T5|Qwen|Gemma|Llama|Siglip|Bert|ChatGLM)\w*(Model|ModelWithProjection|EncoderModel|Tokenizer|TokenizerFast"
    r"|ImageProcessor|FeatureExtractor|ForConditionalGeneration|ForCausalLM)"
    r"|\w*(Scheduler|SafetyChecker)|StableDiffusion\w*Watermarker|StableUnCLIPImageNormalizer"
)
"""Class names that a model_index may contain. None of them is imported here: the list keeps unknown code out."""


def read_folder_header(path: Path) -> Header:
    """Read the header of a diffusers folder; tensor names start with their component, as in `unet/conv_in.weight`."""
    index_path = path / INDEX
    if not os.path.isfile(index_path):
        raise WrongKind(
            f"{path} is a folder without {INDEX}; "
            f"give a .safetensors file, or a diffusers folder (the one that holds {INDEX})"
        )
    index = read_json_file(index_path, limit=JSON_LIMIT)
    components = check_index(index, path)
    configs: dict[str, Mapping[str, object]] = {"model_index": index}
    tensors: dict[str, TensorInfo] = {}
    stamps: dict[Path, Stamp] = {}
    metadata: dict[str, str] = {}
    for component in components:
        file = path / component / ("scheduler_config.json" if component == "scheduler" else "config.json")
        if component in (*READ, "scheduler") and os.path.isfile(file):
            configs[component] = read_json_file(file, limit=JSON_LIMIT)
        for part in weight_files(path / component) if component in READ else ():
            header = read_file_header(part)
            tensors |= {f"{component}/{name}": info for name, info in header.tensors.items()}
            stamps |= header.stamps
            metadata |= header.metadata
    return Header(
        path=path,
        size=sum(stamp.size for stamp in stamps.values()),
        tensors=MappingProxyType(tensors),
        metadata=MappingProxyType(metadata),
        configs=MappingProxyType(configs),
        stamps=MappingProxyType(stamps),
    )


def check_index(index: Mapping[str, object], path: Path) -> tuple[str, ...]:
    """Return the components that a model_index.json names; UnsafeFile unless all are of known libraries and classes."""
    pipeline = index.get("_class_name")
    if not isinstance(pipeline, str) or not CLASS.fullmatch(pipeline):
        raise UnsafeFile(
            f"{path.name}/{INDEX} names the pipeline {_short_text(pipeline)}, which is not one of diffusers' own; "
            "its code is not run: use the model as a .safetensors file"
        )
    components = []
    for name, entry in index.items():
        if name.startswith("_") or not isinstance(entry, list) or entry[:1] == [None]:
            continue
        known = len(entry) == 2 and entry[0] in LIBRARIES and isinstance(entry[1], str) and CLASS.fullmatch(entry[1])
        if not known or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            what = ".".join(str(part) for part in entry)
            raise UnsafeFile(
                f"{path.name}/{INDEX} asks for {_short_text(what)} as {_short_text(name)}, which is not a known component; "
                "its code is not run: use the model as a .safetensors file"
            )
        components.append(name)
    return tuple(components)


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Return the safetensors files of a component, whole or sharded; full precision comes before fp16 and other
    variants."""
    listed = _names(folder)
    names = [n for n in listed if re.fullmatch(r"(diffusion_pytorch_model|model)(\.[\w-]+)?\.safetensors", n)]
    whole = [n for n in names if not re.search(r"-\d{5}-of-\d{5}", n)]
    indexes = [
        n
        for n in listed
        if re.fullmatch(r"(diffusion_pytorch_model|model)[\w.-]*\.safetensors\.index(\.\w+)?\.json", n)
    ]
    choices = sorted(whole + indexes, key=_preference)
    if choices:
        return (folder / choices[0],) if choices[0] in whole else _shards(folder, choices[0])
    pickles = [n for n in listed if n.endswith((".bin", ".ckpt", ".pt", ".pth"))]
    if pickles:
        raise UnsafeFile(
            f"{folder.parent.name}/{folder.name} contains only {pickles[0]}, a pickle that could run code; "
            "convert the folder to safetensors (diffusers: save_pretrained with safe_serialization)"
        )
    raise DamagedFile(
        f"{folder.parent.name}/{folder.name} has no weights: expected a .safetensors file in it; download it again"
    )


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise FileError(f"{folder} cannot be listed: {error.strerror}; check its permissions") from None


def _preference(name: str) -> tuple[int, str]:
    variants = ("non_ema", "ema", "bf16", "fp16")
    return max((place + 1 for place, word in enumerate(reversed(variants)) if f".{word}" in name), default=0), name


def _shards(folder: Path, index: str) -> tuple[Path, ...]:
    table = read_json_file(folder / index, limit=INDEX_LIMIT).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise DamagedFile(f"{folder.name}/{index} has no weight_map; download it again")
    names = sorted({str(name) for name in table.values()})
    outside = next(
        (n for n in names if PurePosixPath(n).name != n or "\\" in n or not n.endswith(".safetensors")), None
    )
    if outside is not None:
        raise UnsafeFile(
            f"{folder.name}/{index} points to {_short_text(outside)}, which is not a safetensors file in the same folder; download it again"
        )
    missing = [n for n in names if not (folder / n).is_file()]
    if missing:
        raise DamagedFile(
            f"{folder.name} lacks {len(missing)} of {len(names)} parts, such as {missing[0]}; download them"
        )
    return tuple(folder / name for name in names)


def _short_text(text: object) -> str:
    return repr(str(text)[:80])
