"""A sweep's folder in words: what it is of and which file holds which cell, so that it can be listed and gone on with."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clipskip.errors import DamagedFile
from clipskip.image import write_bytes
from clipskip.spec import (
    ClipSkip,
    LoraRef,
    Request,
    Skip,
    parse_skip,
    render_infotext,
    request_from_text,
    shared_infotext,
)
from clipskip.sweep.plan import Sweep, file_name

MANIFEST = "manifest.json"
LARGEST = 20_000_000
"""Bytes: a thousand cells with long prompts take a tenth of it."""


def write_manifest(folder: Path, sweep: Sweep) -> None:
    """Writes the folder's manifest, unless it has one."""
    path = folder / MANIFEST
    if not path.exists():
        write_bytes(path, json.dumps(_manifest(sweep), indent=1, ensure_ascii=False).encode())


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """A folder's manifest; None where it has none that can be read."""
    try:
        path = folder / MANIFEST
        if path.stat().st_size > LARGEST:
            return None
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("kind") == "clipskip sweep" else None


def request_of(manifest: dict[str, Any]) -> tuple[Request, tuple[Skip, ...]]:
    """What was asked for, so that a sweep can go on: its request and its columns."""
    try:
        settings = manifest["settings"]
        loras = tuple(LoraRef(**lora) for lora in manifest["rows"][-1]["loras"])
        skips = tuple(parse_skip(str(column["clip_skip"])) for column in manifest["columns"])
    except (KeyError, IndexError, TypeError) as error:
        raise DamagedFile(f"{MANIFEST} of this sweep lacks {error}; start the sweep again", field="sweep") from None
    asked = request_from_text(settings)
    hashes = tuple((lora.name, lora.hash) for lora in loras)
    bare = tuple(replace(lora, hash="") for lora in loras)
    return replace(asked, loras=bare, lora_hashes=hashes, clip_skip=None), skips


def _manifest(sweep: Sweep) -> dict[str, Any]:
    base = sweep.base
    return {
        "kind": "clipskip sweep",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "prompt": base.prompt,
        "negative_prompt": base.negative_prompt,
        "seed": base.seed,
        "steps": base.steps,
        "settings": shared_infotext(base),
        "model": {"name": base.model.name, "hash": base.model.hash},
        "columns": [
            {"clip_skip": _number(skip), "label": label} for skip, label in zip(sweep.skips, sweep.columns, strict=True)
        ],
        "rows": [
            {"name": name, "loras": [_lora(lora) for lora in row]}
            for row, name in zip(sweep.rows, sweep.row_names, strict=True)
        ],
        "cells": [
            [
                {"file": file_name(sweep.cell(r, c), row=r), "settings": render_infotext(sweep.cell(r, c))}
                for c in range(len(sweep.skips))
            ]
            for r in range(len(sweep.rows))
        ],
    }


def _lora(lora: LoraRef) -> dict[str, Any]:
    return {"name": lora.name, "text_encoder": lora.text_encoder, "unet": lora.unet, "hash": lora.hash}


def _number(skip: Skip) -> float | str:
    """A Clip Skip as JSON has it: a number, or the schedule's text."""
    return skip.from_end if isinstance(skip, ClipSkip) else str(skip)
