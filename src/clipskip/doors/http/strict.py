"""Strict JSON: no NaN, no name twice, no number beyond a double, and no more of it than the route takes.

All work is linear in the body's bytes, and what a body costs is counted before it is parsed.
"""

import asyncio
import json
import math
import re
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute

from clipskip.doors.http.request_limits import MOST_DEPTH, USUAL, Limits, limits_of

MOST_DIGITS = 40
"""The most digits of a whole number; the largest that any field takes has 20."""
MOST_FRACTION_DIGITS = 400
"""The most characters of any other number: a double needs fewer in full."""
INLINE_BYTES = 16 * 2**10
"""Bytes above which a body is parsed beside the event loop."""
TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[\]{},:]', re.DOTALL)
"""A text, closed or not, or one of JSON's marks."""


class StrictRoute(APIRoute):
    """A route whose bodies are read by `read_json`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:  # Any: FastAPI's own
        """Return FastAPI's handler, working on our kind of request."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(_StrictRequest(request.scope, request.receive))

        return handle


class _StrictRequest(Request):
    async def json(self) -> Any:  # Any: whatever the client sent
        return await read_body(self)


async def read_body(request: Request) -> Any:  # Any: as above
    """Read the JSON of a request within the limits of its route; a large one is read beside the event loop."""
    content, limits = await request.body(), limits_of(request.url.path)
    if len(content) <= INLINE_BYTES:
        return read_json(content, limits)
    return await asyncio.to_thread(read_json, content, limits)


def read_json(content: bytes, limits: Limits = USUAL) -> Any:  # Any: as above
    """Parse JSON. Raises HTTPException 422 with a reason if it is not JSON as RFC 8259 defines it, or too much."""
    _count(content, limits)
    try:
        value = json.loads(
            content.decode("utf-8-sig"),  # .NET begins with a mark, which RFC 8259 lets readers skip
            object_pairs_hook=_once,
            parse_constant=lambda text: _refuse(f"{text} is not a JSON number; send a finite one"),
            parse_float=_finite,
            parse_int=_parse_int,
        )
    except UnicodeDecodeError:
        _refuse("the body is not UTF-8")
    except json.JSONDecodeError as error:
        _refuse(f"the body is not JSON: {error.msg} at character {error.pos}")
    _check_text(value)
    return value


def _count(content: bytes, limits: Limits) -> None:
    """Refuse a body that holds more things, or deeper nesting, than the limits, before it is parsed."""
    depth = 0
    for tokens, token in enumerate(TOKEN.finditer(content), start=1):
        mark = content[token.start()]
        if mark in b"[{":
            depth += 1
        elif mark in b"]}":
            depth -= 1
        if depth > MOST_DEPTH:
            _refuse(f"the JSON is nested more than {MOST_DEPTH} deep; nest it less")
        if tokens > limits.tokens:
            _refuse(f"the JSON holds more than {limits.tokens} values, names and marks; send less")


def _refuse(why: str) -> NoReturn:
    raise HTTPException(422, why)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of these pairs. A name that comes twice is refused."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        seen = set[str]()
        for name, _ in pairs:
            if name in seen:
                _refuse(f"{name[:80]!r} is there twice; send it once")
            seen.add(name)
    return fields


def _finite(text: str) -> float:
    value = float(text) if len(text) <= MOST_FRACTION_DIGITS else math.inf
    if not math.isfinite(value):
        _refuse(f"{text[:40]} is too large a number")
    return value


def _parse_int(text: str) -> int:
    if len(text) > MOST_DIGITS:
        _refuse(f"{text[:12]}... is too large a number")
    return int(text)


def _check_text(value: object) -> None:
    """Refuse text that cannot be written as UTF-8 without NUL."""
    if isinstance(value, str):
        if "\0" in value or not (value.isascii() or _is_text(value)):
            _refuse("a text holds half a character or NUL; send it again as UTF-8")
    elif isinstance(value, dict):
        for name, inner in value.items():
            _check_text(name)
            _check_text(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_text(inner)


def _is_text(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
