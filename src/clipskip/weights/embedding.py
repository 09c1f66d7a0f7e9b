"""Textual inversions: words that stand for trained vectors (Gal et al. 2022)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from clipskip.errors import DamagedFile, FileError, UnsafeFile, WrongKind
from clipskip.weights.container import as_path, read_file_header
from clipskip.weights.hashes import hash_file
from clipskip.weights.keys import TensorSource
from clipskip.weights.pickles import is_pickle, read_pickle
from clipskip.weights.tensors import all_finite, read_tensors

CHUNK = 75
"""Tokens that the text encoder reads at a time, besides start and end."""
WIDTHS = {768: "SD 1.x", 1024: "SD 2.x", 1280: "SDXL"}
MOST_VECTORS = 10_000
OTHERWISE = "use one made for this model, or take its name out of the prompt"
"""What to do about an embedding of another family, which may share its name with an ordinary word."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Embedding:
    """The vectors of one textual inversion."""

    name: str
    """The file's stem, which is the word that calls it, whatever name the file contains."""
    vectors: tuple[Float[Tensor, "vectors _width"], ...]
    """One set for SD 1.x and 2.x, two (clip_l, clip_g) for SDXL."""
    hash: str
    """12 digits of the file's sha256, as A1111 writes them under "TI hashes"."""

    @property
    def count(self) -> int:
        """Number of vectors for each encoder."""
        return len(self.vectors[0])

    @property
    def warning(self) -> str | None:
        """A warning for its user, or None."""
        count = self.count
        if count <= CHUNK:
            return None
        return (
            f"embedding {self.name!r} has {count} vectors, more than the {CHUNK} tokens in a chunk of the prompt, so it "
            "cannot be used; choose one with fewer vectors"
        )


def load_embedding(path: str | Path, *, widths: Sequence[int], allow_pickle: bool = False) -> Embedding:
    """Load the textual inversion in a file, in float32, for text encoders of these widths: one, or SDXL's two."""
    file = as_path(path)
    if is_pickle(file):
        if not allow_pickle:
            raise UnsafeFile(
                f"embedding {file.name} is a pickle, which could run code when loaded; "
                "convert it to safetensors, or allow pickles (--allow-pickle, or allow_pickle=True in Python) "
                "if you trust its author"
            )
        _, tensors = read_pickle(file)
    else:
        header = read_file_header(file)
        _check_count(len(header.tensors), header.tensors, file)
        sources = {name: TensorSource(name=name, shape=info.shape) for name, info in header.tensors.items()}
        tensors = read_tensors(header, sources, dtype=torch.float32)
    return Embedding(
        name=file.stem, vectors=_read_vectors(tensors, file, widths=widths), hash=hash_file(file).sha256[:12]
    )


def count_vectors(path: str | Path, *, allow_pickle: bool = False) -> int:
    """Count the vectors of a textual inversion by its header; a pickle has none and is read where that is allowed."""
    file = as_path(path)
    if not is_pickle(file):
        tensors = read_file_header(file).tensors
    elif allow_pickle:
        tensors = read_pickle(file)[0].tensors
    else:
        raise UnsafeFile(
            f"embedding {file.name} is a pickle, which is not opened without permission; "
            "convert it to safetensors, or allow pickles (--allow-pickle, or allow_pickle=True in Python)"
        )
    _check_count(len(tensors), tensors, file)
    shape = next((info.shape for info in tensors.values()), ())
    if (len(tensors) != 1 and tensors.keys() != {"clip_l", "clip_g"}) or len(shape) not in (1, 2):
        raise WrongKind(f"{file.name} is not an embedding: it contains {', '.join(tensors)[:80]}; give another file")
    return shape[0] if len(shape) == 2 else 1


def _check_count(count: int, names: Mapping[str, object], file: Path) -> None:
    if count > 4:
        raise WrongKind(
            f"{file.name} contains {count} tensors (such as {next(iter(names))[:60]}), so it is not an embedding; "
            "give a checkpoint with --model, a LoRA with --lora"
        )


def _read_vectors(
    tensors: Mapping[str, Tensor], file: Path, *, widths: Sequence[int]
) -> tuple[Float[Tensor, "vectors _width"], ...]:
    """Return the vectors of each encoder, in equal number."""
    if len(widths) == 1:
        return (_only(tensors, file, width=widths[0]),)
    if set(tensors) != {"clip_l", "clip_g"}:
        raise WrongKind(
            f"embedding {file.name} contains {', '.join(sorted(tensors))[:80] or 'nothing'}; this model is SDXL, whose "
            f"embeddings contain clip_l and clip_g: {OTHERWISE}"
        )
    by_encoder = tuple(
        _only({name: tensors[name]}, file, width=width)
        for name, width in zip(("clip_l", "clip_g"), widths, strict=True)
    )
    if len({len(side) for side in by_encoder}) > 1:
        raise DamagedFile(
            f"embedding {file.name} has {len(by_encoder[0])} vectors for CLIP-L and {len(by_encoder[1])} for OpenCLIP bigG, which "
            "must be equal; get another copy of the file"
        )
    return by_encoder


def _only(tensors: Mapping[str, Tensor], file: Path, *, width: int) -> Float[Tensor, "vectors width"]:
    if {"clip_l", "clip_g"} <= set(tensors):
        of_family = f" ({WIDTHS[width]})" if width in WIDTHS else ""
        raise WrongKind(
            f"embedding {file.name} is for SDXL (clip_l and clip_g); this model needs one with vectors {width} wide{of_family}: "
            f"{OTHERWISE}"
        )
    _check_count(len(tensors), tensors, file)
    if len(tensors) != 1:
        known = ", ".join(sorted(tensors)) or "nothing"
        raise WrongKind(
            f"{file.name} is not an embedding: it contains {known[:80]} instead of one set of vectors; give another file"
        )
    name, raw = next(iter(tensors.items()))
    vectors = raw[None] if raw.dim() == 1 else raw
    if vectors.dim() != 2 or not 0 < len(vectors) <= MOST_VECTORS or not vectors.is_floating_point():
        raise DamagedFile(
            f"embedding {file.name}: {name[:60]} has the shape {list(raw.shape)} and type {raw.dtype}; an embedding "
            f"is [vectors, width], with 1 to {MOST_VECTORS:,} vectors of floating-point numbers: get another copy"
        )
    if vectors.shape[1] != width:
        family = WIDTHS.get(vectors.shape[1])
        raise WrongKind(
            f"embedding {file.name} has vectors {vectors.shape[1]} wide{f' ({family})' if family else ''}; "
            f"this model's text encoder is {width} wide: {OTHERWISE}"
        )
    if vectors.untyped_storage().nbytes() < vectors.numel() * vectors.element_size():
        raise FileError(f"embedding {file.name} claims more numbers than it stores, so it is refused; get another copy")
    if not all_finite(vectors):
        raise DamagedFile(f"embedding {file.name} is damaged: it contains NaN or infinity; download it again")
    return vectors.float().clone()
