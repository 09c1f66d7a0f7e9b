"""Scores are kept in a sweep's manifest, beside its cells; a manifest without them stays as it is."""

import json
from pathlib import Path

import pytest
from spec.test_table import changed

from clipskip.errors import DamagedFile, OutputError
from clipskip.spec import ClipSkip
from clipskip.spec.table import PICTURE
from clipskip.sweep import Badge, Group, Measure, PairedComparison, Summary, Sweep, write_scores
from clipskip.sweep.history import History
from clipskip.sweep.manifest import read_manifest, write_manifest
from clipskip.sweep.scores import scores_of

KEPT = Measure(name="guidance_kept", label="guidance kept", unit="share", higher_is_better=True, source="advise")
CLIP = Measure(name="clip_score", label="CLIP score", unit="points", higher_is_better=True, source="clip")
SWEEP = Sweep(base=changed(PICTURE[0]), skips=(ClipSkip(1), ClipSkip(2)))
SUMMARY = Summary(
    badges=(Badge(column=1, kind="trained here", about="tiny", value=0.9, text="90%: its metadata"),),
    groups=(Group(rows=(0,), column=0, measure="guidance_kept", count=1, mean=0.5, spread=None),),
    comparisons=(
        PairedComparison(
            rows=(0,), measure="guidance_kept", best=0, other=1, difference=0.1, seeds=4, p=0.01, corrected=0.01,
            more_than_chance=True,
        ),
    ),
    lines=("Clip Skip 1 keeps most.",),
    missing=("clip_score: no model",),
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "sweep-a"
    found.mkdir()
    write_manifest(found, SWEEP)
    return found


def test_a_cells_id_is_the_key_of_its_settings(folder: Path) -> None:
    record = History(folder.parent).find("a")
    assert [cell.id for cell in record.flat] == [SWEEP.cell(0, column).key for column in range(2)]


def test_scores_and_their_summary_come_back_from_a_manifest(folder: Path) -> None:
    ids = [SWEEP.cell(0, column).key for column in range(2)]
    write_scores(folder, measures=[KEPT], cells={ids[0]: {"guidance_kept": 0.75}, ids[1]: {"guidance_kept": 1.0}})
    write_scores(folder, measures=[CLIP], cells={ids[1]: {"clip_score": 31.5}}, summary=SUMMARY)
    record = History(folder.parent).find("a")
    assert [dict(cell.scores) for cell in record.flat] == [
        {"guidance_kept": 0.75},
        {"guidance_kept": 1.0, "clip_score": 31.5},
    ]
    assert (record.scores.measures, record.scores.summary) == ((KEPT, CLIP), SUMMARY)


def test_a_manifest_without_scores_keeps_every_byte_and_has_none(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert manifest is not None and not {"measures", "summary"} & manifest.keys()
    assert all("scores" not in cell for row in manifest["cells"] for cell in row)
    assert (scores_of(manifest).measures, scores_of(manifest).summary) == ((), None)


def test_scores_that_cannot_be_read_are_an_error(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    for spoilt in ({"measures": [{"name": "x"}]}, {"measures": 5}, {"summary": {"badges": []}}, {"summary": []}):
        with pytest.raises(DamagedFile, match=r"scores in manifest\.json cannot be read"):
            scores_of(manifest | spoilt)


def test_scores_need_a_sweep(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="contains no sweep"):
        write_scores(tmp_path, measures=[KEPT])
