"""The user's model folders: they find one file by name, alias or hash, and never a file outside of them."""

import difflib
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

from clipskip.errors import NotFound, SpecError
from clipskip.spec import HubLink, parse_bare
from clipskip.weights.catalog import Catalog, FileFacts, Tell
from clipskip.weights.hashes import Progress, autov1, hash_file, known_hashes
from clipskip.weights.identify import FileKind
from clipskip.weights.walking import PICKLED, SAFE, Bounds, LibraryFile, links_left_alone, real_path, walk

VARIABLE = "CLIPSKIP_MODELS"
"""The environment variable with further folders, separated as in PATH."""
STARTER = Path(__file__).parents[1] / "starter"
"""The embedded model, named `starter`, and its LoRAs."""
LAYOUT = {
    FileKind.CHECKPOINT: ("models/Stable-diffusion", "Stable-diffusion", "models/checkpoints", "checkpoints"),
    FileKind.LORA: ("models/Lora", "Lora", "models/LyCORIS", "LyCORIS", "models/loras", "loras"),
    FileKind.EMBEDDING: ("embeddings", "models/embeddings"),
    FileKind.VAE: ("models/VAE", "VAE", "models/vae", "vae"),
    FileKind.UPSCALER: tuple(
        f"{start}{name}"
        for name in ("ESRGAN", "RealESRGAN", "upscale_models", "SwinIR", "ScuNET", "DAT")
        for start in ("models/", "")
    ),
}
"""Where A1111, Forge and ComfyUI keep each kind, below their folder."""
OPTION = {
    FileKind.CHECKPOINT: "model",
    FileKind.LORA: "lora",
    FileKind.EMBEDDING: "prompt",
    FileKind.VAE: "vae",
    FileKind.UPSCALER: "hires_upscaler",
}
LARGEST_EMBEDDING = 5_000_000
"""The most bytes of an embedding: 75 vectors of SDXL take 0.6 MB, the smallest pickled LoRA some 10 MB."""


@dataclass(frozen=True, slots=True)
class Library:
    """The folders in which models, LoRAs and embeddings are searched, in order; the first that has a name wins."""

    folders: tuple[Path, ...]
    names_only: bool = False
    """For clients that may not reach other folders: paths are not accepted, and no answer tells where the folders
    are."""
    allowed: tuple[Path, ...] = ()
    """With `names_only`, other folders that links may lead to; without it, links may lead anywhere."""
    catalog: Catalog = field(default_factory=Catalog, compare=False)
    """The facts read from the files' headers."""

    @classmethod
    def of_user(cls, folders: Sequence[str | Path] = ()) -> "Library":
        """Return a library of the given folders, those of CLIPSKIP_MODELS, the folder of fetched models and the
        starter."""
        named = [Path(text) for text in os.environ.get(VARIABLE, "").split(os.pathsep) if text]
        own = [own_folder()] if own_folder().is_dir() else []
        return cls((*(Path(folder).expanduser() for folder in (*folders, *named)), *own, STARTER))

    def files(self, kind: FileKind) -> tuple[LibraryFile, ...]:
        """Return all files of a kind, in the folders' order and then by name."""
        return tuple(file for folder in self.folders for file in self._of_kind(folder, kind))

    def facts(self, files: Iterable[LibraryFile]) -> Mapping[Path, FileFacts]:
        """Return the facts of these files by their paths."""
        return self.catalog.of(file.path for file in files)

    def read(self, tell: Tell = lambda done, of: None) -> Mapping[FileKind, list[tuple[LibraryFile, FileFacts]]]:
        """Return every file of each kind with its facts, in the order of `files`, from one walk through the folders.

        `tell` is called with the progress.
        """
        sorted_files = {
            (folder, kind): list(_sorted_in(folder, kind, self._bounds)) for folder in self.folders for kind in LAYOUT
        }
        loose = {folder: list(_loose(folder, self._bounds)) for folder in self.folders}
        facts = self.catalog.of(
            {file.path: None for files in (*sorted_files.values(), *loose.values()) for file in files}, tell=tell
        )

        def of_kind(kind: FileKind) -> Iterator[LibraryFile]:
            for folder in self.folders:
                yield from sorted_files[folder, kind]
                yield from (file for file in loose[folder] if _kind_in_library(file, facts[file.path]) is kind)

        return {kind: [(file, facts[file.path]) for file in of_kind(kind)] for kind in LAYOUT}

    def find(self, name: str, kind: FileKind, *, allow_path: bool = True, progress: Progress | None = None) -> Path:
        """Find the file meant by a path, name, stem, alias or hash of 8 to 64 digits; NotFound says where it was
        searched.

        With `allow_path` False only names count, and none leads out of the folders. Files are hashed only for a hash
        that is not in the cache.
        """
        path = Path(name).expanduser() if "\0" not in name else Path()
        looks_like_path = os.sep in name or name.startswith("~") or path.suffix.lower() in SAFE + PICKLED
        if allow_path and not self.names_only and name and looks_like_path and os.path.exists(path):
            return path
        if allow_path and not self.names_only and (name.startswith(("/", "~", "./", "../"))):
            raise NotFound(f"the file {name} does not exist; check the path", field=OPTION[kind])
        title = re.fullmatch(r"(.+?)\s*\[[0-9a-fA-F]{8,64}\]", name)
        bare = title[1] if title else name
        match = self._by_name(bare, kind) or self._by_alias(bare, kind)
        if match is None and re.fullmatch(r"[0-9a-fA-F]{8,64}", name):
            match = self.find_hash(name, kind, progress=progress)
        if match is None:
            raise NotFound(self._nowhere(name, kind), field=OPTION[kind])
        return match

    def named_in(self, text: str, kind: FileKind) -> tuple[LibraryFile, ...]:
        """Return the files whose names occur in a text, in any case and spacing; of equal names, the first folder's."""
        words = "".join(fold(text).split())

        def named_here(files: Iterable[LibraryFile]) -> list[LibraryFile]:
            return [file for file in files if "".join(fold(file.stem).split()) in words]

        files: list[LibraryFile] = []
        for folder in self.folders:
            files += named_here(_sorted_in(folder, kind, self._bounds))
            files += self._kept(named_here(_loose(folder, self._bounds)), kind)
        named = {file.stem: file for file in reversed(files)}
        return tuple(named[stem] for stem in sorted(named))

    def find_hash(
        self, digits: str, kind: FileKind, *, likely: str = "", progress: Progress | None = None
    ) -> Path | None:
        """Find the file that has these 8 to 64 digits as a hash.

        Unknown hashes are computed, for files with the likely name first and then for small files before large ones.
        """
        candidates = [file for file in self.files(kind) if not file.path.is_dir()]
        likely_stem, unknown = fold(Path(likely).name), []
        ordered = sorted(
            candidates, key=lambda f: (likely_stem not in (fold(f.stem), fold(f.path.name)), _size_bytes(f.path))
        )
        hashes = known_hashes(file.path for file in ordered)
        for path in (file.path for file in ordered):
            known = hashes.get(path)
            if known is not None and known.matches(digits):
                return path
            if len(digits) == 8 and autov1(path) == digits.lower():
                return path
            unknown += [path] if known is None else []
        for path in unknown:
            if hash_file(path, progress=progress).matches(digits):
                return path
        return None

    def _by_name(self, name: str, kind: FileKind) -> Path | None:
        """Find a file by name, trying exact spellings in all folders before other cases, slashes and Unicode forms."""
        for plain in (str, fold):
            for folder in self.folders:
                hits = [file for file in self._below(folder, kind) if plain(name) in map(plain, _file_names(file))]
                chosen = self._choose(hits, name, kind)
                if chosen is not None:
                    return chosen
        return None

    def _by_alias(self, name: str, kind: FileKind) -> Path | None:
        """Find a LoRA by the name that its trainer gave it; NotFound where several have it."""
        for folder in self.folders if kind is FileKind.LORA else ():
            files = tuple(self._of_kind(folder, kind))
            facts = self.facts(files)
            chosen = self._choose([file for file in files if fold(facts[file.path].alias) == fold(name)], name, kind)
            if chosen is not None:
                return chosen
        return None

    @property
    def left_alone(self) -> tuple[Path, ...]:
        """The links in its folders that are not followed."""
        roots = [
            root
            for folder in self.folders
            for root in (
                [folder / p for parts in LAYOUT.values() for p in parts] if _sorted_by_kind(folder) else [folder]
            )
        ]
        return tuple(dict.fromkeys(link for root in roots for link in links_left_alone(root, self._bounds)))

    @property
    def _bounds(self) -> Bounds:
        return Bounds.of((*self.folders, *self.allowed)) if self.names_only else Bounds()

    def _below(self, folder: Path, kind: FileKind) -> Iterator[LibraryFile]:
        """Yield the files that could be of a kind, judged by name alone."""
        yield from _sorted_in(folder, kind, self._bounds)
        yield from _loose(folder, self._bounds)

    def _of_kind(self, folder: Path, kind: FileKind) -> Iterator[LibraryFile]:
        """Yield the files of a kind, judged by their subfolder or else by their header."""
        yield from _sorted_in(folder, kind, self._bounds)
        yield from self._kept(list(_loose(folder, self._bounds)), kind)

    def _kept(self, files: Sequence[LibraryFile], kind: FileKind) -> Iterator[LibraryFile]:
        """Yield the files of a kind, judged by their headers."""
        facts = self.facts(files)
        return (file for file in files if _kind_in_library(file, facts[file.path]) is kind)

    def _choose(self, hits: Sequence[LibraryFile], name: str, kind: FileKind) -> Path | None:
        """Return the file that is meant: safetensors before pickles, then files of the kind; NotFound where several
        remain."""
        hits = list({real_path(file.path) or file.path: file for file in reversed(hits)}.values())[::-1]
        if len(hits) > 1:
            hits = [file for file in hits if file.path.suffix.lower() not in PICKLED] or hits
        if len(hits) > 1:
            facts = self.facts(hits)
            hits = [file for file in hits if facts[file.path].kind is kind] or hits
        if len(hits) > 1:
            names = ", ".join(file.name for file in hits[:4])
            raise NotFound(f"{name!r} could be any of {names}; write one of these in full", field=OPTION[kind])
        return hits[0].path if hits else None

    def _nowhere(self, name: str, kind: FileKind) -> str:
        places = ", ".join(str(folder) for folder in self.folders if folder != STARTER) or "the embedded starter"
        known = {fold(file.stem): file.stem for file in self.files(kind)}
        near = [known[key] for key in difflib.get_close_matches(fold(Path(name).stem), known, n=3)]
        if self.names_only:
            places = "the model folders"
        elsewhere = "put it there" if self.names_only else f"give its path, or name its folder in {VARIABLE}"
        hint = f"similar names: {', '.join(near)}" if near else elsewhere
        if self.names_only and any(fold(link.stem) == fold(Path(name).stem) for link in self.left_alone):
            hint = "a link of that name leads out of the model folders, so it is not followed"
        what = "model" if kind is FileKind.CHECKPOINT else str(kind)
        fetch = "" if self.names_only else _where_else(name)
        return f"no {what} called {name[:120]!r} in {places}; {hint}{fetch}"


def _where_else(name: str) -> str:
    """Return the command that would get what a name means elsewhere: a hash, a version's number, owner/repo."""
    try:
        link = parse_bare(name)
    except SpecError:  # the hash of an empty file
        return ""
    if link is None or (isinstance(link, HubLink) and not link.file and Path(name).suffix.lower() in (*SAFE, *PICKLED)):
        return ""
    host = "Hugging Face" if isinstance(link, HubLink) else "Civitai"
    return f"; --fetch, or clipskip fetch {name[:120]}, looks for it on {host}"


def own_folder() -> Path:
    """Return the folder for fetched models when no other is named: the user's data folder."""
    return Path(platformdirs.user_data_dir("clipskip")) / "models"


def fold(name: str) -> str:
    """Normalise a name's case, Unicode form and slashes, on which keyboards and file systems disagree."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).replace("\\", "/")


def _file_names(file: LibraryFile) -> tuple[str, ...]:
    """Return every name by which a file can be found."""
    bare = file.name[: -len(file.path.suffix)] if file.is_weights else file.name
    return file.name, bare, Path(file.name).name, file.stem


def _sorted_in(folder: Path, kind: FileKind, bounds: Bounds) -> Iterator[LibraryFile]:
    """Yield the files in the subfolders for a kind; a VAE may also be among the checkpoints, named after one."""
    for root in _layout(folder, kind):
        yield from (file for file in walk(root, bounds) if kind is FileKind.VAE or not _is_beside(file))
    for root in _layout(folder, FileKind.CHECKPOINT) if kind is FileKind.VAE else ():
        yield from filter(_is_beside, walk(root, bounds))


def _is_beside(file: LibraryFile) -> bool:
    """Return whether its name makes it the VAE of a checkpoint."""
    return file.is_weights and file.stem.lower().endswith(".vae")


def _loose(folder: Path, bounds: Bounds) -> Iterator[LibraryFile]:
    """Yield the files whose place does not tell their kind."""
    return walk(folder, bounds, deep=not _sorted_by_kind(folder))


def _layout(folder: Path, kind: FileKind) -> tuple[Path, ...]:
    """Return the existing subfolders in which web UIs keep a kind."""
    return tuple(folder / part for part in LAYOUT.get(kind, ()) if os.path.isdir(folder / part))


def _sorted_by_kind(folder: Path) -> bool:
    """Return whether a folder is laid out like A1111's or ComfyUI's."""
    return any(os.path.isdir(folder / part) for parts in LAYOUT.values() for part in parts)


def _kind_in_library(file: LibraryFile, facts: FileFacts) -> FileKind | None:
    return facts.kind or _pickled_kind(file.path)


def _pickled_kind(path: Path) -> FileKind | None:
    """Return the likely kind of a pickle, which is not opened for this, by its size; None for a damaged file."""
    if path.suffix.lower() not in PICKLED:
        return None
    return FileKind.EMBEDDING if _size_bytes(path) < LARGEST_EMBEDDING else FileKind.CHECKPOINT


def _size_bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
