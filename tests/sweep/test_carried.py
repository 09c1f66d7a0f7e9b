"""What a sweep's own page carries for other tools is what the server answers."""

from dataclasses import asdict
from typing import Any

import pytest

from clipskip.spec import ClipSkip, Family, conversion_table, request_from_text
from clipskip.sweep.carried import carried_dialects, carried_forms
from clipskip.sweep.forms import forms_of

SETTINGS = (
    "a (gnome:1.2)<lora:gnome:{weight}>\nNegative prompt: blurry\nSteps: 2, Sampler: Euler a, Schedule type: Automatic, "
    "CFG scale: 4, Seed: 5, Size: 128x128, Model: starter, Clip skip: {skip}"
)
SKIPS = (1, 1.5, 3)


@pytest.fixture
def manifest() -> dict[str, Any]:
    return {
        "model": {"family": "SD 1.x"},
        "columns": [{"clip_skip": skip, "label": f"Clip Skip {skip:g}"} for skip in SKIPS],
        "cells": [
            [{"file": "x.png", "settings": SETTINGS.format(weight=weight, skip=skip)} for skip in SKIPS]
            for weight in (0.5, 1)
        ],
    }


def test_each_cell_has_the_forms_of_its_own_settings(manifest: dict[str, Any]) -> None:
    carried = carried_forms(manifest)
    assert len(set(carried["lines"])) == len(carried["lines"])
    for cells, packed in zip(manifest["cells"], carried["cells"], strict=True):
        for cell, forms in zip(cells, packed, strict=True):
            unpacked = [
                {
                    "tool": tool,
                    "file": file,
                    "text": "\n".join(carried["lines"][number] for number in text),
                    "notes": tuple(carried["lines"][number] for number in notes),
                    "error": error,
                }
                for (tool, file), (text, notes, error) in zip(carried["names"], forms, strict=True)
            ]
            expected = forms_of(request_from_text(cell["settings"]), family=Family.SD1)
            assert unpacked == [asdict(form) for form in expected]


def test_a_clip_skip_between_two_layers_has_errors_in_the_place_of_forms(manifest: dict[str, Any]) -> None:
    errors = [error for _, _, error in carried_forms(manifest)["cells"][0][1]]
    assert len(errors) == 5 and all("1.5" in error for error in errors)


def test_settings_that_cannot_be_read_leave_their_row_out_and_the_page_is_written(manifest: dict[str, Any]) -> None:
    manifest["cells"][0][0]["settings"] = "a gnome\nSteps: 2, Sampler: Nobody's, Clip skip: 1"
    rows = carried_forms(manifest)["cells"]
    assert rows[0] is None and len(rows[1]) == 3


def test_each_column_has_its_number_in_every_tool(manifest: dict[str, Any]) -> None:
    manifest["columns"][2]["clip_skip"] = "[1:2:0.5]"
    tables = carried_dialects(manifest)
    assert [row["number"] for row in tables[0]] == [row.number for row in conversion_table(ClipSkip(1))]
    assert tables[1] and tables[2] == []
