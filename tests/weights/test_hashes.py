"""The field's hashes, and a cache that is right after changes, damage and crowds."""

import base64
import hashlib
import json
import os
import sqlite3
from multiprocessing import get_context
from pathlib import Path

import pytest

from clipskip.errors import NotFound
from clipskip.weights.hashes import Hashes, autov1, cached_hashes, hash_file

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "hashes.json").read_text())


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "hashes.sqlite"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"model" * 1000)
    return path


@pytest.mark.parametrize("known", [entry for entry in GOLDEN if "file_base64" in entry])
def test_hashes_are_those_that_a1111_writes(tmp_path: Path, store: Path, known: dict[str, str]) -> None:
    path = tmp_path / "lora.safetensors"
    path.write_bytes(base64.b64decode(known["file_base64"]))
    found = hash_file(path, cache=store)
    assert (found.sha256, found.data_sha256) == (known["sha256"], known["addnet_sha256"])
    assert (found.autov2, found.autov3) == (known["model_hash_10"], known["lora_hash_12"])
    assert found.autov1 == autov1(path) == known["old_model_hash_8"]


def test_the_old_hash_reads_its_piece_of_a_large_file(tmp_path: Path, store: Path) -> None:
    known = next(entry for entry in GOLDEN if "file_rule" in entry)
    path = tmp_path / "model.ckpt"
    path.write_bytes(bytes((7 * i + 3) % 256 for i in range(256)) * (0x120000 // 256))
    found = hash_file(path, cache=store)
    assert (found.autov1, autov1(path)) == (known["old_model_hash_8"],) * 2
    assert found.autov2 == known["model_hash_10"]


def test_a_hash_is_found_by_any_of_its_spellings() -> None:
    found = Hashes(sha256="a" * 64, data_sha256="b" * 64, autov1="cccccccc")
    matching = ["a" * 10, "A" * 12, "a" * 64, "a" * 8, "b" * 12, "cccccccc"]
    assert all(found.matches(digits) for digits in matching)
    assert not any(found.matches(digits) for digits in ["d" * 10, "a" * 7, "", "c" * 10, "bbbbbbbb"])


def test_a_known_file_is_not_read_again(model: Path, store: Path) -> None:
    calls: list[int] = []
    first = hash_file(model, cache=store, progress=lambda name, done, size: calls.append(done))
    second = hash_file(model, cache=store, progress=lambda name, done, size: calls.append(done))
    assert first == second == cached_hashes(model, cache=store) and calls == [5000]


@pytest.mark.parametrize("change", ["size", "time", "inode"])
def test_a_changed_file_is_hashed_again(model: Path, store: Path, change: str) -> None:
    hash_file(model, cache=store)
    times = (model.stat().st_atime_ns, model.stat().st_mtime_ns)
    if change == "size":
        model.write_bytes(b"other")
        os.utime(model, ns=times)
    elif change == "time":
        model.write_bytes(b"other" * 1000)
        os.utime(model, ns=(times[0], times[1] + 1))
    else:
        other = model.with_name("other")
        other.write_bytes(b"other" * 1000)
        os.utime(other, ns=times)
        other.replace(model)
    assert hash_file(model, cache=store).sha256 == hashlib.sha256(model.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "damage", [b"not a database at all, but long enough to be looked at" * 50, b"", b"SQLite format 3\0"]
)
def test_a_damaged_cache_is_made_anew(model: Path, store: Path, damage: bytes) -> None:
    right = hash_file(model, cache=store)
    store.write_bytes(damage)
    assert cached_hashes(model, cache=store) is None
    assert hash_file(model, cache=store) == right
    assert cached_hashes(model, cache=store) == right


def test_a_cache_row_that_is_no_hash_is_not_served(model: Path, store: Path) -> None:
    right = hash_file(model, cache=store)
    connection = sqlite3.connect(store)
    connection.execute("update hashes_1 set sha256 = 'evil'")
    connection.commit()
    connection.close()
    assert hash_file(model, cache=store) == right


def test_a_cache_that_cannot_be_written_is_done_without(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file where a folder is needed")
    assert (
        hash_file(model, cache=tmp_path / "file" / "hashes.sqlite").sha256
        == hashlib.sha256(b"model" * 1000).hexdigest()
    )


def hash_all(paths: list[Path], store: Path) -> None:
    for path in paths:
        hash_file(path, cache=store)


def test_many_processes_share_one_cache(tmp_path: Path, store: Path) -> None:
    paths = [tmp_path / f"{i}.bin" for i in range(12)]
    for i, path in enumerate(paths):
        path.write_bytes(bytes([i]) * 100)
    crowd = [get_context("fork").Process(target=hash_all, args=(paths, store)) for _ in range(4)]
    for process in crowd:
        process.start()
    for process in crowd:
        process.join()
    assert [process.exitcode for process in crowd] == [0] * 4
    for path in paths:
        found = cached_hashes(path, cache=store)
        assert found is not None and found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_names_that_are_no_text_are_cached_too(tmp_path: Path, store: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.safetensors"))
    path.write_bytes(b"x")
    assert hash_file(path, cache=store) == cached_hashes(path, cache=store)


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path, store: Path) -> None:
    with pytest.raises(NotFound):
        hash_file(tmp_path / "none", cache=store)
