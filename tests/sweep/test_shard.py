"""A sweep on several machines: disjoint shares, claims, merging; the same bytes as from one process."""

import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from clipskip.errors import NotFound, OutputError, SpecError
from clipskip.spec import Axis, LoraRef, Request, parse_skips
from clipskip.sweep import (
    CellMark,
    Failed,
    Marks,
    Measure,
    Model,
    Saved,
    Shard,
    SweepFolder,
    cell_id,
    draw_missing,
    finish_folder,
    merge_folders,
    plan_sweep,
    read_marks,
    read_sweep,
    read_workers,
    write_marks,
    write_scores,
)
from clipskip.sweep.shard import CLAIM_S, _claimant, claim, release, renew
from clipskip.weights import Library

ASKED = Request(prompt="a frog", steps=1, seed=3, width=64, height=64, model="tiny")
SKIPS = parse_skips("1-3")
AXES = (Axis.parse("seed=1-3"),)


def folder_at(path: Path, model: Model, library: Library) -> tuple[SweepFolder, object]:
    sweep, extras = plan_sweep(ASKED, SKIPS, model.facts, library, axes=AXES)
    return SweepFolder.create(path, sweep, model=model.facts), extras


def draw(path: Path, model: Model, library: Library, shard: Shard) -> SweepFolder:
    folder, extras = folder_at(path, model, library)
    for _ in draw_missing(model, folder, extras, shard=shard):  # type: ignore[arg-type]
        pass
    return folder


def bytes_of(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.glob("row*.png")}


def test_shares_are_disjoint_and_merge_to_the_same_bytes(model: Model, library: Library, tmp_path: Path) -> None:
    whole = draw(tmp_path / "whole", model, library, Shard())
    parts = [draw(tmp_path / str(i), model, library, Shard(number=i, count=3)) for i in (1, 2, 3)]
    names = [set(bytes_of(part.path)) for part in parts]
    assert sum(map(len, names)) == len(set.union(*names)) == 9
    assert merge_folders(tmp_path / "merged", [part.path for part in parts]) == (9, 9)
    assert bytes_of(tmp_path / "merged") == bytes_of(whole.path)


def test_merging_keeps_what_people_thought_and_what_was_measured(
    model: Model, library: Library, tmp_path: Path
) -> None:
    parts = [draw(tmp_path / str(i), model, library, Shard(number=i, count=2)) for i in (1, 2)]
    ids = [cell_id(path.name) for part in parts for path in sorted(part.path.glob("row*.png"))]
    measure = Measure(name="taste", label="taste", unit="points", higher_is_better=True, source="me")
    for number, part in enumerate(parts):
        write_scores(part.path, measures=[measure], cells={ids[-number]: {"taste": float(number)}})
    mine = (CellMark(star=True, note="green"), CellMark(name="best"))
    write_marks(parts[0].path, Marks(name="reeds", winner=ids[0], cells=((ids[1], mine[0]),)), cells=ids)
    write_marks(parts[1].path, Marks(name="swamp", note="try 3", winner=ids[2], cells=((ids[1], mine[1]),)), cells=ids)
    for _ in range(2):  # merging again changes nothing
        merge_folders(tmp_path / "merged", [part.path for part in parts])
        marks = read_marks(tmp_path / "merged")
        assert (marks.name, marks.winner, marks.note) == ("reeds", ids[0], "Also called: swamp\ntry 3")
        assert marks.of(ids[1]) == CellMark(star=True, name="best", note="green") and marks.of(ids[2]).star
        assert marks.revision == 1
    finish_folder(tmp_path / "merged")
    record = read_sweep(tmp_path / "merged")
    assert {cell.id: dict(cell.scores) for cell in record.flat if cell.scores} == {
        ids[0]: {"taste": 0.0}, ids[-1]: {"taste": 1.0},
    }  # fmt: skip
    assert record.scores.measures == (measure,)
    assert len(read_workers(tmp_path / "merged")) == 1, "one process drew both"


def test_a_claim_of_a_killed_process_of_this_machine_is_anybodys_at_once(
    model: Model, library: Library, tmp_path: Path
) -> None:
    folder, _ = folder_at(tmp_path, model, library)
    cell = folder.sweep.cell(0, 0)
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    assert list(claim(tmp_path, [cell])) == [cell]
    (tmp_path / ".claims" / cell.key).write_text(_claimant(gone.pid))
    assert list(claim(tmp_path, [cell])) == [cell] and list(claim(tmp_path, [cell])) == []


def test_a_claim_that_is_renewed_stays(model: Model, library: Library, tmp_path: Path) -> None:
    folder, _ = folder_at(tmp_path, model, library)
    cell = folder.sweep.cell(0, 0)
    assert list(claim(tmp_path, [cell])) == [cell]
    old = time.time() - CLAIM_S - 1
    os.utime(tmp_path / ".claims" / cell.key, (old, old))
    renew(tmp_path, [cell])
    assert list(claim(tmp_path, [cell])) == []


def test_a_clock_that_is_wrong_takes_no_claim_away(
    model: Model, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine whose clock is a day ahead measures a claim's age by the file system's."""
    folder, _ = folder_at(tmp_path, model, library)
    cell = folder.sweep.cell(0, 0)
    assert list(claim(tmp_path, [cell])) == [cell]
    monkeypatch.setattr(time, "time", lambda now=time.time: now() + 86_400)
    assert list(claim(tmp_path, [cell])) == []


def test_shares_of_one_folder_fill_it(model: Model, library: Library, tmp_path: Path) -> None:
    folder = draw(tmp_path, model, library, Shard(number=1, count=2))
    assert not folder.whole
    assert draw(tmp_path, model, library, Shard(number=2, count=2)).whole


def test_claimed_cells_are_left_to_whoever_claimed_them(model: Model, library: Library, tmp_path: Path) -> None:
    folder, extras = folder_at(tmp_path, model, library)
    cells = [folder.sweep.cell(row, column) for row, column in folder.sweep.places]
    assert list(claim(tmp_path, cells[:4])) == cells[:4]
    events = draw_missing(model, folder, extras, shard=Shard.parse("auto"))  # type: ignore[arg-type]
    drawn = [event.render for event in events if isinstance(event, Saved)]
    assert drawn == cells[4:]
    release(tmp_path, cells[:2])
    events = draw_missing(model, folder, extras, shard=Shard.parse("auto"))  # type: ignore[arg-type]
    drawn = [event.render for event in events if isinstance(event, Saved)]
    assert set(drawn) == {*cells[:2], *cells[4:]}, "those that are there are told of too"


def test_a_claim_of_a_lost_process_is_anybodys_after_a_while(model: Model, library: Library, tmp_path: Path) -> None:
    folder, _ = folder_at(tmp_path, model, library)
    cell = folder.sweep.cell(0, 0)
    assert list(claim(tmp_path, [cell])) == [cell] and list(claim(tmp_path, [cell])) == []
    old = time.time() - CLAIM_S - 1
    os.utime(tmp_path / ".claims" / cell.key, (old, old))
    assert list(claim(tmp_path, [cell])) == [cell] and list(claim(tmp_path, [cell])) == []


@pytest.mark.parametrize("text", ["1/1", "auto"])
def test_cells_that_cannot_be_drawn_are_listed_and_the_others_are_there(
    text: str, model: Model, library: Library, tmp_path: Path
) -> None:
    asked, axis = replace(ASKED, loras=(LoraRef(name="ogre"),)), Axis.parse("lora-weight=0.5,1e38,0.7")
    sweep, extras = plan_sweep(asked, SKIPS, model.facts, library, axes=[axis])
    folder = SweepFolder.create(tmp_path, sweep, model=model.facts)
    for _ in range(2):  # they are tried again each time
        failed: list[Failed] = []
        saved = [*draw_missing(model, folder, extras, shard=Shard.parse(text), failed=failed)]
        assert {cell.place for cell in failed} == {(2, 0), (2, 1), (2, 2)}
        assert all("lower their weights" in cell.reason for cell in failed)
        assert len(bytes_of(tmp_path)) == 9 and sum(isinstance(event, Saved) for event in saved) == 9
    with pytest.raises(SpecError, match="lower their weights"):
        list(draw_missing(model, folder, extras))


def test_what_is_stopped_gives_its_claims_back(model: Model, library: Library, tmp_path: Path) -> None:
    folder, extras = folder_at(tmp_path, model, library)
    events = draw_missing(model, folder, extras, shard=Shard.parse("auto"))  # type: ignore[arg-type]
    next(events)
    events.close()  # type: ignore[attr-defined]
    assert draw(tmp_path, model, library, Shard.parse("auto")).whole


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "a/b", "1", "1/3/3", "", "-1/3"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="shard"):
        Shard.parse(text)


def test_merging_wants_folders_of_one_sweep(model: Model, library: Library, tmp_path: Path) -> None:
    one = draw(tmp_path / "one", model, library, Shard(number=1, count=9))
    with pytest.raises(NotFound, match="no sweep"):
        merge_folders(tmp_path / "merged", [tmp_path / "none"])
    sweep, _ = plan_sweep(replace(ASKED, seed=9), SKIPS, model.facts, library)
    SweepFolder.create(tmp_path / "other", sweep, model=model.facts)
    with pytest.raises(SpecError, match="different sweeps"):
        merge_folders(tmp_path / "merged", [one.path, tmp_path / "other"])


def test_the_same_cell_with_other_bytes_is_told(model: Model, library: Library, tmp_path: Path) -> None:
    parts = [draw(tmp_path / name, model, library, Shard()) for name in "ab"]
    victim = next(parts[1].path.glob("row*.png"))
    victim.write_bytes(victim.read_bytes() + b"\0")
    with pytest.raises(OutputError, match="different bytes"):
        merge_folders(tmp_path / "merged", [part.path for part in parts])


def test_two_different_sweeps_do_not_share_a_folder(model: Model, library: Library, tmp_path: Path) -> None:
    folder_at(tmp_path, model, library)
    sweep, _ = plan_sweep(replace(ASKED, seed=9), SKIPS, model.facts, library)
    with pytest.raises(OutputError, match="another sweep"):
        SweepFolder.create(tmp_path, sweep, model=model.facts)
