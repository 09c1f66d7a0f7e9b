"""A model file's table of contents and metadata, without reading a weight.

The format is described at https://github.com/huggingface/safetensors: eight bytes with the little-endian length N, N
bytes of JSON, then the data, in which each byte belongs to exactly one tensor.
"""

import json
import math
import os
import re
import stat
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from clipskip.errors import DamagedFile, FileError, NotFound, UnsafeFile, WrongKind, printable

MAX_HEADER, MAX_TENSORS = 16_000_000, 50_000
"""The most bytes of a header and the most tensors. SDXL has 2,516 tensors in 0.3 MB; a LoRA on all modules with its
training metadata takes a few MB. The safetensors library allows 100 MB, which would take minutes for a list of files.
"""
MAX_DIMENSIONS = 16
BITS = MappingProxyType(
    {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F6_E2M3": 6, "F6_E3M2": 6}
    | {
        "F4": 4,
        "C64": 64,
        "BOOL": 8,
        "I64": 64,
        "I32": 32,
        "I16": 16,
        "I8": 8,
        "U64": 64,
        "U32": 32,
        "U16": 16,
        "U8": 8,
    }
)
"""Bits of one element, by the format's dtype names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """The place, dtype and shape of one tensor."""

    dtype: str
    """The format's name: F16, BF16, F32..."""
    shape: tuple[int, ...]
    start: int = 0
    """First byte, counted from the start of the file."""
    end: int = 0
    """The byte after the last."""
    file: Path

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """Size, time and inode, which tell one state of a file from another without reading it."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> "Stamp":
        """Return the stamp of the file as it is now."""
        status = path.stat()
        return cls(size=status.st_size, mtime_ns=status.st_mtime_ns, inode=status.st_ino)


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The table of contents of a model file or a diffusers folder."""

    path: Path
    size: int
    """Bytes of all weight files together."""
    tensors: Mapping[str, TensorInfo]
    """In a diffusers folder each name starts with its component: `unet/conv_in.weight`."""
    metadata: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    data_start: int = 0
    """First byte after the header of a single file."""
    configs: Mapping[str, Mapping[str, object]] = field(default_factory=lambda: MappingProxyType({}))
    """A diffusers folder's config.json by component, `model_index` included; empty for a single file."""
    stamps: Mapping[Path, Stamp] = field(default_factory=lambda: MappingProxyType({}))
    """Every weight file's stamp from when the header was read."""

    @property
    def is_folder(self) -> bool:
        """Return whether this is a diffusers folder."""
        return bool(self.configs)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes by tensor name."""
        return {name: info.shape for name, info in self.tensors.items()}


def read_file_header(path: Path) -> Header:
    """Read the header of one safetensors file; each way of not being one has its own error."""
    with open_model_file(path) as file:
        stamp = Stamp.of(path)
        start = file.read(512)
        check_beginning(path, start, size=stamp.size)
        file.seek(8)
        length = int.from_bytes(start[:8], "little")
        table = _parse(path, file.read(length))
    metadata = _metadata(path, table.pop("__metadata__", {}))
    if len(table) > MAX_TENSORS:
        raise DamagedFile(
            f"{path.name} names {len(table):,} tensors; models have at most {MAX_TENSORS:,}: download it again"
        )
    tensors = {name: _info(path, name, entry, data_start=8 + length) for name, entry in table.items()}
    _check_cover(path, tensors.items(), data_start=8 + length, size=stamp.size)
    return Header(
        path=path,
        size=stamp.size,
        tensors=MappingProxyType(tensors),
        metadata=MappingProxyType(metadata),
        data_start=8 + length,
        stamps=MappingProxyType({path: stamp}),
    )


def open_model_file(path: Path) -> BinaryIO:
    """Open the file for reading, or raise the error that says why that is impossible."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise WrongKind(f"{path} is a folder; give the .safetensors file in it, or a diffusers folder")
        if not stat.S_ISREG(mode):
            raise WrongKind(f"{path} is not a regular file; give a .safetensors file")
        return path.open("rb")
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist; check the path") from None
    except PermissionError:
        raise FileError(
            f"{path} may not be read: permission denied; give yourself read permission (chmod u+r)"
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise FileError(f"{str(path)!r} cannot be opened: {reason}; check the path and the disk") from None


def check_beginning(path: Path, start: bytes, *, size: int) -> None:
    """Raise the error that says what a file is, unless one that starts so can be safetensors."""
    if size == 0:
        raise DamagedFile(f"{path.name} is not a model: 0 bytes; download it again")
    length = int.from_bytes(start[:8], "little")
    if len(start) > 8 and start[8:9] == b"{" and MAX_HEADER < length <= size - 8:
        raise DamagedFile(
            f"{path.name} has a header of {length:,} bytes, and at most {MAX_HEADER:,} are read; if training metadata "
            "fills it, save the file again without that metadata"
        )
    if len(start) > 8 and start[8:9] == b"{" and 2 <= length <= MAX_HEADER:
        if length > size - 8:
            raise DamagedFile(
                f"{path.name} is truncated: its header alone needs {8 + length:,} bytes, the file has {size:,}; "
                "download it again"
            )
        return
    _check_text(path, start)
    kind = pickle_kind(path, start)
    if kind is not None:
        raise UnsafeFile(
            f"{path.name} is a pickle ({kind}), not safetensors, and could run code when loaded; "
            "convert it, or allow pickles (--allow-pickle, or allow_pickle=True in Python) if you trust its author"
        )
    _check_other(path, start, size=size)


def pickle_kind(path: Path, start: bytes) -> str | None:
    """Return what kind of pickle this file is, or None."""
    if start[:4] == b"PK\x03\x04":
        return "a zip written by torch.save" if any(n.endswith("data.pkl") for n in zip_sizes(path)) else None
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "written by an old torch.save"
    if start[:1] in b"(]}c" and re.match(rb"\(?[dl]p[0-9]+\n|[\]}]q[\x00-\xff]|\(?c[\w.]+\n\w+\n", start):
        return "in an early pickle protocol"
    return "a tar written by a very old torch.save" if start[257:262] == b"ustar" else None


def zip_sizes(path: Path) -> dict[str, int]:
    """Return the unpacked bytes by name, from the zip's directory alone."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {entry.filename: entry.file_size for entry in archive.infolist()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, UnicodeDecodeError):
        raise DamagedFile(
            f"{path.name} is a zip whose directory is missing or damaged, as after an interrupted download; download it again"
        ) from None


def read_json_file(path: Path, *, limit: int) -> Mapping[str, object]:
    """Return the JSON object in a small file."""
    with open_model_file(path) as file:
        text = file.read(limit + 1)
    if len(text) > limit:
        raise DamagedFile(
            f"{path} is larger than {limit:,} bytes, too large for a model's JSON file; download it again"
        )
    return _parse(path, text)


def _check_text(path: Path, start: bytes) -> None:
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(b"version https://git-lfs"):
        size = next(
            (
                f" of {int(line[5:]):,} bytes"
                for line in text.split(b"\n")
                if line.startswith(b"size ") and line[5:].isdigit()
            ),
            "",
        )
        raise DamagedFile(
            f"{path.name} is a git-lfs pointer, not the model; download the real file{size} (git lfs pull)"
        )
    if re.match(rb"<(!doctype|html|head|\?xml|!--|body|script|meta|title|style|div|p>|center|h1)", text):
        what = "an XML message" if text.startswith(b"<?xml") else "a web page (HTML)"
        raise DamagedFile(
            f"{path.name} is {what} saved under a model's name, not a model; "
            "download it again, logged in if the site asks"
        )
    if text.startswith((b'{"', b"{'", b"{\n", b"{ ", b"[")):
        raise DamagedFile(f"{path.name} is JSON text, such as a site's error message, not a model; download it again")


def _is_text(start: bytes) -> bool:
    """Return whether a file starts as text: a page, a script, a message."""
    return all(sign >= 0x20 or sign in b"\t\r\n" for sign in start[:32]) and start[:1] != b"\x80"


def _check_other(path: Path, start: bytes, *, size: int) -> None:
    if len(start) < 9:
        raise DamagedFile(f"{path.name} is not a model: {size} bytes; download it again")
    for magic, what in (
        (b"GGUF", "GGUF"),
        (b"PK\x03\x04", "zip"),
        (b"7z\xbc\xaf", "7z"),
        (b"Rar!", "RAR"),
        (b"\x1f\x8b", "gzip"),
        (b"\x89PNG", "PNG"),
        (b"\xff\xd8\xff", "JPEG"),
    ):
        if start.startswith(magic):
            raise WrongKind(f"{path.name} is a {what} file, not safetensors; give the model as .safetensors")
    length = int.from_bytes(start[:8], "little")
    if length == 0:
        raise DamagedFile(f"{path.name} starts with zeros, as an unfinished download does; download it again")
    if length > MAX_HEADER:
        if start[8:9] == b"{":
            raise DamagedFile(
                f"{path.name} is not safetensors: it claims a header of {length:,} bytes, but the file has {size:,}; download it again"
            )
        what = "text" if _is_text(start) else "neither safetensors nor a known kind of pickle"
        raise DamagedFile(
            f"{path.name} is {what}: it starts with {printable(start[:24].decode('latin-1'))!r}; download it again"
        )
    raise DamagedFile(
        f"{path.name} is not safetensors: its first 8 bytes announce a header, but no header of {length:,} bytes follows; download it again"
    )


def _parse(path: Path, text: bytes) -> dict[str, object]:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        table = dict(pairs)
        if len(table) != len(pairs):
            raise ValueError("a name occurs twice")
        return table

    try:
        table = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error).splitlines()[0][:120]
        raise DamagedFile(f"{path.name} is damaged: its JSON cannot be read ({reason}); download it again") from None
    if not isinstance(table, dict):
        raise DamagedFile(f"{path.name} is damaged: its JSON is not an object; download it again")
    return table


def _metadata(path: Path, entry: object) -> dict[str, str]:
    if not isinstance(entry, dict):
        raise DamagedFile(f"{path.name} is damaged: its __metadata__ is not an object; download it again")
    bad = next((name for name, value in entry.items() if not isinstance(value, str)), None)
    if bad is not None:
        raise DamagedFile(f"{path.name} is damaged: its metadata {bad[:60]!r} is not text; download it again")
    return entry


def _info(path: Path, name: str, entry: object, *, data_start: int) -> TensorInfo:
    def damaged(what: str) -> DamagedFile:
        return DamagedFile(f"{path.name} is damaged: tensor {name[:120]!r} {what}; download it again")

    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise damaged("needs exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise damaged(f"has the unknown dtype {str(dtype)[:20]!r}")
    if not _naturals(shape) or len(shape) > MAX_DIMENSIONS or math.prod(shape) >= 2**48:
        raise damaged("has an impossible shape")
    if not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise damaged("has data_offsets that are not a start and an end in bytes")
    need = -(-math.prod(shape) * BITS[dtype] // 8)
    if offsets[1] - offsets[0] != need:
        raise damaged(f"of shape {list(shape)} in {dtype} needs {need:,} bytes but has {offsets[1] - offsets[0]:,}")
    return TensorInfo(
        dtype=dtype, shape=tuple(shape), start=data_start + offsets[0], end=data_start + offsets[1], file=path
    )


def _naturals(values: object) -> bool:
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 2**63 for v in values)


def _check_cover(path: Path, tensors: Iterable[tuple[str, TensorInfo]], *, data_start: int, size: int) -> None:
    """Raise an error unless each byte after the header belongs to exactly one tensor."""
    at, before = data_start, "the header"
    for name, info in sorted(tensors, key=lambda item: (item[1].start, item[1].end)):
        if info.start != at:
            what = "overlaps" if info.start < at else f"leaves {info.start - at:,} bytes between itself and"
            raise DamagedFile(
                f"{path.name} is damaged: tensor {name[:120]!r} {what} {before[:120]!r}; download it again"
            )
        at, before = info.end, name
    if at > size:
        raise DamagedFile(f"{path.name} is truncated: expected {at:,} bytes, the file has {size:,}; download it again")
    if at < size:
        raise DamagedFile(
            f"{path.name} is damaged: {size - at:,} bytes follow its last tensor; "
            f"expected {at:,} bytes, the file has {size:,}; download it again"
        )


def same_file(path: Path, stamp: Stamp) -> bool:
    """Return whether the file still has this stamp."""
    try:
        return Stamp.of(path) == stamp
    except OSError:
        return False


def as_path(path: str | os.PathLike[str]) -> Path:
    """Return the path that a user typed, with `~` expanded."""
    return Path(path).expanduser()
