"""Marks over HTTP: kept with the sweep, shown in its summary, and never overwritten by a tab that did not see them."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from pyarrow import parquet
from spec.test_table import changed

from clipskip.doors.http import build_app
from clipskip.doors.tabling import write_table
from clipskip.errors import SpecError
from clipskip.spec import ClipSkip
from clipskip.spec.table import PICTURE
from clipskip.sweep import Studio, Sweep, held
from clipskip.sweep.manifest import write_manifest
from clipskip.weights import Library

SWEEP = Sweep(base=changed(PICTURE[0]), skips=(ClipSkip(1), ClipSkip(2)))
IDS = [SWEEP.cell(0, column).key for column in range(2)]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    (tmp_path / "sweep-a").mkdir()
    write_manifest(tmp_path / "sweep-a", SWEEP)
    studio = Studio(tmp_path, Library((tmp_path,)))
    yield TestClient(build_app(studio), base_url="http://127.0.0.1:7861")
    studio.close()


def test_a_sweep_begins_without_marks_and_keeps_those_that_are_put(client: TestClient) -> None:
    empty = {"revision": 0, "name": "", "note": "", "winner": None, "cells": {}, "choices": []}
    assert client.get("/v1/sweeps/a/marks").json() == empty
    choice = {"one": IDS[0], "other": IDS[1], "chosen": IDS[1], "at": "2026-11-28T22:00:00Z"}
    mark = {"star": True, "name": "", "note": "the frog is red"}
    marks = empty | {"name": "frogs", "winner": IDS[1], "cells": {IDS[1]: mark}, "choices": [choice]}
    assert client.put("/v1/sweeps/a/marks", json=marks).json() == marks | {"revision": 1}
    assert client.get("/v1/sweeps/a/marks").json() == marks | {"revision": 1}
    sweep = client.get("/v1/sweeps/a").json()
    assert (sweep["name"], sweep["stars"], sweep["cells"][0][1]["id"]) == ("frogs", 1, IDS[1])


def test_the_second_of_two_tabs_is_told_and_changes_nothing(client: TestClient) -> None:
    assert client.put("/v1/sweeps/a/marks", json={"revision": 0, "name": "first"}).status_code == 200
    refused = client.put("/v1/sweeps/a/marks", json={"revision": 0, "name": "second"})
    assert (refused.status_code, refused.json()["field"]) == (409, "revision")
    assert client.get("/v1/sweeps/a/marks").json()["name"] == "first"


def test_marks_of_strange_cells_or_beyond_their_length_are_refused(client: TestClient) -> None:
    strange = client.put("/v1/sweeps/a/marks", json={"revision": 0, "winner": "0" * 12})
    assert (strange.status_code, strange.json()["field"]) == (422, "cells")
    assert client.put("/v1/sweeps/a/marks", json={"revision": 0, "name": "x" * 201}).status_code == 422
    assert client.get("/v1/sweeps/b/marks").status_code == 404


def test_past_sweeps_are_found_by_words_of_name_prompt_model_or_lora(client: TestClient) -> None:
    client.put("/v1/sweeps/a/marks", json={"revision": 0, "name": "Night swamp"})

    def ids(text: str) -> list[str]:
        return [sweep["id"] for sweep in client.get("/v1/sweeps", params={"q": text}).json()["sweeps"]]

    base = SWEEP.base
    assert ids("") == ids("swamp NIGHT") == ids(f"night {base.model.name}") == ids(base.prompt.split()[0]) == ["a"]
    assert ids("night owl-that-is-nowhere") == []


def test_a_sweep_is_deleted_only_when_its_id_is_said_again_and_files_of_others_stay(
    client: TestClient, tmp_path: Path
) -> None:
    folder = tmp_path / "sweep-a"
    (folder / "notes.txt").write_text("mine")
    (folder / "grid.png").write_bytes(b"grid")
    client.put("/v1/sweeps/a/marks", json={"revision": 0, "name": "x"})
    assert client.delete("/v1/sweeps/a/folder").status_code == 422
    assert client.delete("/v1/sweeps/a/folder", params={"confirm": "b"}).json()["field"] == "confirm"
    assert (folder / "grid.png").exists()
    assert client.delete("/v1/sweeps/a/folder", params={"confirm": "a"}).json() == {"files": 3, "left": 1}
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    assert client.get("/v1/sweeps/a").status_code == 404


def test_a_sweep_that_another_process_draws_is_not_deleted(client: TestClient, tmp_path: Path) -> None:
    with held(tmp_path / "sweep-a"):
        refused = client.delete("/v1/sweeps/a/folder", params={"confirm": "a"})
    assert refused.status_code == 409 and "in use" in refused.json()["detail"]
    assert client.delete("/v1/sweeps/a/folder", params={"confirm": "a"}).json() == {"files": 1, "left": 0}
    assert not (tmp_path / "sweep-a").exists()


def test_a_sweep_is_sent_as_a_table(client: TestClient) -> None:
    client.put("/v1/sweeps/a/marks", json={"revision": 0, "winner": IDS[1]})
    text = client.get("/v1/sweeps/a/table.csv")
    assert text.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(text.text)))
    assert [(row["clip_skip"], row["winner"]) for row in rows] == [("1", "false"), ("2", "true")]
    table = parquet.read_table(io.BytesIO(client.get("/v1/sweeps/a/table.parquet").content))
    assert table["cell"].to_pylist() == IDS and table["winner"].to_pylist() == [False, True]
    assert client.get("/v1/sweeps/a/table.xlsx").status_code == 422


def test_the_table_command_prints_csv_and_writes_parquet(
    client: TestClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_table(tmp_path / "sweep-a", format=None, out=None)
    assert [row["cell"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))] == IDS
    write_table(tmp_path / "sweep-a", format=None, out=tmp_path / "sweep.parquet")
    assert parquet.read_table(tmp_path / "sweep.parquet")["cell"].to_pylist() == IDS
    with pytest.raises(SpecError, match="cannot be printed"):
        write_table(tmp_path / "sweep-a", format="parquet", out=None)
    with pytest.raises(SpecError, match="use csv or parquet"):
        write_table(tmp_path / "sweep-a", format=None, out=tmp_path / "sweep.xlsx")


def test_marks_that_cannot_be_read_are_told_of_and_hide_no_sweep(client: TestClient, tmp_path: Path) -> None:
    (tmp_path / "sweep-a" / "marks.json").write_text("{")
    assert [sweep["name"] for sweep in client.get("/v1/sweeps").json()["sweeps"]] == [""]
    refused = client.get("/v1/sweeps/a/marks")
    assert refused.status_code == 422 and "move it away" in refused.json()["detail"]
    assert client.put("/v1/sweeps/a/marks", json={"revision": 0}).status_code == 422
    assert (tmp_path / "sweep-a" / "marks.json").read_text() == "{"
