"""The files in the user's folders, as the page lists them. They are read in a thread, and listed as far as they are
known."""

import io
import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final
from urllib.parse import quote

from PIL import Image, ImageOps

from clipskip.errors import NotFound
from clipskip.weights import FileFacts, FileKind, Hashes, Library, LibraryFile, known_hashes, upscaler_name

PATIENCE_S = 0.3
"""Seconds that a list waits for folders to be read, so that quick ones come whole."""
WEBP, PREVIEW_PX = "image/webp", 320
LARGEST_PREVIEW = 50_000_000
"""The most bytes of a preview picture."""
Json = dict[str, Any]  # Any: what the page shows
Describe = Callable[[FileFacts, Hashes | None], Json]


@final
class Shelf:
    """The list of a library's files, read again in a thread of its own whenever somebody asks."""

    def __init__(self, library: Library, *, patience_s: float = PATIENCE_S) -> None:
        self._library, self._patience_s = library, patience_s
        self._owed = False
        """Set when somebody was answered while reading: the result is answered before folders are read again."""
        self._written: dict[Path, tuple[LibraryFile, FileFacts, Hashes | None, str]] = {}
        """Each file's text as last written: of thousands of files, few differ the next time."""
        self._lists = self._written_lists({})
        self._progress = (0, 0)
        self._error: Exception | None = None
        self._lock = threading.Lock()
        self._reading: threading.Thread | None = None

    def lists(self) -> str:
        """Return models, LoRAs, embeddings and upscalers as last read whole, and how far reading is now, as JSON."""
        with self._lock:
            if self._reading is None or not (self._owed or self._reading.is_alive()):
                self._reading = threading.Thread(target=self._read, name="clipskip-shelf", daemon=True)
                self._reading.start()
            reading = self._reading
        reading.join(self._patience_s)
        self._owed = reading.is_alive()
        if self._owed:
            done, of = self._progress
            return f'{{{self._lists}, "reading": {{"done": {done}, "total": {of}}}}}'
        if self._error is not None:
            raise self._error
        return f'{{{self._lists}, "reading": null}}'

    def _read(self) -> None:
        self._progress, self._error = (0, 0), None
        try:
            self._lists = self._written_lists(self._library.read(self._tell))
        except Exception as error:  # told to whoever asks: the thread has nobody to tell
            logging.getLogger(__name__).info("the model folders could not be read", exc_info=True)
            self._error = error

    def _tell(self, done: int, of: int) -> None:
        self._progress = done, of

    def _written_lists(self, files: Mapping[FileKind, Sequence[tuple[LibraryFile, FileFacts]]]) -> str:
        """Return one file for each name, the one that the name finds. A file that cannot be read has its reason as a
        warning."""
        lists = []
        for kind, (name, describe) in LISTS.items():
            named = {file.stem: (file, facts) for file, facts in reversed(files.get(kind, ()))}
            hashes = known_hashes(file.path for file, _ in named.values())
            written = [
                self._text(file, facts, hashes.get(file.path), kind, describe)
                for file, facts in reversed(named.values())
            ]
            lists.append(f'"{name}": [{", ".join(written)}]')
        return ", ".join(lists)

    def _text(
        self, file: LibraryFile, facts: FileFacts, hashes: Hashes | None, kind: FileKind, describe: Describe
    ) -> str:
        known = self._written.get(file.path)
        if known is None or known[:3] != (file, facts, hashes):
            text = json.dumps(_common(file, facts, kind) | describe(facts, hashes), ensure_ascii=False)
            known = self._written[file.path] = file, facts, hashes, text
        return known[3]


def small_preview(library: Library, path: Path) -> bytes:
    """Return the picture beside a model file as a small WebP. Raises NotFound."""
    name = library.catalog.facts(path).beside.preview
    picture = path.parent / name
    try:
        if not name or picture.is_symlink() or picture.stat().st_size > LARGEST_PREVIEW:
            raise NotFound(
                f"there is no picture beside {path.name}; put one there, as {path.stem}.preview.png", field="name"
            )
        with Image.open(picture) as opened:
            opened.draft("RGB", (PREVIEW_PX, PREVIEW_PX))
            small = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise NotFound(f"{name} beside {path.name} is not a picture that can be read ({error})", field="name") from None
    small.thumbnail((PREVIEW_PX, PREVIEW_PX))
    stored = io.BytesIO()
    small.save(stored, "WEBP", quality=80)
    return stored.getvalue()


def _common(file: LibraryFile, facts: FileFacts, kind: FileKind) -> Json:
    beside = facts.beside
    return {
        "name": upscaler_name(file) if kind is FileKind.UPSCALER else file.stem,
        "file": file.name,
        "size_bytes": facts.size,
        "family": facts.family,
        "width": facts.width,
        "trained_clip_skip": facts.trained_clip_skip,
        "trained_clip_skip_source": facts.trained_clip_skip_source or None,
        "preview": f"/v1/files/{kind.name.lower()}/{quote(file.stem, safe='')}/preview" if beside.preview else None,
        "title": beside.title or None,
        "made_for": beside.base or None,
        "advised_weight": beside.weight,
        "advised_clip_skip": beside.clip_skip,
    }


def _model_json(facts: FileFacts, hashes: Hashes | None) -> Json:
    missing = [f"missing: {name}" for name in facts.missing]
    return {
        "hash": hashes.autov2 if hashes else None,
        "layers": facts.layers,
        "warnings": [facts.error] if facts.error else missing,
    }


def _lora_json(facts: FileFacts, hashes: Hashes | None) -> Json:
    return {
        "hash": hashes.autov3 if hashes else None,
        "alias": facts.alias or None,
        "rank": facts.rank,
        "trigger_words": list(facts.beside.words or facts.trigger_words),
        "tag_counts": dict(facts.tags),
        "touches": {
            "text_encoder": facts.touches_text,
            "unet": facts.touches_unet,
            "text_layers": list(facts.text_layers),
        },
        "warnings": [facts.error] if facts.error else list(facts.warnings),
    }


def _upscaler(facts: FileFacts, hashes: Hashes | None) -> Json:
    return {"hash": hashes.autov2 if hashes else None, "warnings": [facts.error] if facts.error else []}


def _embedding(facts: FileFacts, hashes: Hashes | None) -> Json:
    return {
        "hash": hashes.autov2 if hashes else None,
        "vectors": facts.vectors,
        "warnings": [facts.error] if facts.error else [],
    }


LISTS: dict[FileKind, tuple[str, Describe]] = {
    FileKind.CHECKPOINT: ("models", _model_json),
    FileKind.LORA: ("loras", _lora_json),
    FileKind.EMBEDDING: ("embeddings", _embedding),
    FileKind.UPSCALER: ("upscalers", _upscaler),
}
"""The lists, by name."""
