"""One server for one output folder: two would draw the same cells, and each would cancel what it does not know of."""

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from clipskip.errors import OutputError

LOCK = ".clipskip-server.lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
"""What a file system without locks says, as some network folders are."""


@contextlib.contextmanager
def held(folder: Path) -> Iterator[bool]:
    """Holds the folder's lock; OutputError where another process has it, False where the file system has no locks.

    The system lets go of it when the process ends, however it ends: nothing is left to clear away after a crash.
    """
    path = folder / LOCK
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror}; choose another folder with --out", field="out"
        ) from None
    try:
        lockable = _take(handle, folder)
        if lockable:
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield lockable
    finally:
        os.close(handle)


def _take(handle: int, folder: Path) -> bool:
    try:
        _lock(handle)
    except OSError as error:
        if error.errno in NO_LOCKS:
            return False
        holder = os.pread(handle, 200, 0).decode("utf-8", "replace") or "another process"
        raise OutputError(
            f"the folder {folder} is in use by {holder}; end that server, or choose another folder with --out",
            field="out",
        ) from None
    return True


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
