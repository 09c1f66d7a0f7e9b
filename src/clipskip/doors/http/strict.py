"""JSON as it is meant: no NaN, no name twice, no number beyond a double, no depth that ends in a stack's."""

import json
import math
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute

MOST_DEPTH = 32
MOST_DIGITS = 40
"""Of a whole number; the largest that any field takes has 20."""


class StrictRoute(APIRoute):
    """A route whose bodies are read by `read_json`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:  # Any: FastAPI's own
        """FastAPI's handler, with a request of ours."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(_StrictRequest(request.scope, request.receive))

        return handle


class _StrictRequest(Request):
    async def json(self) -> Any:  # Any: whatever the client sent
        return read_json(await self.body())


def read_json(content: bytes) -> Any:  # Any: as above
    """What the JSON says; HTTPException 422 with a reason where it is not JSON as RFC 8259 has it, or too deep."""
    try:
        found = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_once,
            parse_constant=lambda text: _refuse(f"{text} is no JSON number; send a finite one"),
            parse_float=_finite,
            parse_int=_whole,
        )
    except UnicodeDecodeError:
        _refuse("the body is not UTF-8")
    except RecursionError:
        _refuse(f"the JSON is nested deeper than {MOST_DEPTH}")
    except json.JSONDecodeError as error:
        _refuse(f"the body is not JSON: {error.msg} at character {error.pos}")
    _check(found, MOST_DEPTH)
    return found


def _refuse(why: str) -> NoReturn:
    raise HTTPException(422, why)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        _refuse(f"{twice[:80]!r} is there twice; send it once")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        _refuse(f"{text[:40]} is too large a number")
    return value


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        _refuse(f"{text[:12]}... is too large a number")
    return int(text)


def _check(value: object, depth: int) -> None:
    """No deeper than `depth`, and only text that can be written as UTF-8 without NUL."""
    if depth == 0:
        _refuse(f"the JSON is nested deeper than {MOST_DEPTH}")
    if isinstance(value, str):
        if "\0" in value or not (value.isascii() or _is_text(value)):
            _refuse("a text holds half a character or NUL; send it again as UTF-8")
    elif isinstance(value, dict):
        for name, inner in value.items():
            _check(name, depth)
            _check(inner, depth - 1)
    elif isinstance(value, list):
        for inner in value:
            _check(inner, depth - 1)


def _is_text(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
