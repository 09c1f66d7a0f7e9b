"""The files beside a model file: its preview picture, and the notes that its maker or user left for other tools."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipskip.weights.lora.trainer_metadata import plain_line

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif")
NOTES = (".json", ".metadata.json", ".civitai.info", ".cm-info.json")
"""The notes of A1111, LoRA Manager, Civitai Helper and StabilityMatrix; for each fact the first note that has it
counts."""
ENDINGS = (*(f".preview{ending}" for ending in PICTURES), *PICTURES, *NOTES)
LARGEST = 4_000_000
"""The most bytes of a note; Civitai Helper's hold a model's whole page."""
MOST_WORDS = 40
Note = Mapping[str, Any]  # JSON by strangers: every field is checked where it is read


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """Facts about a model file from the files beside it. Each text is one plain line."""

    preview: str = ""
    """The picture's name, in the same folder."""
    title: str = ""
    base: str = ""
    """What it was made for, in the note's words: SD 1.5, Pony."""
    words: tuple[str, ...] = ()
    """Trigger words."""
    weight: float | None = None
    """The weight that its maker or user recommends."""
    clip_skip: int | None = None
    """The Clip Skip that its maker or user recommends."""


def names_beside(name: str) -> tuple[str, ...]:
    """Return the names that files beside a model file may have."""
    stem = name.rpartition(".")[0] or name
    return tuple([stem + ending for ending in ENDINGS])


def read_beside(path: Path, names: Collection[str]) -> Beside:
    """Read what these files beside a model file tell about it."""
    known = [name for name in names_beside(path.name) if name in names]
    preview = next((name for name in known if Path(name).suffix in PICTURES), "")
    notes = [read_note(path.parent / f"{path.stem}{ending}") for ending in NOTES if f"{path.stem}{ending}" in names]
    facts = [_from_note(note) for note in notes]
    return Beside(
        preview=preview,
        title=next((fact.title for fact in facts if fact.title), ""),
        base=next((fact.base for fact in facts if fact.base), ""),
        words=next((fact.words for fact in facts if fact.words), ()),
        weight=next((fact.weight for fact in facts if fact.weight is not None), None),
        clip_skip=next((fact.clip_skip for fact in facts if fact.clip_skip is not None), None),
    )


def read_note(path: Path) -> Note:
    """Return a note's content; empty where it cannot be read."""
    try:
        if path.stat().st_size > LARGEST:
            return {}
        content = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def read_tips(note: Note) -> Note:
    """Return LoRA Manager's usage tips, which the note holds as JSON in a text."""
    tips = note.get("usage_tips")
    tips = _text_json(tips) if isinstance(tips, str) else tips
    return tips if isinstance(tips, dict) else {}


def _from_note(note: Note) -> Beside:
    """Read one note, whichever tool wrote it: the tools' field names do not clash."""
    tips = read_tips(note)
    inner = note.get("civitai")
    civitai = inner if isinstance(inner, dict) else {}
    model = note.get("model")
    words = note.get("trainedWords") or note.get("TrainedWords") or civitai.get("trainedWords") or []
    activation = note.get("activation text")
    if isinstance(activation, str) and activation.strip():
        words = activation.split("||")[0].split(",")
    return Beside(
        title=_one_line(note.get("ModelName") or note.get("model_name") or (model.get("name") if isinstance(model, dict) else "")),
        base=_one_line(note.get("base_model") or note.get("baseModel") or note.get("BaseModel") or note.get("sd version")),
        words=_words(words),
        weight=_weight(note.get("preferred weight"), tips.get("strength")),
        clip_skip=_skip_beside(tips.get("clip_skip")),
    )  # fmt: skip


def _one_line(value: object) -> str:
    return plain_line(value) if isinstance(value, str) and value not in ("Unknown", "Other") else ""


def _words(value: object) -> tuple[str, ...]:
    """Return the trigger words; one text may hold a whole list of tags."""
    texts = [text for text in value if isinstance(text, str)] if isinstance(value, list) else []
    words = (plain_line(word) for text in texts for word in text.split(","))
    return tuple(dict.fromkeys(word for word in words if word))[:MOST_WORDS]


def _weight(*values: object) -> float | None:
    """Return the first weight that is set: A1111 writes 0 for a weight that nobody chose."""
    return next((float(value) for value in values if isinstance(value, int | float) and 0 < abs(value) <= 100), None)


def _skip_beside(value: object) -> int | None:
    """Return a Clip Skip in A1111's numbers, which some users of LoRA Manager write with a minus."""
    return abs(value) if type(value) is int and 1 <= abs(value) <= 12 else None


def _text_json(text: str) -> object:
    try:
        return json.loads(text[:LARGEST])
    except (ValueError, RecursionError):
        return None
