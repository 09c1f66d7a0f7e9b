"""VAE files: found, checked and hashed by their headers before drawing, and read when they are needed."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from clipskip.errors import DamagedFile, WrongKind
from clipskip.networks import VAEShape, tensors_of
from clipskip.spec import FileRef
from clipskip.weights.hashes import hash_file
from clipskip.weights.identify import identify
from clipskip.weights.keys import canonical
from clipskip.weights.pickles import read_allowed
from clipskip.weights.tensors import convert_tensors, read_tensors

BESIDE = (".vae.safetensors", ".vae.pt", ".vae.ckpt")
"""Endings that, after a checkpoint's stem, name the VAE that belongs to it, as A1111 looks for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VAEFile:
    """A VAE that fits a model."""

    ref: FileRef
    path: Path
    allow_pickle: bool


def beside(checkpoint: Path) -> Iterator[Path]:
    """Yield the VAE files that belong to a checkpoint by their names, the best first."""
    places = (checkpoint.with_name(f"{checkpoint.stem}{ending}") for ending in BESIDE)
    return (place for place in places if place.is_file())


def find_fitting(path: Path, shape: VAEShape, *, allow_pickle: bool = False) -> VAEFile:
    """Return the VAE in this file; WrongKind where it has none, or one that does not fit a VAE of this shape."""
    header, _ = read_allowed(path, allow_pickle=allow_pickle)
    mine = {name: source.shape for name, source in canonical(header.shapes).get("vae", {}).items()}
    if not mine:
        raise WrongKind(f"{path.name} is a {identify(header).kind}, not a VAE; give a VAE file with --vae", field="vae")
    for name, size in tensors_of(shape).items():
        if name not in mine:
            raise DamagedFile(f"{path.name} is an incomplete VAE: it lacks {name}; download it again", field="vae")
        if mine[name] != size:
            raise WrongKind(
                f"the VAE {path.name} does not fit this model: its {name} is {list(mine[name])}, the model's is {list(size)}; "
                "give one for this family with --vae",
                field="vae",
            )
    return VAEFile(ref=FileRef(name=path.name, hash=hash_file(path).autov2), path=path, allow_pickle=allow_pickle)


def load_vae(
    file: VAEFile, shape: VAEShape, *, dtype: torch.dtype, device: torch.device
) -> dict[str, Float[Tensor, "..."]]:
    """Load the tensors of a VAE; DamagedFile when the file has changed."""
    if hash_file(file.path).autov2 != file.ref.hash:
        raise DamagedFile(
            f"{file.path} changed while it was in use; start again with the file that you want", field="vae"
        )
    header, pickled = read_allowed(file.path, allow_pickle=file.allow_pickle)
    parts = canonical(header.shapes)["vae"]
    sources = {name: parts[name] for name in tensors_of(shape)}
    if pickled is None:
        return read_tensors(header, sources, dtype=dtype, device=device)
    return convert_tensors(pickled, sources, file=file.path.name, dtype=dtype, device=device)
