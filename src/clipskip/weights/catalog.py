"""Facts about model files for lists: read once from their headers, and cached by path, size, time and inode."""

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, final

from clipskip.errors import ClipskipError
from clipskip.weights.beside import Beside, names_beside, read_beside
from clipskip.weights.embedding import count_vectors
from clipskip.weights.hashes import cache_file
from clipskip.weights.header import Header, read_header
from clipskip.weights.identify import FileKind, Identity, identify, is_lora
from clipskip.weights.lora.report import outline_lora

MOST_TAGS = 20
TOGETHER = 50
"""The number of files whose facts are written at once; this many are lost when the program is interrupted."""
MOST_ASKED = 500
"""The most paths in one query to SQLite, which takes 999."""
Tell = Callable[[int, int], None]
"""Called with the number of files whose facts are known and the number of all files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """Facts about one model file for lists and choosers. Each text is one plain line."""

    kind: FileKind | None = None
    """None where the header does not tell, as in a pickle."""
    error: str = ""
    """Why the file cannot be read; empty where it can."""
    size: int = 0
    """Size in bytes; 0 for a folder."""
    family: str | None = None
    width: int | None = None
    """Width of the text encoder: a model's own, or that of the model for which a LoRA was made."""
    layers: int | None = None
    """Number of layers in a model's first text encoder."""
    trained_clip_skip: int | None = None
    trained_clip_skip_source: str = ""
    missing: tuple[str, ...] = ()
    """What a model lacks."""
    alias: str = ""
    """The name that a LoRA's trainer gave it."""
    rank: int | None = None
    """A LoRA's largest rank."""
    touches_text: bool = False
    touches_unet: bool = False
    text_layers: tuple[int, ...] = ()
    trigger_words: tuple[str, ...] = ()
    tags: tuple[tuple[str, int], ...] = ()
    warnings: tuple[str, ...] = ()
    vectors: int | None = None
    """Number of an embedding's vectors."""
    beside: Beside = field(default_factory=Beside)


@final
class Catalog:
    """Facts about files, in memory and in the user's cache folder. A broken cache costs time and nothing else."""

    def __init__(self, store: Path | None = None) -> None:
        self._store = store
        self._known: dict[Path, tuple[str, FileFacts]] = {}
        self._reading = threading.Lock()

    def facts(self, path: Path) -> FileFacts:
        """Return the facts about one file, reading it if need be."""
        return self.of((path,))[path]

    def of(self, paths: Iterable[Path], *, tell: Tell = lambda done, of: None) -> Mapping[Path, FileFacts]:
        """Return the facts about each file, reading those that are new or changed. `tell` is called with the
        progress."""
        stamps = _stamps(paths)
        with self._reading:
            unknown = [path for path, (stamp, _) in stamps.items() if self._known.get(path, ("",))[0] != stamp]
            self._recall({path: stamps[path][0] for path in unknown})
            unread = [path for path in unknown if self._known.get(path, ("",))[0] != stamps[path][0]]
        tell(len(stamps) - len(unread), len(stamps))
        for start in range(0, len(unread), TOGETHER):
            chunk = unread[start : start + TOGETHER]
            for number, path in enumerate(chunk, start + 1):
                stamp, beside = stamps[path]
                self._known[path] = stamp, _read_facts(path, beside)
                tell(len(stamps) - len(unread) + number, len(stamps))
            self._remember(chunk)
        return {path: self._known[path][1] for path in stamps}

    @property
    def _file(self) -> Path:
        return self._store or cache_file().with_name("facts.sqlite")

    def _recall(self, stamps: Mapping[Path, str]) -> None:
        """Take over what the cache has about these files in their present state."""
        names, wanted = {os.fsencode(path): path for path in stamps}, [os.fsencode(path) for path in stamps]
        with suppress(sqlite3.Error, OSError), closing(_open_store(self._file)) as connection:
            for start in range(0, len(wanted), MOST_ASKED):
                chunk = wanted[start : start + MOST_ASKED]
                rows = connection.execute(
                    f"select path, stamp, facts from facts_1 where code = ? and path in ({','.join('?' * len(chunk))})",
                    (_code(), *chunk),
                )
                for name, stamp, text in rows:
                    facts = _from_json(text) if stamp == stamps[names[name]] else None
                    if facts is not None:
                        self._known[names[name]] = stamp, facts

    def _remember(self, paths: Sequence[Path]) -> None:
        rows = [(os.fsencode(path), self._known[path][0], _code(), _to_json(self._known[path][1])) for path in paths]
        for _ in range(2):
            try:
                with closing(_open_store(self._file)) as connection, connection:
                    connection.executemany("insert or replace into facts_1 values (?, ?, ?, ?)", rows)
                    return
            except sqlite3.OperationalError:
                return  # read-only, locked too long, or a full disk: the next run reads again
            except sqlite3.DatabaseError:
                with suppress(OSError):
                    self._file.unlink()
            except OSError:
                return


@cache
def _code() -> str:
    """Return a digest of the code that reads files; facts found by other code are discarded."""
    here, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted((*here.rglob("*.py"), *(here.parent / "spec").glob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _open_store(store: Path) -> sqlite3.Connection:
    store.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(store, timeout=10)
    connection.execute("create table if not exists facts_1 (path text primary key, stamp text, code text, facts text)")
    return connection


def _stamps(paths: Iterable[Path]) -> dict[Path, tuple[str, frozenset[str]]]:
    """Return each file's size, time and inode with those of the files beside it, and the names of those."""
    stamps_of: dict[Path, tuple[str, frozenset[str]]] = {}
    folders: dict[str, dict[str, os.DirEntry[str]]] = {}
    for path in paths:
        folder, name = os.path.split(path)  # as text: thousands of paths take a tenth of the time
        if folder not in folders:
            folders[folder] = _entries_by_name(folder)
        near = folders[folder]
        beside = [other for other in names_beside(name) if other in near]
        stamps = [_stamp(near.get(entry)) for entry in (name, *beside)]
        if path.is_dir() if name not in near else near[name].is_dir():
            stamps += [_stamp(file) for file in sorted(path.rglob("*")) if file.is_file()]
        stamps_of[path] = " ".join(stamps), frozenset(beside)
    return stamps_of


def _entries_by_name(folder: str) -> dict[str, "os.DirEntry[str]"]:
    try:
        with os.scandir(folder or ".") as entries:
            return {entry.name: entry for entry in entries}
    except OSError:
        return {}


def _stamp(file: "Path | os.DirEntry[str] | None") -> str:
    try:
        about = None if file is None else file.stat()
    except OSError:
        about = None
    return "gone" if about is None else f"{about.st_size}:{about.st_mtime_ns}:{about.st_ino}"


def _read_facts(path: Path, beside: frozenset[str]) -> FileFacts:
    return replace(
        _of_header(path), beside=read_beside(path, beside), size=path.stat().st_size if path.is_file() else 0
    )


def _of_header(path: Path) -> FileFacts:
    try:
        header = read_header(path)
        if is_lora(header):
            return _of_lora(header)
        identity = identify(header)
    except ClipskipError as error:
        return FileFacts(error=str(error))
    return _of_embedding(path) if identity.kind is FileKind.EMBEDDING else _of_model(identity)


def _of_lora(header: Header) -> FileFacts:
    outline = outline_lora(header)
    return FileFacts(
        kind=FileKind.LORA,
        family=outline.family,
        width=outline.width,
        trained_clip_skip=outline.trained_clip_skip,
        trained_clip_skip_source=outline.trained_clip_skip_source,
        alias=outline.alias,
        rank=outline.rank,
        touches_text=outline.touches_text,
        touches_unet=outline.touches_unet,
        text_layers=outline.text_layers,
        trigger_words=outline.trigger_words,
        tags=outline.tags[:MOST_TAGS],
        warnings=outline.warnings,
    )


def _of_embedding(path: Path) -> FileFacts:
    try:
        return FileFacts(kind=FileKind.EMBEDDING, vectors=count_vectors(path))
    except ClipskipError as error:
        return FileFacts(kind=FileKind.EMBEDDING, error=str(error))


def _of_model(identity: Identity) -> FileFacts:
    first = identity.encoders[0] if identity.encoders else None
    return FileFacts(
        kind=identity.kind,
        family=identity.family.label if identity.family else None,
        layers=first.layers if first else None,
        width=first.width if first else None,
        trained_clip_skip=identity.trained_clip_skip,
        missing=identity.missing,
    )


def _to_json(facts: FileFacts) -> str:
    return json.dumps(asdict(facts), ensure_ascii=False)


def _from_json(text: str) -> FileFacts | None:
    """Return the stored facts; None for a damaged row."""
    try:
        content: dict[str, Any] = json.loads(text)  # Any: as it was written
        kind, beside = content.pop("kind"), content.pop("beside")
        content["tags"] = [tuple(pair) for pair in content["tags"]]
        return FileFacts(
            kind=None if kind is None else FileKind(kind), beside=Beside(**_tuples(beside)), **_tuples(content)
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
