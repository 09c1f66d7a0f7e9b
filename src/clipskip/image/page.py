"""A sweep's pictures as one self-contained HTML page: the server's viewer in one file."""

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
class PageCell:
    """One finished picture of a sweep."""

    path: Path
    """The path of its PNG."""
    settings: str
    """Its infotext."""
    id: str = ""
    """The key of its marks; without one, its place is used."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Scores by the name of their measure."""


def write_page(
    cells: Sequence[Sequence[PageCell | None]],
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
    """Return the page as text. It needs no network: its policy allows only its own script and style.

    Pictures are data URLs, or with `linked` the files beside the page. `depth` is the number of the model's layers,
    `trained` the Clip Skip that it was trained at, where the page begins. `more` is what else the viewer
    knows of a sweep, in the words of the API: model, seed, date, rows with their LoRAs and values, axes, measures, summary,
    marks.
    """
    here = _viewer()
    script = bundle()
    style = here.joinpath("viewer.css").read_text("utf-8") + here.joinpath("own.css").read_text("utf-8")
    sweep = _sweep_data(cells, columns=columns, rows=rows, prompt=prompt, name=name, linked=linked)
    sweep["model"] = {"depth": depth, "trained_clip_skip": trained}
    sweep |= more or {}
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
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def _sweep_data(
    cells: Sequence[Sequence[PageCell | None]],
    *,
    columns: Sequence[str],
    rows: Sequence[str],
    prompt: str,
    name: str,
    linked: bool,
) -> dict[str, object]:
    """Return the sweep as the viewer's script reads it, without its model."""
    return {
        "id": name,
        "prompt": prompt,
        "settings": next((cell.settings for row in cells for cell in row if cell), ""),
        "columns": [{"label": label, "clip_skip": _label_value(label)} for label in columns],
        "rows": [{"name": text} for text in rows],
        "cells": [
            [_cell_json(cell, r, label, linked=linked) for cell, label in zip(row, columns, strict=True)]
            for r, row in enumerate(cells)
        ],
    }


def viewer_markup(more: Mapping[str, str]) -> str:
    """Return the viewer's elements, with a page's own elements in their places."""
    template = _viewer().joinpath("viewer.html").read_text("utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: more.get(match[1], ""), template)


def bundle() -> str:
    """Return the viewer's modules as one script: each in a function of its own, after those that it imports."""
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
    """Return one module as an expression: imports become constants from other modules, exports its return value."""
    names = re.findall(r"^export (?:async )?(?:function|const) (\w+)", text, re.MULTILINE)
    text = re.sub(
        r'^import (\{.*\}) from "\./([\w.]+)";$',
        lambda match: f"const {match[1]} = {_variable(match[2])};",
        text,
        flags=re.MULTILINE,
    )
    text = re.sub(r"^export ", "", text, flags=re.MULTILINE)
    return f"const {_variable(name)} = (() => {{\n{text}\nreturn {{ {', '.join(names)} }};\n}})();\n"


def _variable(name: str) -> str:
    return f"module_{name.removesuffix('.js')}"


def _viewer() -> Traversable:
    return files("clipskip.image") / "viewer"


def _label_value(label: str) -> int | float | str:
    """Return the Clip Skip of a column's label as JSON has it."""
    text = label.removeprefix("Clip Skip ")
    if not re.fullmatch(r"\d+(\.\d+)?", text):
        return text
    return int(text) if text.isdigit() else float(text)


def _cell_json(cell: PageCell | None, row: int, label: str, *, linked: bool) -> dict[str, Any]:
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
    """Return the source expression that allows exactly this inline text to run (CSP level 2, section 7.2)."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii") + "'"
