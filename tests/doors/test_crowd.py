"""Many clients at once while a sweep is drawn: everybody is answered, and nobody misses a cell."""

import asyncio
import io
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest
from PIL import Image
from served import served

from clipskip.doors.http import Access, build_app, guard
from clipskip.sweep import Studio
from clipskip.weights import Library

CLIENTS, WATCHERS, CELLS = 50, 20, 8
ASKED = {"prompt": "a red frog", "model": "tiny", "steps": 4, "width": 64, "height": 64, "clip_skips": f"1-{CELLS}"}


@pytest.fixture(scope="module")
def address(library: Library, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    studio = Studio(tmp_path_factory.mktemp("out"), library)
    with served(build_app(studio)) as found:
        yield found
    studio.close()


def started(address: str, seed: int) -> str:
    """A new sweep's name."""
    return httpx2.post(f"{address}/v1/sweeps", json=ASKED | {"seed": seed}, timeout=60).json()["id"]  # type: ignore[no-any-return]


def polled(address: str, id: str) -> list[dict[str, Any]]:
    """What one client is told of the sweep, until it has ended."""
    told: list[dict[str, Any]] = []
    with httpx2.Client(base_url=address, timeout=60) as client:
        while not told or told[-1]["state"] in ("queued", "running"):
            for path in ("/v1/status", "/sdapi/v1/progress", f"/v1/sweeps/{id}"):
                answer = client.get(path)
                assert answer.status_code == 200, (path, answer.text)
            told.append(answer.json())
    return told


def watched(address: str, id: str) -> list[tuple[str, dict[str, Any]]]:
    """The events that one watcher gets, to the last."""
    with httpx2.stream("GET", f"{address}/v1/sweeps/{id}/events", timeout=60) as stream:
        lines = [line for line in stream.iter_lines() if line and not line.startswith(":")]
    names = [line.removeprefix("event: ") for line in lines[::2]]
    return list(zip(names, (json.loads(line.removeprefix("data: ")) for line in lines[1::2]), strict=True))


def test_fifty_clients_that_poll_are_all_answered_and_lose_no_cell(address: str) -> None:
    id = started(address, 1)
    with ThreadPoolExecutor(CLIENTS) as pool:
        everybody = list(pool.map(polled, [address] * CLIENTS, [id] * CLIENTS))
    for told in everybody:
        done = [one["done"] for one in told]
        assert done == sorted(done)
        assert (told[-1]["state"], done[-1]) == ("done", CELLS)
    for cell in everybody[0][-1]["cells"][0]:
        content = httpx2.get(f"{address}{cell['image']}", timeout=60).content
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()


def test_every_watcher_of_many_sees_each_cell_and_the_end(address: str) -> None:
    id = started(address, 2)
    with ThreadPoolExecutor(WATCHERS) as pool:
        everybody = list(pool.map(watched, [address] * WATCHERS, [id] * WATCHERS))
    for events in everybody:
        first, *_, last, end = events
        assert (first[0], last[0], end) == ("sweep", "sweep", ("end", {"state": "done", "error": None}))
        assert all(cell["state"] == "done" for cell in last[1]["cells"][0])
        told = [event["column"] for name, event in events if name == "cell"]
        assert len(told) == len(set(told))


def half_asked(address: str, text: str) -> socket.socket:
    """A connection on which no more than this comes."""
    host, port = address.removeprefix("http://").split(":")
    found = socket.create_connection((host, int(port)), timeout=10)
    found.sendall(text.format(host=f"{host}:{port}").encode())
    return found


HALF_A_HEADER = "GET /v1/status HTTP/1.1\r\nHost: {host}\r\nX-Slow: "
HALF_A_BODY = (
    "POST /v1/sweeps HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{{"
)


@pytest.mark.parametrize("text", [HALF_A_HEADER, HALF_A_BODY])
def test_others_are_answered_while_many_connections_hang(address: str, text: str) -> None:
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(half_asked(address, text))
        assert httpx2.get(f"{address}/v1/status", timeout=5).status_code == 200


def test_a_body_that_does_not_come_is_given_up(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_S", 0.2)
    with half_asked(address, HALF_A_BODY) as slow:
        head, _, body = slow.makefile("rb").read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert json.loads(body)["detail"] == "the body did not come within 0.2 seconds"


def test_a_body_that_is_too_large_is_taken_before_its_refusal_is_sent() -> None:
    """A connection closed with bytes unread is reset, and most clients then never see the answer."""
    waiting = [{"type": "http.request", "body": bytes(2**20), "more_body": left > 0} for left in reversed(range(5))]
    unread, statuses = [], []

    async def receive() -> dict[str, Any]:
        return waiting.pop(0)

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])
            unread.append(len(waiting))

    async def never(*_: object) -> None:
        raise AssertionError("a refused request goes no further")

    headers = [(b"host", b"127.0.0.1"), (b"content-length", str(5 * 2**20).encode())]
    scope = {"type": "http", "method": "POST", "path": "/v1/sweeps", "headers": headers}
    guarded = guard.Guard(never, access=Access())(scope, receive, send)  # type: ignore[arg-type]
    with ThreadPoolExecutor(1) as pool:  # a browser's test may have left a loop in this thread
        pool.submit(asyncio.run, guarded).result()
    assert (statuses, unread) == ([413], [0])
