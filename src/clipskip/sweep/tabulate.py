"""A sweep as a table with the settings, scores and marks of every cell in a row, as CSV or Parquet."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from clipskip.errors import SpecError
from clipskip.spec import PICTURE, ClipSkip, LoraRef, request_from_text
from clipskip.sweep.history import Record
from clipskip.sweep.marks import Marks

Value = bool | int | float | str | None
Format = Literal["csv", "parquet"]
FORMATS: tuple[Format, ...] = ("csv", "parquet")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""Characters by which a spreadsheet takes text for a formula (OWASP, CSV injection)."""
INT64 = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of the table."""

    name: str
    kind: type[bool] | type[int] | type[float] | type[str]
    low: float = -INT64
    high: float = INT64


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepTable:
    """The table of a sweep's cells."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]


def tabulate(record: Record, marks: Marks) -> SweepTable:
    """Return the table of a sweep in the order of its grid. Sweeps with the same LoRAs and measures have the same
    columns."""
    loras = tuple(dict.fromkeys(lora.name for _, row in record.rows for lora in row))
    columns = (*PLACE, *SETTINGS, *_lora_columns(loras), SETTINGS_TEXT, *_score_columns(record), *MARKS)
    rows: list[tuple[Value, ...]] = []
    for row, cells in enumerate(record.cells):
        on = {lora.name: lora for lora in record.rows[row][1]}
        shared = (*_settings(cells[0].settings), *_strengths([on.get(name) for name in loras]))
        rows += [tuple(_table_row(record, marks, row, column, shared)) for column in range(len(cells))]
    return SweepTable(columns=columns, rows=tuple(rows))


def as_csv(table: SweepTable) -> str:
    """Write the table by RFC 4180. An empty field means no value; text like a formula is prefixed with '."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow([_guarded(column.name) for column in table.columns])
    writer.writerows([_table_value(value) for value in row] for row in table.rows)
    return file.getvalue()


def as_parquet(table: SweepTable) -> bytes:
    """Write the table with types; SpecError where pyarrow is not installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise SpecError(
            "Parquet needs pyarrow, which is not installed; pip install 'clipskip[table]', or use csv", field="format"
        ) from None
    arrays = [
        pyarrow.array([row[at] for row in table.rows], type=_arrow_type(pyarrow, column))
        for at, column in enumerate(table.columns)
    ]
    file = io.BytesIO()
    parquet.write_table(pyarrow.table(arrays, names=[column.name for column in table.columns]), file)
    return file.getvalue()


PLACE = (
    Column(name="row", kind=int),
    Column(name="column", kind=int),
    Column(name="cell", kind=str),
    Column(name="file", kind=str),
    Column(name="drawn", kind=bool),
    Column(name="row_name", kind=str),
    Column(name="clip_skip", kind=str),
    Column(name="clip_skip_number", kind=float),
)
SETTINGS = (
    Column(name="negative_clip_skip", kind=str),
    Column(name="prompt", kind=str),
    Column(name="negative_prompt", kind=str),
    Column(name="model", kind=str),
    Column(name="model_hash", kind=str),
    Column(name="vae", kind=str),
    *(Column(name=row.key, kind=row.kind, low=row.low, high=row.high) for row in PICTURE),
)
SETTINGS_TEXT = Column(name="settings", kind=str)
MARKS = (
    Column(name="star", kind=bool),
    Column(name="winner", kind=bool),
    Column(name="name", kind=str),
    Column(name="note", kind=str),
)


def _lora_columns(names: tuple[str, ...]) -> Iterator[Column]:
    for name in names:
        yield Column(name=f"lora.{name}.text_encoder", kind=float)
        yield Column(name=f"lora.{name}.unet", kind=float)


def _score_columns(record: Record) -> Iterator[Column]:
    return (Column(name=f"score.{measure.name}", kind=float) for measure in record.scores.measures)


def _table_row(record: Record, marks: Marks, row: int, column: int, shared: Sequence[Value]) -> Iterator[Value]:
    cell, skip = record.cells[row][column], record.skips[column]
    yield from (row, column, cell.id, cell.path.name, cell.drawn, record.rows[row][0], str(skip))
    yield float(skip.from_end) if isinstance(skip, ClipSkip) else None
    yield from shared
    yield cell.settings
    scores = dict(cell.scores)
    yield from (scores.get(measure.name) for measure in record.scores.measures)
    mark = marks.of(cell.id)
    yield from (mark.star, cell.id == marks.winner, mark.name, mark.note)


def _settings(text: str) -> Iterator[Value]:
    """Yield the settings of a row's pictures, besides their Clip Skip."""
    asked = request_from_text(text)
    yield None if asked.negative_clip_skip is None else str(asked.negative_clip_skip)
    yield from (asked.prompt, asked.negative_prompt, asked.model, asked.model_hash, asked.vae)
    for setting in PICTURE:
        value = getattr(asked, setting.name)
        yield None if value is None else setting.kind(value)


def _strengths(loras: Sequence[LoraRef | None]) -> Iterator[float]:
    for lora in loras:
        yield from (lora.text_encoder, lora.unet) if lora else (0.0, 0.0)


def _table_value(value: Value) -> str | int | float:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return _guarded(value) if isinstance(value, str) else value


def _guarded(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA) else text


def _arrow_type(pyarrow: Any, column: Column) -> Any:  # Any: a library that may be missing
    if column.kind is not int:
        return {bool: pyarrow.bool_(), float: pyarrow.float64(), str: pyarrow.string()}[column.kind]
    if column.high <= INT64:
        return pyarrow.int64()
    return pyarrow.uint64() if column.low >= 0 else pyarrow.decimal128(20, 0)
