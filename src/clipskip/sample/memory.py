"""A device's free memory, the errors of running out of it, and keeping freed memory for the next step."""

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from clipskip import heap
from clipskip.errors import SpecError

MEMINFO = Path("/proc/meminfo")
ALLOCATOR = "can't allocate memory"
"""The words of torch's CPU allocator in its plain RuntimeError."""


def free_bytes(device: torch.device) -> int:
    """Return how many bytes can still be allocated, counting caches that give way."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    available = _kib("MemAvailable")
    return available * 1024 if available is not None else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def has_room(device: torch.device, needed: float) -> bool:
    """Return whether so many bytes can still be allocated, after giving back kept memory if need be."""
    if needed > free_bytes(device):
        empty_cache(device)
    return needed <= free_bytes(device)


def check_room(device: torch.device, needed: int, *, what: str) -> None:
    """Raise SpecError where a CPU's memory, swap space included, has no room for so many bytes: Linux would stop the program
    without a word. A GPU's allocator tells it itself, and on other systems nothing says what is free."""
    swap = _kib("SwapFree") if device.type == "cpu" else None
    if swap is None or has_room(device, needed):
        return
    free = free_bytes(device) + 1024 * swap
    if needed > free:
        raise SpecError(
            f"{what} takes {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free; close other programs, or add "
            "swap space",
            field="model",
        )


def empty_cache(device: torch.device) -> None:
    """Give back to the system the memory that the device's allocator keeps for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    else:
        heap.give_back()


def kept_memory(device: torch.device) -> AbstractContextManager[None]:
    """Keep the CPU memory that tensors free in the process for the next ones, while the `with` block lasts.

    On a GPU torch always does so.
    """
    return heap.kept() if device.type == "cpu" else nullcontext()


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the error is a failed allocation, on a GPU, in torch's CPU allocator or in Python."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or (isinstance(error, RuntimeError) and ALLOCATOR in str(error))


def _kib(field: str) -> int | None:
    """Return one of Linux's own figures: `MemAvailable` is its estimate of what can be had; None on other systems."""
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), None)
