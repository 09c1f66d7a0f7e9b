"""A file's identity by its header alone: kind, family, layers by width, missing parts, training.

The telltales are those that A1111, Forge and ComfyUI use (ComfyUI: model_detection.py).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np

from clipskip.errors import FileError, WrongKind
from clipskip.networks import lacking
from clipskip.spec import Family
from clipskip.weights.container import Header, open_model_file
from clipskip.weights.keys import TEXT_PARTS, TensorSource, canonical
from clipskip.weights.lora.detect import LoraFamily, lora_family
from clipskip.weights.prediction import NORM, stated_prediction
from clipskip.weights.shape_reader import part_shape, text_depth, text_layers
from clipskip.weights.variant import REFINER, UNCLIP, UNDRAWN, axis_length, cross_width, variant_of

PARTS = {"text_encoder": "text encoder", "text_encoder_2": "second text encoder", "unet": "UNet", "vae": "VAE"}
LORA = re.compile(
    r"lora_(te\d?|unet|transformer|prior)_|lycoris_|bundle_emb\."
    r"|.*[._](lora_(down|up|mid|A|B)|lora\.(down|up)|lora_linear_layer|hada_[wt]\d|lokr_[wt]\d|oft_blocks|oft_diag|dora_scale)"
    r"|.*\.(on_input|diff|diff_b|w_norm|b_norm)$"
)
"""How the tensors of LoRAs and LyCORIS are named (kohya, diffusers, PEFT, LyCORIS)."""
UPSCALER = re.compile(
    r"(params_ema\.|params\.|module\.)?"
    r"(model\.1\.sub\.0\.RDB1\.|(RRDB_trunk|body)\.0\.(RDB|rdb)1\.|body\.1\.weight$|layers\.0\.residual_group\.|m_head\.0\.)"
)
"""Names of tensors of ESRGAN and its kin, Real-ESRGAN's small ones, SwinIR and its kin, SCUNet (as spandrel detects them)."""
OTHERS = (
    (r"control_model\.|controlnet_|.*\.controlnet_cond_embedding", "a ControlNet"),
    (r"image_proj|ip_adapter", "an IP-Adapter"),
    (r".*\.?motion_modules\.", "a motion module"),
    (r"(text_encoders?\.)?(t5xxl|encoder\.block\.0\.layer)", "a T5 text encoder"),
    (
        r"model_ema\.diffusion_model",
        "a checkpoint whose UNet is there as EMA weights alone (model_ema.), which has to be converted",
    ),
)
"""What files of other kinds are likely to be."""
DEPTHS = {(768, False): 12, (1024, False): 24, (1280, False): 32, (768, True): 12, (1024, True): 23, (1280, True): 32}
"""Layers of the field's text encoders by width and whether it is a diffusers folder, where SD 2 lacks the last one."""


DRAWN = (Family.SD1, Family.SD2, Family.SDXL)
"""The families whose checkpoints can draw."""

NUMBERS = {"I64": "<i8", "I32": "<i4", "F32": "<f4", "F16": "<f2"}
"""Types that position numbers are stored in."""


class FileKind(StrEnum):
    """The uses of a file."""

    CHECKPOINT = "checkpoint"
    LORA = "LoRA"
    EMBEDDING = "embedding"
    VAE = "VAE"
    UPSCALER = "upscaler"
    UNET = "UNet only"
    TEXT_ENCODER = "text encoder only"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSummary:
    """One text encoder of a file."""

    name: str
    layers: int
    """The number that it should have: the usual one for its width, else one more than the highest in the file."""
    width: int
    missing_layers: tuple[int, ...] = ()
    """Counted from 0 at the input, as in the file's names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartSummary:
    """One network of a file."""

    name: str
    tensors: int
    parameters: int
    dtypes: tuple[str, ...]
    size: int
    """Size in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Everything that `inspect` shows of a file."""

    path: Path
    size: int
    """Bytes."""
    kind: FileKind
    family: Family | None
    """None where the header does not tell."""
    likely: str = ""
    """What a file of unknown kind is likely to be."""
    encoders: tuple[EncoderSummary, ...] = ()
    parts: tuple[PartSummary, ...] = ()
    missing: tuple[str, ...] = ()
    """What a whole model of this kind would have in addition: parts, layers, single tensors."""
    unused_tensors: int = 0
    """Number of tensors that belong to no part: training state, schedules."""
    has_ema: bool = False
    """Whether there is a second, averaged UNet, which is not used."""
    variant: str = ""
    """Why it does not draw from text alone: inpainting, refiner; empty for a usual checkpoint."""
    prediction: str = ""
    """epsilon or v, where the file says so."""
    prediction_source: str = ""
    """Where the file says so."""
    zero_terminal_snr: bool = False
    trained_clip_skip: int | None = None
    notes: tuple[str, ...] = ()
    """Oddities of the file that do no harm here."""
    metadata: tuple[tuple[str, str], ...] = ()

    def plain(self) -> dict[str, object]:
        """Return the same as JSON values."""
        family = None if self.family is None else self.family.label
        return asdict(self) | {"path": str(self.path), "family": family, "metadata": dict(self.metadata)}


def identify(header: Header) -> Identity:
    """Identify a file by its header."""
    parts = canonical(header.shapes)
    kind = _file_kind(header, parts)
    lora = lora_family(header.shapes, header.metadata) if kind is FileKind.LORA else LoraFamily()
    family = lora.family if kind is FileKind.LORA else _family(header, parts)
    if kind is FileKind.UNKNOWN and family is not None and not family.usable:
        kind = FileKind.CHECKPOINT
    mapped = {source.name for sources in parts.values() for source in sources.values()}
    variant = variant_of(header, parts)
    stated = stated_prediction(header, family=family, norm=None if variant else parts.get("unet", {}).get(NORM))
    whole = kind is FileKind.CHECKPOINT and family in DRAWN
    return Identity(
        path=header.path,
        size=header.size,
        kind=kind,
        family=family,
        likely=_likely(header.tensors) if kind is FileKind.UNKNOWN else lora.other,
        encoders=tuple(_encoder(name, parts[name], header) for name in PARTS if "text" in name and name in parts),
        parts=tuple(_part(name, sources, header) for name, sources in sorted(parts.items())),
        missing=tuple(_missing(parts, header, family=family)) if whole and family else (),
        unused_tensors=len(set(header.tensors) - mapped),
        has_ema=any(name.startswith("model_ema.") and name != "model_ema.decay" for name in header.tensors),
        variant=variant,
        prediction=stated.prediction,
        prediction_source=stated.source,
        zero_terminal_snr=stated_zero_snr(header),
        trained_clip_skip=_trained_clip_skip(kind, family, header.metadata),
        notes=tuple(_position_notes(header)),
        metadata=tuple(sorted(header.metadata.items())),
    )


def check_loadable(identity: Identity, *, refiner: bool = False) -> None:
    """Raise WrongKind, with one clear line, unless a checkpoint draws from text or is a refiner that was asked for."""
    name, kind, family = identity.path.name, identity.kind, identity.family
    guess = f"; it looks like {identity.likely}" if identity.likely else ""
    line = {
        FileKind.LORA: "is a LoRA, not a model; give it with --lora, and a checkpoint with --model",
        FileKind.EMBEDDING: "is an embedding (textual inversion), not a model; its name goes into the prompt",
        FileKind.VAE: "contains only a VAE, no text encoder and no UNet; give a whole checkpoint",
        FileKind.UPSCALER: "is an upscaler, not a model; give it with --hires-upscaler, and a checkpoint with --model",
        FileKind.UNET: "contains only a UNet, no text encoder and no VAE; give a whole checkpoint",
        FileKind.TEXT_ENCODER: "contains only a text encoder, no UNet and no VAE; give a whole checkpoint",
        FileKind.UNKNOWN: f"is not a known kind of model{guess}; give a checkpoint",
    }.get(kind)
    if kind is not FileKind.LORA and family is not None and not family.usable:
        line = _other_family(family)
    if line is None and family is None and not identity.encoders:
        line = "contains a UNet and a VAE but no text encoder; give a whole checkpoint"
    if line is None and family not in DRAWN:
        line = _other_family(family)
    if line is None and identity.variant and not (refiner and identity.variant == REFINER):
        article = "an" if identity.variant[0] in "aeiou" else "a"
        over = f"is {article} {identity.variant} checkpoint, which needs a picture to draw over; give one that draws from text alone"
        line = UNDRAWN.get(identity.variant, over)
    if line is not None:
        raise WrongKind(f"{name} {line}")


def stated_zero_snr(header: Header) -> bool:
    """Return whether the file or its folder's scheduler says that it was trained with a zero terminal signal-to-noise
    ratio."""
    marked = any(name.removeprefix("state_dict.") == "ztsnr" for name in header.tensors)
    scheduler = header.configs.get("scheduler", {})
    return (
        marked
        or scheduler.get("rescale_betas_zero_snr") is True
        or header.metadata.get("ss_zero_terminal_snr") == "True"
    )


def _trained_clip_skip(kind: FileKind, family: Family | None, metadata: Mapping[str, str]) -> int | None:
    """Return the Clip Skip of training: SDXL's and SD 2.x checkpoints have their family's own, whatever is written
    beside them."""
    if family is Family.SDXL or (family is Family.SD2 and kind is not FileKind.LORA):
        return family.default_skip
    return stated_clip_skip(metadata)


def stated_clip_skip(metadata: Mapping[str, str]) -> int | None:
    """Return the Clip Skip that the metadata states for training; kohya writes "None" for 1."""
    for key in ("modelspec.encoder_layer", "ss_clip_skip"):
        value = metadata.get(key, "").strip()
        if value.isascii() and value.isdecimal() and 1 <= int(value[:4]) <= 99:
            return int(value)
    return None


def is_lora(header: Header) -> bool:
    """Return whether its tensors are named as those of a LoRA or LyCORIS."""
    return any(LORA.match(name) for name in header.tensors)


def _file_kind(header: Header, parts: Mapping[str, Mapping[str, TensorSource]]) -> FileKind:
    names = header.tensors
    if is_lora(header):
        return FileKind.LORA
    if {"emb_params"} == set(names) or {"clip_l", "clip_g"} == set(names) or _one_vector(header):
        return FileKind.EMBEDDING
    if any(UPSCALER.match(name) for name in names):
        return FileKind.UPSCALER
    present = {name for name, sources in parts.items() if len(sources) > 3}
    if not present or any(re.match(OTHERS[0][0], name) for name in names):
        return FileKind.UNKNOWN
    alone = {"unet": FileKind.UNET, "vae": FileKind.VAE}
    if header.is_folder or ("unet" in present and len(present) > 1):
        return FileKind.CHECKPOINT
    return alone.get(next(iter(present)), FileKind.TEXT_ENCODER) if len(present) == 1 else FileKind.UNKNOWN


def _one_vector(header: Header) -> bool:
    """Return whether this is a diffusers embedding: a word with its vectors and nothing else."""
    shapes = list(header.shapes.values())
    return len(shapes) == 1 and len(shapes[0]) in (1, 2) and shapes[0][-1] in (768, 1024, 1280)


def _family(header: Header, parts: Mapping[str, Mapping[str, TensorSource]]) -> Family | None:
    text, unet = parts.get("text_encoder", {}), parts.get("unet", {})
    pipeline = str(header.configs.get("model_index", {}).get("_class_name", ""))
    names = "\n".join(header.tensors)
    if re.search(r"joint_blocks\.0|joint_transformer_blocks", names) or "StableDiffusion3" in pipeline:
        return Family.SD3
    if re.search(r"double_blocks\.0|single_transformer_blocks\.0|distilled_guidance", names) or "Flux" in pipeline:
        return Family.FLUX
    if variant_of(header, parts) == UNCLIP:
        return Family.SD2
    cross = cross_width(unet)
    width = axis_length(text, "embeddings.token_embedding.weight", 1)
    if "text_encoder_2" in parts or "add_embedding.linear_1.weight" in unet or cross in (1280, 2048):
        return Family.SDXL
    if 1024 in (cross, width) or any("resblocks" in source.name for source in text.values()):
        return Family.SD2
    own = header.metadata.get("modelspec.architecture", "").startswith("stable-diffusion-v1")
    return Family.SD1 if own or 768 in (cross, width) or (text and width in (0, cross)) else None


def _other_family(family: Family | None) -> str:
    if family is None:
        return "is a checkpoint of an unknown family; give an SD 1.x, SD 2.x or SDXL checkpoint"
    return f"is {family.label}: Clip Skip means nothing here, because {family.why_not}; give an SD 1.x, SD 2.x or SDXL checkpoint"


def _position_notes(header: Header) -> Iterator[str]:
    """Note position numbers that a merge has rounded: tools that read them put words in wrong places."""
    for name, info in header.tensors.items():
        kind = NUMBERS.get(info.dtype)
        if not name.endswith("embeddings.position_ids") or kind is None or not 0 < info.end - info.start < 4096:
            continue
        with open_model_file(info.file) as file:
            file.seek(info.start)
            numbers = np.frombuffer(file.read(info.end - info.start), dtype=kind)
        wrong = int((numbers != np.arange(len(numbers))).sum())
        if wrong:
            yield f"{wrong} of its {len(numbers)} position_ids are wrong, as old merges leave them; A1111 uses them, clipskip does not"


def _likely(names: Iterable[str]) -> str:
    for name in names:
        for pattern, what in OTHERS:
            if re.match(pattern, name):
                return what
    return ""


def _encoder(part: str, sources: Mapping[str, TensorSource], header: Header) -> EncoderSummary:
    present = text_layers(sources)
    width = axis_length(sources, "embeddings.token_embedding.weight", 1)
    stated = header.configs.get(part, {}).get("num_hidden_layers")
    usual = stated if type(stated) is int and 0 < stated < 100 else DEPTHS.get((width, header.is_folder), 0)
    depth = max(text_depth(sources), usual)
    missing = tuple(sorted(set(range(depth)) - set(present)))
    return EncoderSummary(name=PARTS[part], layers=depth, width=width, missing_layers=missing)


def _part(part: str, sources: Mapping[str, TensorSource], header: Header) -> PartSummary:
    infos = [header.tensors[name] for name in {source.name for source in sources.values()}]
    return PartSummary(
        name=PARTS[part],
        tensors=len(infos),
        parameters=sum(info.count for info in infos),
        dtypes=tuple(sorted({info.dtype for info in infos})),
        size=sum(info.end - info.start for info in infos),
    )


def _missing(parts: Mapping[str, Mapping[str, TensorSource]], header: Header, *, family: Family) -> Iterable[str]:
    """Yield what a family's checkpoint lacks, each in a few words."""
    texts = TEXT_PARTS[: len(family.value.encoders)]
    for part in (*(texts[1:] if variant_of(header, parts) == REFINER else texts), "unet", "vae"):
        if part not in parts:
            yield f"the {PARTS[part]}"
            continue
        layers = _encoder(part, parts[part], header).missing_layers if part in TEXT_PARTS else ()
        yield from (f"{PARTS[part]} layer {layer} (counted from 0)" for layer in layers)
        if not layers:
            yield from missing_tensors(part, parts[part], header, family=family)


def missing_tensors(part: str, sources: Mapping[str, TensorSource], header: Header, *, family: Family) -> list[str]:
    """Return the tensors that a part lacks, and those whose shape does not fit the rest."""
    shapes = {name: source.shape for name, source in sources.items()}
    try:
        shape = part_shape(part, shapes, header, family=family)
    except FileError as error:
        return [f"{PARTS[part]}: {_lack(error, header)}"]
    return [f"{PARTS[part]}: {lack}" for lack in lacking(shapes, shape)]


def _lack(error: FileError, header: Header) -> str:
    """Return what an error says that a file lacks, without the words that the outer sentence repeats."""
    lack = str(error).removeprefix(f"{header.path.name} ").removesuffix("; download it again")
    lack = re.sub(r"is damaged: (\S+) has the shape (.+)", r"\1 of a sound shape (it has \2)", lack)
    return re.sub(r"^(is incomplete: it )?has no ", "", lack)
