"""A link to a file on this machine: searched here first, then fetched, verified and put into its kind's folder."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from clipskip.errors import FetchError
from clipskip.fetch.civitai import Civitai, refused
from clipskip.fetch.download import Progress, download, write_beside
from clipskip.fetch.hub import fetch_from_hub
from clipskip.fetch.places import folder_for
from clipskip.fetch.remote import RemoteFile
from clipskip.fetch.web import Wait
from clipskip.spec import CivitaiLink, HubLink, Link
from clipskip.weights import FileKind, Library, civitai_ids, hash_file, identify, read_header

CARD_ENDING = ".civitai.info"
"""Civitai Helper's ending for a version's description beside its file, which other tools read too."""
SHOWN_KINDS = (FileKind.CHECKPOINT, FileKind.LORA, FileKind.VAE, FileKind.EMBEDDING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A model from a link, on this machine."""

    path: Path
    title: str
    was_here: bool = False
    """Whether nothing had to be fetched."""
    notes: tuple[str, ...] = ()


def fetch(
    link: Link,
    *,
    library: Library,
    kind: FileKind | None = None,
    allow_pickle: bool = False,
    progress: Progress | None = None,
    wait: Wait = time.sleep,
) -> Fetched:
    """Return the file that a link means, fetching it if it is not here yet.

    `kind` is its intended use; a file of another kind is an error before anything is fetched. `wait` sleeps between
    attempts.
    """
    if isinstance(link, HubLink):
        path = fetch_from_hub(link, allow_pickle=allow_pickle)
        _check_kind(path, kind, link)
        return Fetched(path=path, title=str(link))
    here = _fetched_before(link, library)
    if here is not None and link.version_id is not None:
        return Fetched(path=here, title=here.stem, was_here=True)
    civitai = Civitai(red_first=link.red, wait=wait)
    try:
        try:
            file = civitai.find(link, kind=kind, allow_pickle=allow_pickle)
        except FetchError as error:
            if here is None:
                raise
            return Fetched(path=here, title=here.stem, was_here=True, notes=(f"the version here is used: {error}",))
        place = _place(file, folder_for(file.kind, library.folders))
        was_here = place.exists()
        if not was_here:
            _download(civitai, file, place, progress=progress)
            _check_hash(place, file)
        card = place.with_suffix(CARD_ENDING)
        if not card.exists():
            write_beside(card, json.dumps(file.card, indent=2, ensure_ascii=False))
        return Fetched(path=place, title=file.title, was_here=was_here, notes=file.notes)
    finally:
        civitai.close()


def _download(civitai: Civitai, file: RemoteFile, place: Path, *, progress: Progress | None) -> None:
    """Download the file; Civitai's storage sometimes fails with a passing 404, so that is tried twice."""
    web = civitai.web_for(file)
    refusal = download(file, web, place, progress=progress)
    if refusal is not None and refusal.status == 404:
        web.pause()
        refusal = download(file, web, place, progress=progress)
    if refusal is not None:
        raise refused(refusal, file.title, [web.host], has_token=web.has_token)


def _check_hash(place: Path, file: RemoteFile) -> None:
    """Raise FetchError for a file that was asked for by a hash which it does not have."""
    hashes = hash_file(place)
    if file.hash and not hashes.matches(file.hash):
        place.unlink()
        raise FetchError(
            f"{file.title} has the hashes {hashes.autov2} and {hashes.autov3}, not {file.hash}, and was removed; give the link of "
            "the model",
            field="link",
        )


def _place(file: RemoteFile, folder: Path) -> Path:
    """Return its path in the folder: its own name, with the version's number where another file has that name."""
    place = folder / file.name
    if place.exists() and not (file.sha256 and hash_file(place).sha256 == file.sha256):
        place = folder / f"{Path(file.name).stem}-{file.card.get('id')}{Path(file.name).suffix}"
    if place.exists() and file.sha256 and hash_file(place).sha256 != file.sha256:
        raise FetchError(f"{place} already exists with other content; rename it, and fetch again", field="link")
    return place


def _fetched_before(link: CivitaiLink, library: Library) -> Path | None:
    """Return the file that the side files here identify as this version, or as one of this model."""
    for folder in library.folders:
        for place, _, names in os.walk(folder):
            for name in names:
                if name.endswith(CARD_ENDING):
                    model_id, version_id = civitai_ids(Path(place) / name)
                    same = version_id == link.version_id if link.version_id else model_id == link.model_id
                    if same and version_id is not None and link.file_id is None and not link.hash:
                        beside = Path(place) / name.removesuffix(CARD_ENDING)
                        models = [
                            path for path in beside.parent.glob("*.*") if path.stem == beside.name and _is_model(path)
                        ]
                        if models:
                            return models[0]
    return None


def _is_model(path: Path) -> bool:
    return path.suffix.lower() in (".safetensors", ".ckpt", ".pt", ".pth", ".bin")


def _check_kind(path: Path, kind: FileKind | None, link: HubLink) -> None:
    if kind is None or path.suffix.lower() in (".ckpt", ".pt", ".pth", ".bin"):
        return
    actual_kind = identify(read_header(path)).kind
    if actual_kind is not kind and actual_kind in SHOWN_KINDS:
        raise FetchError(
            f"{link} is a {actual_kind}, but a {kind} was asked for; give it with the option for its kind", field="link"
        )
