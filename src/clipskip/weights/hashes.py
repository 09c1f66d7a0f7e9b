"""The hashes that the field knows files by, kept in a small cache because a checkpoint takes seconds to read.

AutoV1: sha256 of 64 KiB at 1 MiB, 8 digits (A1111's old model hash). AutoV2: sha256 of the file, 10 digits (A1111's
model hash; embeddings use 12 of it). AutoV3: sha256 of everything after the safetensors header, 12 digits (a LoRA's).
"""

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import platformdirs

from clipskip.errors import DamagedFile
from clipskip.weights.container import Stamp, open_model

BLOCK = 4 * 2**20
Progress = Callable[[str, int, int], None]
"""Called with a file's name, the bytes of it hashed so far, and all its bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hashes:
    """Two whole sha256 of one file, as 64 hex digits; its names in the field are their beginnings."""

    sha256: str
    """Of the whole file."""
    data_sha256: str
    """Of everything after the safetensors header; of the whole file where there is none."""
    autov1: str
    """8 digits, of a small piece of the file: many files share one."""

    @property
    def autov2(self) -> str:
        """10 digits: a checkpoint's hash."""
        return self.sha256[:10]

    @property
    def autov3(self) -> str:
        """12 digits: a LoRA's hash."""
        return self.data_sha256[:12]

    def matches(self, digits: str) -> bool:
        """Whether a hash that somebody wrote, of 8 to 64 digits, is one of this file's."""
        wanted = digits.lower()
        if len(wanted) == 8:
            return wanted == self.autov1 or self.sha256.startswith(wanted)
        return len(wanted) > 8 and (self.sha256.startswith(wanted) or self.data_sha256.startswith(wanted))


def autov1(path: Path) -> str:
    """The 8-digit hash, from 64 KiB of the file."""
    with open_model(path) as file:
        file.seek(0x100000)
        return hashlib.sha256(file.read(0x10000)).hexdigest()[:8]


def hash_file(path: Path, *, cache: Path | None = None, progress: Progress | None = None) -> Hashes:
    """All hashes of a file, from the cache while its path, size, time and inode are the same."""
    open_model(path).close()  # for its errors
    where = path.resolve()
    stamp = Stamp.of(where)
    store = cache_file() if cache is None else cache
    known = _look_up(store, where, stamp)
    if known is not None:
        return known
    found = _compute(where, stamp.size, progress)
    if Stamp.of(where) != stamp:
        raise DamagedFile(f"{path.name} changed while it was being hashed; try again when it is complete")
    _remember(store, where, stamp, found)
    return found


def cached_hashes(path: Path, *, cache: Path | None = None) -> Hashes | None:
    """The hashes of a file where they are known without reading it."""
    try:
        where = path.resolve()
        stamp = Stamp.of(where)
    except (OSError, RuntimeError):
        return None
    return _look_up(cache_file() if cache is None else cache, where, stamp)


def known_hashes(paths: Iterable[Path], *, cache: Path | None = None) -> dict[Path, Hashes]:
    """The hashes of those of many files for which they are known without reading, in one look."""
    wanted = {os.fsencode(path.resolve() if os.path.islink(path) else path): path for path in paths}
    found: dict[Path, Hashes] = {}
    with suppress(sqlite3.Error, OSError), closing(_open(cache_file() if cache is None else cache)) as connection:
        for row in connection.execute("select path, size, mtime_ns, inode, sha256, data_sha256, autov1 from hashes_1"):
            if row[0] not in wanted or [_digits(value) for value in row[4:]] != [64, 64, 8]:
                continue
            with suppress(OSError):
                stamp = Stamp.of(wanted[row[0]])
                if row[1:4] == (stamp.size, stamp.mtime_ns, str(stamp.inode)):
                    found[wanted[row[0]]] = Hashes(sha256=row[4], data_sha256=row[5], autov1=row[6])
    return found


def cache_file() -> Path:
    """Where hashes are kept: the user's cache folder."""
    return Path(platformdirs.user_cache_dir("clipskip")) / "hashes.sqlite"


def _compute(path: Path, size: int, progress: Progress | None) -> Hashes:
    whole, data, piece = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    with open_model(path) as file, ThreadPoolExecutor(1) as beside:
        data_start = _data_start(file.read(9), size)
        file.seek(0)
        at = 0
        for block in _blocks(file):
            rest = beside.submit(data.update, block[max(0, data_start - at) :])
            whole.update(block)
            piece.update(block[max(0, 0x100000 - at) : max(0, 0x110000 - at)])
            rest.result()
            at += len(block)
            if progress is not None:
                progress(path.name, at, size)
    return Hashes(sha256=whole.hexdigest(), data_sha256=data.hexdigest(), autov1=piece.hexdigest()[:8])


def _data_start(start: bytes, size: int) -> int:
    """Where the data of a safetensors file begins; 0 for other files."""
    length = int.from_bytes(start[:8], "little")
    return 8 + length if start[8:] == b"{" and length <= size - 8 else 0


def _blocks(file: BinaryIO) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(BLOCK))
    while count := file.readinto(buffer):  # type: ignore[attr-defined]  # open("rb") gives a reader that has it
        yield buffer[:count]


def _open(store: Path) -> sqlite3.Connection:
    store.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(store, timeout=10, isolation_level=None)
    connection.execute("pragma synchronous = off")  # a cache: what a power cut loses is computed again
    connection.execute(
        "create table if not exists hashes_1 (path text primary key, size integer, mtime_ns integer, inode text, "
        "sha256 text, data_sha256 text, autov1 text)"
    )
    return connection


def _look_up(store: Path, path: Path, stamp: Stamp) -> Hashes | None:
    """The cached hashes, or None; a cache that cannot be read is as good as none."""
    with suppress(sqlite3.Error, OSError), closing(_open(store)) as connection:
        row = connection.execute(
            "select sha256, data_sha256, autov1 from hashes_1 "
            "where path = ? and size = ? and mtime_ns = ? and inode = ?",
            (os.fsencode(path), stamp.size, stamp.mtime_ns, str(stamp.inode)),
        ).fetchone()
        if row is not None and [_digits(value) for value in row] == [64, 64, 8]:
            return Hashes(sha256=row[0], data_sha256=row[1], autov1=row[2])
    return None


def _digits(value: object) -> int:
    """How many hex digits a text is, 0 for anything else."""
    return len(value) if isinstance(value, str) and not set(value) - set("0123456789abcdef") else 0


def _remember(store: Path, path: Path, stamp: Stamp, found: Hashes) -> None:
    """Keep the hashes where that can be done: a cache that is damaged is made anew, one that is read-only is left."""
    row = (
        os.fsencode(path),
        stamp.size,
        stamp.mtime_ns,
        str(stamp.inode),
        found.sha256,
        found.data_sha256,
        found.autov1,
    )
    for _ in range(2):
        try:
            with closing(_open(store)) as connection:
                connection.execute("insert or replace into hashes_1 values (?, ?, ?, ?, ?, ?, ?)", row)
                return
        except sqlite3.OperationalError:
            return  # read-only, locked too long, or a full disk: the next run hashes again
        except sqlite3.DatabaseError:
            with suppress(OSError):
                store.unlink()
        except OSError:
            return
