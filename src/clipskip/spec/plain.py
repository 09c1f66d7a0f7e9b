"""Plain settings in an infotext, written and read by the table."""

from collections.abc import Iterable, Iterator
from dataclasses import fields as fields_of
from functools import cache
from typing import Any

from clipskip.spec.table import Plain, Setting


def write_values(value: object, rows: Iterable[Setting], *, always: Iterable[str] = ()) -> Iterator[tuple[str, str]]:
    """Yield label and text of each field that readers would not assume, and of those named in `always`."""
    kind: Any = type(value)  # mypy does not see that classes are hashable
    defaults = _defaults(kind)
    named = frozenset(always)
    for row in rows:
        own = getattr(value, row.name)
        granted = defaults[row.name] if row.absent is None else row.absent
        if row.name in named or own != granted:
            yield row.label, write_value(own)


def write_value(value: Plain) -> str:
    """Return the shortest text that reads back as the same value."""
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return str(value)


@cache
def _defaults(kind: Any) -> dict[str, Any]:  # Any: a dataclass, and whatever its fields hold
    return {field.name: field.default for field in fields_of(kind)}
