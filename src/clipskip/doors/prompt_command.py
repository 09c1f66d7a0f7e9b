"""The command that shows how a prompt is read. It loads torch only to look for your LoRAs or embeddings."""

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
"""The rules by which a prompt is read, by tool."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PromptFiles:
    """The files in the user's folders that a prompt names."""

    loras: Mapping[str, str]
    """By the name in the tag: the file, or why there is none."""
    missing: tuple[str, ...]
    """Names of LoRAs that no folder has."""
    embeddings: Mapping[str, int]
    """Number of vectors by name, for each file whose name is among the words."""
    paths: Mapping[str, str]
    """Embedding files by name."""
    unread: tuple[str, ...]
    """Why a file that may be meant is not used."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A prompt as it is read, and the Clip Skips that read it."""

    report: PromptReport
    files: PromptFiles | None
    """None where no folder was searched."""
    stretches: tuple[tuple[int, int, Skip], ...]
    """First and last step, counted from 1, of each Clip Skip."""

    @property
    def lines(self) -> list[str]:
        """The reading as lines for a terminal."""
        lines = [f"steps {first}-{last}: Clip Skip {skip}" for first, last, skip in self.stretches]
        return [*lines, *report_lines(self.report), *_file_lines(self.report, self.files)]

    @property
    def fields(self) -> dict[str, Any]:  # Any: what JSON has
        """The reading as JSON values."""
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
    """Describe how a prompt is read, which of your files it uses, and at which Clip Skip each step reads it."""
    rules = RULES.get(tool.lower())
    if rules is None:
        raise SpecError(f"the rules of {tool[:40]!r} for prompts are unknown; use {' or '.join(RULES)}", field="as")
    names = () if negative or rules.comfy else _lora_names(text)
    searches = bool(names or folders or os.environ.get("CLIPSKIP_MODELS"))
    files = find_prompt_files(text, names, folders=folders, allow_pickle=allow_pickle) if searches else None
    report = describe(text, steps=steps, negative=negative, embeddings=files.embeddings if files else None, rules=rules)
    return Reading(report=report, files=files, stretches=skip_by_step(clip_skip, steps=steps) if clip_skip else ())


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
    """Return the reading as lines or JSON."""
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
    """Return the LoRAs that tags name, each once."""
    tags = extract_tags(strip_comments(text))[1]
    named = (tag.positional[0] for tag in tags if tag.kind in LORA_KINDS and tag.positional)
    return tuple(dict.fromkeys(named))


def find_prompt_files(
    text: str, loras: Sequence[str], *, folders: Sequence[Path], allow_pickle: bool = False
) -> PromptFiles:
    """Find the LoRAs of these names, and the embeddings whose names are among a prompt's words."""
    from clipskip.weights import FileKind, Library, count_vectors

    library = Library.of_user(folders)
    places, missing = dict[str, str](), list[str]()
    for name in loras:
        try:
            places[name] = str(library.find(name, FileKind.LORA, allow_path=False))
        except NotFound as error:
            places[name] = str(error)
            missing.append(name)
    vectors, paths, unread = dict[str, int](), dict[str, str](), list[str]()
    for file in library.named_in(text, FileKind.EMBEDDING):
        try:
            vectors[file.stem] = count_vectors(file.path, allow_pickle=allow_pickle)
            paths[file.stem] = str(file.path)
        except ClipskipError as error:
            unread.append(str(error))
    return PromptFiles(loras=places, missing=tuple(missing), embeddings=vectors, paths=paths, unread=tuple(unread))


def _file_lines(report: PromptReport, files: PromptFiles | None) -> list[str]:
    if files is None:
        return []
    lines = [
        f"missing: {place}" if name in files.missing else f"file of LoRA {name}: {place}"
        for name, place in files.loras.items()
    ]
    lines += [f"file of embedding {name}: {files.paths[name]}" for name in report.embeddings]
    return [*lines, *(f"note: {why}" for why in files.unread)]


def _file_fields(report: PromptReport, files: PromptFiles | None) -> dict[str, object] | None:
    if files is None:
        return None
    return {
        "loras": {name: None if name in files.missing else path for name, path in files.loras.items()},
        "embeddings": {name: files.paths[name] for name in report.embeddings},
        "unread": files.unread,
    }


def skip_by_step(text: str, *, steps: int) -> tuple[tuple[int, int, Skip], ...]:
    """Return first and last step, counted from 1, of each Clip Skip in a typed one."""
    ends = [(min(until + 1, steps), skip) for until, skip in parse_skip(text).over(steps)]
    firsts = [1, *(end + 1 for end, _ in ends)]
    return tuple((first, end, skip) for first, (end, skip) in zip(firsts, ends, strict=False) if first <= end)
