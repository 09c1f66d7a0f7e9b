"""Every way in which a file is not safetensors is its own one-line error; a sound one is read without its weights."""

import json
import os
import pickle
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from clipskip.errors import DamagedFile, FileError, NotFound, UnsafeFile, WrongKind
from clipskip.weights.container import MAX_HEADER
from clipskip.weights.header import read_header

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4665dd5d\nsize 4265380512\n"


def packed(header: object, data: bytes = b"") -> bytes:
    """A safetensors file with this header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def tensor(start: int, end: int, *, shape: object = None, dtype: object = "U8") -> dict[str, object]:
    return {"dtype": dtype, "shape": [end - start] if shape is None else shape, "data_offsets": [start, end]}


def refusal(path: Path, kind: type[FileError]) -> str:
    """The one line that reading this file gives."""
    with pytest.raises(kind) as caught:
        read_header(path)
    assert caught.type is kind
    line = str(caught.value)
    assert "\n" not in line and len(line) < 400
    return line


def test_a_sound_file_gives_names_dtypes_shapes_offsets_and_metadata(tmp_path: Path) -> None:
    path = tmp_path / "sound.safetensors"
    save_file({"b": torch.zeros(3, 2), "a": torch.ones(4, dtype=torch.bfloat16)}, path, metadata={"ss_clip_skip": "2"})
    header = read_header(path)
    assert {name: (info.dtype, info.shape) for name, info in header.tensors.items()} == {
        "a": ("BF16", (4,)),
        "b": ("F32", (3, 2)),
    }
    assert header.metadata == {"ss_clip_skip": "2"}
    assert header.size == path.stat().st_size
    b = header.tensors["b"]
    assert path.read_bytes()[b.start : b.end] == bytes(24)


def test_a_file_without_tensors_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "none.safetensors"
    path.write_bytes(packed({"__metadata__": {"a": "b"}}))
    assert dict(read_header(path).tensors) == {}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not a model: 0 bytes"),
        (b"abc", "is not a model: 3 bytes"),
        (LFS, "git-lfs pointer, not the model; download the real file of 4,265,380,512 bytes"),
        (b"\n<!DOCTYPE html><html><body>404</body></html>", "web page (HTML)"),
        (b"\xef\xbb\xbf  <HTML lang=en>", "web page (HTML)"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML message"),
        (b'{"error": "Invalid username or password."}', "JSON text"),
        (bytes(4096), "starts with zeros"),
        ((2**63).to_bytes(8, "little") + b"{}" + bytes(90), "claims a header of 9,223,372,036,854,775,808 bytes"),
        ((MAX_HEADER + 1).to_bytes(8, "little") + b"{}" + bytes(90), "claims a header of 16,000,001 bytes"),
        ((MAX_HEADER + 1).to_bytes(8, "little") + bytes(90), "neither safetensors nor a known kind of pickle"),
        (
            (MAX_HEADER + 1).to_bytes(8, "little") + b"{" + bytes(MAX_HEADER + 1),
            "header of 16,000,001 bytes, and at most 16,000,000",
        ),
        (b"<script>location='/login'</script>" + bytes(90), "a web page"),
        (b"Not Found: the model was removed by its author" + bytes(90), "is text: it starts with 'Not Found"),
        ((500).to_bytes(8, "little") + b'{"a":', "its header alone needs 508 bytes, the file has 13"),
        ((4).to_bytes(8, "little") + b"abcd" + bytes(90), "no header of 4 bytes"),
        (packed({"a": tensor(0, 64)}, bytes(60)), "truncated: expected"),
        (packed({"a": tensor(0, 64)}, bytes(65)), "1 bytes follow its last tensor"),
        (packed({"a": tensor(0, 64), "b": tensor(32, 96)}, bytes(96)), "'b' overlaps 'a'"),
        (packed({"a": tensor(0, 64), "b": tensor(0, 64)}, bytes(64)), "overlaps"),
        (packed({"a": tensor(0, 64), "b": tensor(80, 96)}, bytes(96)), "leaves 16 bytes between itself and 'a'"),
        (packed({"a": tensor(8, 64)}, bytes(64)), "leaves 8 bytes"),
        (packed({"a": tensor(0, 64, shape=[2**62, 4])}, bytes(64)), "an impossible shape"),
        (packed({"a": tensor(0, 64, shape=[2**32, 2**32])}, bytes(64)), "an impossible shape"),
        (packed({"a": tensor(0, 64, shape=[1] * 1000)}, bytes(64)), "an impossible shape"),
        (packed({"a": tensor(0, 64, shape=[-8, -8])}, bytes(64)), "an impossible shape"),
        (packed({"a": tensor(0, 64, shape=[True, 64])}, bytes(64)), "an impossible shape"),
        (packed({"a": tensor(0, 64, shape=[32])}, bytes(64)), "needs 32 bytes but has 64"),
        (packed({"a": tensor(0, 64, dtype="F12")}, bytes(64)), "unknown dtype 'F12'"),
        (packed({"a": tensor(0, 64, dtype=["F16"])}, bytes(64)), "unknown dtype"),
        (packed({"a": {"dtype": "U8", "shape": [1]}}, b"1"), "exactly dtype, shape and data_offsets"),
        (packed({"a": tensor(0, 64) | {"data_offsets": [64, 0]}}, bytes(64)), "not a start and an end"),
        (packed({"a": tensor(0, 64) | {"data_offsets": [0, 6.4e1]}}, bytes(64)), "not a start and an end"),
        (packed(b'{"a":{},"a":{}}'), "a name occurs twice"),
        (packed(b'{"a":' + b"[" * 200_000), "nested too deeply"),
        (packed(b'{"a":\xff\xfe}'), "JSON cannot be read"),
        (packed(b'{"a":' + b"9" * 5000 + b"}"), "JSON cannot be read"),
        (packed({"__metadata__": {"a": 1}}), "metadata 'a' is not text"),
        (packed({"__metadata__": "text"}), "__metadata__ is not an object"),
    ],
)
def test_a_damaged_file_says_how(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert words in refusal(path, DamagedFile)


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("form", ["zip", "bare torch.save", "pickle"])
def test_a_pickle_in_a_safetensors_coat_is_refused_and_not_run(tmp_path: Path, form: str) -> None:
    path, marker = tmp_path / "model.safetensors", tmp_path / "marker"
    if form == "pickle":
        path.write_bytes(pickle.dumps(Evil(marker)))
    else:
        torch.save({"a": Evil(marker)}, path, _use_new_zipfile_serialization=form == "zip")
    assert "is a pickle" in refusal(path, UnsafeFile)
    assert not marker.exists()


def test_a_header_whose_length_looks_like_a_pickle_is_still_read(tmp_path: Path) -> None:
    length = 0x280  # the first two bytes are then 80 02, as a pickle's
    path = tmp_path / "model.safetensors"
    path.write_bytes(packed(b"{}".ljust(length)))
    assert read_header(path).data_start == 8 + length


@pytest.mark.parametrize(
    ("magic", "what"),
    [
        (b"GGUF\x03\0\0\0", "GGUF"),
        (b"Rar!\x1a\x07\x01\0", "RAR"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
    ],
)
def test_another_format_is_named(tmp_path: Path, magic: bytes, what: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(magic + bytes(64))
    assert f"is a {what} file" in refusal(path, WrongKind)


def test_a_zip_of_something_else_and_a_broken_zip_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.safetensors", b"x" * 100)
    assert "is a zip file" in refusal(path, WrongKind)
    path.write_bytes(path.read_bytes()[:60])
    assert "a zip whose directory is missing" in refusal(path, DamagedFile)


def test_what_is_not_there_or_no_file_is_its_own_error(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "none.safetensors", NotFound)
    assert "a folder without model_index.json" in refusal(tmp_path, WrongKind)
    os.mkfifo(tmp_path / "pipe.safetensors")
    assert "not a regular file" in refusal(tmp_path / "pipe.safetensors", WrongKind)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "cannot be opened" in refusal(tmp_path / "loop", FileError)
    assert "cannot be opened" in refusal(Path("a\0b"), FileError)


@pytest.mark.parametrize("whose", ["file", "folder"])
def test_a_file_that_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whose: str) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(packed({}))
    tmp_path.chmod(0o755)
    folder.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    user = os.geteuid()
    path = Path("models/model.safetensors")
    (path if whose == "file" else Path("models")).chmod(0)
    try:
        if user == 0:
            os.seteuid(65534)  # root may read everything
        line = refusal(path, FileError)
    finally:
        os.seteuid(user)
        folder.chmod(0o755)
    assert "may not be read" in line


def test_a_million_tensors_are_refused_before_they_are_looked_at(tmp_path: Path) -> None:
    """At 16 MB a header names 200,000 or more; what matters is the time, for a server lists every file."""
    table = {f"{i:x}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(200_000)}
    (tmp_path / "many.safetensors").write_bytes(packed(json.dumps(table, separators=(",", ":")).encode()))
    began = time.process_time()
    with pytest.raises(DamagedFile, match="200,000 tensors; models have at most 50,000"):
        read_header(tmp_path / "many.safetensors")
    assert time.process_time() - began < 3


@pytest.mark.parametrize(
    "content", [b"(dp0\nS'a'\np1\nI1\ns.", b"}q\x00(X\x01\x00\x00\x00aq\x01K\x01u.", b"cos\nsystem\n(S'id'\ntR."]
)
def test_pickles_of_the_first_protocols_are_told_as_pickles(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "old.ckpt").write_bytes(content + bytes(100))
    with pytest.raises(UnsafeFile, match="pickle"):
        read_header(tmp_path / "old.ckpt")
