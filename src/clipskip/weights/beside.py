"""What lies beside a model file: its preview picture, and what its maker or its user noted of it for other tools."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipskip.weights.lora.metadata import plain

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif")
NOTES = (".json", ".metadata.json", ".civitai.info", ".cm-info.json")
"""A1111's notes of its user, LoRA Manager's, Civitai Helper's, StabilityMatrix's: the first that says a thing is believed."""
ENDINGS = (*(f".preview{ending}" for ending in PICTURES), *PICTURES, *NOTES)
LARGEST = 4_000_000
"""Bytes of a note; Civitai Helper's hold a model's whole page."""
MOST_WORDS = 40
Note = Mapping[str, Any]  # JSON by strangers: every field is checked where it is read


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What the files beside a model file say. All text is one plain line."""

    preview: str = ""
    """Name of the picture, in the same folder."""
    title: str = ""
    base: str = ""
    """What it was made for, in the note's words: SD 1.5, Pony."""
    words: tuple[str, ...] = ()
    """That call it."""
    weight: float | None = None
    """That its maker or its user advises."""
    clip_skip: int | None = None
    """That its maker or its user advises."""


def names_beside(name: str) -> tuple[str, ...]:
    """The names that files beside a model file may have."""
    stem = name.rpartition(".")[0] or name
    return tuple([stem + ending for ending in ENDINGS])


def read_beside(path: Path, names: Collection[str]) -> Beside:
    """What these files, which lie beside a model file, say of it."""
    known = [name for name in names_beside(path.name) if name in names]
    preview = next((name for name in known if Path(name).suffix in PICTURES), "")
    notes = [read_note(path.parent / f"{path.stem}{ending}") for ending in NOTES if f"{path.stem}{ending}" in names]
    said = [_said(note) for note in notes]
    return Beside(
        preview=preview,
        title=next((one.title for one in said if one.title), ""),
        base=next((one.base for one in said if one.base), ""),
        words=next((one.words for one in said if one.words), ()),
        weight=next((one.weight for one in said if one.weight is not None), None),
        clip_skip=next((one.clip_skip for one in said if one.clip_skip is not None), None),
    )


def read_note(path: Path) -> Note:
    """A note's content; nothing where there is none that can be read."""
    try:
        if path.stat().st_size > LARGEST:
            return {}
        found = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def read_tips(note: Note) -> Note:
    """What LoRA Manager's user noted on how to use a file: JSON in a text."""
    tips = note.get("usage_tips")
    tips = _text_json(tips) if isinstance(tips, str) else tips
    return tips if isinstance(tips, dict) else {}


def _said(note: Note) -> Beside:
    """One note, whichever tool wrote it: their names for things do not clash."""
    tips = read_tips(note)
    inner = note.get("civitai")
    civitai = inner if isinstance(inner, dict) else {}
    model = note.get("model")
    words = note.get("trainedWords") or note.get("TrainedWords") or civitai.get("trainedWords") or []
    activation = note.get("activation text")
    if isinstance(activation, str) and activation.strip():
        words = activation.split("||")[0].split(",")
    return Beside(
        title=_line(note.get("ModelName") or note.get("model_name") or (model.get("name") if isinstance(model, dict) else "")),
        base=_line(note.get("base_model") or note.get("baseModel") or note.get("BaseModel") or note.get("sd version")),
        words=_words(words),
        weight=_weight(note.get("preferred weight"), tips.get("strength")),
        clip_skip=_skip(tips.get("clip_skip")),
    )  # fmt: skip


def _line(value: object) -> str:
    return plain(value) if isinstance(value, str) and value not in ("Unknown", "Other") else ""


def _words(value: object) -> tuple[str, ...]:
    """Trained words may be lists of tags in one text."""
    texts = [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
    words = (plain(word) for text in texts for word in text.split(","))
    return tuple(dict.fromkeys(word for word in words if word))[:MOST_WORDS]


def _weight(*values: object) -> float | None:
    """The first that is set: A1111 writes 0 for a weight that nobody chose."""
    return next((float(one) for one in values if isinstance(one, int | float) and 0 < abs(one) <= 100), None)


def _skip(value: object) -> int | None:
    """LoRA Manager's users type A1111's number, some with a minus."""
    return abs(value) if type(value) is int and 1 <= abs(value) <= 12 else None


def _text_json(text: str) -> object:
    try:
        return json.loads(text[:LARGEST])
    except (ValueError, RecursionError):
        return None
