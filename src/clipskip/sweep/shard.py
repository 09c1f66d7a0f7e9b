"""Which cells of a sweep one of several processes draws: a fixed share by the cells' ids, or those that it claims
first.

No lock is needed, which network folders would break: shares are disjoint, only one process can create a claim's file,
and a picture appears complete under a name made from all its settings.
"""

import os
import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from clipskip.errors import OutputError, SpecError
from clipskip.spec import Render

MOST_SHARDS = 100_000
PROCESSES = os.readlink("/proc/self/ns/pid") if os.path.exists("/proc/self/ns/pid") else ""
"""The space of this process' number: containers of one machine may have the same numbers."""
CLAIMS = ".claims"
CLAIM_S, RENEW_S = 900.0, 60.0
"""Seconds after which a claim without a picture is free again, because its machine was lost, and how often a process that
draws renews its own. A lost process of this machine is known at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """The share `number` of `count`, counted from 1; with count 0, whatever nobody else has claimed."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Parse the share that a user typed: 2/3, or auto."""
        plain = text.strip().lower()
        if plain == "auto":
            return cls(number=0, count=0)
        match = re.fullmatch(r"(\d{1,6})\s*/\s*(\d{1,6})", plain)
        if match is None or not 1 <= int(match[1]) <= int(match[2]) <= MOST_SHARDS:
            raise SpecError(
                f"shard {text[:40]!r} is not i/n with i from 1 to n, or auto; write 1/3, 2/3, 3/3", field="shard"
            )
        return cls(number=int(match[1]), count=int(match[2]))

    @property
    def claims(self) -> bool:
        """Return whether cells are claimed one by one instead of divided beforehand."""
        return not self.count

    def has(self, render: Render) -> bool:
        """Return whether a cell belongs to this share, by the id of its settings."""
        return self.claims or int(render.key, 16) % self.count == self.number - 1


def claim(folder: Path, renders: Iterable[Render]) -> Iterator[Render]:
    """Claim those of these cells that nobody else has claimed in this folder, and yield them."""
    place = folder / CLAIMS
    try:
        place.mkdir(exist_ok=True)
        for render in renders:
            if _take(place / render.key):
                yield render
    except OSError as error:
        raise OutputError(
            f"cells cannot be claimed in {place}: {error.strerror or error}; make the folder writable", field="out"
        ) from None


def release(folder: Path, renders: Iterable[Render]) -> None:
    """Let others draw those of these cells that this process has claimed."""
    for render in renders:
        place = folder / CLAIMS / render.key
        with suppress(FileNotFoundError):
            if place.read_text("utf-8", "replace") in ("", _claimant(os.getpid())):  # "": stopped before it was signed
                place.unlink()


def renew(folder: Path, renders: Iterable[Render]) -> None:
    """Keep claims on cells that take long to draw."""
    for render in renders:
        with suppress(OSError):
            os.utime(folder / CLAIMS / render.key)


def _take(path: Path) -> bool:
    """Create the claim; a lost process' is removed first, which only one of several processes can do."""
    for _ in range(2):
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            if not _is_lost(path):
                return False
            stale = path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}")
            try:
                path.rename(stale)
            except FileNotFoundError:
                return False
            stale.unlink(missing_ok=True)
            continue
        with os.fdopen(handle, "w") as file:
            file.write(_claimant(os.getpid()))
        return True
    return False


def _is_lost(path: Path) -> bool:
    """Return whether whoever claimed a cell is gone: a process of this machine that is no more, or one that has not been heard
    of for long, by the clock of the file system, which all machines share."""
    try:
        claimed, claimant = path.stat().st_mtime, path.read_text("utf-8", "replace")
    except FileNotFoundError:
        return False
    match = re.match(r"process (\d+) ", claimant)
    if match and PROCESSES and claimant == _claimant(int(match[1])) and not process_lives(int(match[1])):
        return True
    return _clock(path.parent) - claimed > CLAIM_S


def _claimant(pid: int) -> str:
    """Return a process as claims name it: a number means the same process only on one machine and in one container."""
    return f"process {pid} on {socket.gethostname()} {PROCESSES}\n"


def process_lives(pid: int) -> bool:
    """Return whether this machine has the process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def _clock(folder: Path) -> float:
    """Return what time it is on the file system, whose clock may be another machine's."""
    place = folder / f".clock.{socket.gethostname()}.{os.getpid()}"
    place.touch()
    try:
        return place.stat().st_mtime
    finally:
        place.unlink(missing_ok=True)
