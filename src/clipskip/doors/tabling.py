"""The table command: writes a sweep's folder as a table to standard output or a file."""

import sys
from pathlib import Path

from clipskip.doors.terminal import say
from clipskip.errors import SpecError
from clipskip.image import write_bytes
from clipskip.sweep import FORMATS, as_csv, as_parquet, read_marks, read_sweep, tabulate


def write_table(folder: Path, *, format: str | None, out: Path | None) -> None:
    """Write a sweep's table; CSV goes to standard output where no file is named."""
    kind = format or (out.suffix.removeprefix(".").lower() if out and out.suffix else "csv")
    if kind not in FORMATS:
        raise SpecError(f"the format {kind[:40]!r} is unknown; use {' or '.join(FORMATS)}", field="format")
    table = tabulate(read_sweep(folder), read_marks(folder))
    if out is None:
        if kind == "parquet":
            raise SpecError("Parquet cannot be printed; name a file with --out", field="out")
        sys.stdout.write(as_csv(table))
        return
    write_bytes(out, as_csv(table).encode() if kind == "csv" else as_parquet(table))
    say(out.resolve())
