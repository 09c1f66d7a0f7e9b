"""Pickled checkpoints and embeddings, where they are allowed: tensors are read, and no code of the file is run."""

import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from clipskip.errors import DamagedFile, UnsafeFile, WrongKind
from clipskip.weights.container import Header, Stamp, TensorInfo, open_model_file, pickle_kind, zip_sizes
from clipskip.weights.header import read_header
from clipskip.weights.tensors import DTYPE_NAMES

NESTED = ("state_dict", "string_to_param", "params_ema", "params")
"""Where a checkpoint, an embedding of A1111 and an upscaler of Real-ESRGAN have their tensors."""
LIGHTNING = "pytorch_lightning"
UNPACKED_AT_MOST = 2
"""The most times that a pickle's zip may unpack to its size: torch.save does not compress."""


def read_allowed(path: Path, *, allow_pickle: bool) -> tuple[Header, dict[str, Shaped[Tensor, "..."]] | None]:
    """Return a file's header; and a pickle's tensors where pickles are allowed, because its header needs all of it."""
    if allow_pickle and is_pickle(path):
        return read_pickle(path)
    return read_header(path), None


def read_pickle(path: Path) -> tuple[Header, dict[str, Shaped[Tensor, "..."]]]:
    """Read the tensors of a .ckpt, .pt or .pth with torch's `weights_only` reader, which builds nothing but tensors.

    The zip directory is checked first, so that a small file cannot fill the memory.
    """
    stamp = Stamp.of(path)
    flat = dict(_tensors(_unpickle(path)))
    if not flat:
        raise WrongKind(f"{path.name} is a pickle without tensors; give a model or an embedding")
    for name, tensor in flat.items():
        _check_solid(path, name, tensor)
    tensors = {
        name: TensorInfo(dtype=DTYPE_NAMES.get(t.dtype, str(t.dtype)), shape=tuple(t.shape), file=path)
        for name, t in flat.items()
    }
    header = Header(
        path=path, size=stamp.size, tensors=MappingProxyType(tensors), stamps=MappingProxyType({path: stamp})
    )
    return header, flat


def _tensors(content: Mapping[object, object]) -> Iterator[tuple[str, Tensor]]:
    """Yield a file's tensors under the first of NESTED that it has, or at the top."""
    state = next((content[name] for name in NESTED if name in content), content)
    # A ParameterDict is read through its state alone, because torch moved its entries between versions.
    state = state.__dict__.get("_parameters", {}) if isinstance(state, nn.ParameterDict) else state
    for name, value in (state if isinstance(state, Mapping) else content).items():
        if isinstance(value, Tensor):
            yield str(name), value.detach()


def _unpickle(path: Path) -> dict[object, object]:
    """Return the content of a pickle of tensors, without running code from it."""
    with open_model_file(path) as file:
        start = file.read(512)
    if start[:4] == b"PK\x03\x04":
        _check_zip(path)
    elif pickle_kind(path, start) is None:
        raise DamagedFile(f"{path.name} is neither safetensors nor a pickle of tensors; download it again")
    content = _weights_only(path)
    if not isinstance(content, dict):
        raise WrongKind(
            f"{path.name} is a pickle of a {type(content).__name__}, not of tensors; give a model or an embedding"
        )
    return content


def _check_zip(path: Path) -> None:
    total, size = sum(zip_sizes(path).values()), path.stat().st_size
    if total > UNPACKED_AT_MOST * size + 1_000_000:
        raise UnsafeFile(
            f"{path.name} would unpack from {size:,} to {total:,} bytes, as no real model does, so it is not opened; get another copy"
        )


def _weights_only(path: Path) -> object:
    try:
        with (
            path.open("rb") as file,  # a path that ends in .safetensors would be read as such, whatever it is
            warnings.catch_warnings(),
            torch.serialization.safe_globals([nn.Parameter, nn.ParameterDict]),
        ):
            warnings.simplefilter("ignore")  # of newer pickle protocols; what cannot be read is an error below
            return torch.load(file, map_location="cpu", weights_only=True, mmap=False)
    except MemoryError:
        raise DamagedFile(
            f"{path.name} needs more memory than there is; it is damaged or too large: get another copy"
        ) from None
    except Exception as error:  # torch.load names no set of errors: a damaged pickle can raise nearly any
        text = str(error)
        if LIGHTNING in text:
            raise UnsafeFile(
                f"{path.name} was saved by PyTorch Lightning with objects beside its tensors, which are not loaded; "
                "use its .safetensors version, or convert it once with a tool that keeps only its state_dict"
            ) from None
        match = re.search(r"(?:GLOBAL|[Gg]lobal:) (?!GLOBAL)(\S+)", text)
        if match or isinstance(error, pickle.UnpicklingError):
            what = match[1].strip("'`,.")[:80] if match else "instructions that torch refuses"
            raise UnsafeFile(
                f"{path.name} is a pickle that asks for {what}, not only for tensors; it was not run: get the file as safetensors"
            ) from None
        raise DamagedFile(f"{path.name} is a damaged pickle ({type(error).__name__}); download it again") from None


def _check_solid(path: Path, name: str, tensor: Shaped[Tensor, "..."]) -> None:
    """Raise an error for a tensor that claims more numbers than it stores, because it would grow when copied."""
    plain = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    if not plain or tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        raise DamagedFile(
            f"{path.name}: {name[:120]} does not store all its numbers, so it is refused; get another copy"
        )


def is_pickle(path: Path) -> bool:
    """Return whether the file is a pickle, whatever its name; a folder is not."""
    if path.is_dir():
        return False
    with open_model_file(path) as file:
        start = file.read(512)
    plausible = start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size
    return not plausible and pickle_kind(path, start) is not None
