"""Data for other tools on a sweep's own page: the forms of each picture, and each Clip Skip in their numbers."""

from collections.abc import Sequence
from typing import Any

from clipskip.errors import ClipskipError
from clipskip.spec import ClipSkip, Family, Skip, conversion_table, parse_skip, request_from_text
from clipskip.sweep.forms import Form, row_forms

Json = dict[str, Any]  # Any: JSON


def carried_forms(manifest: Json) -> Json:
    """Return the forms of every cell. They are much alike, so each line of text is kept once and named by its number."""
    skips = _manifest_skips(manifest)
    numbers: dict[str, int] = {}
    names: list[list[str]] = []
    rows: list[list[list[list[Any]]] | None] = []  # Any: two lists of lines' numbers, and an error
    for cells in manifest["cells"]:
        forms = _forms(str(cells[0]["settings"]), skips, _family(manifest))
        rows.append(None if forms is None else [[_packed(form, numbers) for form in cell] for cell in forms])
        names = [[form.tool, form.file] for form in forms[0]] if forms else names
    return {"names": names, "lines": list(numbers), "cells": rows}


def carried_dialects(manifest: Json) -> list[list[Json]]:
    """Return each column's Clip Skip in every tool's numbers; none for those that are not one number."""
    skips = _manifest_skips(manifest)
    tables = (conversion_table(skip, family=_family(manifest)) if isinstance(skip, ClipSkip) else () for skip in skips)
    return [
        [
            {"tool": row.dialect.value, "label": row.dialect.label, "number": row.number, "note": row.note}
            for row in table
        ]
        for table in tables
    ]


def _forms(settings: str, skips: Sequence[Skip], family: Family) -> list[tuple[Form, ...]] | None:
    """Return the forms of a row's cells; None where its settings have none, so that the page is written all the same."""
    try:
        return row_forms(request_from_text(settings), skips, family=family)
    except ClipskipError:
        return None


def _packed(form: Form, numbers: dict[str, int]) -> list[Any]:
    lines, notes = (
        [numbers.setdefault(line, len(numbers)) for line in text] for text in (form.text.split("\n"), form.notes)
    )
    return [lines, notes, form.error]


def _manifest_skips(manifest: Json) -> list[Skip]:
    return [parse_skip(str(column["clip_skip"])) for column in manifest["columns"]]


def _family(manifest: Json) -> Family:
    family = manifest["model"].get("family")
    return Family.parse(family) if family else Family.SD1
