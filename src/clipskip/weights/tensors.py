"""Header and names to tensors: each is read once into its own memory, so that nothing maps the user's file."""

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from clipskip.errors import DamagedFile, WrongKind
from clipskip.weights.container import Header, TensorInfo, open_model_file, same_file
from clipskip.weights.keys import TensorSource

DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {
        "F64": torch.float64,
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E5M2": torch.float8_e5m2,
    }
)
DTYPE_NAMES = MappingProxyType({dtype: name for name, dtype in DTYPES.items()})


def read_tensors(
    header: Header, sources: Mapping[str, TensorSource], *, dtype: torch.dtype, device: str | torch.device = "cpu"
) -> dict[str, Float[Tensor, "..."]]:
    """Read the tensors of a header under their canonical names, finite and converted; DamagedFile otherwise."""
    tensors = dict(read_one_by_one(header, sources, dtype=dtype, device=device))
    return {name: tensors[name] for name in sources}


def read_one_by_one(
    header: Header, sources: Mapping[str, TensorSource], *, dtype: torch.dtype, device: str | torch.device = "cpu"
) -> Iterator[tuple[str, Float[Tensor, "..."]]]:
    """Yield what `read_tensors` returns one by one in the file's order, so that only one tensor needs memory."""

    def place(item: tuple[str, TensorSource]) -> tuple[Path, int, str]:
        info = header.tensors[item[1].name]
        return info.file, info.start, item[1].name

    for path, in_file in groupby(sorted(sources.items(), key=place), key=lambda item: place(item)[0]):
        with open_model_file(path) as file:
            for name, sources_of_tensor in groupby(in_file, key=lambda item: item[1].name):
                raw = _read_tensor(file, header.tensors[name], name)
                for canonical, source in sources_of_tensor:
                    piece = cut(raw, source, scale=_scale(header, source))
                    yield canonical, finite(_converted(piece, dtype), name, file=path.name, before=piece).to(device)
    check_unchanged(header)


def convert_tensors(
    state: dict[str, Tensor],
    sources: Mapping[str, TensorSource],
    *,
    file: str,
    dtype: torch.dtype,
    device: str | torch.device,
) -> dict[str, Float[Tensor, "..."]]:
    """Convert tensors that are already in memory; `state` is emptied, so that no tensor is held twice for long."""
    converted = {}
    uses = Counter(source.name for source in sources.values())
    for canonical, source in sources.items():
        uses[source.name] -= 1
        raw = state[source.name] if uses[source.name] else state.pop(source.name)
        scale = None if source.scale is None else state[source.scale]
        if not raw.is_floating_point():
            raise WrongKind(
                f"{file}: {source.name} is stored as {raw.dtype}; only floating-point weights can be used: "
                "get the file in float16 or float32"
            )
        piece = cut(raw, source, scale=scale).contiguous()
        converted[canonical] = finite(_converted(piece, dtype), source.name, file=file, before=piece).to(device)
    return converted


def _converted(piece: Shaped[Tensor, "..."], dtype: torch.dtype) -> Float[Tensor, "..."]:
    """Convert to another dtype and, for convolutions, to channels last in memory in the same pass."""
    layout = torch.channels_last if piece.ndim == 4 else torch.preserve_format
    if (piece.dtype, dtype) == (torch.float16, torch.bfloat16):
        piece = piece.float().to(dtype)  # exact on the way, and half the time of torch's direct conversion
    return piece.to(dtype, memory_format=layout)


def cut(
    raw: Shaped[Tensor, "..."], source: TensorSource, *, scale: Shaped[Tensor, "..."] | None = None
) -> Shaped[Tensor, "..."]:
    """Return the canonical tensor within a file's tensor, times its scale; a part is copied, so that the rest can be
    freed."""
    if scale is not None:
        raw = raw.float() * scale.float().reshape(-1, *[1] * (raw.dim() - 1))
    if source.third is not None:
        raw = raw.chunk(3)[source.third].clone()
    return (raw.T.contiguous() if source.transposed else raw).reshape(source.shape)


def finite(
    tensor: Float[Tensor, "..."], name: str, *, file: str, before: Shaped[Tensor, "..."]
) -> Float[Tensor, "..."]:
    """Return the tensor; DamagedFile when it contains NaN or infinity. `before` is the tensor in the file's own
    dtype."""
    if all_finite(tensor):
        return tensor
    if all_finite(before):
        kind = str(tensor.dtype).removeprefix("torch.")
        raise DamagedFile(f"{file}: {name} contains numbers too large for {kind}; load it as bfloat16 or float32")
    raise DamagedFile(f"{file} is damaged: {name} contains NaN or infinity; download it again")


def all_finite(tensor: Shaped[Tensor, "..."]) -> bool:
    """Return whether all numbers are finite. aminmax passes NaN on and is 13 times as fast as isfinite."""
    wide = tensor.float() if tensor.dtype.itemsize == 1 else tensor
    wide = wide.permute(0, 2, 3, 1) if wide.ndim == 4 else wide  # in the order of memory where channels are last
    return wide.numel() == 0 or all(bool(end.isfinite()) for end in torch.aminmax(wide))


def _scale(header: Header, source: TensorSource) -> Shaped[Tensor, "..."] | None:
    """Return what a scaled tensor is multiplied by; DamagedFile where it is neither one number nor one for each output."""
    if source.scale is None:
        return None
    info, rows = header.tensors[source.scale], header.tensors[source.name].shape[:1]
    if info.count != 1 and (info.count,) != rows:
        raise DamagedFile(
            f"{info.file.name}: {source.scale} has {info.count} numbers for {source.name} of shape "
            f"{list(header.tensors[source.name].shape)}; a scale is one number, or one for each output: download it again"
        )
    with open_model_file(info.file) as file:
        return _read_tensor(file, info, source.scale)


def check_unchanged(header: Header) -> None:
    """Raise DamagedFile when a file is no longer the one whose header was read."""
    changed = next((path for path, stamp in header.stamps.items() if not same_file(path, stamp)), None)
    if changed is not None:
        raise DamagedFile(f"{changed.name} changed while it was being read; try again when it is complete")


def _read_tensor(file: BinaryIO, info: TensorInfo, name: str) -> Shaped[Tensor, "..."]:
    if info.dtype not in DTYPES:
        raise WrongKind(
            f"{info.file.name}: {name} is stored as {info.dtype}; only floating-point weights can be used: "
            "get the file in float16 or float32"
        )
    raw = torch.empty(info.end - info.start, dtype=torch.uint8)
    view = raw.numpy().data
    file.seek(info.start)
    while view:
        count = file.readinto(view)  # type: ignore[attr-defined]  # open("rb") gives a reader that has it
        if not count:
            raise DamagedFile(f"{info.file.name} became shorter while it was being read; try again when it is complete")
        view = view[count:]
    return raw.view(DTYPES[info.dtype]).reshape(info.shape)
