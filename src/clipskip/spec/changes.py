"""Changing a Request's settings by the table's keys, which options and request bodies use."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from clipskip.errors import SpecError
from clipskip.spec.passes import Hires, Mask
from clipskip.spec.render import Request
from clipskip.spec.table import HIRES, MASK, PICTURE, START, Plain, Setting


def values_of(request: Request) -> dict[str, Plain | None]:
    """Return the Request's plain settings by key; those of a part that it lacks are left out."""
    start = request.start
    parts = ((request, PICTURE), (request.hires, HIRES), (start, START), (start and start.mask, MASK))
    return {row.key: getattr(part, row.name) for part, rows in parts if part is not None for row in rows}


def with_values(request: Request, values: Mapping[str, Any]) -> Request:  # Any: as the rows say
    """Return the Request with these settings, given by key.

    A setting of the second pass adds one. Settings of a start picture or of a mask need that picture or mask.
    """
    changed = replace(request, **_changed_values(PICTURE, values))
    if second := _changed_values(HIRES, values):
        second |= {"upscaler_hash": ""} if "upscaler" in second else {}
        changed = replace(changed, hires=replace(changed.hires or Hires(), **second))
    first, mask = _changed_values(START, values), _changed_values(MASK, values)
    start = changed.start
    if start is None and (first or mask):
        raise SpecError(
            "these settings need a picture to begin at; give it with --init", field=_first(values, first, mask)
        )
    if start is not None:
        mask_now: Mask | None = start.mask
        if mask_now is None and mask:
            raise SpecError("these settings need a mask; give it with --mask", field=_first(values, mask))
        changed = replace(changed, start=replace(start, **first, mask=replace(mask_now, **mask) if mask_now else None))
    return changed


def _changed_values(rows: tuple[Setting, ...], values: Mapping[str, Any]) -> dict[str, Any]:  # Any: as above
    return {row.name: values[row.key] for row in rows if row.key in values}


def _first(values: Mapping[str, Any], *named: Mapping[str, Any]) -> str:  # Any: as above
    names = {name for part in named for name in part}
    return next(row.key for row in (*START, *MASK) if row.name in names and row.key in values)


def parse_size(text: str, *, field: str = "size") -> tuple[int, int]:
    """Parse width and height in pixels from "512x768"."""
    match = re.fullmatch(r"\s*(\d{1,5})\s*[xX×]\s*(\d{1,5})\s*", text)
    if match is None:
        raise SpecError(f"size {text!r} is not width x height; write it as 512x768", field=field)
    return int(match[1]), int(match[2])
