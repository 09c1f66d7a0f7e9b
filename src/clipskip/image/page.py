"""A sweep's pictures -> one self-contained HTML page: scrub Clip Skip, flip the LoRA, hold two side by side."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One finished picture of a sweep."""

    png: bytes
    settings: str
    """Its infotext."""


def write_page(
    cells: Sequence[Sequence[Cell | None]], *, columns: Sequence[str], rows: Sequence[str], prompt: str
) -> str:
    """The page as text. It asks no network: pictures are data URLs, and its policy allows only its own script and style."""
    here = files("clipskip.image")
    script, style = (here.joinpath(name).read_text("utf-8") for name in ("page.js", "page.css"))
    sweep = {
        "prompt": prompt,
        "columns": list(columns),
        "rows": list(rows),
        "cells": [
            [cell and {"image": _data_url(cell.png), "settings": cell.settings} for cell in row] for row in cells
        ],
    }
    parts = {
        "title": html.escape(f"Clip Skip sweep: {prompt[:80]}"),
        "style": style,
        "style_hash": _policy_hash(style),
        "script": script,
        "script_hash": _policy_hash(script),
        "data": json.dumps(sweep, ensure_ascii=False).replace("<", "\\u003c"),
    }
    template = here.joinpath("page.html").read_text("utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def _data_url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _policy_hash(text: str) -> str:
    """The source expression that lets exactly this inline text run (CSP level 2, section 7.2)."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii") + "'"
