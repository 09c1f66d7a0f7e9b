"""The C library's heap: keeping what is freed for what comes next, and one heap for all threads.

glibc gives a large block back to the system as it is freed, and the system hands out the next one page by page, cleared:
of a sweep of full-size pictures that was a fifth of the time. Nothing here does anything with another C library.
"""

import ctypes
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -3, -4, -8
"""mallopt's names (mallopt(3)) for: how much free memory at the heap's end goes back to the system, from which size on a
block is the system's own, how many such blocks there may be, and how many heaps threads may have."""
KEEPING = {MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1}
USUAL = {MMAP_MAX: 65536, MMAP_THRESHOLD: 32 << 20, TRIM_THRESHOLD: 64 << 20}
"""glibc's own; the thresholds as high as it lets them grow in a process that has large blocks."""


@contextmanager
def kept() -> Iterator[None]:
    """For as long as a `with` lasts, what is freed stays with the process; all goes back at the end."""
    _set(KEEPING)
    try:
        yield
    finally:
        _set(USUAL)
        give_back()


def give_back() -> None:
    """To the system, what is free in the heap."""
    if libc := _glibc():
        libc.malloc_trim(0)


def share() -> None:
    """One heap for all threads, since large blocks fit no other: for a program that draws in a thread, before it has any."""
    _set({ARENA_MAX: 1})


def _set(options: Mapping[int, int]) -> None:
    if libc := _glibc():
        for name, value in options.items():
            libc.mallopt(name, value)


@cache
def _glibc() -> ctypes.CDLL | None:
    """Linux's usual C library; None where another is."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
