"""Plain settings as the words of an infotext, both ways, by the table."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields as fields_of
from typing import Any

from clipskip.errors import SpecError
from clipskip.spec.table import Plain, Setting


def read_values(fields: Mapping[str, str], rows: Iterable[Setting]) -> dict[str, Any]:  # Any: fields of a dataclass
    """What an infotext's fields say of these settings, by the fields' names; what it leaves open is not in it."""
    found: dict[str, Any] = {}
    for row in rows:
        if row.label in fields:
            found[row.name] = _read(row, fields[row.label])
        elif row.absent is not None:
            found[row.name] = row.absent
    return found


def write_values(value: object, rows: Iterable[Setting], *, always: Iterable[str] = ()) -> Iterator[tuple[str, str]]:
    """Label and text of each of these fields of a dataclass that a reader would not take for granted, or that `always`
    names."""
    defaults = {field.name: field.default for field in fields_of(value)}  # type: ignore[arg-type]  # a dataclass
    named = frozenset(always)
    for row in rows:
        own = getattr(value, row.name)
        granted = defaults[row.name] if row.absent is None else row.absent
        if row.name in named or own != granted:
            yield row.label, write_value(own)


def write_value(value: Plain) -> str:
    """The shortest text that reads back as the same value."""
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return str(value)


def _read(row: Setting, text: str) -> Plain:
    if row.kind is str:
        return text
    return read_whole(row.label, text) if row.kind is int else read_number(row.label, text)


def read_whole(label: str, text: str) -> int:
    """A whole number."""
    if not re.fullmatch(r"[-+]?[0-9]{1,20}", text.strip()):
        raise nonsense(label, text, "a whole number")
    return int(text)


def read_number(label: str, text: str) -> float:
    """A finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise nonsense(label, text, "a number")
    return value


def nonsense(label: str, text: str, wanted: str) -> SpecError:
    """The error for a field of a settings text that does not say what it should."""
    return SpecError(f"settings: {label} {text[:40]!r} is not {wanted}", field=label.lower().replace(" ", "_"))
