"""The server fetches only where its owner allows it, and only from the hosts that it knows."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from fetch.stand_in import StandIn

from clipskip.doors.http import build_app
from clipskip.sweep import Studio
from clipskip.weights import Library

LINK = "https://civitai.com/models/16615"


@pytest.fixture
def studio(folder: Path, tmp_path: Path) -> Iterator[Studio]:
    made = Studio(tmp_path / "out", Library((folder,)))
    yield made
    made.close()


def client(studio: Studio, *, allow_fetch: bool) -> TestClient:
    return TestClient(build_app(studio, allow_fetch=allow_fetch), base_url="http://127.0.0.1:7861")


def test_a_model_is_fetched_and_listed_with_its_trigger_words(civitai: StandIn, studio: Studio) -> None:
    server = client(studio, allow_fetch=True)
    answer = server.post("/v1/fetch", json={"link": LINK})
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"name": "shrek", "title": "Shrek v1.0", "was_here": False, "notes": []}
    while (lists := server.get("/v1/files").json())["reading"]:
        pass
    loras = lists["loras"]
    assert [lora["name"] for lora in loras] == ["shrek"]
    assert "ogre" in str(loras[0])


def test_a_server_that_was_not_allowed_to_asks_nobody(civitai: StandIn, studio: Studio) -> None:
    answer = client(studio, allow_fetch=False).post("/v1/fetch", json={"link": LINK})
    assert answer.status_code == 403 and "--allow-fetch" in answer.json()["detail"]
    assert civitai.requests == []


@pytest.mark.parametrize("link", ["http://169.254.169.254/x", "https://example.com/x", "file:///etc/passwd", ""])
def test_no_other_host_is_asked(civitai: StandIn, studio: Studio, link: str) -> None:
    assert client(studio, allow_fetch=True).post("/v1/fetch", json={"link": link}).status_code == 422
    assert civitai.requests == []


def test_a_failure_says_why(civitai: StandIn, studio: Studio) -> None:
    civitai.statuses = [(403, {}, {"error": "Early Access", "deadline": "2027-01-02"})]
    answer = client(studio, allow_fetch=True).post("/v1/fetch", json={"link": LINK})
    assert answer.status_code == 422 and "2027-01-02" in answer.json()["detail"]
