"""Requests to the hosts of models: where a token may be sent, and a name for every failure."""

import ipaddress
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import final
from urllib.parse import urlsplit

import httpx2

from clipskip import __version__
from clipskip.errors import FetchError

AGENT = f"clipskip/{__version__}"
"""It is not a browser's, because Civitai redirects those to a page."""
MOST_REDIRECTS = 5
IN_CIRCLES = 310
"""Our own status of an answer that only ever leads on."""
TRIES = 3
LONGEST_WAIT_S = 60.0
SHORT_PAUSE_S = 2.0
TIMEOUT = httpx2.Timeout(30.0, read=60.0)
Wait = Callable[[float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An answer other than the one asked for."""

    status: int
    message: str
    """The server's message, at most 200 characters; may be empty."""
    deadline: str = ""
    """When early access ends, as the server writes it."""
    retry_after_s: float | None = None
    total: int | None = None
    """The size of the file, where a range beyond its end was asked for."""


@final
class Web:
    """A connection with a token for one host."""

    def __init__(self, *, base: str, token: str | None, wait: Wait = time.sleep) -> None:
        self.base = base.rstrip("/")
        self.host = urlsplit(self.base).hostname or ""
        self._token = token
        self._wait = wait
        self._client = httpx2.Client(
            timeout=TIMEOUT, headers={"user-agent": AGENT, "accept-encoding": "identity"}, follow_redirects=False
        )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    @property
    def has_token(self) -> bool:
        """Return whether requests to the host carry a token."""
        return self._token is not None

    def pause(self) -> None:
        """Wait a little before repeating a request that may succeed then."""
        self._wait(SHORT_PAUSE_S)

    def read_json(self, path: str) -> object | Refusal:
        """Return the JSON at a path below the base, or why there is none."""
        with self.get(f"{self.base}{path}") as answer:
            if isinstance(answer, Refusal):
                return answer
            answer.read()
            try:
                content: object = answer.json()
                return content
            except ValueError:
                return Refusal(status=answer.status_code, message="it answered with a page instead of data")

    @contextmanager
    def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> Iterator[httpx2.Response | Refusal]:
        """Yield the answer at a URL, its body not yet read. Passing failures (429, a broken connection, 5xx) are
        retried."""
        for left in reversed(range(TRIES)):
            with self._follow(url, headers or {}) as answer:
                refusal = answer if isinstance(answer, Refusal) else _refusal(answer)
                if refusal is None:
                    yield answer
                    return
            pause = _pause(refusal, TRIES - left)
            if not left or pause is None:
                yield refusal
                return
            self._wait(pause)

    @contextmanager
    def _follow(self, url: str, headers: Mapping[str, str]) -> Iterator[httpx2.Response | Refusal]:
        for _ in range(MOST_REDIRECTS):
            sent = dict(headers)
            if self._token and urlsplit(url).hostname == self.host:
                sent["authorization"] = f"Bearer {self._token}"
            try:
                answer = self._client.send(self._client.build_request("GET", url, headers=sent), stream=True)
            except httpx2.HTTPError as error:
                where = urlsplit(url).hostname
                yield Refusal(status=0, message=f"{where} cannot be reached ({type(error).__name__}: {error})"[:200])
                return
            try:
                if answer.status_code not in (301, 302, 303, 307, 308):
                    yield answer
                    return
                url = str(answer.url.join(answer.headers.get("location", "")))
            finally:
                answer.close()
            self._check_place(url)
            if urlsplit(url).path.rstrip("/").endswith("/login"):
                yield Refusal(status=401, message="it asks to sign in")
                return
        yield Refusal(status=IN_CIRCLES, message=f"it was sent on more than {MOST_REDIRECTS} times")

    def _check_place(self, url: str) -> None:
        """Raise FetchError for a redirect that no model host makes: to a private address, or unencrypted."""
        base, place = urlsplit(self.base), urlsplit(url)
        local = _is_private(self.host)
        if (place.scheme != "https" and place.scheme != base.scheme) or (
            _is_private(place.hostname or "") and not local
        ):
            raise FetchError(
                f"{self.host} sends the download to {place.scheme}://{place.hostname}, which is not a host of models; "
                "nothing was fetched: check the link",
                field="link",
            )


def token_of(*names: str) -> str | None:
    """Return the token in the first of these environment variables that has one."""
    return next((value for name in names if (value := os.environ.get(name, "").strip())), None)


def _is_private(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return host in ("", "localhost") or host.endswith((".local", ".internal", ".localhost"))


def _refusal(answer: httpx2.Response) -> Refusal | None:
    """Return why an answer is not usable; None where it is."""
    if answer.status_code in (200, 206):
        return None
    try:
        body = answer.read()[:100_000]
        content = answer.json() if body[:1] == b"{" else {}
    except (httpx2.HTTPError, ValueError):
        content = {}
    content = content if isinstance(content, dict) else {}
    parts = [part for name in ("error", "message") if isinstance(part := content.get(name), str)]
    size = answer.headers.get("content-range", "").rpartition("/")[2]
    return Refusal(
        status=answer.status_code,
        message=": ".join(dict.fromkeys(parts))[:200],
        deadline=str(content.get("deadline", ""))[:40],
        retry_after_s=_retry_after_s(answer),
        total=int(size) if size.isdigit() else None,
    )


def _retry_after_s(answer: httpx2.Response) -> float | None:
    """Return the seconds until the host wants to be asked again: a number, or a time by the host's own clock."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isdigit():
        return float(text)
    try:
        now = parsedate_to_datetime(answer.headers["date"]) if "date" in answer.headers else datetime.now(UTC)
        return max(0.0, (parsedate_to_datetime(text) - now).total_seconds())
    except (TypeError, ValueError):
        return None


def _pause(refusal: Refusal, attempt: int) -> float | None:
    """Return the seconds until a retry is worthwhile; None where it is not."""
    if refusal.status == 429:
        requested_s = refusal.retry_after_s
        return None if requested_s is not None and requested_s > LONGEST_WAIT_S else (requested_s or 5.0 * attempt)
    return float(attempt) if refusal.status == 0 or refusal.status >= 500 else None
