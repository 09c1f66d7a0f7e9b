"""The list of the user's files: it never keeps anybody waiting, and what was read is answered."""

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clipskip.doors.http.ours.listings import Shelf, small_preview
from clipskip.errors import NotFound
from clipskip.weights import FileKind, Library


def test_what_was_read_meanwhile_is_answered_however_long_it_takes(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, read = threading.Event(), Library.read

    def slowly(here: Library, tell: Callable[[int, int], None]) -> object:
        asked.wait(30)
        return read(here, tell)

    monkeypatch.setattr(Library, "read", slowly)
    shelf = Shelf(library, patience_s=0)
    first = json.loads(shelf.lists())
    asked.set()
    assert first["reading"] is not None and first["models"] == []
    deadline, last = time.monotonic() + 30, first
    while last["reading"] is not None and time.monotonic() < deadline:
        time.sleep(0.05)
        last = json.loads(shelf.lists())
    assert last["reading"] is None
    assert [model["name"] for model in last["models"]] == ["tiny"]
    assert [lora["name"] for lora in last["loras"]] == ["ogre"]


def test_a_folder_that_is_read_quickly_is_listed_in_the_first_answer(library: Library) -> None:
    found = json.loads(Shelf(library, patience_s=30).lists())
    assert found["reading"] is None
    tiny, ogre = found["models"][0], found["loras"][0]
    assert (tiny["layers"], tiny["trained_clip_skip"]) == (12, 2)
    assert (ogre["width"], ogre["rank"], ogre["touches"]["text_layers"]) == (tiny["width"], 4, [4])


def test_a_picture_beside_a_file_that_is_none_is_not_shown(library: Library, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"x")
    (tmp_path / "a.png").write_text("no picture")
    here = Library((tmp_path,))
    with pytest.raises(NotFound, match=r"a\.png beside a\.safetensors"):
        small_preview(here, tmp_path / "a.safetensors")
    with pytest.raises(NotFound, match="no picture beside"):
        small_preview(library, library.find("tiny", FileKind.CHECKPOINT))


def test_a_list_has_what_changed_beside_what_was_written_before(library: Library, tmp_path: Path) -> None:
    for name in ("swamp", "ogre"):
        shutil.copy(library.find("ogre", FileKind.LORA), tmp_path / f"{name}.safetensors")
    shelf = Shelf(Library((tmp_path,)), patience_s=30)
    before = json.loads(shelf.lists())["loras"]
    (tmp_path / "ogre.json").write_text('{"activation text": "king ogre"}')
    (tmp_path / "swamp.safetensors").rename(tmp_path / "bog.safetensors")
    after = json.loads(shelf.lists())["loras"]
    assert [one["name"] for one in before] == ["ogre", "swamp"] and [one["name"] for one in after] == ["bog", "ogre"]
    assert (before[0]["trigger_words"], after[1]["trigger_words"]) == ([], ["king ogre"])


def test_links_that_lead_round_in_a_circle_are_passed_over(library: Library, tmp_path: Path) -> None:
    shutil.copy(library.find("ogre", FileKind.LORA), tmp_path / "ogre.safetensors")
    (tmp_path / "round.safetensors").symlink_to("round.safetensors")
    (tmp_path / "again").symlink_to(tmp_path)
    assert [found.name for found in Library((tmp_path,)).files(FileKind.LORA)] == ["ogre.safetensors"]
