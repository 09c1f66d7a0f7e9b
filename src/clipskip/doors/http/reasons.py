"""Why a request is refused: every reason by the field's name, in the answer and in the log."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi.exceptions import RequestValidationError

from clipskip.doors.http.words import in_words
from clipskip.errors import ClipskipError, printable

LOG = logging.getLogger("clipskip.http")
MOST_REASONS = 24
"""Told of one request."""
MOST_LOGGED = 600
"""Characters of one line of the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One thing that is wrong with a request."""

    field: str
    why: str

    @classmethod
    def of(cls, error: ClipskipError, *, field: str) -> "Reason":
        """The reason that an error gives, by the name that the client has for the field."""
        return cls(field=field, why=str(error))


def refusal(reasons: Iterable[Reason]) -> RequestValidationError:
    """The error that tells all of these."""
    return RequestValidationError([{"loc": ("body", one.field), "msg": one.why, "type": OURS} for one in reasons])


OURS = "clipskip"
"""The type of an error whose message says all, the field included."""


def reasons_of(errors: Sequence[Mapping[str, Any]]) -> list[Reason]:  # Any: pydantic's own
    """The reasons in pydantic's errors: ours as they are, of its own one for each field."""
    ours = [Reason(field=str(error["loc"][-1]), why=error["msg"]) for error in errors if error["type"] == OURS]
    deepest: dict[str, Mapping[str, Any]] = {}
    for error in errors:
        if error["type"] == OURS:
            continue
        top = field_of(error["loc"]).partition(".")[0]
        if top not in deepest or len(error["loc"]) > len(deepest[top]["loc"]):
            deepest[top] = error  # of a union's branches the deepest has most to say
    theirs = [(field_of(error["loc"]), in_words(error)) for error in deepest.values()]
    return [*(Reason(field=field, why=f"{field or 'the body'}: {why}") for field, why in theirs), *ours]


def field_of(loc: Sequence[str | int]) -> str:
    """The field's name in pydantic's way to it: the branches of a union ("list[...]", "constrained-str") left out."""
    parts = (str(part) for part in loc if part not in ("body", "query", "path"))
    return ".".join(part for part in parts if part.isidentifier() or part.isdigit())


def joined(reasons: Sequence[Reason]) -> str:
    """All of them as one sentence after the other."""
    told = "; ".join(reason.why for reason in reasons[:MOST_REASONS])
    more = len(reasons) - MOST_REASONS
    return f"{told}; and {more} more" if more > 0 else told


def log_line(text: str) -> str:
    """The text as the log may have it: one line, no control characters, not endless."""
    return printable(text, limit=MOST_LOGGED)
