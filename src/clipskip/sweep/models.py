"""Checkpoints in memory: one, and more while there is room."""

import gc
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar, final

import torch

from clipskip.encode import TextReader, TextVectors, encode_text, open_text_encoder
from clipskip.errors import DamagedFile
from clipskip.sample import empty_cache, free_bytes
from clipskip.spec import Skip
from clipskip.sweep.model import Model
from clipskip.sweep.run import find_model, load_model
from clipskip.weights import CheckpointFacts, Library, read_facts

Made = TypeVar("Made")

ROOM = 3
"""How many times its file's size must be free for a checkpoint to open beside others: weights in a wider dtype, the
text encoder in float32, and what drawing needs."""


@final
class Models:
    """The facts of a library's files, and the models opened from them. `open` is for a single thread."""

    def __init__(
        self,
        library: Library,
        *,
        allow_pickle: bool = False,
        free: Callable[[torch.device], int] = free_bytes,
    ) -> None:
        self._library, self._allow_pickle, self._free = library, allow_pickle, free
        self._facts: dict[Path, CheckpointFacts] = {}
        self._open: dict[Path, Model] = {}
        self._reader: tuple[CheckpointFacts, TextReader] | None = None
        self._reading = threading.Lock()

    @property
    def current(self) -> Model | None:
        """The model used last."""
        return next(reversed(list(self._open.values())), None)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the models in memory, the one used last at the end."""
        return tuple(model.facts.ref.name for model in list(self._open.values()))

    def facts(self, name: str | None, *, hash: str | None = None) -> CheckpointFacts:
        """Return the facts of the checkpoint with this name or hash; the starter's without either."""
        path = find_model(name, hash=hash, library=self._library)
        known = self._facts.get(path)
        if known is None or not known.source.unchanged:
            known = self._facts[path] = read_facts(path, allow_pickle=self._allow_pickle)
        return known

    def open(self, facts: CheckpointFacts) -> Model:
        """Return the model that these facts describe; DamagedFile when its file has changed."""
        path = facts.source.path
        model = self._open.pop(path, None)
        if model is None or model.is_spoiled or not model.facts.source.unchanged:
            del model
            self._make_room(path)
            model = load_model(path, allow_pickle=self._allow_pickle)
        if model.facts.ref != facts.ref:
            raise DamagedFile(
                f"{path.name} had the hash {facts.ref.hash} when this was asked, and has {model.facts.ref.hash} now; ask again",
                field="model",
            )
        self._open[path] = model
        return model

    def close(self) -> None:
        """Close all models in memory. Like `open`, it is for the drawing thread, or while that waits."""
        devices = {model.device for model in self._open.values()}
        self._open.clear()
        with self._reading:
            self._reader = None
        gc.collect()
        for device in devices:
            empty_cache(device)

    def encode(self, facts: CheckpointFacts, text: str, skips: Sequence[Skip]) -> dict[Skip, TextVectors]:
        """Encode a text at each Clip Skip."""
        for skip in skips:
            facts.check(skip)
        return self.read(facts, lambda reader: encode_text(reader, text, skips))

    def read(self, facts: CheckpointFacts, use: Callable[[TextReader], Made]) -> Made:
        """Call `use` with a text encoder of its own, because the worker's may have LoRAs merged into it."""
        with self._reading:
            if self._reader is None or self._reader[0] != facts:
                self._reader = None
                self._reader = facts, open_text_encoder(facts.source.path, allow_pickle=self._allow_pickle)
            return use(self._reader[1])

    def _make_room(self, path: Path) -> None:
        """Close the others, the one used longest ago first, until there is room for one more."""
        needed = ROOM * sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]))
        while self._open:
            device = next(iter(self._open.values())).device
            if self._free(device) >= needed:
                return
            del self._open[next(iter(self._open))]
            gc.collect()
            empty_cache(device)
