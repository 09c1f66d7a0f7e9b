"""One process for one output folder: two would draw the same cells, and each would cancel what it does not know of."""

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from clipskip.errors import OutputError

LOCK = ".clipskip-server.lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
"""The errors of file systems without locks, such as some network folders."""


@contextlib.contextmanager
def held(folder: Path) -> Iterator[bool]:
    """Hold the folder's lock; OutputError where another process has it, False where the file system has no locks.

    The system lets go of it when the process ends, however it ends: nothing is left to clear away after a crash. So a file
    system without locks gets no file that stands for one.
    """
    path = folder / LOCK
    lock = FileLock(path, blocking=False, mode=0o644, fallback_to_soft=False)
    lockable = _take(lock, folder)
    try:
        if lockable:
            path.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        yield lockable
    finally:
        lock.release()


def _take(lock: FileLock, folder: Path) -> bool:
    try:
        lock.acquire()
    except Timeout:
        raise OutputError(
            f"the folder {folder} is in use by {_holder(folder)}; end that server, or choose another folder with --out",
            field="out",
        ) from None
    except OSError as error:
        if error.errno in NO_LOCKS:
            return False
        raise OutputError(
            f"cannot write {folder / LOCK}: {error.strerror}; choose another folder with --out", field="out"
        ) from None
    return True


def _holder(folder: Path) -> str:
    """Return what the holder wrote of itself; Windows lets nobody else read a file that is locked."""
    with contextlib.suppress(OSError):
        return (folder / LOCK).read_text(errors="replace")[:200] or "another process"
    return "another process"
