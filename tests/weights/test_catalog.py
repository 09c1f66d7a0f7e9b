"""What lists show of files: read once, kept over restarts, read again when a file or what lies beside it changes."""

import json
import os
import sqlite3
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from clipskip.weights import FileKind
from clipskip.weights.catalog import Catalog, FileFacts

NAME = "lora_te_text_model_encoder_layers_3_self_attn_q_proj"


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    path = tmp_path / "ogre.safetensors"
    put(path, clip_skip="2")
    return path


def put(path: Path, *, clip_skip: str) -> None:
    tensors = {f"{NAME}.lora_down.weight": torch.zeros(4, 32), f"{NAME}.lora_up.weight": torch.zeros(32, 4)}
    save_file(tensors, path, metadata={"ss_clip_skip": clip_skip, "ss_output_name": "Ogre v2"})


def asked(store: Path, path: Path) -> tuple[FileFacts, list[tuple[int, int]]]:
    """The facts by a catalog that was opened anew, and what it told of its progress."""
    told: list[tuple[int, int]] = []
    found = Catalog(store).of((path,), tell=lambda done, of: told.append((done, of)))
    return found[path], told


def test_a_header_is_read_once_and_remembered_over_restarts(lora: Path, tmp_path: Path) -> None:
    store = tmp_path / "cache" / "facts.sqlite"
    first, read = asked(store, lora)
    assert (first.kind, first.alias, first.rank, first.width, first.trained_clip_skip) == (
        FileKind.LORA, "Ogre v2", 4, 32, 2,
    )  # fmt: skip
    assert first.touches_text and not first.touches_unet and first.text_layers == (4,)
    assert read == [(0, 1), (1, 1)]
    assert asked(store, lora) == (first, [(1, 1)])


def test_a_file_that_was_changed_is_read_again(lora: Path, tmp_path: Path) -> None:
    store = tmp_path / "facts.sqlite"
    asked(store, lora)
    put(lora, clip_skip="1")
    os.utime(lora, ns=(1, 1))
    assert asked(store, lora)[0].trained_clip_skip == 1


def test_what_lies_beside_is_read_and_read_again_when_it_changes(lora: Path, tmp_path: Path) -> None:
    store, note = tmp_path / "facts.sqlite", lora.with_suffix(".json")
    assert asked(store, lora)[0].beside.words == ()
    note.write_text(
        json.dumps({"activation text": "ogre, swamp || king ogre", "preferred weight": 0.7, "sd version": "SD1"})
    )
    lora.with_name("ogre.preview.png").write_bytes(b"x")
    beside = asked(store, lora)[0].beside
    assert (beside.words, beside.weight, beside.base, beside.preview) == (
        ("ogre", "swamp"),
        0.7,
        "SD1",
        "ogre.preview.png",
    )
    note.write_text(json.dumps({"preferred weight": 0, "sd version": "Unknown"}))
    other = {"trainedWords": ["ogre"], "usage_tips": '{"strength": 0.9, "clip_skip": 2}', "base_model": "SD 1.5"}
    lora.with_name("ogre.metadata.json").write_text(json.dumps(other))
    beside = asked(store, lora)[0].beside
    assert (beside.words, beside.weight, beside.base, beside.clip_skip) == (("ogre",), 0.9, "SD 1.5", 2)


@pytest.mark.parametrize(
    "note", ["[1]", "{", '{"trainedWords": 3, "preferred weight": "x", "usage_tips": "["}', "\0" * 50]
)
def test_a_note_that_says_nothing_usable_is_as_good_as_none(lora: Path, tmp_path: Path, note: str) -> None:
    lora.with_suffix(".json").write_text(note)
    beside = asked(tmp_path / "facts.sqlite", lora)[0].beside
    assert (beside.words, beside.weight, beside.clip_skip) == ((), None, None)


def test_a_damaged_cache_is_made_anew(lora: Path, tmp_path: Path) -> None:
    store = tmp_path / "facts.sqlite"
    store.write_bytes(b"not a database, but long enough to be taken for one" * 40)
    first, _ = asked(store, lora)
    assert asked(store, lora) == (first, [(1, 1)])


def test_facts_that_other_code_found_and_damaged_rows_are_not_believed(lora: Path, tmp_path: Path) -> None:
    store = tmp_path / "facts.sqlite"
    first, _ = asked(store, lora)
    for change in ("code = 'older'", "facts = '{'", 'facts = \'{"kind": "LoRA"}\''):
        with sqlite3.connect(store) as connection:
            connection.execute(f"update facts_1 set {change}")
        assert asked(store, lora) == (first, [(0, 1), (1, 1)])


def test_a_file_that_cannot_be_read_says_why_and_is_not_read_again(tmp_path: Path) -> None:
    path, store = tmp_path / "page.safetensors", tmp_path / "facts.sqlite"
    path.write_text("<!doctype html><html>log in</html>")
    found, _ = asked(store, path)
    assert found.kind is None and "web page" in found.error
    assert asked(store, path) == (found, [(1, 1)])
