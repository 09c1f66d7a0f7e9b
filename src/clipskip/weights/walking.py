"""The weight files below a folder, with links followed as far as allowed."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from clipskip.errors import FileError
from clipskip.weights.diffusers_folder import INDEX

SAFE, PICKLED = (".safetensors",), (".ckpt", ".pt", ".pth", ".bin")
MOST_FILES = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryFile:
    """One file or diffusers folder of a library."""

    path: Path
    name: str
    """Path below its folder, with `/`, as A1111's titles show it."""

    @property
    def stem(self) -> str:
        """The last part of the name, without its ending."""
        last = self.name.rpartition("/")[2]
        return last.rpartition(".")[0] if self.is_weights else last

    @property
    def is_weights(self) -> bool:
        """Return whether the name has the ending of weight files; a diffusers folder's need not."""
        return _is_weights(self.name)


@dataclass(frozen=True, slots=True)
class Bounds:
    """The folders that links may lead into (paths without links), or anywhere."""

    folders: tuple[Path, ...] | None = None

    @classmethod
    def of(cls, folders: tuple[Path, ...]) -> "Bounds":
        """Return bounds that allow only these folders and what they themselves link to."""
        return cls(tuple(real for folder in folders if (real := real_path(folder)) is not None))

    def admit(self, real: Path) -> bool:
        """Return whether a link may lead to this path."""
        return self.folders is None or any(real.is_relative_to(folder) for folder in self.folders)


def walk(root: Path, bounds: Bounds, *, deep: bool = True) -> Iterator[LibraryFile]:
    """Yield weight files and diffusers folders below a root, by name. Links out of the bounds are not followed.

    A folder that links lead to twice is walked once. Without `deep`, only the root's own entries are yielded.
    """
    home = real_path(root)
    if home is None or not bounds.admit(home):
        return
    seen, count, waiting = {home}, 0, [str(home)]
    skipped = len(os.path.join(home, ""))
    while waiting:
        place = waiting.pop()
        entries = _sorted_entries(place)
        if any(entry.name == INDEX and not _leads_to(entry.is_dir) for entry in entries):
            yield LibraryFile(path=Path(place), name=place[skipped:].replace(os.sep, "/") or home.name)
            continue
        inner = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _leads_to(entry.is_dir):
                shallow = not deep and not os.path.isfile(os.path.join(entry.path, INDEX))
                inner += [] if shallow or not _enter(entry, bounds, seen) else [entry.path]
            elif _is_weights(entry.name) and _is_file(entry, bounds):
                count += 1
                if count > MOST_FILES:
                    raise FileError(f"{root} contains more than {MOST_FILES:,} model files; name a smaller folder")
                yield LibraryFile(path=Path(entry.path), name=entry.path[skipped:].replace(os.sep, "/"))
        waiting += reversed(inner)


def _sorted_entries(place: str) -> list["os.DirEntry[str]"]:
    """Return a folder's entries by name; empty where it cannot be read. Entries know their kind without another
    look."""
    try:
        with os.scandir(place) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []


def _leads_to(ask: Callable[[], bool]) -> bool:
    """Return an entry's answer; False for a link that leads in a circle."""
    try:
        return ask()
    except OSError:
        return False


def _is_weights(name: str) -> bool:
    return name.lower().endswith(SAFE + PICKLED)


def links_left_alone(root: Path, bounds: Bounds) -> Iterator[Path]:
    """Yield the linked folders and weight files below a root that are not followed because they lead out of the
    bounds."""
    home = real_path(root)
    if home is None:
        return
    if not bounds.admit(home):
        yield root
        return
    seen = {home}
    for place, folders, files in os.walk(home, followlinks=True):
        here = Path(place)
        for path in (*(here / name for name in folders), *(here / name for name in files)):
            weights = path.name in folders or path.suffix.lower() in SAFE + PICKLED
            if weights and path.is_symlink() and (real := real_path(path)) is not None and not bounds.admit(real):
                yield path
        folders[:] = [name for name in folders if not name.startswith(".") and _enter(here / name, bounds, seen)]


def real_path(path: Path) -> Path | None:
    """Return the path without links; None where it leads nowhere."""
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError):
        return None


def _enter(folder: "Path | os.DirEntry[str]", bounds: Bounds, seen: set[Path]) -> bool:
    """Return whether to walk into a folder; a linked one only within the bounds, and once."""
    if not folder.is_symlink():
        return True
    real = real_path(Path(folder))
    if real is None or real in seen or not bounds.admit(real):
        return False
    seen.add(real)
    return True


def _is_file(entry: "os.DirEntry[str]", bounds: Bounds) -> bool:
    if not entry.is_symlink():
        return _leads_to(entry.is_file)
    real = real_path(Path(entry.path))
    return real is not None and real.is_file() and bounds.admit(real)
