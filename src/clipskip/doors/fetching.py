"""Fetching models from links and names, with a progress bar."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from clipskip.doors.terminal import say
from clipskip.errors import ClipskipError, NotFound, SpecError
from clipskip.fetch import Fetched, fetch
from clipskip.prompt import read_prompt
from clipskip.spec import Link, LoraRef, Request, by_hash, parse_bare, parse_link
from clipskip.sweep import find_model
from clipskip.weights import FileKind, Library

TYPED = {"model": FileKind.CHECKPOINT, "refiner": FileKind.CHECKPOINT, "vae": FileKind.VAE}
"""The settings, besides LoRAs, that may be links."""


def run_fetch(
    links: Sequence[str], request: Request | None, *, folders: Sequence[Path], allow_pickle: bool
) -> tuple[Path, ...]:
    """Fetch the files of links, and those that a settings text names; all are tried before the first failure is
    raised."""
    library = Library.of_user(folders)
    paths: list[Path] = []
    failures: list[ClipskipError] = []
    with _Bar(library, allow_pickle=allow_pickle) as bar:
        for text in links:
            link = parse_link(text) or parse_bare(text)
            if link is None:
                raise SpecError(
                    f"{text[:120]!r} is not a link, AIR, hash or owner/repo; give one such as https://civitai.com/models/16615",
                    field="link",
                )
            try:
                paths.append(bar.get(link, None))
            except ClipskipError as error:
                failures.append(error)
        if request is not None:
            paths += _fetch_named(request, bar, failures)
    for path in paths:
        say(path)
    if failures:
        raise type(failures[0])("; ".join(str(error) for error in failures), field="link")
    return tuple(paths)


def with_fetched(request: Request, *, folders: Sequence[Path], may_fetch: bool, allow_pickle: bool) -> Request:
    """Return the request with the files of its links, and with `may_fetch` those of its names and hashes.

    What is on this machine is never looked for elsewhere.
    """
    links = {text: link for text in typed(request) if (link := parse_link(text))}
    if not links and not may_fetch:
        return request
    library = Library.of_user(folders)
    with _Bar(library, allow_pickle=allow_pickle) as bar:
        for field, kind in TYPED.items():
            if (name := getattr(request, field)) in links:
                path = str(bar.get(links[name], kind))
                given: dict[str, Any] = {field: path, f"{field}_hash": None}  # Any: fields of a Request
                request = replace(request, **given)
        loras = tuple(
            replace(ref, name=str(bar.get(links[ref.name], FileKind.LORA))) if ref.name in links else ref
            for ref in request.loras
        )
        request = replace(request, loras=loras)
        if may_fetch:
            failures: list[ClipskipError] = []
            _fetch_named(request, bar, failures)
            if failures:
                raise failures[0]
    return request


def typed(request: Request) -> list[str]:
    """Return what a request names files by, links among them."""
    return [*(getattr(request, field) or "" for field in TYPED), *(ref.name for ref in request.loras)]


def _fetch_named(request: Request, bar: "_Bar", failures: list[ClipskipError]) -> list[Path]:
    """Return the files that a request names by name or hash, fetching those that are not here."""
    paths = []
    noted = dict(request.lora_hashes)
    tagged = read_prompt(request.prompt, steps=max(1, request.steps)).loras
    references: list[tuple[str, str, FileKind]] = []
    if request.model or request.model_hash:
        references.append((request.model or "", request.model_hash or "", FileKind.CHECKPOINT))
    loras: dict[str, LoraRef] = {ref.name: ref for ref in (*tagged, *request.loras)}
    references += [(name, noted.get(name, ""), FileKind.LORA) for name in loras]
    references += [(name, digits, FileKind.EMBEDDING) for name, digits in request.embedding_hashes]
    if request.refiner or request.refiner_hash:
        references.append((request.refiner or "", request.refiner_hash or "", FileKind.CHECKPOINT))
    if request.vae or request.vae_hash:
        references.append((request.vae or "", request.vae_hash or "", FileKind.VAE))
    for name, digits, kind in references:
        try:
            paths.append(_find(name, digits, kind, bar))
        except ClipskipError as error:
            failures.append(error)
    return paths


def _find(name: str, digits: str, kind: FileKind, bar: "_Bar") -> Path:
    """Return the file on this machine, else fetch it by its hash or its name."""
    try:
        if kind is FileKind.CHECKPOINT:
            return find_model(name or None, hash=digits or None, library=bar.library)
        by_content = bar.library.find_hash(digits, kind) if digits else None
        return by_content or bar.library.find(name, kind)
    except NotFound:
        link = by_hash(digits) if digits else parse_bare(name)
        if link is None:
            raise
    return bar.get(link, kind)


class _Bar:
    """Fetches with a progress bar and reports what was fetched."""

    def __init__(self, library: Library, *, allow_pickle: bool) -> None:
        self.library = library
        self._allow_pickle = allow_pickle
        self._console = Console(stderr=True, highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=self._console, transient=True)

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def get(self, link: Link, kind: FileKind | None) -> Path:
        """Return the file of a link."""
        task = self._progress.add_task(str(link), total=None)

        def show(name: str, done: int, total: int) -> None:
            self._progress.update(task, description=name, completed=done, total=total or None)

        fetched: Fetched = fetch(link, library=self.library, kind=kind, allow_pickle=self._allow_pickle, progress=show)
        self._progress.remove_task(task)
        what = "already here" if fetched.was_here else "fetched"
        self._console.print(f"{fetched.title}: {what}, {fetched.path}", markup=False, soft_wrap=True)
        for note in fetched.notes:
            self._console.print(note, style="yellow", markup=False)
        return fetched.path
