"""Limits on what a request may send, by its route: bytes, and values in its JSON."""

from dataclasses import dataclass

MOST_DEPTH = 32
"""The deepest nesting of lists and objects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of a route."""

    size: int
    """Bytes of the body."""
    tokens: int
    """Brackets, commas, colons and texts in its JSON, in all."""


USUAL = Limits(size=2 * 2**20, tokens=20_000)
PICTURE = Limits(size=64 * 2**20, tokens=20_000)
SIGN_IN = Limits(size=8 * 2**10, tokens=32)
"""Limits of the one route that takes a body before the user is known."""
BY_PATH = {"/v1/session": SIGN_IN} | dict.fromkeys(
    (
        "/sdapi/v1/txt2img",  # scripts that are switched off carry theirs
        "/sdapi/v1/img2img",
        "/sdapi/v1/png-info",
        "/sdapi/v1/extra-single-image",
        "/sdapi/v1/extra-batch-images",
        "/sdapi/v1/interrogate",
        "/controlnet/detect",
        "/v1/images/edits",
        "/v1/settings",
    ),
    PICTURE,
)


def limits_of(path: str) -> Limits:
    """Return the limits of the route at this path."""
    return BY_PATH.get(path, USUAL)
