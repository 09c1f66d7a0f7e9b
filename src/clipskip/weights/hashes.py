"""The hashes by which the field identifies files, cached because a checkpoint takes seconds to read.

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
from clipskip.weights.container import Stamp, open_model_file

BLOCK = 4 * 2**20
Progress = Callable[[str, int, int], None]
"""Called with a file's name, the number of its bytes hashed so far, and its size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hashes:
    """Two sha256 of one file as 64 hex digits; the field's hashes are their first digits."""

    sha256: str
    """sha256 of the whole file."""
    data_sha256: str
    """sha256 of everything after the safetensors header, or of the whole file where it has none."""
    autov1: str
    """8 digits from a small piece of the file; many files can share one."""

    @property
    def autov2(self) -> str:
        """10 digits: a checkpoint's hash."""
        return self.sha256[:10]

    @property
    def autov3(self) -> str:
        """12 digits: a LoRA's hash."""
        return self.data_sha256[:12]

    def matches(self, digits: str) -> bool:
        """Return whether a written hash of 8 to 64 digits is one of this file's."""
        written = digits.lower()
        if len(written) == 8:
            return written == self.autov1 or self.sha256.startswith(written)
        return len(written) > 8 and (self.sha256.startswith(written) or self.data_sha256.startswith(written))


def autov1(path: Path) -> str:
    """Return the 8-digit hash, from 64 KiB of the file."""
    with open_model_file(path) as file:
        file.seek(0x100000)
        return hashlib.sha256(file.read(0x10000)).hexdigest()[:8]


def hash_file(path: Path, *, cache: Path | None = None, progress: Progress | None = None) -> Hashes:
    """Return all hashes of a file, from the cache while its path, size, time and inode stay the same."""
    open_model_file(path).close()  # for its errors
    where = path.resolve()
    stamp = Stamp.of(where)
    store = cache_file() if cache is None else cache
    known = _look_up(store, where, stamp)
    if known is not None:
        return known
    hashes = _compute(where, stamp.size, progress)
    if Stamp.of(where) != stamp:
        raise DamagedFile(f"{path.name} changed while it was being hashed; try again when it is complete")
    _remember(store, where, stamp, hashes)
    return hashes


def cached_hashes(path: Path, *, cache: Path | None = None) -> Hashes | None:
    """Return the hashes of a file if they are in the cache."""
    try:
        where = path.resolve()
        stamp = Stamp.of(where)
    except (OSError, RuntimeError):
        return None
    return _look_up(cache_file() if cache is None else cache, where, stamp)


def known_hashes(paths: Iterable[Path], *, cache: Path | None = None) -> dict[Path, Hashes]:
    """Return the hashes of those files that are in the cache, with one query."""
    path_of = {os.fsencode(path.resolve() if os.path.islink(path) else path): path for path in paths}
    hashes_of: dict[Path, Hashes] = {}
    with suppress(sqlite3.Error, OSError), closing(_open_store(cache_file() if cache is None else cache)) as connection:
        for row in connection.execute("select path, size, mtime_ns, inode, sha256, data_sha256, autov1 from hashes_1"):
            if row[0] not in path_of or [_digits(value) for value in row[4:]] != [64, 64, 8]:
                continue
            with suppress(OSError):
                stamp = Stamp.of(path_of[row[0]])
                if row[1:4] == (stamp.size, stamp.mtime_ns, str(stamp.inode)):
                    hashes_of[path_of[row[0]]] = Hashes(sha256=row[4], data_sha256=row[5], autov1=row[6])
    return hashes_of


def cache_file() -> Path:
    """Return the path of the hash cache in the user's cache folder."""
    return Path(platformdirs.user_cache_dir("clipskip")) / "hashes.sqlite"


def _compute(path: Path, size: int, progress: Progress | None) -> Hashes:
    whole, data, piece = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    with open_model_file(path) as file, ThreadPoolExecutor(1) as beside:
        data_start = _data_start(file.read(9), size)
        file.seek(0)
        at = 0
        for block in _blocks(file):
            pending = beside.submit(data.update, block[max(0, data_start - at) :])
            whole.update(block)
            piece.update(block[max(0, 0x100000 - at) : max(0, 0x110000 - at)])
            pending.result()
            at += len(block)
            if progress is not None:
                progress(path.name, at, size)
    return Hashes(sha256=whole.hexdigest(), data_sha256=data.hexdigest(), autov1=piece.hexdigest()[:8])


def _data_start(start: bytes, size: int) -> int:
    """Return where the data of a safetensors file begins; 0 for other files."""
    length = int.from_bytes(start[:8], "little")
    return 8 + length if start[8:] == b"{" and length <= size - 8 else 0


def _blocks(file: BinaryIO) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(BLOCK))
    while count := file.readinto(buffer):  # type: ignore[attr-defined]  # open("rb") gives a reader that has it
        yield buffer[:count]


def _open_store(store: Path) -> sqlite3.Connection:
    store.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(store, timeout=10, isolation_level=None)
    connection.execute("pragma synchronous = off")  # a cache: what a power cut loses is computed again
    connection.execute(
        "create table if not exists hashes_1 (path text primary key, size integer, mtime_ns integer, inode text, "
        "sha256 text, data_sha256 text, autov1 text)"
    )
    return connection


def _look_up(store: Path, path: Path, stamp: Stamp) -> Hashes | None:
    """Return the cached hashes, or None; a cache that cannot be read counts as empty."""
    with suppress(sqlite3.Error, OSError), closing(_open_store(store)) as connection:
        row = connection.execute(
            "select sha256, data_sha256, autov1 from hashes_1 "
            "where path = ? and size = ? and mtime_ns = ? and inode = ?",
            (os.fsencode(path), stamp.size, stamp.mtime_ns, str(stamp.inode)),
        ).fetchone()
        if row is not None and [_digits(value) for value in row] == [64, 64, 8]:
            return Hashes(sha256=row[0], data_sha256=row[1], autov1=row[2])
    return None


def _digits(value: object) -> int:
    """Return the number of hex digits in a text; 0 for anything else."""
    return len(value) if isinstance(value, str) and not set(value) - set("0123456789abcdef") else 0


def _remember(store: Path, path: Path, stamp: Stamp, hashes: Hashes) -> None:
    """Store the hashes where possible: a damaged cache is made anew, a read-only one is left alone."""
    row = (
        os.fsencode(path),
        stamp.size,
        stamp.mtime_ns,
        str(stamp.inode),
        hashes.sha256,
        hashes.data_sha256,
        hashes.autov1,
    )
    for _ in range(2):
        try:
            with closing(_open_store(store)) as connection:
                connection.execute("insert or replace into hashes_1 values (?, ?, ?, ?, ?, ?, ?)", row)
                return
        except sqlite3.OperationalError:
            return  # read-only, locked too long, or a full disk: the next run hashes again
        except sqlite3.DatabaseError:
            with suppress(OSError):
                store.unlink()
        except OSError:
            return
