"""Pages of others that the server's owner lets in, and the page that shows the API."""

import re
from typing import Any

import pytest
from fastapi.testclient import TestClient

from clipskip.doors.http import Access, build_app
from clipskip.doors.serving import Place
from clipskip.errors import SpecError
from clipskip.sweep import Studio

CHAT, OTHER = "https://chat.example", "https://evil.example"
BODY = {
    "prompt": "a red frog",
    "steps": 1,
    "width": 64,
    "height": 64,
    "override_settings": {"sd_model_checkpoint": "tiny"},
}
SHARED = ("access-control-allow-origin", "access-control-allow-credentials", "access-control-allow-methods")


def client_of(studio: Studio, *origins: str, token: str | None = None) -> TestClient:
    app = build_app(studio, access=Access(token=token), origins=origins)
    return TestClient(app, base_url="http://127.0.0.1:7861")


def asked(origin: str) -> dict[str, str]:
    """What a browser asks before a page's request."""
    return {
        "origin": origin, "sec-fetch-site": "cross-site", "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type",
    }  # fmt: skip


def test_a_page_of_an_allowed_origin_draws_and_may_read_the_answer(studio: Studio) -> None:
    client, headers = client_of(studio, CHAT), {"origin": CHAT, "sec-fetch-site": "cross-site"}
    question = client.options("/sdapi/v1/txt2img", headers=asked(CHAT))
    assert (question.status_code, question.headers["access-control-allow-origin"]) == (204, CHAT)
    assert question.headers["access-control-allow-headers"] == "authorization, content-type"
    answer = client.post("/sdapi/v1/txt2img", json=BODY, headers=headers)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, CHAT)
    assert "Origin" in answer.headers["vary"]
    refused = client.post("/sdapi/v1/txt2img", json=BODY | {"steps": 0}, headers=headers)
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (422, CHAT)


@pytest.mark.parametrize("origins", [(), (CHAT,), (f"{OTHER}.com",)])
@pytest.mark.parametrize("origin", [OTHER, f"{CHAT}.evil.example", "null", "http://chat.example", f"{CHAT}:444"])
def test_any_other_page_is_turned_away_as_before(studio: Studio, origins: Any, origin: str) -> None:
    client = client_of(studio, *origins)
    for answer in (
        client.options("/sdapi/v1/txt2img", headers=asked(origin)),
        client.post("/sdapi/v1/txt2img", json=BODY, headers={"origin": origin}),
        client.get("/v1/status", headers={"origin": origin}),
    ):
        assert answer.status_code == 403
        assert not [name for name in SHARED if name in answer.headers]
        assert "start it with --cors-allow-origins" in answer.json()["detail"]


def test_another_name_of_this_machine_is_told_what_lets_it_in(studio: Studio) -> None:
    headers = {"host": "host.docker.internal:7861"}
    refused = client_of(studio).get("/sdapi/v1/options", headers=headers)
    assert (refused.status_code, "--auth or --token" in refused.json()["detail"]) == (403, True)
    allowed = client_of(studio, token="secret").get("/sdapi/v1/options", headers=headers, auth=("me", "secret"))
    assert allowed.status_code == 200


def test_an_allowed_page_still_needs_the_token(studio: Studio) -> None:
    client = client_of(studio, CHAT, token="a long enough token")
    assert client.options("/v1/status", headers=asked(CHAT)).status_code == 204
    refused = client.get("/v1/status", headers={"origin": CHAT})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, CHAT)
    shown = {"origin": CHAT, "authorization": "Bearer a long enough token"}
    assert client.get("/v1/status", headers=shown).status_code == 200


def test_an_allowed_page_cannot_come_by_another_name_of_this_machine(studio: Studio) -> None:
    for method in ("GET", "OPTIONS"):
        answer = client_of(studio, CHAT).request(method, "/v1/status", headers=asked(CHAT) | {"host": "evil.example"})
        assert answer.status_code == 403


def test_nothing_is_said_of_origins_to_those_who_name_none(studio: Studio) -> None:
    answer = client_of(studio, CHAT).get("/v1/status")
    assert not [name for name in SHARED if name in answer.headers]


@pytest.mark.parametrize(
    "origin", ["*", "https://*.example", "chat.example", "https://chat.example/", "file://", "null"]
)
def test_only_exact_origins_can_be_allowed(origin: str) -> None:
    with pytest.raises(SpecError, match="not the origin of a page"):
        Place(host="127.0.0.1", port=0, origins=(origin,))
    Place(host="127.0.0.1", port=0, origins=(CHAT, "http://localhost:3000", "http://[::1]:3000"))


@pytest.mark.parametrize(
    "origin", ["app://obsidian.md", "tauri://localhost", "capacitor://localhost", "chrome-extension://abcdefghijklmnop"]
)
def test_pages_of_apps_and_extensions_can_be_allowed(studio: Studio, origin: str) -> None:
    Place(host="127.0.0.1", port=0, origins=(origin,))
    answer = client_of(studio, origin).get("/v1/status", headers={"origin": origin, "sec-fetch-site": "cross-site"})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, origin)
    assert client_of(studio).get("/v1/status", headers={"origin": origin}).status_code == 403


def test_the_api_is_shown_with_assets_of_our_own(studio: Studio) -> None:
    client = client_of(studio)
    page = client.get("/docs")
    named = re.findall(r'(?:href|src)="(/[^"]*)"', page.text)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert named and all(client.get(path).status_code == 200 for path in named)
    assert "<script>" not in page.text and "style=" not in page.text


def test_the_api_is_shown_to_those_who_have_signed_in(studio: Studio) -> None:
    client = client_of(studio, token="a long enough token")
    assert "signin.js" in client.get("/docs").text
    assert client.get("/openapi.json").status_code == 401
