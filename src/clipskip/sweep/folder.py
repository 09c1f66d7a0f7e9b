"""The folder of a sweep's pictures: they are written as they finish, and found when the sweep runs again."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from clipskip.errors import ClipskipError, OutputError
from clipskip.image import (
    CELL_PX,
    PageCell,
    draw_grid,
    hash_pixels,
    read_infotext,
    read_pixels,
    write_bytes,
    write_page,
    write_png,
)
from clipskip.spec import Start, render_infotext
from clipskip.sweep.carried import carried_dialects, carried_forms
from clipskip.sweep.manifest import MANIFEST, axes_of, read_manifest, write_manifest
from clipskip.sweep.marks import marks_json, shown_marks
from clipskip.sweep.plan import Sweep, file_name
from clipskip.sweep.scores import cell_id
from clipskip.weights import CheckpointFacts

GRID, PAGE, BEGUN = "grid.png", "index.html", "begin-{}.png"
MOST_PIXELS, MOST_EMBEDDED = 100_000_000, 60_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepFolder:
    """The folder of one sweep's pictures. The PNGs are the record: complete ones are not drawn again."""

    path: Path
    sweep: Sweep

    @classmethod
    def create(cls, path: Path, sweep: Sweep, *, model: CheckpointFacts | None = None) -> "SweepFolder":
        """Return the folder, made if it is missing; OutputError before anything is drawn if it cannot be written."""
        ensure_writable(path)
        _check_same(path, sweep)
        write_manifest(path, sweep, model=model)
        return cls(path=path, sweep=sweep)

    def keep_begun(self, pictures: Mapping[str, NDArray[np.uint8]]) -> None:
        """Keep the pictures that the cells begin at, so that the sweep can go on without being given them again."""
        for digits in _begun_of(self.sweep.base.start):
            place = self.path / BEGUN.format(digits)
            if not place.exists():
                write_png(place, pictures[digits], "")

    def sweep_up(self) -> None:
        """Remove what a killed process left half written; only for a process that has the folder to itself."""
        for left in self.path.glob(".*.partial"):
            left.unlink(missing_ok=True)

    @property
    def whole(self) -> bool:
        """Return whether every cell has a file."""
        return all(self.place(row, column).is_file() for row, column in self.sweep.places)

    def place(self, row: int, column: int) -> Path:
        """Return the file of one cell."""
        return self.path / file_name(self.sweep.cell(row, column), row=row)

    def has(self, row: int, column: int) -> bool:
        """Return whether the cell's picture is complete and made with exactly these settings."""
        place = self.place(row, column)
        return place.is_file() and is_whole(place, render_infotext(self.sweep.cell(row, column)))

    def save(self, row: int, column: int, pixels: NDArray[np.uint8]) -> Path:
        """Write one finished cell, whole or not at all."""
        path = self.place(row, column)
        write_png(path, pixels, render_infotext(self.sweep.cell(row, column)))
        return path

    @property
    def grid(self) -> Path:
        """The labelled sheet."""
        return self.path / GRID

    @property
    def page(self) -> Path:
        """The self-contained page."""
        return self.path / PAGE

    def reopen(self) -> None:
        """Remove the page, which is written last: it and the grid are incomplete until they are made again."""
        self.page.unlink(missing_ok=True)

    def finish(self) -> None:
        """Write the grid and the page from the pictures that are there."""
        finish_folder(self.path)


def begun_in(path: Path, start: Start | None) -> dict[str, NDArray[np.uint8]]:
    """Return the pictures to begin at that a sweep's folder keeps, by the hashes of their pixels; damaged ones are left out."""
    pictures: dict[str, NDArray[np.uint8]] = {}
    for digits in _begun_of(start):
        with suppress(OSError, ClipskipError):
            pixels = read_pixels((path / BEGUN.format(digits)).read_bytes(), field="init")
            pictures |= {digits: pixels} if hash_pixels(pixels) == digits else {}
    return pictures


def _begun_of(start: Start | None) -> tuple[str, ...]:
    """Return the hashes of the picture that cells begin at, and of its mask."""
    return () if start is None else (start.hash, start.mask.hash) if start.mask else (start.hash,)


def finish_folder(path: Path) -> None:
    """Write the grid and the page of a folder's sweep from its manifest and its pictures.

    A grid of more than 100 million pixels becomes several sheets: grid.png, grid-2.png, ... A page with more than 60 MB
    of pictures links to their files instead of containing them.
    """
    manifest = read_manifest(path)
    if manifest is None:
        raise OutputError(
            f"{path} contains no sweep: its {MANIFEST} is missing or cannot be read; choose the folder of a sweep",
            field="out",
        )
    across = [str(column["label"]) for column in manifest["columns"]]
    down = [str(row["name"]) for row in manifest["rows"]]
    cells = [[_page_cell(path / Path(cell["file"]).name, cell) for cell in row] for row in manifest["cells"]]
    shared = str(manifest["settings"])
    for sheet, rows in enumerate(_sheets(cells), start=1):
        pixels = [[pixels_of(cell.path) if cell else None for cell in cells[row]] for row in rows]
        if any(cell is not None for row in pixels for cell in row):
            place = path / (GRID if sheet == 1 else f"grid-{sheet}.png")
            names = [down[row] for row in rows]
            write_png(place, draw_grid(pixels, columns=across, rows=names, footer=shared), shared)
    linked = sum(cell.path.stat().st_size for row in cells for cell in row if cell) > MOST_EMBEDDED
    page = write_page(
        cells,
        prompt=str(manifest["request"]["prompt"]),
        columns=across,
        rows=down,
        name=path.name.removeprefix("sweep-"),
        linked=linked,
        more=_viewer_data(path, manifest) | ({} if linked else {"forms": carried_forms(manifest)}),
    )
    write_bytes(path / PAGE, page.encode())


def _viewer_data(path: Path, manifest: dict[str, Any]) -> dict[str, Any]:  # Any: JSON
    """Return what the viewer knows about a sweep besides its pictures, in the words of the API."""
    axes = [
        {"name": axis.kind.name, "label": axis.kind.label or axis.kind.title, "values": axis.values}
        for axis in axes_of(manifest)
    ]
    scored: dict[str, Any] = {name: manifest[name] for name in ("measures", "summary") if name in manifest}
    known = {
        "model": {key: manifest["model"].get(key) for key in ("name", "depth", "trained_clip_skip")},
        "seed": None if any(axis["name"] == "seed" for axis in axes) else manifest["request"].get("seed"),
        "created": manifest["created"],
        "rows": manifest["rows"],
        "axes": axes,
        "left_out": manifest.get("left_out", []),
        "marks": marks_json(shown_marks(path)),
    }
    return {**known, "dialects": carried_dialects(manifest), **scored}


def _page_cell(path: Path, said: dict[str, Any]) -> PageCell | None:  # Any: JSON
    settings = str(said["settings"])
    whole = is_whole(path, settings)
    return (
        PageCell(path=path, settings=settings, id=cell_id(path.name), scores=said.get("scores", {})) if whole else None
    )


def is_whole(path: Path, settings: str) -> bool:
    """Return whether a picture is complete and made with exactly these settings."""
    try:
        if read_infotext(path) != settings:
            return False
        with Image.open(path) as picture:
            picture.load()
    except (ClipskipError, OSError, UnidentifiedImageError):
        return False
    return True


def _sheets(cells: Sequence[Sequence[PageCell | None]]) -> list[range]:
    """Return the rows of each sheet."""
    first = next((cell for row in cells for cell in row if cell), None)
    if first is None:
        return [range(len(cells))]
    with Image.open(first.path) as picture:
        height = max(picture.height, CELL_PX)
        width = picture.width * height // picture.height
    rows = max(1, MOST_PIXELS // (width * height * max(1, len(cells[0]))))
    return [range(start, min(start + rows, len(cells))) for start in range(0, len(cells), rows)]


def _check_same(path: Path, sweep: Sweep) -> None:
    """Raise OutputError where the folder holds another sweep, with whose pictures this one's would mix."""
    manifest = read_manifest(path)
    if manifest is None or manifest.get("key") == sweep.key:
        return
    try:
        existing = {str(cell["file"]) for row in manifest["cells"] for cell in row}
    except (KeyError, TypeError):
        return
    if existing != {file_name(sweep.cell(row, column), row=row) for row, column in sweep.places}:
        raise OutputError(
            f"the folder {path} contains another sweep with other settings; choose another folder with --out, or leave --out "
            "out to get a folder for each",
            field="out",
        )


def ensure_writable(path: Path) -> None:
    """Make the folder; OutputError when pictures cannot be written there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the folder {path}: {error.strerror}; choose another with --out", field="out"
        ) from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise OutputError(f"the folder {path} cannot be written to; choose another with --out", field="out")


def pixels_of(path: Path) -> NDArray[np.uint8]:
    """Read the pixels of a picture: uint8 [height, width, 3]."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))
