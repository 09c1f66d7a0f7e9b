"""Checks made before every route: where a request comes from, who sends it, and how large it is."""

import asyncio
import re
from collections import Counter, deque
from contextlib import suppress
from typing import final
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clipskip.doors.http.access import Access
from clipskip.doors.http.ours import RefusalView
from clipskip.doors.http.request_limits import PICTURE, limits_of

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Headers of every answer that does not set its own."""
LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
OPEN = frozenset({"/", "/docs", "/web/signin.js", "/web/page.css", "/v1/session"})
"""Paths that show and take the sign-in."""
BODY_S = 60
"""Seconds in which a request's headers must arrive, and then its whole body."""
PIECE = 2**20
"""Bytes of a body that are handed on at once, so that its parser lets others have a turn in between."""
DRAIN_S = 2
"""Seconds for which the rest of a refused body is still read."""
OWN_PAGE = "this server answers its own page only; start it with --cors-allow-origins to let others in"
SINGLE = ("host", "origin", "authorization", "content-length", "content-type")


@final
class Guard:
    """Refuse other host names (DNS rebinding), other pages, strangers and bodies that are too large or too slow."""

    def __init__(self, app: ASGIApp, *, access: Access, origins: frozenset[str] = frozenset()) -> None:
        self._app, self._access, self._origins = app, access, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        pairs = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        headers = dict(pairs)
        shared = self._shared(headers)
        refusal = _twice(pairs) or self._refusal(scope, headers)
        if shared and scope["method"] == "OPTIONS" and (refusal is None or refusal[0] == 401):
            await _allow(send, headers, shared)  # a browser's question before its request, which carries no token
            return
        if refusal is None:
            body, refusal = await _body(receive, headers, most=limits_of(scope["path"]).size)
        if refusal is not None:
            await _drain(receive)
            await _refuse(send, *refusal, challenge=self._challenge(scope["path"]), more=shared)
            return
        scope.setdefault("state", {})["signed_in"] = self._access.admits(headers)
        await self._app(scope, _replayed(body, receive), _with_headers(send, HEADERS | shared))

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        host = headers.get("host", "")
        name = re.sub(r":\d{1,5}$", "", host).lower()
        if not self._access.asked and name not in LOOPBACK:
            why = f"this server answers to 127.0.0.1 and localhost, not to {host[:80]!r}"
            return 403, f"{why}; start it with --auth or --token to have it answer to other names"
        origin = headers.get("origin")
        if origin in self._origins:
            return self._stranger(scope, headers)
        if origin is not None and not _same_place(origin, host):
            return 403, OWN_PAGE
        moved = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate" and scope["path"] == "/"
        if headers.get("sec-fetch-site") == "cross-site" and not moved:
            return 403, OWN_PAGE
        return self._stranger(scope, headers)

    def _stranger(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Return why a request without the right token is refused, or None."""
        if scope["path"] not in OPEN and not self._access.admits(headers):
            return 401, "sign in: send the token as Authorization: Bearer, or the name and password as Basic"
        return None

    def _shared(self, headers: dict[str, str]) -> dict[str, str]:
        """Return the headers by which a browser lets a page of an allowed origin read the answer: that origin alone."""
        origin = headers.get("origin", "")
        if origin not in self._origins:
            return {}
        return {"access-control-allow-origin": origin, "access-control-allow-credentials": "true", "vary": "Origin"}

    def _challenge(self, path: str) -> str:
        """Return the challenge of a 401: A1111's clients look for Basic; on the page it would open the browser's own dialog."""
        return "Basic" if self._access.by_password or path.startswith("/sdapi/") else "Bearer"


def _same_place(origin: str, host: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc == host


def _twice(pairs: list[tuple[str, str]]) -> tuple[int, str] | None:
    """Refuse headers that must not come twice, because which of them counts would be a guess."""
    counts = Counter(name for name, _ in pairs)
    name = next((name for name in SINGLE if counts[name] > 1), None)
    return None if name is None else (400, f"the header {name} came {counts[name]} times; send it once")


async def _body(receive: Receive, headers: dict[str, str], *, most: int) -> tuple[bytes, tuple[int, str] | None]:
    """Return the whole body, or why it is refused."""
    shown = f"{most // 2**20} MiB" if most >= 2**20 else f"{most // 2**10} KiB"
    too_large = (413, f"the body is larger than {shown}; send less")
    length = headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit():
        return b"", (400, f"Content-Length is {length[:40]!r}, not a number")
    if int(length[:20]) > most:
        return b"", too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            while True:
                message = await receive()
                body += message.get("body", b"")
                if len(body) > most:
                    return b"", too_large
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return bytes(body), None
    except TimeoutError:
        return b"", (408, f"the body did not come within {BODY_S} seconds")


async def _drain(receive: Receive) -> None:
    """Takes what still comes of a refused body, a while: a connection closed before that is reset, and the answer lost."""
    left = PICTURE.size
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return the body that was read, in pieces, then whatever comes after it."""
    waiting = deque(range(0, max(len(body), 1), PIECE))

    async def next_message() -> Message:
        if not waiting:
            return await receive()
        start = waiting.popleft()
        await asyncio.sleep(0)
        return {"type": "http.request", "body": body[start : start + PIECE], "more_body": bool(waiting)}

    return next_message


def _with_headers(send: Send, headers: dict[str, str]) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message["headers"]}
            message["headers"] = [
                *message["headers"],
                *((k.encode(), v.encode()) for k, v in headers.items() if k.encode() not in present),
            ]
        await send(message)

    return sending


async def _allow(send: Send, headers: dict[str, str], shared: dict[str, str]) -> None:
    """Answer a browser that asks whether a page of an allowed origin may send its request."""
    answer_headers = (
        HEADERS | shared | {"access-control-allow-methods": "GET, POST, PUT, DELETE", "access-control-max-age": "600"}
    )
    answer_headers["access-control-allow-headers"] = headers.get("access-control-request-headers", "content-type")
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in answer_headers.items()]
    await send({"type": "http.response.start", "status": 204, "headers": pairs})
    await send({"type": "http.response.body", "body": b""})


async def _refuse(send: Send, status: int, detail: str, *, challenge: str, more: dict[str, str]) -> None:
    """Send the refusal in JSON and end the connection, because the rest of a body may still be on its way."""
    content = RefusalView.of(detail).model_dump_json().encode()
    headers = HEADERS | {"content-type": "application/json", "content-length": str(len(content)), "connection": "close"}
    headers |= more
    if status == 401:
        headers["www-authenticate"] = f'{challenge} realm="clipskip"'
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": content})
