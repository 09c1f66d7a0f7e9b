"""`clipskip serve`: one local server for the page and the API."""

import socket
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from clipskip.doors.http import build_app
from clipskip.doors.work import OUT
from clipskip.errors import SpecError
from clipskip.sweep import Studio
from clipskip.sweep.folder import ensure_writable
from clipskip.weights import Library

HOST = "127.0.0.1"
GRACE_S = 3


def run_server(*, port: int, out: Path | None, folders: Sequence[Path], allow_pickle: bool) -> None:
    """Serves until Ctrl-C."""
    folder = out or OUT
    ensure_writable(folder)
    try:
        listener = socket.create_server((HOST, port))
    except OSError as error:
        raise SpecError(
            f"port {port} cannot be used: {error.strerror}; choose another with --port", field="port"
        ) from None
    studio = Studio(folder, Library.of_user(folders), allow_pickle=allow_pickle)
    config = uvicorn.Config(build_app(studio), log_level="warning", timeout_graceful_shutdown=GRACE_S)
    print(f"clipskip is at http://{HOST}:{listener.getsockname()[1]}  (Ctrl-C ends it)", flush=True)
    try:
        uvicorn.Server(config).run([listener])
    finally:
        studio.close()
