"""The Clip Skip found for a checkpoint with a set of LoRAs, kept beside the checkpoint as X.clipskip.json.

{"format": "clipskip 1", "answers": [{"model": AutoV2, "loras": [AutoV3, ...], "clip_skip": 2, "sure": 0.93, "why":
text, "date": ISO}]} is small and plain, so that other tools can read it. LoRAs are sorted, and their strengths do not
count.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

from clipskip.errors import OutputError, SpecError
from clipskip.weights.beside import read_note
from clipskip.weights.facts import SourceFile
from clipskip.weights.library import STARTER

FORMAT = "clipskip 1"
ENDING = ".clipskip.json"
MOST_ANSWERS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class RememberedSkip:
    """One answer to the question which Clip Skip suits these files."""

    model: str
    """AutoV2 of the checkpoint, 10 hex digits."""
    loras: tuple[str, ...] = ()
    """AutoV3 of the LoRAs that were on, 12 hex digits each, sorted."""
    clip_skip: int
    sure: float
    """0 to 1."""
    why: str = ""
    date: str = ""
    """Day of the answer, as in 2026-11-28."""


def answers_file(source: SourceFile) -> Path:
    """Return the file of a checkpoint's answers: beside its file, or in its diffusers folder."""
    path = source.path
    return path / f"model{ENDING}" if path.is_dir() else path.with_suffix(ENDING)


def remembered_for(source: SourceFile, loras: Iterable[str]) -> RememberedSkip | None:
    """Return the answer for this checkpoint with LoRAs of these hashes, or None."""
    key = source.ref.hash, tuple(sorted(set(loras)))
    return next((answer for answer in _read_answers(answers_file(source)) if (answer.model, answer.loras) == key), None)


def remember(source: SourceFile, loras: Iterable[str], *, clip_skip: int, sure: float, why: str) -> Path:
    """Keep an answer, replacing an older one about the same files, and return the file that it is in."""
    path = answers_file(source)
    if path.parent == STARTER:
        raise SpecError(
            "the embedded model states its own Clip Skip, so there is nothing to remember; leave this out",
            field="remember",
        )
    hashes = tuple(sorted(set(loras)))
    own = source.ref.hash
    kept = [answer for answer in _read_answers(path) if (answer.model, answer.loras) != (own, hashes)]
    new = RememberedSkip(
        model=own, loras=hashes, clip_skip=clip_skip, sure=round(sure, 4), why=why, date=date.today().isoformat()
    )
    text = json.dumps(
        {"format": FORMAT, "answers": [asdict(answer) for answer in [new, *kept][:MOST_ANSWERS]]}, indent=2
    )
    scratch = path.with_name(f"{path.name}.part")
    try:
        scratch.write_text(text + "\n", encoding="utf-8")
        scratch.replace(path)
    except OSError as error:
        raise OutputError(
            f"the answer cannot be written to {path}: {error.strerror or error}; make the folder writable",
            field="remember",
        ) from None
    return path


def _read_answers(path: Path) -> list[RememberedSkip]:
    """Return the answers in a file; those that cannot be read are left out."""
    content = read_note(path)
    answers = content.get("answers") if content.get("format") == FORMAT else None
    remembered = []
    for answer in answers if isinstance(answers, list) else []:
        match answer:
            case {
                "model": str(model),
                "loras": list(loras),
                "clip_skip": int(skip),
                "sure": int() | float() as sure,
            } if all(isinstance(lora, str) for lora in loras) and not isinstance(skip, bool) and skip >= 1:
                why, day = (str(answer.get(name, ""))[:500] for name in ("why", "date"))
                remembered.append(
                    RememberedSkip(model=model, loras=tuple(loras), clip_skip=skip, sure=float(sure), why=why, date=day)
                )
    return remembered
