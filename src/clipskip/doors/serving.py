"""`clipskip serve`: one local server for the page and the API."""

import ipaddress
import logging
import os
import re
import socket
import threading
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import uvicorn

from clipskip.doors.http import Access, Punctual, build_app
from clipskip.doors.terminal import say
from clipskip.doors.work import OUT
from clipskip.errors import SpecError
from clipskip.sweep import Studio, ensure_writable, held
from clipskip.weights import Library

GRACE_S = 3
NAMED = 5
"""The number of links that a note names; others are counted."""
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?")
"""A page's origin: a site's, or that of a browser's extension or an app (app://obsidian.md)."""
LEAST_TOKEN = 12
"""The fewest characters of a token or password when others on the network can guess at it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The address that the server listens on, and the credentials that it requires."""

    host: str
    port: int
    token: str | None = None
    login: str | None = None
    """user:password, as in A1111's --api-auth."""
    origins: tuple[str, ...] = ()
    """Origins of other pages that may read the answers, as in A1111's --cors-allow-origins."""

    def __post_init__(self) -> None:
        for origin in self.origins:
            if not ORIGIN.fullmatch(origin):
                raise SpecError(
                    f"{origin[:80]!r} is not the origin of a page; write each as the browser does, https://chat.example or "
                    "http://localhost:3000; all pages (*) cannot be allowed",
                    field="cors_allow_origins",
                )
        if self.login is not None and not all(self.login.partition(":")):
            raise SpecError("--auth needs user:password, as in --auth me:secret", field="auth")
        if self.token == "":
            raise SpecError("the token is empty; give one, or leave --token out", field="token")
        if self.is_local:
            return
        secret = self.token or (self.login or "").partition(":")[2]
        if not secret:
            raise SpecError(
                f"{self.host} can be reached by others: add --token or --auth, or stay on 127.0.0.1", field="host"
            )
        if len(secret) < LEAST_TOKEN:
            raise SpecError(
                f"{self.host} can be reached by others: use a token or password of at least {LEAST_TOKEN} characters",
                field="token",
            )

    @property
    def is_local(self) -> bool:
        """Return whether only this machine can connect."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def listen(self) -> socket.socket:
        """Return the listening socket; SpecError when the address cannot be used."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            return socket.create_server((self.host, self.port), family=family)
        except OSError as error:
            known = error.errno is not None and error.errno > 0  # else it is a name that cannot be resolved
            why = os.strerror(error.errno or 0) if known else error.strerror
            raise SpecError(
                f"cannot listen on {self.host} port {self.port}: {why}; choose another with --port",
                field="port",
            ) from None


def _tell_links(library: Library) -> None:
    """Print which links of the model folders are not followed, so that nobody looks for their files in vain."""
    links = library.left_alone
    if links:
        names = ", ".join(str(link) for link in links[:NAMED]) + (
            f" and {len(links) - NAMED} more" if links[NAMED:] else ""
        )
        say(f"note: links out of the model folders are not followed: {names}; --follow-links-to FOLDER allows them")


def _announce(place: Place, *, port: int, open_page: bool) -> None:
    """Say where the server is, and open its page in a browser once it listens."""
    shown = f"[{place.host}]" if ":" in place.host else place.host
    say(f"clipskip is at http://{shown}:{port}  (Ctrl-C ends it)")
    if open_page:
        threading.Timer(0.5, webbrowser.open, [f"http://{shown}:{port}"]).start()


def run_server(
    place: Place,
    *,
    out: Path | None,
    folders: Sequence[Path],
    links_to: Sequence[Path] = (),
    allow_pickle: bool,
    allow_fetch: bool = False,
    clip: str | None = None,
    open_page: bool = False,
) -> None:
    """Serve until Ctrl-C."""
    folder = out or OUT
    ensure_writable(folder)
    _log_to_terminal()
    with held(folder) as locked, place.listen() as listener:
        if not locked:
            say(f"note: {folder} has no file locks; run one server on it")
        library = replace(Library.of_user(folders), allowed=tuple(path.expanduser() for path in links_to))
        studio = Studio(folder, library, allow_pickle=allow_pickle)
        _tell_links(studio.library)
        access = Access(token=place.token, login=place.login)
        app = build_app(studio, access=access, origins=place.origins, allow_fetch=allow_fetch, clip=clip)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=Punctual,
                ws="none",
                log_level="warning",
                timeout_graceful_shutdown=GRACE_S,
                server_header=False,
            )
        )
        _announce(place, port=listener.getsockname()[1], open_page=open_page)
        try:
            server.run([listener])
        except KeyboardInterrupt:  # uvicorn raises the signal again once it has ended
            say("clipskip has ended; finished pictures are kept")
        finally:
            studio.close()


def _log_to_terminal() -> None:
    """Show the server's log of requests: what it ignored in them, and why it refused them."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    log = logging.getLogger("clipskip")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
