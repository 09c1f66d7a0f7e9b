"""A1111's prompt styles: read the styles.csv of the model folders, and put styles into prompts (modules/styles.py)."""

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
    """A prompt style."""

    name: str
    prompt: str
    negative_prompt: str


def read_styles(folders: Sequence[Path]) -> dict[str, Style]:
    """Return the styles by name: of each folder's own styles.csv, and of the file beside a folder called models, as
    A1111 has it."""
    places = [place for folder in folders for place in (folder, *([folder.parent] if folder.name == "models" else []))]
    return {style.name: style for place in reversed(places) for style in _read_styles(place / FILE)}


def _read_styles(path: Path) -> list[Style]:
    """Return the styles of a file, or none if there is no such file or it is not a table of styles."""
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
    """Return prompt and negative prompt with these styles. Raises SpecError, which names missing styles."""
    wanted = [name for name in names if name.strip().casefold() not in IDLE]
    missing = [name for name in wanted if name not in styles]
    if missing:
        names_of_missing = ", ".join(repr(name[:60]) for name in missing)
        raise SpecError(
            f"styles: {names_of_missing} not in the {FILE} of the model folders; leave it out", field="styles"
        )
    for name in wanted:
        prompt = _merged(styles[name].prompt, prompt)
        negative = _merged(styles[name].negative_prompt, negative)
    return prompt, negative


def _merged(style: str, prompt: str) -> str:
    """Return the prompt put into the style's place for it, or before the style if it has none."""
    if PLACE in style:
        return style.replace(PLACE, prompt)
    return ", ".join(part for part in (prompt.strip(), style.strip()) if part)
