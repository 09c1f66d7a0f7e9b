"""A sweep as a table: what stands in it is what the pictures say, with types, read back by other readers."""

import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet
from spec.test_table import changed

from clipskip.errors import NotFound, SpecError
from clipskip.spec import ClipSkip, LoraRef, Render, parse_skip
from clipskip.spec.table import MAX_SEED, PICTURE
from clipskip.sweep import CellMark, Marks, Measure, Sweep, read_sweep, write_scores
from clipskip.sweep.manifest import write_manifest
from clipskip.sweep.tabulate import as_csv, as_parquet, tabulate

BASE = replace(changed(PICTURE[0]), prompt="=SUM(A1), a frog", seed=MAX_SEED)
OGRE = LoraRef(name="ogre", text_encoder=0.5, unet=0.8, hash="0123456789ab")
KEPT = Measure(name="guidance_kept", label="guidance kept", unit="share", higher_is_better=True, source="advise")
SKIPS = (ClipSkip(1), ClipSkip(1.5), parse_skip("[1:2:0.5]"))


def sweep_in(folder: Path, base: Render = BASE, rows: Sequence[tuple[LoraRef, ...]] = ((), (OGRE,))) -> Sweep:
    sweep = Sweep(base=base, skips=SKIPS, rows=tuple(rows))
    write_manifest(folder, sweep)
    write_scores(folder, measures=[KEPT], cells={sweep.cell(1, 0).key: {"guidance_kept": 0.25}})
    return sweep


def test_a_parquet_table_has_every_cell_with_its_settings_scores_and_types(tmp_path: Path) -> None:
    sweep = sweep_in(tmp_path)
    best = sweep.cell(1, 0).key
    marks = Marks(winner=best, cells=((best, CellMark(star=True, note="+1")),))
    table = parquet.read_table(io.BytesIO(as_parquet(tabulate(read_sweep(tmp_path), marks))))
    rows = table.to_pylist()
    assert [(row["row"], row["column"], row["clip_skip"], row["clip_skip_number"]) for row in rows[:3]] == [
        (0, 0, "1", 1.0), (0, 1, "1.5", 1.5), (0, 2, "[1:2:0.5]", None),
    ]  # fmt: skip
    assert [row["cell"] for row in rows] == [sweep.cell(row, column).key for row, column in sweep.places]
    assert [(row["lora.ogre.text_encoder"], row["lora.ogre.unet"]) for row in rows] == [(0, 0)] * 3 + [(0.5, 0.8)] * 3
    assert [row["score.guidance_kept"] for row in rows] == [None, None, None, 0.25, None, None]
    assert [row["winner"] for row in rows].index(True) == 3 and rows[3]["star"] and rows[3]["note"] == "+1"
    assert not any(row["drawn"] for row in rows)
    assert rows[0]["prompt"] == BASE.prompt and rows[0]["seed"] == MAX_SEED
    for setting in PICTURE:
        assert rows[0][setting.key] == getattr(BASE, setting.name), setting.key
    kinds = {field.name: field.type for field in table.schema}
    assert (kinds["seed"], kinds["steps"], kinds["cfg_scale"]) == (pyarrow.uint64(), pyarrow.int64(), pyarrow.float64())
    assert (kinds["drawn"], kinds["prompt"], kinds["eta"]) == (pyarrow.bool_(), pyarrow.string(), pyarrow.float64())


def test_columns_are_the_same_whatever_the_values(tmp_path: Path) -> None:
    names = []
    for number, base in enumerate((BASE, changed(PICTURE[-1]), replace(BASE, eta=None, vae=None))):
        (tmp_path / str(number)).mkdir()
        sweep_in(tmp_path / str(number), base)
        names.append(
            parquet.read_table(io.BytesIO(as_parquet(tabulate(read_sweep(tmp_path / str(number)), Marks())))).schema
        )
    assert names[0] == names[1] == names[2]


def test_no_text_in_a_csv_table_is_a_formula_and_numbers_stay_numbers(tmp_path: Path) -> None:
    sweep = sweep_in(tmp_path, replace(BASE, ensd=-5))
    marks = Marks(cells=((sweep.cell(0, 0).key, CellMark(name="@x", note="-2+3\nmore")),))
    text = as_csv(tabulate(read_sweep(tmp_path), marks))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows[0]["prompt"] == "'=SUM(A1), a frog"
    assert (rows[0]["name"], rows[0]["note"]) == ("'@x", "'-2+3\nmore")
    assert (rows[0]["ensd"], rows[0]["drawn"], rows[0]["score.guidance_kept"]) == ("-5", "false", "")
    texts = [value for row in rows for name, value in row.items() if name not in ("ensd",)]
    assert not any(value.startswith(("=", "+", "-", "@", "\t", "\r")) for value in texts)


def test_a_table_needs_a_sweep_and_parquet_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound, match="contains no sweep"):
        read_sweep(tmp_path)
    sweep_in(tmp_path)
    table = tabulate(read_sweep(tmp_path), Marks())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SpecError, match=r"clipskip\[table\]"):
        as_parquet(table)
