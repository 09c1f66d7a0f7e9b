"""Downloading a remote file: into a `.part` beside its place, resumed, measured, verified, then renamed."""

import hashlib
import os
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


def download(file: RemoteFile, web: Web, place: Path, *, progress: Progress | None = None) -> Refusal | None:
    """Download a file to `place`; return None when it is there and verified, or the host's refusal.

    What an earlier attempt left in the `.part` is kept, and the rest is requested by Range.

    Raises:
        FetchError: a page instead of a file, a file that is too short or has another hash.
        OutputError: no room, or the folder cannot be written.
    """
    part = place.with_name(f"{place.name}.part")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        have = part.stat().st_size if part.exists() else 0
        _check_room(file.size - have, place.parent)
        headers = {"range": f"bytes={have}-"} if have else {}
        with web.get(file.url, headers=headers) as answer:
            if isinstance(answer, Refusal) and answer.status == 416 and have:
                _finish(part, file, place)  # all of it is there already
                return None
            if isinstance(answer, Refusal):
                return answer
            _check_content(answer, file)
            resumed = answer.status_code == 206 and have > 0
            total = _total(answer, have if resumed else 0)
            _check_room(total - have, place.parent)
            _write(answer, part, file.name, start=have if resumed else 0, total=total, progress=progress)
        _finish(part, file, place, total=total)
    except OSError as error:
        raise OutputError(
            f"{place.name} cannot be written to {place.parent}: {error.strerror or error}; what arrived is kept in {part.name}",
            field="models_folder",
        ) from None
    return None


def _write(
    answer: httpx2.Response, part: Path, name: str, *, start: int, total: int, progress: Progress | None
) -> None:
    """Write the body, appended to what was there or from the beginning."""
    there = start
    with open(part, "ab" if start else "wb") as out:
        try:
            for block in answer.iter_raw():
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


def _finish(part: Path, file: RemoteFile, place: Path, *, total: int = 0) -> None:
    """Verify what arrived and name it; wrong content is removed, an incomplete file is kept for the next try."""
    size = part.stat().st_size
    least = total or (file.size - 1024 if file.is_rounded else file.size)
    if size < least:
        raise FetchError(
            f"{file.name} arrived with {size:,} of {max(least, file.size):,} bytes; run the same command to continue",
            field="link",
        )
    if file.sha256:
        with open(part, "rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        if digest != file.sha256:
            part.unlink()
            raise FetchError(
                f"{file.name} arrived with the hash {digest[:12]} instead of {file.sha256[:12]} and was removed; try "
                "again, and if that fails, the host has another file than it states",
                field="link",
            )
    part.replace(place)


def _check_content(answer: httpx2.Response, file: RemoteFile) -> None:
    """Raise FetchError for a page, or for an answer that is too small to be a model."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/json", "application/xhtml+xml"):
        raise FetchError(
            f"a {kind.partition('/')[2]} page came instead of {file.name}, probably one that asks to sign in; put your API key "
            "in CIVITAI_API_TOKEN (HF_TOKEN for Hugging Face)",
            field="link",
        )
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise FetchError(
            f"{file.name} comes compressed, which no model file is; nothing was kept: try another link", field="link"
        )
    length = answer.headers.get("content-length", "")
    if answer.status_code == 200 and length.isdigit() and int(length) < LEAST_TENSORS:
        raise FetchError(
            f"{file.name} has only {length} bytes at its host, too few for a model; try another link", field="link"
        )


def _total(answer: httpx2.Response, start: int) -> int:
    """Return the size of the file in bytes; 0 where the answer does not tell."""
    length = answer.headers.get("content-length", "")
    return start + int(length) if length.isdigit() else 0


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
