"""Where a sweep's pictures go: written as they finish, found again when the sweep is run again."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from clipskip.errors import ClipskipError, OutputError
from clipskip.image import Cell, draw_grid, read_infotext, write_bytes, write_page, write_png
from clipskip.spec import render_infotext
from clipskip.sweep.manifest import read_manifest, write_manifest
from clipskip.sweep.plan import Sweep, file_name, footer
from clipskip.weights import CheckpointFacts

GRID, PAGE = "grid.png", "index.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepFolder:
    """A folder of one sweep's pictures. The PNG is the record: what is there and whole is not drawn again."""

    path: Path
    sweep: Sweep

    @classmethod
    def create(cls, path: Path, sweep: Sweep, *, model: CheckpointFacts | None = None) -> "SweepFolder":
        """The folder, made if it is missing; OutputError when it cannot be written, before anything is drawn."""
        ensure_writable(path)
        write_manifest(path, sweep, model=model)
        return cls(path=path, sweep=sweep)

    def place(self, row: int, column: int) -> Path:
        """The file of one cell."""
        return self.path / file_name(self.sweep.cell(row, column), row=row)

    def has(self, row: int, column: int) -> bool:
        """Whether the cell's picture is there, whole, and made with exactly these settings."""
        path = self.place(row, column)
        try:
            if read_infotext(path) != render_infotext(self.sweep.cell(row, column)):
                return False
            with Image.open(path) as picture:
                picture.load()
        except (ClipskipError, OSError, UnidentifiedImageError):
            return False
        return True

    def save(self, row: int, column: int, pixels: NDArray[np.uint8]) -> Path:
        """Writes one finished cell, whole or not at all."""
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
        """Takes away the page, which comes last: what it and the grid show is not all, until they are made again."""
        self.page.unlink(missing_ok=True)

    def finish(self) -> None:
        """Writes the grid and the page from the pictures that are there."""
        rows = [[self._cell(r, c) for c in range(len(self.sweep.skips))] for r in range(len(self.sweep.rows))]
        across, down = self.sweep.columns, self.sweep.row_names
        pixels = [
            [pixels_of(self.place(r, c)) if cell else None for c, cell in enumerate(row)] for r, row in enumerate(rows)
        ]
        shared = footer(self.sweep)
        write_png(self.grid, draw_grid(pixels, columns=across, rows=down, footer=shared), shared)
        model = (read_manifest(self.path) or {}).get("model", {})
        page = write_page(
            rows,
            prompt=self.sweep.base.prompt,
            columns=across,
            rows=down,
            name=self.path.name.removeprefix("sweep-"),
            depth=model.get("depth"),
        )
        write_bytes(self.page, page.encode())

    def _cell(self, row: int, column: int) -> Cell | None:
        if not self.has(row, column):
            return None
        return Cell(png=self.place(row, column).read_bytes(), settings=render_infotext(self.sweep.cell(row, column)))


def ensure_writable(path: Path) -> None:
    """Makes the folder; OutputError when pictures cannot be written there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the folder {path}: {error.strerror}; choose another with --out", field="out"
        ) from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise OutputError(f"the folder {path} cannot be written to; choose another with --out", field="out")


def pixels_of(path: Path) -> NDArray[np.uint8]:
    """uint8 [height, width, 3]"""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))
