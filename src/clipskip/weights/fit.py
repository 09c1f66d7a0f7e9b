"""A check whether a LoRA, an embedding or a VAE fits a checkpoint, by headers alone, for marks in lists."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch

from clipskip.spec import Family
from clipskip.weights.container import Header
from clipskip.weights.embedding import WIDTHS
from clipskip.weights.identify import FileKind, identify
from clipskip.weights.keys import canonical
from clipskip.weights.lora.change import LoraModule
from clipskip.weights.lora.detect import lora_family
from clipskip.weights.lora.key_map import read_keys
from clipskip.weights.lora.kinds import kind_of
from clipskip.weights.lora.names import table_of

Sizes = Mapping[str, tuple[int, ...]]
TOKENS = "embeddings.token_embedding.weight"
SPARSE = ("bias_indices", "bias_values", "bias_size")
"""Parts that fit by their numbers, and not only by their sizes."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A statement that a file fits a checkpoint, or the reason why not."""

    fits: bool | None
    """None where the headers do not tell."""
    reason: str = ""


def fit(file: Header, model: Header) -> Fit:
    """Check whether a file can be used with a checkpoint."""
    identity, whole = identify(file), identify(model)
    parts = {part: {n: s.shape for n, s in sources.items()} for part, sources in canonical(model.shapes).items()}
    if identity.kind is FileKind.LORA:
        return _fit_lora(file, parts, whole.family)
    if identity.kind is FileKind.EMBEDDING:
        return _fit_embedding(file, parts, whole.family)
    if identity.kind is FileKind.VAE:
        return _fit_vae(file, parts)
    if identity.kind is FileKind.UNKNOWN:
        return Fit(None, "its header does not tell what kind of file it is")
    return Fit(False, f"it is a {identity.kind}, not a LoRA, embedding or VAE")


def _fit_lora(file: Header, parts: Mapping[str, Sizes], family: Family | None) -> Fit:
    own = lora_family(file.shapes, file.metadata)
    if family is not None and own.excludes(family):
        return Fit(False, f"it is for {own.label}, this model is {family.label}")
    keys = read_keys(file.tensors, table_of(family))
    if keys.unknown:
        return Fit(False, f"{len(keys.unknown)} of its keys name nothing in this model")
    shapes = {f"{part}.{name}": size for part, sizes in parts.items() for name, size in sizes.items()}
    misfits = list(_misfitting(file, keys.modules, shapes))
    more = f", and {len(misfits) - 1} more do not fit" if len(misfits) > 1 else ""
    return Fit(False, f"{misfits[0]}{more}") if misfits else Fit(True)


def _misfitting(file: Header, modules: Mapping[str, Mapping[str, str]], shapes: Sizes) -> Iterator[str]:
    for name, keys in modules.items():
        weight = shapes.get(f"{name}.weight")
        sizes = {part: file.tensors[key].shape for part, key in keys.items()}
        if weight is None:
            yield f"this model has no {name}"
        elif not _fits_sizes(name, sizes, weight, shapes.get(f"{name}.bias")):
            stored = ", ".join(f"{part} {list(size)}" for part, size in sizes.items() if size)
            yield f"{name} has {stored}, where the model's weight is {list(weight)}"


def _fits_sizes(name: str, sizes: Sizes, weight: tuple[int, ...], bias: tuple[int, ...] | None) -> bool:
    kind = kind_of(sizes)
    if isinstance(kind, str):
        return False
    if kind.name == "IA3":  # a number in the file tells its side
        count = torch.empty(sizes["weight"], device="meta").numel()
        return len(weight) > 1 and count in weight[:2]
    parts = {part: torch.empty(size, device="meta") for part, size in sizes.items() if part not in SPARSE}
    module = LoraModule(name=name, kind=kind, parts=MappingProxyType(parts), scale=1.0, rank=None, alpha=None, key=name)
    return module.fits(weight, bias)


def _fit_embedding(file: Header, parts: Mapping[str, Sizes], family: Family | None) -> Fit:
    model = {part: sizes[TOKENS][1] for part, sizes in parts.items() if len(sizes.get(TOKENS, ())) == 2}
    if not model:
        return Fit(None, "this model's header shows no text encoder")
    double = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}
    if double.keys() <= file.tensors.keys():
        needed = {double[name]: file.tensors[name].shape[-1:] for name in double}
        if needed == {part: (width,) for part, width in model.items()}:
            return Fit(True)
        return Fit(False, "it is for SDXL (clip_l and clip_g)" + (f", this model is {family.label}" if family else ""))
    shape = next(iter(file.shapes.values()), ())
    width = shape[-1] if len(shape) in (1, 2) else 0
    if len(model) == 1 and width in model.values():
        return Fit(True)
    family_note = f" ({WIDTHS[width]})" if width in WIDTHS else ""
    return Fit(
        False, f"its vectors are {width} wide{family_note}, this model reads {' and '.join(map(str, model.values()))}"
    )


def _fit_vae(file: Header, parts: Mapping[str, Sizes]) -> Fit:
    """Check a VAE's tensors against the checkpoint's own. SDXL's are those of SD 1.x, so only names tell the two
    apart."""
    mine = {name: source.shape for name, source in canonical(file.shapes).get("vae", {}).items()}
    theirs = {
        name: size for name, size in parts.get("vae", {}).items() if re.match(r"(de|en)coder\.|post_|quant_", name)
    }
    if not theirs:
        return Fit(None, "this model's header shows no VAE to compare it with")
    misfits = [
        name for name, size in theirs.items() if name.startswith(("decoder.", "post_")) and mine.get(name) != size
    ]
    if not misfits:
        return Fit(True)
    size = list(mine[misfits[0]]) if misfits[0] in mine else "none"
    return Fit(False, f"its {misfits[0]} is {size}, this model's is {list(theirs[misfits[0]])}")
