"""Bodies made to cost a server more than their sender: refused in linear time, while others are answered."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import HTTPException
from served import served

from clipskip.doors.http import Punctual, build_app
from clipskip.doors.http.request_limits import PICTURE, SIGN_IN, USUAL
from clipskip.doors.http.strict import read_json
from clipskip.doors.http.words import in_words
from clipskip.sweep import Studio
from clipskip.weights import Library

SIZE = 2 * 2**20 - 100
JSON = {"content-type": "application/json"}


def filled(start: str, piece: str, end: str, *, size: int = SIZE) -> bytes:
    """`start`, then as many of `piece` as fit, then `end`."""
    return (start + piece * ((size - len(start) - len(end)) // len(piece)) + end).encode()


HOSTILE: dict[str, Callable[[int], bytes]] = {
    "one name again and again": lambda size: filled("{", '"a":1,', '"a":1}', size=size),
    "many names": lambda size: ("{" + ",".join(f'"{i}":0' for i in range(size // 11)) + "}").encode(),
    "many names and one twice": lambda size: (
        "{" + ",".join(f'"{i}":0' for i in range(size // 11)) + ',"0":0}'
    ).encode(),
    "brackets": lambda size: b"[" * size,
    "objects in objects": lambda size: b'{"a":' * (size // 5),
    "empty lists": lambda size: filled('{"a":[', "[],", "[]]}", size=size),
    "numbers": lambda size: filled('{"a":[', "1,", "1]}", size=size),
    "digits": lambda size: filled('{"a":', "1", "}", size=size),
    "decimals": lambda size: filled('{"a":0.', "1", "}", size=size),
    "exponents": lambda size: filled('{"a":1e', "1", "}", size=size),
    "quotes": lambda size: filled('{"a":"', '\\"', "", size=size),
    "backslashes": lambda size: filled('{"a":"', "\\\\", '"}', size=size),
    "an open text": lambda size: filled('{"a":"', "b", "", size=size),
    "open texts": lambda size: filled("", '"', "", size=size - size % 2 - 1),
    "escapes": lambda size: filled('{"a":"', "\\u0061", '"}', size=size),
    "half characters": lambda size: filled('{"a":"', "\\ud800", '"}', size=size),
    "blanks": lambda size: filled('{"a":', " ", "1}", size=size),
    "nothing": lambda size: bytes(size),
}


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A server's address."""
    (folder / "models").mkdir()
    studio = Studio(folder / "out", Library((folder / "models",)))
    with served(build_app(studio), http=Punctual, loop="asyncio", lifespan="on") as found:
        yield found
    studio.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("server")) as found:
        yield found


@pytest.mark.parametrize("name", HOSTILE)
def test_reading_a_hostile_body_takes_time_in_proportion_to_its_size(name: str) -> None:
    """Four times the bytes take about four times as long; twice that is allowed for a busy machine."""
    took = []
    for size in (SIZE // 4, SIZE):
        body = HOSTILE[name](size)
        runs = []
        for _ in range(3):
            begun = time.thread_time()
            try:
                read_json(body)
            except HTTPException as error:
                assert error.status_code == 422
            runs.append(time.thread_time() - begun)
        took.append(min(runs))
    assert took[1] < 0.5
    assert took[1] < 8 * took[0] + 0.02


def slowness() -> float:
    """How many times as long as on an idle machine work takes now, for others that have the processors."""
    begun, used = time.monotonic(), time.thread_time()
    while time.thread_time() - used < 0.05:
        pass
    return (time.monotonic() - begun) / 0.05


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds of a processor that each turn of an event loop took, in which nobody else had one."""
    found: list[float] = []
    run = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        begun = time.thread_time()
        run(handle)
        found.append(time.thread_time() - begun)

    monkeypatch.setattr(asyncio.Handle, "_run", timed)
    return found


def test_others_are_answered_while_hostile_bodies_come(turns: list[float], address: str) -> None:
    """A poll within 0.1 s, or as many times that as the machine is slower than an idle one; no turn of the loop is long."""
    waits: list[float] = []
    over = threading.Event()

    def poll() -> None:
        with httpx2.Client(base_url=address, timeout=60) as client:
            while not over.is_set():
                begun = time.monotonic()
                assert client.get("/v1/status").status_code == 200
                waits.append(time.monotonic() - begun)
                over.wait(0.01)

    asked = {"/sdapi/v1/txt2img": list(HOSTILE)}
    for path in ("/v1/session", "/v1/sweeps", "/v1/settings"):
        asked[path] = ["one name again and again", "an open text", "backslashes"]
    assert httpx2.get(f"{address}/v1/status", timeout=60).status_code == 200  # the client's own first is slower
    slow = [slowness()]
    poller = threading.Thread(target=poll)
    poller.start()
    try:
        for path, names in asked.items():
            for name in names:
                body = HOSTILE[name](SIZE)
                begun = time.monotonic()
                answer = httpx2.post(f"{address}{path}", content=body, headers=JSON, timeout=60)
                assert answer.status_code in (404, 413, 422), (path, name, answer.text[:200])
                assert time.monotonic() - begun < max(1, slowness()), (path, name)
                assert len(answer.content) < 4000, (path, name)
            slow.append(slowness())
    finally:
        over.set()
        poller.join()
    assert len(waits) > 20
    assert sorted(waits)[len(waits) * 9 // 10] < 0.1 * max(1, *slow)
    assert len(turns) > 100
    assert max(turns) < 0.05


def test_no_turn_of_the_loop_is_long_at_a_servers_first_requests(turns: list[float], tmp_path: Path) -> None:
    """Its routes are made before it listens."""
    with serving(tmp_path) as address:
        turns.clear()
        for path in ("/v1/status", "/sdapi/v1/txt2img", "/v1/settings"):
            assert httpx2.post(f"{address}{path}", content=b"{}", headers=JSON, timeout=60).status_code in (
                404,
                405,
                422,
            )
    assert max(turns) < 0.05


def test_an_error_repeats_little_of_a_large_value_without_writing_it_out() -> None:
    text = "\\" * (40 * 2**20)
    begun = time.thread_time()
    said = in_words({"type": "int_type", "input": [text] * 1000, "msg": ""})
    assert time.thread_time() - begun < 0.05
    assert said.startswith("['" + "\\" * 50) and len(said) < 120


def test_a_sign_in_takes_no_more_than_a_token(address: str) -> None:
    answer = httpx2.post(f"{address}/v1/session", content=b'{"token": "' + b"a" * SIGN_IN.size + b'"}', headers=JSON)
    assert (answer.status_code, answer.json()["detail"]) == (413, "the body is larger than 8 KiB; send less")
    many = json.dumps({str(i): 0 for i in range(SIGN_IN.tokens)})
    answer = httpx2.post(f"{address}/v1/session", content=many.encode(), headers=JSON)
    assert (answer.status_code, "more than 32 values" in answer.json()["detail"]) == (422, True)


def test_a_picture_of_many_megabytes_is_one_value() -> None:
    text = "A" * (40 * 2**20)
    body = json.dumps({"init_images": [text], "prompt": "a, " * 5000}).encode()
    assert read_json(body, PICTURE)["init_images"] == [text]


def test_marks_inside_texts_are_not_counted() -> None:
    prompt = '[{,:}]"\\' * 10_000
    assert read_json(json.dumps({"prompt": prompt}).encode(), USUAL)["prompt"] == prompt


@pytest.mark.parametrize("again", [False, True], ids=["the first request", "the second request"])
def test_headers_that_do_not_come_are_given_up(address: str, monkeypatch: pytest.MonkeyPatch, again: bool) -> None:
    """Dripped a byte at a time, each in time for a timeout that only counts silence."""
    monkeypatch.setattr(Punctual, "headers_s", 0.3)
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as slow:
        if again:
            slow.sendall(f"GET /v1/status HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
            first = b""
            while not first.endswith(b"}"):
                first += slow.recv(10_000)
            assert first.startswith(b"HTTP/1.1 200")
        slow.settimeout(0.05)
        slow.sendall(b"GET /v1/status HTTP/1.1\r\nX-Slow: ")
        begun, answer = time.monotonic(), b""
        while not answer and time.monotonic() - begun < 5:
            slow.sendall(b"a")
            try:
                answer = slow.recv(1000)
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_headers_that_come_in_time_are_answered_though_the_answer_takes_longer(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Punctual, "headers_s", 0.1)
    monkeypatch.setattr("clipskip.doors.http.ours.reading_api.SAMPLERS", Slow())
    begun = time.monotonic()
    assert httpx2.get(f"{address}/v1/samplers", timeout=10).status_code == 200
    assert time.monotonic() - begun > 0.3


class Slow:
    """A list that takes its time."""

    def __iter__(self) -> Iterator[Any]:
        time.sleep(0.3)
        return iter(())


def test_a_body_in_many_pieces_is_the_same_body(address: str) -> None:
    text = "frog, " * 16_000

    def pieces() -> Iterator[bytes]:
        yield b'{"prompt": "'
        yield from (text[i : i + 7000].encode() for i in range(0, len(text), 7000))
        yield b'"}'

    found: list[dict[str, Any]] = [
        httpx2.post(f"{address}/v1/prompt", content=content, headers=JSON, timeout=60).json()
        for content in (pieces(), json.dumps({"prompt": text}).encode())
    ]
    assert found[0] == found[1]
