"""Ranges of settings in request bodies, from the table of settings."""

from typing import Any

from pydantic import Field

from clipskip.spec import MAX_SEED, range_of


def within(key: str) -> Any:  # Any: pydantic's own
    """Return the range of a setting, for the annotation of a field; a seed of -1 draws one."""
    low, high = range_of(key)
    return Field(ge=-1 if (low, high) == (0, MAX_SEED) else low, le=high)
