"""Clip Skips that others recommend for a model file in the notes beside it, and its number on Civitai."""

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clipskip.weights.beside import Note, read_note, read_tips

DEEPEST = 12
SAID = re.compile(r"clip[\s_-]*skip\s*(?:of|at|is|to|[:=])?\s*-?(\d{1,2})\b(?![-–~/]\d|\s+or\s+\d)", re.IGNORECASE)
"""One Clip Skip in words; a choice, as "1-2" or "1 or 2", recommends none."""
LONGEST = 20_000
"""The number of characters of a description that are searched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SkipHint:
    """A Clip Skip, in A1111's numbers, that somebody names for a file."""

    clip_skip: int
    source: str
    """Who says so, in words for the user."""
    pictures: int = 0
    """How many example pictures were made at it; 0 where it is stated in words."""


def read_hints(model: Path) -> tuple[SkipHint, ...]:
    """Return what the notes beside a model file say of Clip Skip: LoRA Manager's tips, Civitai's pictures and
    description."""
    tips, card = (read_note(model.with_suffix(ending)) for ending in (".metadata.json", ".civitai.info"))
    return (*_tips(tips), *_card(card))


def civitai_ids(note: Path) -> tuple[int | None, int | None]:
    """Return the numbers of the model and version that a .civitai.info describes."""
    content = read_note(note)
    model_id, version_id = content.get("modelId"), content.get("id")
    return (model_id if isinstance(model_id, int) else None, version_id if isinstance(version_id, int) else None)


def _tips(note: Note) -> Iterator[SkipHint]:
    number = _hinted_skip(read_tips(note).get("clip_skip"))
    if number is not None:
        yield SkipHint(clip_skip=number, source="the usage tips in LoRA Manager")


def _card(note: Note) -> Iterator[SkipHint]:
    images = note.get("images")
    metas = [image.get("meta") for image in images if isinstance(image, dict)] if isinstance(images, list) else []
    skips = (
        _hinted_skip(value)
        for meta in metas
        if isinstance(meta, dict)
        for name, value in meta.items()
        if re.sub(r"[\s_-]", "", name).lower() == "clipskip"
    )
    for number, count in sorted(Counter(skip for skip in skips if skip is not None).items()):
        yield SkipHint(clip_skip=number, source="its example pictures on Civitai", pictures=count)
    description = note.get("description")
    text = _plain_text(description[:LONGEST]) if isinstance(description, str) else ""
    match = SAID.search(text)
    advised = _hinted_skip(match[1]) if match else None
    if advised is not None:
        yield SkipHint(clip_skip=advised, source="its description on Civitai")


def _plain_text(markup: str) -> str:
    """Return the text of HTML in usual signs: paragraphs and list items stand apart, `：` is a colon."""
    return unicodedata.normalize("NFKC", html.unescape(re.sub(r"<[^<>]*>", " ", markup)))


def _hinted_skip(value: object) -> int | None:
    """Return a whole number of 1 to 12, whatever the sign and type that it is written with."""
    text = str(value).strip().removesuffix(".0") if isinstance(value, str | int | float) else ""
    number = abs(int(text)) if re.fullmatch(r"-?[0-9]{1,3}", text) else 0
    return number if 1 <= number <= DEEPEST else None
