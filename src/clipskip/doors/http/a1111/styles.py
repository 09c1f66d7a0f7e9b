"""A1111's prompt styles: the styles.csv of the model folders, and prompts with styles in them (modules/styles.py)."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipskip.errors import SpecError

FILE = "styles.csv"
MOST_BYTES = 4 * 2**20
IDLE = ("", "none")
PLACE = "{prompt}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """One style."""

    name: str
    prompt: str
    negative_prompt: str


def read_styles(folders: Sequence[Path]) -> dict[str, Style]:
    """The styles by name: of each folder's own styles.csv, and of the one beside a folder called models, as A1111 has it."""
    places = [place for folder in folders for place in (folder, *([folder.parent] if folder.name == "models" else []))]
    return {style.name: style for place in reversed(places) for style in _read(place / FILE)}


def _read(path: Path) -> list[Style]:
    """The styles of a file; none where there is no such file, or it is no table of styles."""
    try:
        if path.stat().st_size > MOST_BYTES:
            return []
        rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8-sig")), restkey="more"))
    except (OSError, UnicodeDecodeError, csv.Error):
        return []
    return [
        Style(
            name=row["name"],
            prompt=row.get("prompt") or row.get("text") or "",
            negative_prompt=row.get("negative_prompt") or "",
        )
        for row in rows
        if row.get("name")
    ]


def with_styles(prompt: str, negative: str, names: Sequence[str], styles: Mapping[str, Style]) -> tuple[str, str]:
    """Prompt and negative prompt with these styles; SpecError names those that are not there."""
    wanted = [name for name in names if name.strip().casefold() not in IDLE]
    missing = [name for name in wanted if name not in styles]
    if missing:
        said = ", ".join(repr(name[:60]) for name in missing)
        raise SpecError(f"styles: {said} not in the {FILE} of the model folders; leave it out", field="styles")
    for name in wanted:
        prompt = _merged(styles[name].prompt, prompt)
        negative = _merged(styles[name].negative_prompt, negative)
    return prompt, negative


def _merged(style: str, prompt: str) -> str:
    """The prompt in the style's place for it, else before the style."""
    if PLACE in style:
        return style.replace(PLACE, prompt)
    return ", ".join(part for part in (prompt.strip(), style.strip()) if part)
