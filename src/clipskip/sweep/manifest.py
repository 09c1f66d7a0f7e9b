"""A sweep's folder as data: its settings and which file holds which cell, so that it can be listed and continued."""

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clipskip.errors import DamagedFile, SpecError
from clipskip.image import write_bytes
from clipskip.spec import (
    FIRST_FIELDS,
    PICTURE,
    Axis,
    ClipSkip,
    Hires,
    LoraRef,
    Mask,
    PhraseSkip,
    Render,
    Request,
    Skip,
    Start,
    parse_skip,
    render_infotext,
)
from clipskip.sweep.plan import LoraRow, Point, Sweep, file_name, footer
from clipskip.weights import CheckpointFacts

MANIFEST, KIND = "manifest.json", "clipskip sweep"
LARGEST = 200_000_000
"""The most bytes: a hundred thousand cells with long prompts."""
PLAIN = ("prompt", "negative_prompt", *(row.name for row in PICTURE))
"""Settings that JSON holds unchanged, under the same name in a Render and a Request."""


def write_manifest(folder: Path, sweep: Sweep, *, model: CheckpointFacts | None = None) -> None:
    """Write the folder's manifest, unless it has one."""
    path = folder / MANIFEST
    if not path.exists():
        write_bytes(path, json.dumps(_manifest(sweep, model), indent=1, ensure_ascii=False).encode())


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return a folder's manifest; None where it cannot be read."""
    try:
        path = folder / MANIFEST
        if path.stat().st_size > LARGEST:
            return None
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and content.get("kind") == KIND else None


def request_of(manifest: dict[str, Any]) -> tuple[Request, tuple[Skip, ...]]:
    """Return the exact request and columns of a sweep, so that it can be continued."""
    try:
        asked = manifest["request"]
        loras = tuple(LoraRef(**lora) for lora in manifest.get("loras", manifest["rows"][-1]["loras"]))
        skips = tuple(parse_skip(str(column["clip_skip"])) for column in manifest["columns"])
        negative, hires = asked["negative_clip_skip"], _load_hires(asked.get("hires"))
        request = Request(
            **{name: asked[name] for name in PLAIN if name in asked or name in FIRST_FIELDS},
            model=manifest["model"]["name"],
            model_hash=manifest["model"]["hash"],
            loras=tuple(replace(lora, hash="") for lora in loras),
            lora_hashes=tuple((lora.name, lora.hash) for lora in (*loras, *((hires and hires.loras) or ()))),
            vae=asked["vae"]["name"] if asked.get("vae") else None,
            vae_hash=asked["vae"]["hash"] if asked.get("vae") else None,
            refiner=asked["refiner"]["name"] if asked.get("refiner") else None,
            refiner_hash=asked["refiner"]["hash"] if asked.get("refiner") else None,
            start=_load_start(asked.get("start")),
            hires=hires and hires.with_tags,
            negative_clip_skip=None if negative is None else parse_skip(negative),
            phrase_skips=tuple(PhraseSkip.parse(text) for text in asked["phrase_skips"]),
        )
    except (KeyError, IndexError, TypeError, AttributeError, SpecError) as error:
        raise DamagedFile(
            f"{MANIFEST} of this sweep cannot be read ({str(error)[:80]}); start the sweep again", field="sweep"
        ) from None
    return request, skips


def axes_of(manifest: dict[str, Any]) -> tuple[Axis, ...]:
    """Return the axes of a sweep besides Clip Skip, so that it can be continued."""
    try:
        return tuple(Axis.parse(str(text)) for text in manifest.get("axes", ()))
    except (TypeError, SpecError) as error:
        raise DamagedFile(
            f"the axes in {MANIFEST} cannot be read ({str(error)[:80]}); start the sweep again", field="sweep"
        ) from None


def _manifest(sweep: Sweep, model: CheckpointFacts | None) -> dict[str, Any]:
    base = sweep.base
    columns = zip(sweep.skips, sweep.columns, strict=True)
    points = sweep.points or ((),) * len(sweep.rows)
    rows = zip(sweep.rows, sweep.row_names, points, strict=True)
    return {
        "kind": KIND,
        "key": sweep.key,
        "created": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "settings": footer(sweep),
        "model": {
            "name": base.model.name,
            "hash": base.model.hash,
            "family": model.family.label if model else None,
            "depth": model.depth if model else None,
            "trained_clip_skip": model.trained_clip_skip if model else None,
        },
        "request": _request(base),
        **(
            {"axes": list(map(str, sweep.axes)), "loras": [_lora_entry(lora) for lora in sweep.loras]}
            if sweep.axes
            else {}
        ),
        **({"left_out": list(sweep.left_out)} if sweep.left_out else {}),
        "columns": [{"clip_skip": _skip_json(skip), "label": label} for skip, label in columns],
        "rows": [_row_entry(name, row, point) for row, name, point in rows],
        "cells": [[_cell_entry(sweep.cell(r, c), r) for c in range(len(sweep.skips))] for r in range(len(sweep.rows))],
    }


def _request(base: Render) -> dict[str, Any]:
    negative = base.negative_clip_skip
    nested = {name: getattr(base, name) for name in ("vae", "refiner", "start", "hires")}
    return {name: getattr(base, name) for name in PLAIN} | {
        **{name: None if value is None else asdict(value) for name, value in nested.items()},
        "negative_clip_skip": None if negative is None else str(negative),
        "phrase_skips": [str(phrase) for phrase in base.phrase_skips],
    }


def _load_hires(saved: dict[str, Any] | None) -> Hires | None:
    if saved is None:
        return None
    loras = saved["loras"]
    return Hires(**saved | {"loras": None if loras is None else tuple(LoraRef(**lora) for lora in loras)})


def _load_start(saved: dict[str, Any] | None) -> Start | None:
    if saved is None:
        return None
    return Start(**saved | {"mask": saved["mask"] and Mask(**saved["mask"])})


def _cell_entry(render: Render, row: int) -> dict[str, str]:
    return {"file": file_name(render, row=row), "settings": render_infotext(render)}


def _row_entry(name: str, loras: LoraRow, point: Point) -> dict[str, Any]:
    values = {axis.kind.name: value for axis, value in point}
    return {"name": name, "loras": [_lora_entry(lora) for lora in loras], **({"values": values} if values else {})}


def _lora_entry(lora: LoraRef) -> dict[str, Any]:
    return {"name": lora.name, "text_encoder": lora.text_encoder, "unet": lora.unet, "hash": lora.hash}


def _skip_json(skip: Skip) -> float | str:
    """Return a Clip Skip as JSON has it: a number, or the schedule's text."""
    return skip.from_end if isinstance(skip, ClipSkip) else str(skip)
