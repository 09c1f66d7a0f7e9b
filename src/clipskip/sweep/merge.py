"""Merging folders of the same sweep, drawn by several machines, into one with its grid and page."""

import filecmp
import shutil
from collections.abc import Sequence
from pathlib import Path

from clipskip.errors import NotFound, OutputError, SpecError
from clipskip.image import read_infotext
from clipskip.sweep.folder import ensure_writable
from clipskip.sweep.manifest import MANIFEST, read_manifest


def merge_folders(into: Path, folders: Sequence[Path]) -> tuple[int, int]:
    """Copy the pictures of each folder to `into`; return how many are there now, and how many the sweep has.

    Raises:
        NotFound: a folder without a sweep.
        SpecError: folders of different sweeps.
        OutputError: the same cell with other bytes in two folders, or no room.
    """
    manifests = {
        folder: read_manifest(folder) for folder in (*folders, *([into] if (into / MANIFEST).exists() else []))
    }
    without = next((folder for folder, manifest in manifests.items() if manifest is None), None)
    if without is not None:
        raise NotFound(
            f"{without} contains no sweep: its {MANIFEST} is missing or cannot be read; choose the folder of a sweep",
            field="folder",
        )
    readable = {folder: manifest for folder, manifest in manifests.items() if manifest is not None}
    if len({manifest["key"] for manifest in readable.values()}) > 1:
        raise SpecError(
            f"these folders contain different sweeps: {', '.join(map(str, readable))}; merge folders of the same command",
            field="folder",
        )
    manifest = next(iter(readable.values()))
    names = [(str(cell["file"]), str(cell["settings"])) for row in manifest["cells"] for cell in row]
    ensure_writable(into)
    for folder in folders:
        for name, settings in names:
            if (folder / name).is_file():
                _copy(folder / name, into / name, settings)
    if not (into / MANIFEST).exists():
        shutil.copyfile(folders[0] / MANIFEST, into / MANIFEST)
    return sum((into / name).is_file() for name, _ in names), len(names)


def _copy(source: Path, place: Path, settings: str) -> None:
    """Copy one picture, whole or not at all; one that is there already must have the same bytes."""
    if read_infotext(source) != settings:
        raise OutputError(f"{source} does not have the settings of its name; draw it again", field="folder")
    if place.exists():
        if not filecmp.cmp(source, place, shallow=False):
            raise OutputError(
                f"{source} and {place} are the same cell with different bytes: they were drawn on machines of different kinds or "
                "by different versions; draw one of them again",
                field="folder",
            )
        return
    scratch = place.with_name(f".{place.name}.partial")
    try:
        shutil.copyfile(source, scratch)
        scratch.replace(place)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise OutputError(
            f"{place} cannot be written: {error.strerror or error}; choose another folder", field="out"
        ) from None
