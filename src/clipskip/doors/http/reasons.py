"""Reasons why a request is refused, by the field's name, in the answer and in the log."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi.exceptions import RequestValidationError

from clipskip.doors.http.words import in_words
from clipskip.errors import ClipskipError, printable

LOG = logging.getLogger("clipskip.http")
MOST_REASONS = 24
"""The most reasons in one answer."""
MOST_LOGGED = 600
"""The most characters in one line of the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One thing that is wrong with a request."""

    field: str
    why: str

    @classmethod
    def of(cls, error: ClipskipError, *, field: str) -> "Reason":
        """Return the reason that an error gives, under the client's name of the field."""
        return cls(field=field, why=str(error))


def refusal(reasons: Iterable[Reason]) -> RequestValidationError:
    """Return the error that carries all of these reasons."""
    return RequestValidationError(
        [{"loc": ("body", reason.field), "msg": reason.why, "type": OURS} for reason in reasons]
    )


OURS = "clipskip"
"""The type of an error whose message is complete and names its field."""


def reasons_of(errors: Sequence[Mapping[str, Any]]) -> list[Reason]:  # Any: pydantic's own
    """Return the reasons in pydantic's errors: ours as they are, and one of its own for each field."""
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
    """Return the field's name from pydantic's path to it, without the branches of a union ("list[...]",
    "constrained-str")."""
    parts = (str(part) for part in loc if part not in ("body", "query", "path"))
    return ".".join(part for part in parts if part.isidentifier() or part.isdigit())


def joined(reasons: Sequence[Reason]) -> str:
    """Return all reasons in one text."""
    text = "; ".join(reason.why for reason in reasons[:MOST_REASONS])
    more = len(reasons) - MOST_REASONS
    return f"{text}; and {more} more" if more > 0 else text


def log_line(text: str) -> str:
    """Return the text as one line of the log: no control characters, and shortened."""
    return printable(text, limit=MOST_LOGGED)
