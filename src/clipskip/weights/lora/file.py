"""A LoRA file to its changes by module; anything unknown in it is an error that names it."""

import hashlib
import math
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import safetensors
import safetensors.torch
from jaxtyping import Float
from torch import Tensor

from clipskip.errors import DamagedFile, LoraError, WrongKind
from clipskip.spec import Family
from clipskip.weights.container import Header, as_path, open_model_file
from clipskip.weights.hashes import hash_file
from clipskip.weights.lora.adapter import AdapterConfig, read_adapter
from clipskip.weights.lora.change import LoraModule
from clipskip.weights.lora.detect import LoraFamily, lora_family
from clipskip.weights.lora.joint import divided
from clipskip.weights.lora.key_map import DOUBLE, KeyMap, read_keys
from clipskip.weights.lora.kinds import kind_of
from clipskip.weights.lora.names import JOINT, NameTable, table_of
from clipskip.weights.pickles import read_allowed
from clipskip.weights.tensors import all_finite, check_unchanged

NAMED = 3
"""The number of keys that a message names; others are counted."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lora:
    """One LoRA file, read completely."""

    name: str
    """The file's stem, as prompts name it."""
    path: Path
    sha256: str
    """64 hex digits, of everything after the header; of a pickle, which has none, of the whole file, as in A1111."""
    metadata: Mapping[str, str]
    """As in the file: text by strangers."""
    modules: Mapping[str, LoraModule]
    """By canonical full module name, in the file's order."""
    embeddings: Mapping[str, tuple[Float[Tensor, "vectors _width"], ...]]
    """Textual inversions in the file, by name, with vectors for each text encoder."""
    unknown: tuple[str, ...]
    """Keys that name nothing in the table; empty when it was loaded for use."""
    family: LoraFamily
    """The family of models that it was made for."""
    warnings: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """AutoV3, 12 hex digits, by which infotexts identify this LoRA."""
        return self.sha256[:12]

    @property
    def alias(self) -> str:
        """The name that its trainer gave it, or the file's."""
        return self.metadata.get("ss_output_name") or self.name


def load_lora(
    path: str | os.PathLike[str],
    *,
    family: Family | None = Family.SD1,
    table: NameTable | None = None,
    allow_pickle: bool = False,
) -> Lora:
    """Load the LoRA in a file, to be merged into a model of this family.

    Modules are named after `table`, by default the family's. Pickles (.pt, .bin) need `allow_pickle`, and only tensors
    are read from them. Without a family the LoRA's own names are used and unknown keys are listed in `unknown`; such a
    LoRA can be reported on but not merged. Raises LoraError for a LoRA of another family, or with unknown keys or
    damaged tensors.
    """
    header, pickled = read_allowed(as_path(path), allow_pickle=allow_pickle)
    if header.is_folder:
        raise WrongKind(f"{header.path} is a diffusers folder, not a LoRA; give a LoRA's .safetensors file")
    own = lora_family(header.shapes, header.metadata)
    keys = read_keys(header.tensors, table or table_of(family or own.family))
    _check_keys(header, keys, own, model=family)
    tensors, digest = _read_all(header) if pickled is None else _copied(header, pickled)
    for key, tensor in tensors.items():
        _check_tensor(header, key, tensor)
    config = read_adapter(header)
    modules = _modules(header, keys, tensors, config)
    rank_warnings = _rank_warnings(header, modules.values(), refused=family is not None)
    return Lora(
        name=header.path.stem,
        path=header.path,
        sha256=digest,
        metadata=header.metadata,
        modules=MappingProxyType(modules),
        embeddings=MappingProxyType(
            {name: _embedding_vectors(header, name, parts, tensors) for name, parts in keys.embeddings.items()}
        ),
        unknown=keys.unknown,
        family=own,
        warnings=(*rank_warnings, *_warnings(modules.values(), config), *_idle(keys.idle)),
    )


def few(names: Iterable[str]) -> str:
    """Return at most three names, and the number of further ones."""
    listed = list(names)
    more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return ", ".join(repr(name[:120]) for name in listed[:NAMED]) + more


def _check_keys(header: Header, keys: KeyMap, own: LoraFamily, *, model: Family | None) -> None:
    file = header.path.name
    if model and own.excludes(model):
        raise other_family(file, own.label, model)
    blocks = Family.SD1 if model is Family.SDXL else Family.SDXL
    if keys.unknown and model and not read_keys(header.tensors, table_of(blocks)).unknown:
        raise other_family(file, "SD 1.x or SD 2.x" if blocks is Family.SD1 else blocks.label, model)
    if not keys.modules and not keys.embeddings and not own.label:
        what = few(keys.unknown or keys.idle) or "empty"
        raise WrongKind(f"{file} is not a LoRA for Stable Diffusion: its keys are {what}; give another file")
    if keys.twice:
        raise LoraError(f"{file} names the same weights twice: {few(keys.twice)}; get another copy")
    if keys.unknown and model:
        raise LoraError(
            f"{file} cannot be used: {len(keys.unknown)} of its {len(header.tensors)} keys name nothing in this {model.label} model: "
            f"{few(keys.unknown)}; get another copy",
            field="lora",
        )


def other_family(name: str, own: str, model: Family) -> LoraError:
    """Return the error for a LoRA that was made for another family than this model's."""
    return LoraError(
        f"{name} is a LoRA for {own}, and this model is {model.label}: choose a LoRA made for {model.label}, or a model "
        "of the LoRA's family",
        field="lora",
    )


def _read_all(header: Header) -> tuple[dict[str, Tensor], str]:
    """Return every tensor and the sha256 of everything after the header, from one reading of the file."""
    with open_model_file(header.path) as file:
        data = file.read()
    try:
        tensors = safetensors.torch.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise DamagedFile(f"{header.path.name} cannot be read ({reason}); download it again") from None
    check_unchanged(header)
    return tensors, hashlib.sha256(memoryview(data)[header.data_start :]).hexdigest()


def _copied(header: Header, pickled: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Return copies of a pickle's tensors, which may share storage, and the sha256 of its file."""
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in pickled.items()}
    digest = hash_file(header.path).sha256
    check_unchanged(header)
    return tensors, digest


def _check_tensor(header: Header, key: str, tensor: Tensor) -> None:
    file = header.path.name
    if tensor.numel() == 0:
        what = "rank 0" if "lora" in key else "no elements"
        raise LoraError(f"{file}: {key[:120]!r} has {what} (shape {list(tensor.shape)}); get another copy")
    if tensor.is_floating_point():
        if not all_finite(tensor):
            raise LoraError(
                f"{file}: {key[:120]!r} contains NaN or infinity, as when training diverges; get another copy"
            )
    elif not key.endswith((".alpha", ".on_input", ".bias_indices", ".bias_size", ".scale")):
        raise LoraError(
            f"{file}: {key[:120]!r} is stored as {tensor.dtype}; only floating-point weights can be used: "
            "get the file in float16 or float32"
        )


def _modules(
    header: Header, keys: KeyMap, tensors: Mapping[str, Tensor], config: AdapterConfig | None
) -> dict[str, LoraModule]:
    """Return the modules by name, joint matrices divided."""
    modules = {
        module.name: module
        for name, parts in keys.modules.items()
        for module in divided(_module(header, name, parts, tensors, config), file=header.path.name)
    }
    joint = [name for name in keys.modules if name.endswith(JOINT)]
    if len(modules) < len(keys.modules) + 2 * len(joint):
        raise LoraError(
            f"{header.path.name} names the same weights twice: in {few(joint)}, and as separate queries, keys and values; get another copy"
        )
    return modules


def _rank_warnings(header: Header, modules: Iterable[LoraModule], *, refused: bool) -> tuple[str, ...]:
    """Return what is wrong with modules whose parts do not fit together; LoraError where such a file is refused."""
    mismatched = [module.name for module in modules if not module.agrees]
    if not mismatched:
        return ()
    wrong = f"the parts of {few(mismatched)} have no rank or different ranks"
    if refused:
        raise LoraError(f"{header.path.name}: {wrong}; get another copy")
    return (f"{wrong}, so it cannot be used; get another copy",)


def _module(
    header: Header, name: str, keys: Mapping[str, str], tensors: Mapping[str, Tensor], config: AdapterConfig | None
) -> LoraModule:
    kind = kind_of(keys)
    if isinstance(kind, str):
        raise LoraError(f"{header.path.name}: {name} {kind} (keys {few(keys.values())}); get another copy")
    parts = {part: tensors[key] for part, key in keys.items()}
    for part in ("alpha", "scale"):
        if part in parts and parts[part].numel() != 1:
            raise LoraError(
                f"{header.path.name}: {keys[part][:120]!r} has {parts[part].numel()} numbers instead of one; get another copy"
            )
    rank = kind.rank(parts) if kind.scaled else None
    alpha = float(parts["alpha"].float()) if "alpha" in parts else None
    scale = 1.0
    if kind.scaled and "scale" in parts:
        scale = float(parts["scale"].float())
    elif rank is not None and alpha is not None:
        scale = alpha / rank
    elif rank is not None and config is not None and kind.name == "LoRA":
        alpha, stated = config.alpha(name), config.scale(name, rank)
        scale = 1.0 if stated is None else stated
    return LoraModule(
        name=name,
        kind=kind,
        parts=MappingProxyType(parts),
        scale=scale,
        rank=rank,
        alpha=alpha,
        key=next(iter(keys.values())),
    )


def _embedding_vectors(
    header: Header, name: str, keys: Mapping[str, str], tensors: Mapping[str, Tensor]
) -> tuple[Float[Tensor, "vectors _width"], ...]:
    """Return a bundled embedding's vectors for each encoder: one set, which OneTrainer names clip_l, or clip_l and
    clip_g."""
    file = header.path.name
    if set(keys) not in ({""}, {DOUBLE[0]}, {*DOUBLE}):
        raise LoraError(
            f"{file}: the embedding {name[:60]!r} contains {few(keys.values())}, which do not belong together; get another copy"
        )
    by_encoder = [tensors[keys[side]] for side in ("", *DOUBLE) if side in keys]
    for key, side in zip(keys.values(), by_encoder, strict=True):
        if side.dim() not in (1, 2) or not side.is_floating_point():
            raise LoraError(
                f"{file}: {key[:120]!r} is not an embedding of floating-point vectors: it has the shape {list(side.shape)} and "
                f"type {side.dtype}; get another copy"
            )
    vectors = tuple(side.reshape(-1, side.shape[-1]).float() for side in by_encoder)
    if len({len(side) for side in vectors}) > 1:
        raise LoraError(
            f"{file}: the embedding {name[:60]!r} has {len(vectors[0])} vectors for CLIP-L and "
            f"{len(vectors[1])} for OpenCLIP bigG, which must be equal; get another copy"
        )
    return vectors


def _idle(keys: Collection[str]) -> list[str]:
    """Return a warning for what changes nothing."""
    if not keys:
        return []
    return [f"{few(keys)} change a text_projection, which this family does not use to draw, so they have no effect"]


def _warnings(modules: Collection[LoraModule], config: AdapterConfig | None) -> list[str]:
    """Return warnings about what is odd in the file but applied as written."""
    scaled = [module for module in modules if module.kind.scaled and module.rank is not None]
    warnings = []
    zero = [module.name for module in scaled if module.scale == 0]
    if zero:
        warnings.append(f"alpha or scale is 0 in {len(zero)} modules ({few(zero)}), which therefore change nothing")
    negative = [module.name for module in scaled if module.scale < 0]
    if negative:
        warnings.append(
            f"alpha or scale is negative in {len(negative)} modules ({few(negative)}), which therefore subtract"
        )
    replaced = [module.name for module in modules if module.kind.replaces]
    if replaced:
        warnings.append(
            f"set_weight replaces the weights of {len(replaced)} modules ({few(replaced)}) at every strength but 0, "
            "as in ComfyUI"
        )
    outside = [m for m in scaled if m.alpha is not None and not {"alpha", "scale"} & m.parts.keys()]
    if outside and config is not None and any(not math.isclose(module.scale, 1.0) for module in outside):
        warnings.append(
            f"alpha {outside[0].alpha:g} comes from {config.source}, as peft and diffusers read it; A1111 uses the rank instead"
        )
    return warnings
