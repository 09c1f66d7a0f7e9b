"""The command that shows how a prompt is read. It loads no torch, unless it has your LoRAs or embeddings to look for."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clipskip.errors import ClipskipError, NotFound, SpecError
from clipskip.prompt import (
    DEFAULT_RULES,
    LORA_KINDS,
    Emphasis,
    PromptReport,
    Rules,
    describe,
    extract_tags,
    report_lines,
    strip_comments,
)
from clipskip.spec import ClipSkip, Skip, parse_skip

RULES = {"a1111": DEFAULT_RULES, "comfyui": Rules(emphasis=Emphasis.COMFYUI)}
"""Whose rules a prompt is read by."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """What the user's folders have of what a prompt names."""

    loras: Mapping[str, str]
    """By the name in the tag: the file, or why there is none."""
    missing: tuple[str, ...]
    """Names of LoRAs that are not there."""
    embeddings: Mapping[str, int]
    """Vectors by name, of each file whose name is among the words."""
    paths: Mapping[str, str]
    """Their files."""
    unread: tuple[str, ...]
    """Why a file that may be named is not used."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a prompt is read, and at which Clip Skips."""

    report: PromptReport
    files: Files | None
    """None where no folder was looked into."""
    stretches: tuple[tuple[int, int, Skip], ...]
    """First and last step, counted from 1, of each Clip Skip."""

    @property
    def lines(self) -> list[str]:
        """The reading as a terminal shows it."""
        said = [f"steps {first}-{last}: Clip Skip {skip}" for first, last, skip in self.stretches]
        return [*said, *report_lines(self.report), *_file_lines(self.report, self.files)]

    @property
    def fields(self) -> dict[str, Any]:  # Any: what JSON has
        """The reading as JSON has it."""
        skips = [
            {"clip_skip": skip.from_end if isinstance(skip, ClipSkip) else str(skip), "steps": (first, last)}
            for first, last, skip in self.stretches
        ]
        return dataclasses.asdict(self.report) | {"clip_skips": skips, "files": _file_fields(self.report, self.files)}


def read_words(
    text: str,
    *,
    steps: int,
    negative: bool,
    clip_skip: str | None = None,
    folders: Sequence[Path] = (),
    allow_pickle: bool = False,
    tool: str = "a1111",
) -> Reading:
    """How a prompt is read, which of your files it calls, and at which Clip Skip each step reads it."""
    rules = RULES.get(tool.lower())
    if rules is None:
        raise SpecError(f"prompts as {tool[:40]!r} reads them are not known; use {' or '.join(RULES)}", field="as")
    names = () if negative or rules.comfy else _lora_names(text)
    wanted = bool(names or folders or os.environ.get("CLIPSKIP_MODELS"))
    files = find_files(text, names, folders=folders, allow_pickle=allow_pickle) if wanted else None
    report = describe(text, steps=steps, negative=negative, embeddings=files.embeddings if files else None, rules=rules)
    return Reading(report=report, files=files, stretches=read_skip(clip_skip, steps=steps) if clip_skip else ())


def read_aloud(
    text: str,
    *,
    steps: int,
    negative: bool,
    clip_skip: str | None,
    as_json: bool,
    folders: Sequence[Path] = (),
    allow_pickle: bool = False,
    tool: str = "a1111",
) -> str:
    """The reading as lines or JSON."""
    reading = read_words(
        text,
        steps=steps,
        negative=negative,
        clip_skip=clip_skip,
        folders=folders,
        allow_pickle=allow_pickle,
        tool=tool,
    )
    return json.dumps(reading.fields, indent=2, ensure_ascii=False) if as_json else "\n".join(reading.lines)


def _lora_names(text: str) -> tuple[str, ...]:
    """The LoRAs that tags name, each once."""
    tags = extract_tags(strip_comments(text))[1]
    named = (tag.positional[0] for tag in tags if tag.kind in LORA_KINDS and tag.positional)
    return tuple(dict.fromkeys(named))


def find_files(text: str, loras: Sequence[str], *, folders: Sequence[Path], allow_pickle: bool = False) -> Files:
    """The LoRAs of these names, and the embeddings whose names are among the words of a prompt."""
    from clipskip.weights import FileKind, Library, count_vectors

    library = Library.of_user(folders)
    found, missing = dict[str, str](), list[str]()
    for name in loras:
        try:
            found[name] = str(library.find(name, FileKind.LORA, allow_path=False))
        except NotFound as error:
            found[name] = str(error)
            missing.append(name)
    vectors, paths, unread = dict[str, int](), dict[str, str](), list[str]()
    for one in library.named_in(text, FileKind.EMBEDDING):
        try:
            vectors[one.stem] = count_vectors(one.path, allow_pickle=allow_pickle)
            paths[one.stem] = str(one.path)
        except ClipskipError as error:
            unread.append(str(error))
    return Files(loras=found, missing=tuple(missing), embeddings=vectors, paths=paths, unread=tuple(unread))


def _file_lines(report: PromptReport, files: Files | None) -> list[str]:
    if files is None:
        return []
    lines = [
        f"missing: {found}" if name in files.missing else f"file of LoRA {name}: {found}"
        for name, found in files.loras.items()
    ]
    lines += [f"file of embedding {name}: {files.paths[name]}" for name in report.embeddings]
    return [*lines, *(f"note: {why}" for why in files.unread)]


def _file_fields(report: PromptReport, files: Files | None) -> dict[str, object] | None:
    if files is None:
        return None
    return {
        "loras": {name: None if name in files.missing else path for name, path in files.loras.items()},
        "embeddings": {name: files.paths[name] for name in report.embeddings},
        "unread": files.unread,
    }


def read_skip(text: str, *, steps: int) -> tuple[tuple[int, int, Skip], ...]:
    """First and last step, counted from 1, of each Clip Skip that was typed."""
    ends = [(min(until + 1, steps), one) for until, one in parse_skip(text).over(steps)]
    firsts = [1, *(end + 1 for end, _ in ends)]
    return tuple((first, end, one) for first, (end, one) in zip(firsts, ends, strict=False) if first <= end)
