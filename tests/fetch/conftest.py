"""No test here reaches a real host: Civitai and Hugging Face are a server on this machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fetch.stand_in import StandIn, serving


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's folders are this test's own."""
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "HF_HOME"):
        monkeypatch.setenv(name, str(tmp_path_factory.mktemp("home")))
    for name in ("CLIPSKIP_MODELS", "CIVITAI_API_TOKEN", "CIVITAI_TOKEN", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def civitai(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A stand-in of Civitai that has one LoRA, the guide's."""
    with serving() as state:
        monkeypatch.setenv("CLIPSKIP_CIVITAI", state.url)
        yield state


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder as A1111 has it."""
    (tmp_path / "models" / "Lora").mkdir(parents=True)
    return tmp_path
