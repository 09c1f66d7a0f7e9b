"""Deleting a sweep's folder: only what sweeps create in it."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from clipskip.errors import Conflict, OutputError
from clipskip.sweep.folder import BEGUN, PAGE
from clipskip.sweep.history import Record
from clipskip.sweep.lock import held
from clipskip.sweep.manifest import MANIFEST
from clipskip.sweep.marks import MARKS
from clipskip.sweep.shard import CLAIMS
from clipskip.sweep.workers import WORKERS

OURS = (PAGE, MARKS, "advice.json", "grid.png", "grid-*.png", BEGUN.format("*"), ".*.partial", ".clipskip-*.lock")
"""Besides the cells' pictures and the manifest, which goes last: without it nobody knows what the others are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """The result of deleting a sweep's folder."""

    files: int
    """Number of deleted files."""
    left: int
    """Number of remaining files, which no sweep made."""


def delete_sweep(record: Record) -> Deleted:
    """Delete a sweep's pictures and all that was made from them, and the folder where nothing else is in it.

    Raises Conflict while another process draws the sweep.
    """
    folder = record.folder
    pictures = (cell.path for cell in record.flat)
    ours = (path for pattern in OURS for path in folder.glob(pattern))
    try:
        with held(folder):
            for name in (CLAIMS, WORKERS):
                shutil.rmtree(folder / name, ignore_errors=True)
            files = _unlinked(pictures)
    except OutputError as error:
        raise Conflict(f"the sweep {record.id} was not deleted: {error}", field="sweep") from None
    files += _unlinked([*ours, folder / MANIFEST])
    left = sum(1 for _ in folder.iterdir())
    if not left:
        folder.rmdir()
    return Deleted(files=files, left=left)


def _unlinked(paths: Iterable[Path]) -> int:
    count = 0
    for path in paths:
        try:
            path.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise OutputError(f"cannot delete {path}: {error.strerror}; check its permissions", field="sweep") from None
        count += not path.name.startswith(".")
    return count
