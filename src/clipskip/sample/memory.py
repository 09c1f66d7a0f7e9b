"""How much memory a device has left, and what running out of it looks like."""

import os
from pathlib import Path

import torch

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
