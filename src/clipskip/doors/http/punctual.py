"""A connection that must send each request's headers in time, so that dripping headers hold it no longer than a
dripping body."""

import asyncio
from typing import Any, final

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from clipskip.doors.http.guard import BODY_S

LATE = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


@final
class Punctual(asyncio.Protocol):
    """uvicorn's HTTP/1.1 protocol, whose own timeout covers only connections on which nothing is sent."""

    headers_s: float = BODY_S
    """Seconds from a connection's start, or a request's first byte, to the end of its headers."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],  # Any: uvicorn's own
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._http = H11Protocol(config, server_state, app_state, _loop)
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first request."""
        assert isinstance(transport, asyncio.Transport)
        self._http.connection_made(transport)
        self._look()

    def data_received(self, data: bytes) -> None:
        """Hand on what came."""
        self._http.data_received(data)
        self._look()

    def eof_received(self) -> None:
        """Hand on that no more comes."""
        self._http.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop()
        self._http.connection_lost(exc)

    def pause_writing(self) -> None:
        """Hand on that the client reads slowly."""
        self._http.pause_writing()

    def resume_writing(self) -> None:
        """Hand on that the client reads again."""
        self._http.resume_writing()

    @property
    def _in_headers(self) -> bool:
        """Return whether no request is being answered, so that what comes are a request's headers."""
        cycle = self._http.cycle
        return cycle is None or cycle.response_complete

    def _look(self) -> None:
        if not self._in_headers:
            self._stop()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.headers_s, self._late)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self._in_headers and not self._http.transport.is_closing():
            self._http.transport.write(LATE)
            self._http.transport.close()
