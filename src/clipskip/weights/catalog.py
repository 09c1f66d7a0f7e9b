"""What lists show of model files, read from their headers once and kept by path, size, time and inode over restarts."""

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
"""Files whose facts are written at once: what is lost where somebody interrupts."""
MOST_ASKED = 500
"""Paths in one question to SQLite, which takes 999."""
Tell = Callable[[int, int], None]
"""Called with how many files' facts are known, and how many are wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """What lists and choosers show of one model file. All text is one plain line."""

    kind: FileKind | None = None
    """None where the header does not say, as a pickle's."""
    error: str = ""
    """Why the file cannot be read; empty where it can."""
    size: int = 0
    """Bytes; 0 of a folder."""
    family: str | None = None
    width: int | None = None
    """Numbers per token of the text encoder: a model's own, or the one that a LoRA was made for."""
    layers: int | None = None
    """Of a model's first text encoder."""
    trained_clip_skip: int | None = None
    trained_clip_skip_source: str = ""
    missing: tuple[str, ...] = ()
    """What a model lacks."""
    alias: str = ""
    """A LoRA's name by its trainer."""
    rank: int | None = None
    """A LoRA's largest."""
    touches_text: bool = False
    touches_unet: bool = False
    text_layers: tuple[int, ...] = ()
    trigger_words: tuple[str, ...] = ()
    tags: tuple[tuple[str, int], ...] = ()
    warnings: tuple[str, ...] = ()
    vectors: int | None = None
    """An embedding's."""
    beside: Beside = field(default_factory=Beside)


@final
class Catalog:
    """Facts of files, in memory and in the user's cache folder. A cache that cannot be used costs time, nothing else."""

    def __init__(self, store: Path | None = None) -> None:
        self._store = store
        self._known: dict[Path, tuple[str, FileFacts]] = {}
        self._reading = threading.Lock()

    def facts(self, path: Path) -> FileFacts:
        """What is known of one file, reading it if need be."""
        return self.of((path,))[path]

    def of(self, paths: Iterable[Path], *, tell: Tell = lambda done, of: None) -> Mapping[Path, FileFacts]:
        """What is known of each of these files; those that are new or were changed are read. `tell` hears how far it is."""
        stamps = _stamps(paths)
        with self._reading:
            unknown = [path for path, (stamp, _) in stamps.items() if self._known.get(path, ("",))[0] != stamp]
            self._recall({path: stamps[path][0] for path in unknown})
            unread = [path for path in unknown if self._known.get(path, ("",))[0] != stamps[path][0]]
        tell(len(stamps) - len(unread), len(stamps))
        for start in range(0, len(unread), TOGETHER):
            some = unread[start : start + TOGETHER]
            for number, path in enumerate(some, start + 1):
                stamp, beside = stamps[path]
                self._known[path] = stamp, _read(path, beside)
                tell(len(stamps) - len(unread) + number, len(stamps))
            self._remember(some)
        return {path: self._known[path][1] for path in stamps}

    @property
    def _file(self) -> Path:
        return self._store or cache_file().with_name("facts.sqlite")

    def _recall(self, stamps: Mapping[Path, str]) -> None:
        """Takes over what the cache has of these files as they are now."""
        names, wanted = {os.fsencode(path): path for path in stamps}, [os.fsencode(path) for path in stamps]
        with suppress(sqlite3.Error, OSError), closing(_open(self._file)) as connection:
            for start in range(0, len(wanted), MOST_ASKED):
                some = wanted[start : start + MOST_ASKED]
                rows = connection.execute(
                    f"select path, stamp, facts from facts_1 where code = ? and path in ({','.join('?' * len(some))})",
                    (_code(), *some),
                )
                for name, stamp, text in rows:
                    facts = _from_json(text) if stamp == stamps[names[name]] else None
                    if facts is not None:
                        self._known[names[name]] = stamp, facts

    def _remember(self, paths: Sequence[Path]) -> None:
        rows = [(os.fsencode(path), self._known[path][0], _code(), _to_json(self._known[path][1])) for path in paths]
        for _ in range(2):
            try:
                with closing(_open(self._file)) as connection, connection:
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
    """A digest of the code that reads files: facts that other code found are not believed."""
    here, found = Path(__file__).parent, hashlib.sha256()
    for path in sorted((*here.rglob("*.py"), *(here.parent / "spec").glob("*.py"))):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def _open(store: Path) -> sqlite3.Connection:
    store.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(store, timeout=10)
    connection.execute("create table if not exists facts_1 (path text primary key, stamp text, code text, facts text)")
    return connection


def _stamps(paths: Iterable[Path]) -> dict[Path, tuple[str, frozenset[str]]]:
    """Each file's size, time and inode with those of what lies beside it, and the names of that."""
    found: dict[Path, tuple[str, frozenset[str]]] = {}
    folders: dict[str, dict[str, os.DirEntry[str]]] = {}
    for path in paths:
        folder, name = os.path.split(path)  # as text: thousands of paths take a tenth of the time
        if folder not in folders:
            folders[folder] = _entries(folder)
        near = folders[folder]
        beside = [other for other in names_beside(name) if other in near]
        stamps = [_stamp(near.get(one)) for one in (name, *beside)]
        if path.is_dir() if name not in near else near[name].is_dir():
            stamps += [_stamp(file) for file in sorted(path.rglob("*")) if file.is_file()]
        found[path] = " ".join(stamps), frozenset(beside)
    return found


def _entries(folder: str) -> dict[str, "os.DirEntry[str]"]:
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


def _read(path: Path, beside: frozenset[str]) -> FileFacts:
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
    """The facts again; None for a row that is damaged."""
    try:
        found: dict[str, Any] = json.loads(text)  # Any: as it was written
        kind, beside = found.pop("kind"), found.pop("beside")
        found["tags"] = [tuple(pair) for pair in found["tags"]]
        return FileFacts(
            kind=None if kind is None else FileKind(kind), beside=Beside(**_tuples(beside)), **_tuples(found)
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
