"""Who draws a sweep's cells, on what and how fast: a small file for each process in the sweep's folder, so that the page
and other machines can tell."""

import json
import os
import platform
import re
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from clipskip import __version__
from clipskip.errors import ClipskipError
from clipskip.image import write_bytes
from clipskip.sweep.shard import process_lives

WORKERS = "workers"
"""The folder of these files in a sweep's folder."""
EVERY_S = 5.0
"""How often a process tells."""
SILENT_S = 60.0
"""Seconds without a word after which a process is no longer counted as drawing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A process that draws cells of a sweep, and how many it has drawn so far."""

    name: str
    """Host and process."""
    device: str
    """The processor's or the GPU's name."""
    dtype: str
    version: str
    """Of clipskip and torch."""
    pictures: int = 0
    seconds: float = 0.0
    """How long it has drawn, by its own clock."""
    ended: bool = False

    @property
    def kind(self) -> tuple[str, str, str]:
        """Return the kind of machine that draws the same bytes from the same settings."""
        return self.device, self.dtype, self.version

    @property
    def per_second(self) -> float:
        """Its pictures per second."""
        return self.pictures / self.seconds if self.seconds else 0.0


def this_worker(device: torch.device, dtype: torch.dtype) -> Worker:
    """Return this process, which draws on this device."""
    return Worker(
        name=f"{socket.gethostname()} {os.getpid()}",
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        dtype=str(dtype).removeprefix("torch."),
        version=f"clipskip {__version__}, torch {torch.__version__}",
    )


class Telling:
    """The word that a sweep's folder gets of the processes that draw it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._told = folder / WORKERS, dict[str, float]()

    def tell(self, worker: Worker) -> None:
        """Tell how far a worker is, now and then and when it ends. Failing is no reason to stop drawing."""
        now = time.monotonic()
        if not worker.ended and now - self._told.get(worker.name, -EVERY_S) < EVERY_S:
            return
        self._told[worker.name] = now
        with suppress(ClipskipError, OSError):
            self._folder.mkdir(exist_ok=True)
            name = re.sub(r"[^\w.-]+", "-", worker.name)
            write_bytes(self._folder / f"{name}.json", json.dumps(asdict(worker), indent=1).encode())


class Clock:
    """One process' own count of what it has drawn."""

    def __init__(self, folder: Path, worker: Worker) -> None:
        self._telling, self._worker, self._started = Telling(folder), worker, time.monotonic()

    def drew(self) -> None:
        """Count a picture."""
        self._worker = replace(self._worker, pictures=self._worker.pictures + 1, seconds=self._seconds)
        self._telling.tell(self._worker)

    def end(self) -> None:
        """Tell the last count."""
        if self._worker.pictures:
            self._telling.tell(replace(self._worker, ended=True))

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._started


def read_workers(folder: Path) -> tuple[Worker, ...]:
    """Return all processes that have drawn in a sweep's folder."""
    return tuple(worker for worker, _ in _read_notes(folder))


def drawing_now(folder: Path) -> tuple[Worker, ...]:
    """Return the other processes that were heard of a moment ago, without those of this machine that were killed since."""
    now, notes = time.time(), _read_notes(folder)
    return tuple(
        worker
        for worker, heard in notes
        if not worker.ended and abs(now - heard) < SILENT_S and _draws_elsewhere(worker)
    )


def _draws_elsewhere(worker: Worker) -> bool:
    """Return whether a worker may draw in another process: what this one draws it knows without its own note."""
    host, _, pid = worker.name.rpartition(" ")
    if host != socket.gethostname() or not pid.isdecimal():
        return True
    return int(pid) != os.getpid() and process_lives(int(pid))


def kinds(workers: Iterable[Worker]) -> tuple[str, ...]:
    """Return the different devices, number formats and versions that pictures were drawn with, in words."""
    return tuple(dict.fromkeys(", ".join(worker.kind) for worker in workers))


def seconds_left(workers: Iterable[Worker], pictures: int) -> float | None:
    """Return how long these workers need for so many pictures; None where there is no pace yet."""
    pace = sum(worker.per_second for worker in workers)
    return pictures / pace if pace else None


def _read_notes(folder: Path) -> Iterator[tuple[Worker, float]]:
    """Yield each process with the time of its last word; files that cannot be read are nobody's."""
    for path in sorted((folder / WORKERS).glob("*.json")):
        with suppress(OSError, ValueError, TypeError):
            yield Worker(**json.loads(path.read_text("utf-8"))), path.stat().st_mtime


def _processor() -> str:
    """Return the processor's name, with the number of threads, on which the last bits may depend."""
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        match = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        name = match[1].strip() if match else name
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'s' if threads > 1 else ''}"
