"""Which cells of a sweep one of several processes draws: a fixed share by the cells' ids, or those that it claims
first.

No lock is needed, which network folders would break: shares are disjoint, only one process can create a claim's file,
and a picture appears complete under a name made from all its settings.
"""

import os
import re
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from clipskip.errors import OutputError, SpecError
from clipskip.spec import Render

MOST_SHARDS = 100_000
CLAIMS = ".claims"
CLAIM_S = 1800.0
"""Seconds after which a claim without a picture is free again, because its process or machine was lost."""


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
        """Whether cells are claimed one by one instead of divided beforehand."""
        return not self.count

    def has(self, render: Render) -> bool:
        """Whether a cell belongs to this share, by the id of its settings."""
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


def give_back(folder: Path, renders: Iterable[Render]) -> None:
    """Let others draw these cells."""
    for render in renders:
        (folder / CLAIMS / render.key).unlink(missing_ok=True)


def _take(path: Path) -> bool:
    """Create the claim; an old one is removed first, which only one of several processes can do."""
    for _ in range(2):
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            if not _is_old(path):
                return False
            stale = path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}")
            try:
                path.rename(stale)
            except FileNotFoundError:
                return False
            stale.unlink(missing_ok=True)
            continue
        with os.fdopen(handle, "w") as file:
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        return True
    return False


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > CLAIM_S
    except FileNotFoundError:
        return False
