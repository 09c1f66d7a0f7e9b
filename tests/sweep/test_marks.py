"""What a person thinks of a sweep is kept beside it, and nobody's change is lost to another's."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from spec.test_table import changed

from clipskip.errors import Conflict, DamagedFile, SpecError
from clipskip.spec import ClipSkip
from clipskip.spec.table import PICTURE
from clipskip.sweep import CellMark, Choice, Marks, Sweep, finish_folder, read_marks, write_marks
from clipskip.sweep.manifest import write_manifest

CELLS = ("0123456789ab", "ba9876543210")
MARKS = Marks(
    name="reeds",
    note="the ogre is green here",
    winner=CELLS[0],
    cells=((CELLS[0], CellMark(star=True, name="best", note="=1+1")),),
    choices=(Choice(one=CELLS[0], other=CELLS[1], chosen=CELLS[0], at="2026-11-28T22:00:00Z"),),
)


def test_marks_come_back_as_they_were_with_the_next_revision(tmp_path: Path) -> None:
    assert read_marks(tmp_path) == Marks()
    kept = write_marks(tmp_path, MARKS, cells=CELLS)
    assert kept == replace(MARKS, revision=1) == read_marks(tmp_path)


def test_a_change_on_top_of_an_older_revision_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    write_marks(tmp_path, MARKS, cells=CELLS)
    with pytest.raises(Conflict, match="at revision 1, but these were made on top of 0"):
        write_marks(tmp_path, replace(MARKS, name="mine"), cells=CELLS)
    assert read_marks(tmp_path).name == "reeds"


def test_of_many_who_change_the_same_revision_at_once_one_is_kept(tmp_path: Path) -> None:
    def change(number: int) -> bool:
        try:
            write_marks(tmp_path, replace(MARKS, name=str(number)), cells=CELLS)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        kept = list(pool.map(change, range(8)))
    assert sum(kept) == 1
    assert read_marks(tmp_path).name == str(kept.index(True))


def test_marks_of_cells_that_the_sweep_does_not_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no cell 'ba9876543210'"):
        write_marks(tmp_path, MARKS, cells=CELLS[:1])
    assert not (tmp_path / "marks.json").exists()


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"kind": "other"}', json.dumps({"kind": "clipskip marks", "revision": 1})]
)
def test_marks_that_cannot_be_read_are_an_error_and_not_empty(text: str, tmp_path: Path) -> None:
    (tmp_path / "marks.json").write_text(text)
    with pytest.raises(DamagedFile, match="cannot be read"):
        read_marks(tmp_path)


def test_a_comparison_chooses_one_of_its_two_pictures_or_neither() -> None:
    with pytest.raises(SpecError, match="two different pictures"):
        Choice(one="a", other="b", chosen="c")
    with pytest.raises(SpecError, match="two different pictures"):
        Choice(one="a", other="a", chosen=None)
    assert Choice(one="a", other="b", chosen=None).chosen is None


def test_marks_that_cannot_be_read_do_not_keep_a_sweep_from_its_page(tmp_path: Path) -> None:
    write_manifest(tmp_path, Sweep(base=changed(PICTURE[0]), skips=(ClipSkip(1),)))
    (tmp_path / "marks.json").write_text("{")
    finish_folder(tmp_path)
    assert (tmp_path / "index.html").is_file() and (tmp_path / "marks.json").read_text() == "{"
