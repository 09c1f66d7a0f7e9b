"""Control of glibc's heap: keep freed memory for reuse, and share one heap between all threads.

glibc gives a large block back to the system when it is freed, and the system clears each page of the next one: that was
a fifth of the time of a full-size sweep. With any other C library these functions do nothing.
"""

import ctypes
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -3, -4, -8
"""mallopt(3)'s parameters: how much free memory at the top of the heap is given back to the system, the size from which
a block is mapped on its own, how many such blocks there may be, and how many heaps threads may have."""
KEEPING = {MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1}
USUAL = {MMAP_MAX: 65536, MMAP_THRESHOLD: 32 << 20, TRIM_THRESHOLD: 64 << 20}
"""glibc's defaults, with the thresholds at the highest value that its own tuning reaches."""


@contextmanager
def kept() -> Iterator[None]:
    """Keep freed memory in the process while the `with` block lasts, and give it all back at the end."""
    _set(KEEPING)
    try:
        yield
    finally:
        _set(USUAL)
        give_back()


def give_back() -> None:
    """Give free heap memory back to the system."""
    if libc := _glibc():
        libc.malloc_trim(0)


def share() -> None:
    """Use one heap for all threads, because large blocks fit no other. Call it before the first thread starts."""
    _set({ARENA_MAX: 1})


def _set(options: Mapping[int, int]) -> None:
    if libc := _glibc():
        for name, value in options.items():
            libc.mallopt(name, value)


@cache
def _glibc() -> ctypes.CDLL | None:
    """Return Linux's usual C library, or None where another is in use."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
