"""The user's model folders: a name, an alias or a hash in, the path of one file out, and never one outside them."""

import difflib
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

from clipskip.errors import NotFound
from clipskip.weights.catalog import Catalog, FileFacts, Tell
from clipskip.weights.hashes import Progress, autov1, hash_file, known_hashes
from clipskip.weights.identify import FileKind
from clipskip.weights.walking import PICKLED, SAFE, Bounds, Found, links_left_alone, real_path, walk

VARIABLE = "CLIPSKIP_MODELS"
"""Environment variable: more folders, separated as in PATH."""
STARTER = Path(__file__).parents[1] / "starter"
"""The embedded model, found by the name `starter`, and its LoRAs."""
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
"""Bytes; 75 vectors of SDXL take 0.6 MB, the smallest LoRA that is pickled some 10 MB."""


@dataclass(frozen=True, slots=True)
class Library:
    """Folders that models, LoRAs and embeddings are looked for in, in their order; the first that has a name wins."""

    folders: tuple[Path, ...]
    names_only: bool = False
    """For askers who may not reach into other folders: no path counts, and no answer tells where the folders are."""
    allowed: tuple[Path, ...] = ()
    """With `names_only`: folders beside its own that links may lead to. Else links lead anywhere."""
    catalog: Catalog = field(default_factory=Catalog, compare=False)
    """What is known of the files' headers."""

    @classmethod
    def of_user(cls, folders: Sequence[str | Path] = ()) -> "Library":
        """The folders given, those of the environment variable CLIPSKIP_MODELS, the folder of fetched models, and the
        embedded starter."""
        named = [Path(text) for text in os.environ.get(VARIABLE, "").split(os.pathsep) if text]
        own = [own_folder()] if own_folder().is_dir() else []
        return cls((*(Path(folder).expanduser() for folder in (*folders, *named)), *own, STARTER))

    def files(self, kind: FileKind) -> tuple[Found, ...]:
        """All files of a kind, in the folders' order, then by name."""
        return tuple(found for folder in self.folders for found in self._of_kind(folder, kind))

    def facts(self, files: Iterable[Found]) -> Mapping[Path, FileFacts]:
        """What the headers of these files say, by their paths."""
        return self.catalog.of(found.path for found in files)

    def read(self, tell: Tell = lambda done, of: None) -> Mapping[FileKind, list[tuple[Found, FileFacts]]]:
        """Every file of each kind with its facts, in the order of `files`, in one walk through the folders. `tell` hears
        how far it is."""
        kept = {
            (folder, kind): list(_sorted_in(folder, kind, self._bounds)) for folder in self.folders for kind in LAYOUT
        }
        loose = {folder: list(_loose(folder, self._bounds)) for folder in self.folders}
        facts = self.catalog.of(
            {found.path: None for some in (*kept.values(), *loose.values()) for found in some}, tell=tell
        )

        def of_kind(kind: FileKind) -> Iterator[Found]:
            for folder in self.folders:
                yield from kept[folder, kind]
                yield from (found for found in loose[folder] if _kind_of(found, facts[found.path]) is kind)

        return {kind: [(found, facts[found.path]) for found in of_kind(kind)] for kind in LAYOUT}

    def find(self, name: str, kind: FileKind, *, allow_path: bool = True, progress: Progress | None = None) -> Path:
        """The file meant by a path, name, stem, alias or hash of 8 to 64 digits; NotFound says where it was looked for.

        With `allow_path` false only names count, and none of them leads out of the folders. Files are hashed only for a
        hash that is not known yet.
        """
        path = Path(name).expanduser() if "\0" not in name else Path()
        looks_like_path = os.sep in name or name.startswith("~") or path.suffix.lower() in SAFE + PICKLED
        if allow_path and not self.names_only and name and looks_like_path and os.path.exists(path):
            return path
        if allow_path and not self.names_only and (name.startswith(("/", "~", "./", "../"))):
            raise NotFound(f"there is no file {name}; check the path", field=OPTION[kind])
        title = re.fullmatch(r"(.+?)\s*\[[0-9a-fA-F]{8,64}\]", name)
        wanted = title[1] if title else name
        found = self._by_name(wanted, kind) or self._by_alias(wanted, kind)
        if found is None and re.fullmatch(r"[0-9a-fA-F]{8,64}", name):
            found = self.find_hash(name, kind, progress=progress)
        if found is None:
            raise NotFound(self._nowhere(name, kind), field=OPTION[kind])
        return found

    def named_in(self, text: str, kind: FileKind) -> tuple[Found, ...]:
        """The files whose names a text may hold, whatever its case and spaces; of a name, the first folder's."""
        words = "".join(fold(text).split())

        def named_here(files: Iterable[Found]) -> list[Found]:
            return [found for found in files if "".join(fold(found.stem).split()) in words]

        files: list[Found] = []
        for folder in self.folders:
            files += named_here(_sorted_in(folder, kind, self._bounds))
            files += self._kept(named_here(_loose(folder, self._bounds)), kind)
        named = {found.stem: found for found in reversed(files)}
        return tuple(named[stem] for stem in sorted(named))

    def find_hash(
        self, digits: str, kind: FileKind, *, likely: str = "", progress: Progress | None = None
    ) -> Path | None:
        """The file of which these 8 to 64 digits are a hash.

        Hashes not known yet are computed: of files with the likely name first, then of small ones before large.
        """
        candidates = [found for found in self.files(kind) if not found.path.is_dir()]
        wanted, unknown = fold(Path(likely).name), []
        ordered = sorted(candidates, key=lambda f: (wanted not in (fold(f.stem), fold(f.path.name)), _size(f.path)))
        hashes = known_hashes(found.path for found in ordered)
        for path in (found.path for found in ordered):
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
        """Exact spellings in any folder before those that differ in case or Unicode form."""
        for plain in (str, fold):
            for folder in self.folders:
                hits = [found for found in self._below(folder, kind) if plain(name) in map(plain, _spellings(found))]
                chosen = self._one(hits, name, kind)
                if chosen is not None:
                    return chosen
        return None

    def _by_alias(self, name: str, kind: FileKind) -> Path | None:
        """A LoRA by the name that its trainer gave it."""
        if kind is not FileKind.LORA:
            return None
        files = self.files(kind)
        facts = self.facts(files)
        return next((one.path for one in files if fold(facts[one.path].alias) == fold(name)), None)

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

    def _below(self, folder: Path, kind: FileKind) -> Iterator[Found]:
        """The files that could be of a kind, by name alone."""
        yield from _sorted_in(folder, kind, self._bounds)
        yield from _loose(folder, self._bounds)

    def _of_kind(self, folder: Path, kind: FileKind) -> Iterator[Found]:
        """The files of a kind: by the subfolder that they are in, elsewhere by what they are."""
        yield from _sorted_in(folder, kind, self._bounds)
        yield from self._kept(list(_loose(folder, self._bounds)), kind)

    def _kept(self, files: Sequence[Found], kind: FileKind) -> Iterator[Found]:
        """Those of a kind, by what they are."""
        facts = self.facts(files)
        return (found for found in files if _kind_of(found, facts[found.path]) is kind)

    def _one(self, hits: Sequence[Found], name: str, kind: FileKind) -> Path | None:
        """The one file meant: safetensors before pickles, then those of the kind; NotFound when there are still several."""
        hits = list({real_path(found.path) or found.path: found for found in reversed(hits)}.values())[::-1]
        if len(hits) > 1:
            hits = [found for found in hits if found.path.suffix.lower() not in PICKLED] or hits
        if len(hits) > 1:
            facts = self.facts(hits)
            hits = [found for found in hits if facts[found.path].kind is kind] or hits
        if len(hits) > 1:
            names = ", ".join(found.name for found in hits[:4])
            raise NotFound(f"{name!r} could be any of {names}; write one of these in full", field=OPTION[kind])
        return hits[0].path if hits else None

    def _nowhere(self, name: str, kind: FileKind) -> str:
        places = ", ".join(str(folder) for folder in self.folders if folder != STARTER) or "the embedded starter"
        known = {fold(found.stem): found.stem for found in self.files(kind)}
        near = [known[key] for key in difflib.get_close_matches(fold(Path(name).stem), known, n=3)]
        if self.names_only:
            places = "the model folders"
        elsewhere = "put it there" if self.names_only else f"give its path, or name its folder in {VARIABLE}"
        hint = f"near names: {', '.join(near)}" if near else elsewhere
        if self.names_only and any(fold(link.stem) == fold(Path(name).stem) for link in self.left_alone):
            hint = "a link of that name leads out of the model folders, and is not followed"
        what = "model" if kind is FileKind.CHECKPOINT else str(kind)
        return f"no {what} called {name[:120]!r} in {places}; {hint}"


def own_folder() -> Path:
    """Where fetched models are kept when no folder is named: the user's data folder."""
    return Path(platformdirs.user_data_dir("clipskip")) / "models"


def fold(name: str) -> str:
    """A name without what keyboards and file systems disagree on: case and Unicode form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _spellings(found: Found) -> tuple[str, ...]:
    """Every name that a file answers to."""
    bare = found.name[: -len(found.path.suffix)] if found.is_weights else found.name
    return found.name, bare, Path(found.name).name, found.stem


def _sorted_in(folder: Path, kind: FileKind, bounds: Bounds) -> Iterator[Found]:
    """The files in the subfolders that are for a kind; a VAE may also be in the checkpoints', named after one."""
    for root in _layout(folder, kind):
        yield from (found for found in walk(root, bounds) if kind is FileKind.VAE or not _is_beside(found))
    for root in _layout(folder, FileKind.CHECKPOINT) if kind is FileKind.VAE else ():
        yield from filter(_is_beside, walk(root, bounds))


def _is_beside(found: Found) -> bool:
    """Whether it is the VAE of a checkpoint by its name."""
    return found.is_weights and found.stem.lower().endswith(".vae")


def _loose(folder: Path, bounds: Bounds) -> Iterator[Found]:
    """The files whose place does not say of what kind they are."""
    return walk(folder, bounds, deep=not _sorted_by_kind(folder))


def _layout(folder: Path, kind: FileKind) -> tuple[Path, ...]:
    """The subfolders that a web UI keeps a kind in."""
    return tuple(folder / part for part in LAYOUT.get(kind, ()) if os.path.isdir(folder / part))


def _sorted_by_kind(folder: Path) -> bool:
    """Whether a folder is laid out as A1111's or ComfyUI's is."""
    return any(os.path.isdir(folder / part) for parts in LAYOUT.values() for part in parts)


def _kind_of(found: Found, facts: FileFacts) -> FileKind | None:
    return facts.kind or _pickled_kind(found.path)


def _pickled_kind(path: Path) -> FileKind | None:
    """What a pickle, which is not opened for this, is likely to be by its size; None for a damaged file."""
    if path.suffix.lower() not in PICKLED:
        return None
    return FileKind.EMBEDDING if _size(path) < LARGEST_EMBEDDING else FileKind.CHECKPOINT


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
