"""What the command line takes as scores, and what it says of them."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from clipskip.doors.measuring import build_scoring, measure_sweep
from clipskip.doors.terminal import run
from clipskip.errors import SpecError
from clipskip.spec import Request, parse_skips
from clipskip.sweep import Model, SweepFolder, plan_sweep
from clipskip.weights import Library


def test_scores_are_names_with_commas_and_a_clip_model_asks_for_its_own() -> None:
    assert build_scoring(None, None) is None
    asked = build_scoring("advise, advise", "folder")
    assert asked is not None and (asked.sources, asked.clip) == (("advise", "clip"), "folder")
    with pytest.raises(SpecError, match="name its folder with --clip"):
        build_scoring("clip", None)


def test_the_share_that_completes_a_sweep_measures_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from clipskip.doors.cli import app

    size = ["--size", "64x64", "--steps", "2", "--yes"]
    asked = ["clipskip", "sweep", "x", "--clip-skip", "1-8", "--seed", "5", *size, "--scores", "advise"]
    measured = []
    for share in ("1/2", "2/2"):
        monkeypatch.setattr("sys.argv", [*asked, "--shard", share, "--out", str(tmp_path / "out")])
        assert run(app) == 0
        cells = json.loads((tmp_path / "out" / "manifest.json").read_text())["cells"]
        measured.append(["guidance_kept" in (cell or {}).get("scores", {}) for cell in cells[0]])
    assert not any(measured[0]) and all(measured[1])  # eight cells: that one share has them all is one chance in 128


def test_what_was_measured_is_said_and_what_was_not_is_named(
    model: Model, library: Library, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    request = Request(prompt="a red frog", steps=4, seed=5, width=64, height=64)
    sweep, extras = plan_sweep(request, [*parse_skips("1-2"), *parse_skips("1.5")], model.facts, library)
    folder = SweepFolder.create(tmp_path_factory.mktemp("sweep"), sweep, model=model.facts)
    wanted, told = build_scoring("advise", None), io.StringIO()
    assert wanted is not None and measure_sweep(model, folder, extras, wanted, Console(file=told, width=200))
    assert "Clip Skip 2: tiny was trained here" in capsys.readouterr().out
