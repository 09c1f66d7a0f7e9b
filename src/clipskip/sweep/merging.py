"""Merging folders of the same sweep, drawn by several machines, into one with its grid and page."""

import filecmp
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from clipskip.errors import NotFound, OutputError, SpecError
from clipskip.image import read_infotext, write_bytes
from clipskip.sweep.folder import ensure_writable
from clipskip.sweep.manifest import MANIFEST, read_manifest
from clipskip.sweep.marks import CellMark, Marks, read_marks, write_marks
from clipskip.sweep.scores import cell_id
from clipskip.sweep.workers import WORKERS


def merge_folders(into: Path, folders: Sequence[Path]) -> tuple[int, int]:
    """Copy the pictures of each folder to `into`, with their scores and marks; return how many are there now, and how
    many the sweep has.

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
    whole = _with_scores(readable.get(into) or readable[folders[0]], [readable[folder] for folder in folders])
    write_bytes(into / MANIFEST, json.dumps(whole, indent=1, ensure_ascii=False).encode())
    _merge_marks(into, folders, cells={cell_id(name) for name, _ in names})
    for note in (note for folder in folders for note in (folder / WORKERS).glob("*.json")):
        (into / WORKERS).mkdir(exist_ok=True)
        shutil.copyfile(note, into / WORKERS / note.name)
    return sum((into / name).is_file() for name, _ in names), len(names)


def _copy(source: Path, place: Path, settings: str) -> None:
    """Copy one picture, whole or not at all; one that is there already must have the same bytes."""
    if read_infotext(source) != settings:
        raise OutputError(
            f"{source} does not contain the settings that its name stands for; draw it again", field="folder"
        )
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


def _with_scores(manifest: dict[str, Any], others: Sequence[dict[str, Any]]) -> dict[str, Any]:  # Any: JSON
    """Return a manifest with the scores of others. A summary is of the cells that it was made from: with more it goes."""
    measures = {measure["name"]: measure for content in (*others, manifest) for measure in content.get("measures", ())}
    scores: dict[str, dict[str, float]] = {}
    for content in (*others, manifest):
        for cell in (cell for row in content["cells"] for cell in row):
            scores[cell["file"]] = scores.get(cell["file"], {}) | cell.get("scores", {})
    rows = [
        [cell | ({"scores": more} if (more := scores[cell["file"]]) else {}) for cell in row]
        for row in manifest["cells"]
    ]
    summary = {} if rows == manifest["cells"] else {"summary": None}
    merged = manifest | ({"measures": list(measures.values())} if measures else {}) | {"cells": rows} | summary
    return {name: value for name, value in merged.items() if name != "summary" or value is not None}


def _merge_marks(into: Path, folders: Sequence[Path], *, cells: set[str]) -> None:
    """Keep what people thought of the sweep in any of the folders. Where two named it, or chose a winner, the first counts,
    and the other is in the note or starred."""
    now = read_marks(into)
    merged = now
    for folder in folders:
        merged = _both(merged, read_marks(folder))
    if merged != now:
        write_marks(into, replace(merged, revision=now.revision), cells=cells)


def _both(first: Marks, second: Marks) -> Marks:
    marks = {id: _both_of(dict(first.cells).get(id), mark) for id, mark in second.cells}
    other = second.winner if first.winner else None
    if other is not None and other != first.winner:
        marks[other] = replace(marks.get(other) or first.of(other), star=True)
    named = second.name not in ("", first.name) and first.name
    return Marks(
        revision=first.revision,
        name=first.name or second.name,
        note=_join_notes([first.note, f"Also called: {second.name}" if named else "", second.note]),
        winner=first.winner or second.winner,
        cells=tuple((dict(first.cells) | marks).items()),
        choices=tuple(dict.fromkeys((*first.choices, *second.choices))),
    )


def _both_of(first: CellMark | None, second: CellMark) -> CellMark:
    if first is None:
        return second
    named = second.name not in ("", first.name) and first.name
    return CellMark(
        star=first.star or second.star,
        name=first.name or second.name,
        note=_join_notes([first.note, f"Also called: {second.name}" if named else "", second.note]),
    )


def _join_notes(notes: Iterable[str]) -> str:
    """Return the notes one below the other, each once."""
    joined = ""
    for note in notes:
        if note and note not in joined:
            joined = f"{joined}\n{note}".strip()
    return joined
