"""A sweep's pictures -> one self-contained HTML page: the viewer that the server has, in one file."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One finished picture of a sweep."""

    path: Path
    """Of its PNG."""
    settings: str
    """Its infotext."""
    id: str = ""
    """That marks go by; of a cell without one, its place."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """By the name of a measure."""


def write_page(
    cells: Sequence[Sequence[Cell | None]],
    *,
    columns: Sequence[str],
    rows: Sequence[str],
    prompt: str,
    name: str = "",
    depth: int | None = None,
    trained: int | None = None,
    linked: bool = False,
    more: Mapping[str, Any] | None = None,
) -> str:
    """The page as text. It asks no network: its policy allows only its own script and style, and pictures are data URLs, or with
    `linked` the files beside it. `depth` is the layers of the model, `trained` the Clip Skip that it was trained at, where
    the page begins. `more` is what else the viewer knows of a sweep, in the words of the API: rows with their LoRAs and values,
    axes, measures, summary, marks."""
    here = _viewer()
    script, style = (
        bundle(),
        here.joinpath("viewer.css").read_text("utf-8") + here.joinpath("own.css").read_text("utf-8"),
    )
    first = next((cell.settings for row in cells for cell in row if cell), "")
    sweep = {
        "id": name,
        "prompt": prompt,
        "settings": first,
        "model": {"depth": depth, "trained_clip_skip": trained},
        "columns": [{"label": label, "clip_skip": _number(label)} for label in columns],
        "rows": [{"name": text} for text in rows],
        "cells": [
            [_cell(cell, r, label, linked=linked) for cell, label in zip(row, columns, strict=True)]
            for r, row in enumerate(cells)
        ],
        **(more or {}),
    }
    parts = {
        "title": html.escape(f"Clip Skip sweep: {prompt[:80]}"),
        "images": "data: file: 'self'" if linked else "data:",
        "style": style,
        "style_hash": _policy_hash(style),
        "viewer": viewer_markup({}),
        "script": script,
        "script_hash": _policy_hash(script),
        "data": json.dumps(sweep, ensure_ascii=False).replace("<", "\\u003c"),
    }
    template = here.joinpath("own.html").read_text("utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def viewer_markup(more: Mapping[str, str]) -> str:
    """The viewer's elements, with what a page has more in its places."""
    template = _viewer().joinpath("viewer.html").read_text("utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: more.get(found[1], ""), template)


def bundle() -> str:
    """The viewer's modules as one script: each in a function of its own, after those that it imports."""
    texts: dict[str, str] = {}
    _gather("own.js", texts)
    return '"use strict";\n' + "".join(_wrapped(name, text) for name, text in texts.items())


def _gather(name: str, texts: dict[str, str]) -> None:
    text = _viewer().joinpath(name).read_text("utf-8")
    for imported in re.findall(r'^import .* from "\./([\w.]+)";$', text, re.MULTILINE):
        if imported not in texts:
            _gather(imported, texts)
    texts[name] = text


def _wrapped(name: str, text: str) -> str:
    """One module: its imports are taken out of others' results, its exports are its own result."""
    names = re.findall(r"^export (?:async )?(?:function|const) (\w+)", text, re.MULTILINE)
    text = re.sub(
        r'^import (\{.*\}) from "\./([\w.]+)";$',
        lambda found: f"const {found[1]} = {_variable(found[2])};",
        text,
        flags=re.MULTILINE,
    )
    text = re.sub(r"^export ", "", text, flags=re.MULTILINE)
    return f"const {_variable(name)} = (() => {{\n{text}\nreturn {{ {', '.join(names)} }};\n}})();\n"


def _variable(name: str) -> str:
    return f"module_{name.removesuffix('.js')}"


def _viewer() -> Traversable:
    return files("clipskip.image") / "viewer"


def _number(label: str) -> int | float | str:
    """The Clip Skip of a column's label, as JSON has it."""
    text = label.removeprefix("Clip Skip ")
    if not re.fullmatch(r"\d+(\.\d+)?", text):
        return text
    return int(text) if text.isdigit() else float(text)


def _cell(cell: Cell | None, row: int, label: str, *, linked: bool) -> dict[str, Any]:
    id = (cell and cell.id) or f"{row}.{label}"
    if cell is None:
        return {"id": id, "state": "waiting", "image": None, "settings": None}
    name = re.sub(r"[^\w.-]+", "-", f"row{row}-{label.lower().replace('clip skip ', 'clipskip')}")
    return {
        "id": id,
        "state": "done",
        "image": cell.path.name if linked else _data_url(cell.path.read_bytes()),
        "settings": cell.settings,
        "name": f"{name}.png",
        **({"scores": dict(cell.scores)} if cell.scores else {}),
    }


def _data_url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _policy_hash(text: str) -> str:
    """The source expression that lets exactly this inline text run (CSP level 2, section 7.2)."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii") + "'"
