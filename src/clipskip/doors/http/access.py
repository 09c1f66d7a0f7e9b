"""Who may use the server: everybody on this machine, or whoever shows the token or the name and password."""

import base64
import binascii
import hmac
import secrets
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import final

COOKIE = "clipskip_session"
MOST_SESSIONS = 100


@final
class Access:
    """The credentials that a server requires: a token, a name and password as A1111's --api-auth, either, or none."""

    def __init__(self, *, token: str | None = None, login: str | None = None) -> None:
        self._token, self._login = token, login
        self._sessions: list[str] = []

    @property
    def asked(self) -> bool:
        """Return whether a token or password is needed."""
        return self._token is not None or self._login is not None

    @property
    def by_password(self) -> bool:
        """Return whether a name and password are accepted, so that a browser's own dialog for them helps."""
        return self._login is not None

    def admits(self, headers: Mapping[str, str]) -> bool:
        """Return whether these request headers, in lower case, show a valid Bearer token, Basic login or session
        cookie."""
        if not self.asked:
            return True
        kind, _, shown = headers.get("authorization", "").strip().partition(" ")
        if kind.lower() == "bearer":
            return self._is_token(shown.strip())
        if kind.lower() == "basic":
            return self._is_pair(shown.strip())
        return self._has_session(headers.get("cookie", ""))

    def sign_in(self, shown: str) -> str | None:
        """Return a new session for the token or for "user:password", or None for anything else."""
        if not (self._is_token(shown) or self._is_login(shown)):
            return None
        session = secrets.token_urlsafe(32)
        self._sessions = [*self._sessions[1 - MOST_SESSIONS :], session]
        return session

    def _is_token(self, shown: str) -> bool:
        return self._token is not None and _same(shown, self._token)

    def _is_login(self, shown: str) -> bool:
        return self._login is not None and _same(shown, self._login)

    def _is_pair(self, encoded: str) -> bool:
        """Return whether this is Basic with user and password, or with the token as any user's password (for clients
        that know Basic alone)."""
        try:
            shown = base64.b64decode(encoded, validate=True).decode("utf-8")
        except (binascii.Error, ValueError):
            return False
        return self._is_login(shown) or self._is_token(shown.partition(":")[2])

    def _has_session(self, cookie: str) -> bool:
        try:
            cookie_value = SimpleCookie(cookie).get(COOKIE)
        except CookieError:
            return False
        return cookie_value is not None and any(_same(cookie_value.value, session) for session in self._sessions)


def _same(shown: str, wanted: str) -> bool:
    """Compare in a time that does not depend on how much of it is right."""
    return hmac.compare_digest(shown.encode("utf-8", "replace"), wanted.encode("utf-8", "replace"))
