"""How much memory a device has left, what running out of it looks like, and keeping what is freed for the next step."""

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from clipskip import heap

MEMINFO = Path("/proc/meminfo")
ALLOCATOR = "can't allocate memory"
"""What torch's CPU allocator says, in a plain RuntimeError."""


def free_bytes(device: torch.device) -> int:
    """What may still be allocated, caches that give way included."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    available = _available_kib()
    return available * 1024 if available is not None else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def has_room(device: torch.device, needed: float) -> bool:
    """Whether so many bytes may still be allocated, if need be once what is kept for later is given back."""
    if needed > free_bytes(device):
        give_back(device)
    return needed <= free_bytes(device)


def give_back(device: torch.device) -> None:
    """To the system, what the device's allocator keeps for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    else:
        heap.give_back()


def kept_memory(device: torch.device) -> AbstractContextManager[None]:
    """For as long as a `with` lasts, what tensors leave in the CPU's memory stays with the process, for the next ones.

    torch does the same for a GPU, always.
    """
    return heap.kept() if device.type == "cpu" else nullcontext()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is an allocation that failed, on a GPU, in torch's CPU allocator or in Python."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or (isinstance(error, RuntimeError) and ALLOCATOR in str(error))


def _available_kib() -> int | None:
    """Linux's own estimate; None elsewhere."""
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)
