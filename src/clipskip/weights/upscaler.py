"""Upscaler models, the ESRGAN family and its kin: found and checked by their headers, opened by spandrel (an extra)."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from clipskip.errors import DamagedFile, FileError, NotFound, SpecError, WrongKind
from clipskip.spec import FileRef
from clipskip.weights.hashes import hash_file
from clipskip.weights.identify import FileKind
from clipskip.weights.library import Library
from clipskip.weights.pickles import read_allowed
from clipskip.weights.tensors import all_finite
from clipskip.weights.walking import LibraryFile

A1111_NAMES = {
    "RealESRGAN_x4plus": "R-ESRGAN 4x+",
    "RealESRGAN_x4plus_anime_6B": "R-ESRGAN 4x+ Anime6B",
    "RealESRGAN_x2plus": "R-ESRGAN 2x+",
    "realesr-general-x4v3": "R-ESRGAN General 4xV3",
    "realesr-general-wdn-x4v3": "R-ESRGAN General WDN 4xV3",
    "realesr-animevideov3": "R-ESRGAN AnimeVideo",
    "ESRGAN": "ESRGAN_4x",
}
"""What A1111 calls published files, by their stems (1.10 modules/realesrgan_model.py, esrgan_model.py)."""
STEMS = {name: stem for stem, name in A1111_NAMES.items()}
RGB = 3
"""Channels."""
NEEDED = "needs spandrel, which cannot be imported ({why}): pip install 'clipskip[upscalers]'"
Enlarge = Callable[[Float[Tensor, "1 3 height width"]], Float[Tensor, "1 3 down across"]]
"""A picture of numbers from 0 to 1, so many times as large as the model makes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpscalerFile:
    """A file that holds an upscaler model."""

    ref: FileRef
    """By the name that A1111's menus have for it."""
    path: Path
    allow_pickle: bool


def upscaler_name(file: LibraryFile) -> str:
    """Return the file's name in menus and settings texts."""
    return A1111_NAMES.get(file.stem, file.stem)


def find_upscaler(name: str, library: Library, *, hash: str = "", allow_pickle: bool = False) -> UpscalerFile:
    """Return the upscaler model of this name, or where no file has the name, of this hash. It is checked by its header."""
    stem = STEMS.get(name, name)
    try:
        path = library.find(stem, FileKind.UPSCALER)
    except NotFound as error:
        by_hash = library.find_hash(hash, FileKind.UPSCALER, likely=name) if hash else None
        if by_hash is None:
            file = "" if stem == name else f"{name} is the file {stem}: "
            raise NotFound(f"{file}{error}", field="hires_upscaler") from None
        path = by_hash
    try:
        header, _ = read_allowed(path, allow_pickle=allow_pickle)
    except FileError as error:
        raise type(error)(str(error), field="hires_upscaler") from None
    _architecture_of({name: torch.empty(info.shape, device="meta") for name, info in header.tensors.items()}, path)
    ref = FileRef(name=A1111_NAMES.get(path.stem, path.stem), hash=hash_file(path).autov2)
    return UpscalerFile(ref=ref, path=path, allow_pickle=allow_pickle)


def load_upscaler(file: UpscalerFile, *, device: torch.device) -> Enlarge:
    """Return the model in this file, in float32; DamagedFile when the file is another by now or does not hold all of it."""
    path, spandrel = file.path, _spandrel(file.path)
    if hash_file(path).autov2 != file.ref.hash:
        raise DamagedFile(
            f"{path} changed while it was in use; start again with the file that you want", field="hires_upscaler"
        )
    _, pickled = read_allowed(path, allow_pickle=file.allow_pickle)
    state = safetensors.torch.load(path.read_bytes()) if pickled is None else pickled
    floats = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in spandrel.canonicalize_state_dict(state).items()
    }
    spoiled = next(
        (name for name, tensor in floats.items() if tensor.is_floating_point() and not all_finite(tensor)), None
    )
    if spoiled is not None:
        raise DamagedFile(
            f"{path.name} is damaged: {spoiled} contains NaN or infinity; download it again", field="hires_upscaler"
        )
    try:
        model = _architecture_of(floats, path).load(floats)
    except (RuntimeError, KeyError, ValueError) as error:
        line = " ".join(str(error).split())[:160]
        raise DamagedFile(
            f"{path.name} does not contain a whole upscaler model ({line}); download it again",
            field="hires_upscaler",
        ) from None
    channels = (model.input_channels, model.output_channels)
    if not isinstance(model, spandrel.ImageModelDescriptor) or channels != (RGB, RGB):
        raise WrongKind(
            f"{path.name} is not an upscaler of RGB pictures; give another upscaler", field="hires_upscaler"
        )
    model.to(device).eval()
    return torch.inference_mode()(model)  # type: ignore[no-any-return]  # spandrel's descriptor, which can be called


def _architecture_of(state: dict[str, Shaped[Tensor, "..."]], path: Path) -> Any:  # Any: spandrel's Architecture
    """Return the architecture that has tensors of these names and sizes; WrongKind where none has."""
    spandrel = _spandrel(path)
    names = spandrel.canonicalize_state_dict(state)
    for support in spandrel.MAIN_REGISTRY.architectures("detection"):
        if support.architecture.detect(names):
            return support.architecture
    raise WrongKind(
        f"{path.name} is not an upscaler model that spandrel {spandrel.__version__} knows; give another",
        field="hires_upscaler",
    )


def _spandrel(path: Path) -> Any:  # Any: the module
    """Return the library, which takes a second to import and is asked for where a model is."""
    if importlib.util.find_spec("spandrel") is None:
        raise SpecError(f"the upscaler {path.name} {NEEDED.format(why='it is not installed')}", field="hires_upscaler")
    try:
        import spandrel
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that is of another torch
        raise SpecError(f"the upscaler {path.name} {NEEDED.format(why=error)}", field="hires_upscaler") from None
    return spandrel
