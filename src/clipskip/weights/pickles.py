"""Pickled checkpoints and embeddings, behind a switch: tensors out, and no code of the file run."""

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
from clipskip.weights.container import Header, Stamp, TensorInfo, open_model, pickle_kind, zip_sizes
from clipskip.weights.header import read_header
from clipskip.weights.reading import DTYPE_NAMES

NESTED = ("state_dict", "string_to_param", "params_ema", "params")
"""Where a checkpoint, an embedding of A1111 and an upscaler of Real-ESRGAN have their tensors."""
LIGHTNING = "pytorch_lightning"
UNPACKED_AT_MOST = 2
"""Times the size of a pickle's zip: torch.save does not compress, so more is no model."""


def read_allowed(path: Path, *, allow_pickle: bool) -> tuple[Header, dict[str, Shaped[Tensor, "..."]] | None]:
    """A file's header; and the tensors of a pickle, where pickles are allowed, since reading those reads all."""
    if allow_pickle and is_pickle(path):
        return read_pickle(path)
    return read_header(path), None


def read_pickle(path: Path) -> tuple[Header, dict[str, Shaped[Tensor, "..."]]]:
    """The tensors of a .ckpt, .pt or .pth by torch's `weights_only` reader, which builds tensors and nothing else.

    Its zip directory is checked first, so that a small file cannot unpack into all of the memory.
    """
    stamp = Stamp.of(path)
    flat = dict(_tensors(_unpickle(path)))
    if not flat:
        raise WrongKind(f"{path.name} is a pickle without tensors, neither a model nor an embedding")
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
    """What a file has under the first of NESTED, or at the top."""
    state = next((content[name] for name in NESTED if name in content), content)
    # A ParameterDict is read through its state alone, since torch moved its entries between versions.
    state = state.__dict__.get("_parameters", {}) if isinstance(state, nn.ParameterDict) else state
    for name, value in (state if isinstance(state, Mapping) else content).items():
        if isinstance(value, Tensor):
            yield str(name), value.detach()


def _unpickle(path: Path) -> dict[object, object]:
    """What a pickle of tensors holds, read without running code from it."""
    with open_model(path) as file:
        start = file.read(512)
    if start[:4] == b"PK\x03\x04":
        _check_zip(path)
    elif pickle_kind(path, start) is None:
        raise DamagedFile(f"{path.name} is neither safetensors nor a pickle of tensors; download it again")
    content = _weights_only(path)
    if not isinstance(content, dict):
        raise WrongKind(f"{path.name} is a pickle of a {type(content).__name__}, not of a model's tensors")
    return content


def _check_zip(path: Path) -> None:
    total, size = sum(zip_sizes(path).values()), path.stat().st_size
    if total > UNPACKED_AT_MOST * size + 1_000_000:
        raise UnsafeFile(
            f"{path.name} would unpack from {size:,} to {total:,} bytes, which no model does; it is refused"
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
        raise DamagedFile(f"{path.name} asks for more memory than there is; it is damaged or far too large") from None
    except Exception as error:  # torch.load names no set of errors: a damaged pickle can raise nearly any
        text = str(error)
        if LIGHTNING in text:
            raise UnsafeFile(
                f"{path.name} was saved by PyTorch Lightning with objects beside its tensors, which are not loaded; "
                "use its .safetensors version, or convert it once with a tool that keeps only its state_dict"
            ) from None
        asked = re.search(r"(?:GLOBAL|operand|[Gg]lobal:) (\S+)", text)
        if asked or isinstance(error, pickle.UnpicklingError):
            what = asked[1].strip("'`,.")[:80] if asked else "objects"
            raise UnsafeFile(
                f"{path.name} is refused: it asks for {what}, more than tensors; nothing of it was run"
            ) from None
        raise DamagedFile(f"{path.name} is a damaged pickle ({type(error).__name__}); download it again") from None


def _check_solid(path: Path, name: str, tensor: Shaped[Tensor, "..."]) -> None:
    """An error for a tensor that claims more numbers than it stores, and so would grow when it is copied."""
    plain = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    if not plain or tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        raise DamagedFile(f"{path.name}: {name[:120]} is not a plain tensor with all its numbers; it is refused")


def is_pickle(path: Path) -> bool:
    """Whether the file is a pickle, whatever its name ends in; a folder is none."""
    if path.is_dir():
        return False
    with open_model(path) as file:
        start = file.read(512)
    plausible = start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size
    return not plausible and pickle_kind(path, start) is not None
