"""Downloading a remote file: into a `.part` beside its place, resumed, measured, verified, then renamed."""

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx2

from clipskip.errors import FetchError, OutputError
from clipskip.fetch.remote import RemoteFile
from clipskip.fetch.web import Refusal, Web

SPARE = 64 * 2**20
"""Bytes that stay free on the disk."""
LEAST_TENSORS = 1024
"""Bytes below which no answer is a model."""
Progress = Callable[[str, int, int], None]
"""Called with the file's name, the bytes so far, and all its bytes (0 where the host does not say)."""


class _AnotherFile(Exception):
    """The host's file is not the one that an earlier attempt began to fetch."""


def download(file: RemoteFile, web: Web, place: Path, *, progress: Progress | None = None) -> Refusal | None:
    """Download a file to `place`; return None when it is there and verified, or the host's refusal.

    What an earlier attempt left in the `.part` is kept, and the rest is requested by Range; where the host sends
    another piece than that, all of it is requested again.

    Raises:
        FetchError: a page instead of a file, a file that is too short or has another hash.
        OutputError: no room, or the folder cannot be written.
    """
    part = place.with_name(f"{place.name}.part")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            refusal = _received(file, web, part, start=part.stat().st_size if part.exists() else 0, progress=progress)
        except _AnotherFile:
            part.unlink()
            refusal = _received(file, web, part, start=0, progress=progress)
        if refusal is None:
            _verify(part, file)
            part.replace(place)
        return refusal
    except OSError as error:
        raise OutputError(
            f"{place.name} cannot be written to {place.parent}: {error.strerror or error}; what arrived is kept in {part.name}",
            field="models_folder",
        ) from None


def _received(file: RemoteFile, web: Web, part: Path, *, start: int, progress: Progress | None) -> Refusal | None:
    """Complete the `.part`, of which `start` bytes are here; return the host's refusal, if it refuses.

    Raises:
        _AnotherFile: the host's file goes on in another way.
    """
    _check_room(file.size - start, part.parent)
    with web.get(file.url, headers={"range": f"bytes={start}-"} if start else {}) as answer:
        if isinstance(answer, Refusal):
            if answer.status != 416 or not start:
                return answer
            if answer.total != start and not (answer.total is None and _is_whole(part, file)):
                raise _AnotherFile
            return None  # all of it is here already
        _check_content(answer, file)
        encoded = answer.headers.get("content-encoding", "identity") != "identity"
        first, total = _content_range(answer, start)
        if first not in (0, start) or (first and encoded):
            raise _AnotherFile
        if first == 0 and answer.status_code == 206 and start == 0 and total and total != _length(answer):
            raise FetchError(f"{file.name} was sent only in part by its host; try again later", field="link")
        _check_room(total - start, part.parent)
        _write(answer, part, file.name, start=first, total=0 if encoded else total, progress=progress)
    size = part.stat().st_size
    least = total if total and not encoded else 0 if file.sha256 else file.least
    if size < least or (not file.sha256 and size < file.least):
        raise FetchError(
            f"{file.name} arrived with {size:,} of {max(least, file.size):,} bytes; run the same command to continue",
            field="link",
        )
    return None


def _write(
    answer: httpx2.Response, part: Path, name: str, *, start: int, total: int, progress: Progress | None
) -> None:
    """Write the body, appended to what was there or from the beginning."""
    there = start
    with open(part, "ab" if start else "wb") as out:
        try:
            for block in answer.iter_bytes():  # a host that compresses although it was asked not to is understood
                out.write(block)
                there += len(block)
                if progress is not None:
                    progress(name, there, total)
        except httpx2.HTTPError as error:
            raise FetchError(
                f"the connection broke after {there:,} bytes of {name} ({type(error).__name__}); run the same command to continue",
                field="link",
            ) from None
        out.flush()
        os.fsync(out.fileno())


def _verify(part: Path, file: RemoteFile) -> None:
    """Compare what arrived with its hash, where there is one; wrong content is removed."""
    if file.sha256 and (digest := _sha256(part)) != file.sha256:
        part.unlink()
        raise FetchError(
            f"{file.name} arrived with the hash {digest[:12]} instead of {file.sha256[:12]} and was removed; try "
            "again, and if that fails, the host has another file than it states",
            field="link",
        )


def _is_whole(part: Path, file: RemoteFile) -> bool:
    """Return whether an earlier attempt left all of the file, as far as the host describes it."""
    return _sha256(part) == file.sha256 if file.sha256 else file.least <= part.stat().st_size <= file.size + 1024


def _sha256(path: Path) -> str:
    with open(path, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _check_content(answer: httpx2.Response, file: RemoteFile) -> None:
    """Raise FetchError for a page, or for an answer that is too small to be a model."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/json", "application/xhtml+xml"):
        raise FetchError(
            f"a {kind.partition('/')[2]} page came instead of {file.name}, probably one that asks to sign in; put your API key "
            "in CIVITAI_API_TOKEN (HF_TOKEN for Hugging Face)",
            field="link",
        )
    length = answer.headers.get("content-length", "")
    encoded = answer.headers.get("content-encoding", "identity") != "identity"
    if answer.status_code == 200 and not encoded and length.isdigit() and int(length) < LEAST_TENSORS:
        raise FetchError(
            f"{file.name} has only {length} bytes at its host, too few for a model; try another link", field="link"
        )


def _content_range(answer: httpx2.Response, start: int) -> tuple[int, int]:
    """Return the place of the answer's first byte in the file, and the size of the file; 0 where it is not told."""
    if answer.status_code != 206:
        return 0, _length(answer)
    match = re.match(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("content-range", ""))
    if match is None:
        return start, start + _length(answer) if _length(answer) else 0
    return int(match[1]), int(match[2]) if match[2] != "*" else 0


def _length(answer: httpx2.Response) -> int:
    length = answer.headers.get("content-length", "")
    return int(length) if length.isdigit() else 0


def _check_room(wanted: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if wanted + SPARE > free:
        raise OutputError(
            f"the file needs {wanted / 1e9:.2f} GB more, and {folder} has {free / 1e9:.2f} GB free; make room, or name another "
            "folder with --models-folder",
            field="models_folder",
        )


def write_beside(path: Path, text: str) -> None:
    """Write a small side file whole or not at all; failing is no reason to lose the model."""
    with suppress(OSError):
        scratch = path.with_name(f"{path.name}.part")
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(path)
