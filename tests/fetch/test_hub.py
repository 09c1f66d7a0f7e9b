"""Hugging Face by its own library, against a server on this machine."""

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants as hub_settings
import pytest
from fetch.stand_in import StandIn, serving

from clipskip.errors import ClipskipError
from clipskip.fetch import fetch
from clipskip.spec import parse_bare, parse_link
from clipskip.weights import Library


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """The library's settings are constants that it reads when it is imported."""
    with serving() as state:
        monkeypatch.setattr(hub_settings, "ENDPOINT", f"{state.url}/hub")
        template = hub_settings.HUGGINGFACE_CO_URL_TEMPLATE.replace("https://huggingface.co", f"{state.url}/hub")
        monkeypatch.setattr(hub_settings, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(hub_settings, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub_settings, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(hub_settings, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
        yield state


def ask(text: str) -> Path | str:
    """The file, or what is said instead."""
    link = parse_link(text) or parse_bare(text)
    assert link is not None
    try:
        return fetch(link, library=Library(())).path
    except ClipskipError as error:
        return str(error)


def test_a_repository_with_one_model_file_is_fetched_and_then_kept(
    hub: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ask("https://huggingface.co/owner/repo")
    assert isinstance(path, Path) and path.read_bytes() == hub.content
    monkeypatch.setattr(hub_settings, "HF_HUB_OFFLINE", True)
    count = len(hub.requests)
    assert ask("owner/repo/shrek.safetensors@main") == path
    assert len(hub.requests) == count, "what is in the cache needs no connection"


@pytest.mark.parametrize(
    "text",
    [
        "https://huggingface.co/owner/old/blob/main/shrek.safetensors",
        "owner/old",
        "owner/repo/shrek.safetensors@refs/pr/3",
        "https://huggingface.co/owner/repo/blob/refs%2Fpr%2F3/shrek.safetensors",
        "https://huggingface.co/owner/repo/resolve/refs/pr/3/shrek.safetensors?download=true",
    ],
)
def test_a_renamed_repository_and_a_revision_with_slashes_are_found(hub: StandIn, text: str) -> None:
    path = ask(text)
    assert isinstance(path, Path), path
    assert path.read_bytes() == hub.content


@pytest.mark.parametrize(
    ("text", "changes", "said"),
    [
        ("owner/nothing", {}, "no repository owner/nothing"),
        ("owner/repo/none.safetensors", {}, "no file 'none.safetensors'"),
        ("owner/repo/shrek.safetensors", {"HF_HUB_OFFLINE": True}, "not on this machine"),
        ("owner/repo", {"HF_HUB_OFFLINE": True}, "HF_HUB_OFFLINE"),
        ("owner/repo", {"ENDPOINT": "http://127.0.0.1:9"}, "check the connection"),
        ("owner/repo/pickle.ckpt", {}, "--allow-pickle"),
        ("owner/repo/README.md", {}, "not a model file"),
    ],
)
def test_what_fails_is_one_clear_line(
    hub: StandIn, monkeypatch: pytest.MonkeyPatch, text: str, changes: dict[str, object], said: str
) -> None:
    for name, value in changes.items():
        monkeypatch.setattr(hub_settings, name, value)
    answer = ask(text)
    assert isinstance(answer, str) and said in answer and "\n" not in answer


@pytest.mark.parametrize(
    ("status", "headers", "said"),
    [
        (401, {"x-error-code": "GatedRepo"}, "accept them at"),
        (404, {"x-error-code": "RevisionNotFound"}, "no revision"),
        (403, {}, "403"),
        (429, {"ratelimit": '"api";r=0;t=55'}, "in 55 s"),
    ],
)
def test_each_refusal_of_the_hub_has_its_name(hub: StandIn, status: int, headers: dict[str, str], said: str) -> None:
    hub.api_statuses = [(status, headers, {"error": "no"})] * 10
    answer = ask("https://huggingface.co/owner/repo")
    assert isinstance(answer, str) and said in answer
