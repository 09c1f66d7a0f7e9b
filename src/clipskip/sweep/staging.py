"""Files that the nodes of a Ray cluster need: used where a node has the same content at the same path, else sent through
Ray's object store once a node and verified by hash."""

import hashlib
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from filelock import FileLock

from clipskip.errors import ClipskipError, DamagedFile
from clipskip.weights import hash_file, read_facts

try:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError:
    ray = None

CHUNK = 64 * 2**20
"""Bytes of a file in one object of the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A file that workers need, with its hash and, for nodes that lack it, its content."""

    path: Path
    sha256: str
    beside: bytes | None = None
    """The .yaml of its name, which may say how a checkpoint predicts."""
    chunks: tuple[Any, ...] = ()  # Ray's references

    @classmethod
    def of(cls, path: Path, *, sha256: str = "") -> "Staged":
        """Return the file with its hash. A link keeps its own name, which pictures record."""
        path, beside = path.absolute(), path.with_suffix(".yaml")
        content = beside.read_bytes() if beside.is_file() else None
        return cls(path=path, sha256=sha256 or hash_file(path).sha256, beside=content)

    @property
    def is_here(self) -> bool:
        """Return whether this node has the same content at the same path."""
        try:
            if self.path.is_dir():
                return read_facts(self.path).source.sha256 == self.sha256
            return self.path.is_file() and hash_file(self.path).sha256 == self.sha256
        except ClipskipError:
            return False

    def here(self) -> Path:
        """Return the file on this node: the same path, or a copy that was written from the store."""
        if self.is_here:
            return self.path
        if not self.chunks:
            raise DamagedFile(
                f"{self.path} is missing on {socket.gethostname()}, or has other content there; copy it to the same path"
            )
        folder = Path(platformdirs.user_cache_dir("clipskip")) / "staged" / self.sha256[:16]
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / self.path.name
        with FileLock(f"{place}.lock"):
            if not place.is_file():
                self._write(place)
        return place

    def _write(self, place: Path) -> None:
        scratch, digest = place.with_name(f"{place.name}.part"), hashlib.sha256()
        with open(scratch, "wb") as file:
            for chunk in self.chunks:
                piece = ray.get(chunk).tobytes()
                digest.update(piece)
                file.write(piece)
        if digest.hexdigest() != self.sha256:
            scratch.unlink()
            raise DamagedFile(f"{self.path.name} arrived damaged on {socket.gethostname()}; run the sweep again")
        if self.beside is not None:
            place.with_suffix(".yaml").write_bytes(self.beside)
        scratch.replace(place)


def with_content(files: Sequence[Staged]) -> dict[Path, Staged]:
    """Return the files by their paths, with the content of those that a node of the cluster lacks in Ray's store."""
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    lacking: set[Path] = set()
    if len(nodes) > 1:
        ask = ray.remote(num_cpus=0)(_lacking)
        strategies = [NodeAffinitySchedulingStrategy(node, soft=True) for node in nodes]
        answers = [ask.options(scheduling_strategy=strategy).remote(list(files)) for strategy in strategies]
        lacking = {path for answer in ray.get(answers) for path in answer}
    return {file.path: _put(file) if file.path in lacking else file for file in files}


def _lacking(files: Sequence[Staged]) -> list[Path]:
    """Return the paths that this node does not have as they were where the sweep began."""
    return [file.path for file in files if not file.is_here]


def _put(file: Staged) -> Staged:
    if file.path.is_dir():
        raise DamagedFile(f"a node of the cluster lacks the folder {file.path}; copy it there, or give a single file")
    chunks = []
    with open(file.path, "rb") as content:
        while piece := content.read(CHUNK):
            chunks.append(ray.put(np.frombuffer(piece, np.uint8)))
    return replace(file, chunks=tuple(chunks))
