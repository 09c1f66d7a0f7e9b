"""Scores of a sweep's cells: what advise says of the same rows, what plug-ins find, and nothing lost by any of them."""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tiny_sd1 import tiny_checkpoint

from clipskip.advise.prompted import Question, measure
from clipskip.errors import SpecError
from clipskip.score import Scoring, available, score_sweep
from clipskip.spec import Axis, LoraRef, Request, parse_columns
from clipskip.sweep import Extras, Model, SweepFolder, draw_missing, load_model, open_model, plan_sweep, resolve
from clipskip.sweep.history import Record, _read_record
from clipskip.weights import CheckpointFacts, Library, save_single_file

REQUEST = Request(prompt="a red frog, swamp", loras=(LoraRef(name="ogre"),), seed=5, steps=4, width=64, height=64)
ADVISE = Scoring(sources=("advise",))


def planned(
    model: Model, library: Library, place: Path, *, skips: str = "1,2,12", axes: Sequence[str] = ()
) -> tuple[SweepFolder, Extras]:
    """A sweep whose pictures are not drawn yet."""
    sweep, extras = plan_sweep(
        REQUEST, parse_columns(skips), model.facts, library, axes=[Axis.parse(axis) for axis in axes]
    )
    return SweepFolder.create(place, sweep, model=model.facts), extras


def record(folder: SweepFolder) -> Record:
    found = _read_record(folder.path)
    assert found is not None
    return found


def values(folder: SweepFolder, name: str) -> list[list[float | None]]:
    return [[dict(cell.scores).get(name) for cell in row] for row in record(folder).cells]


def test_cells_have_what_advise_measures_of_their_row(model: Model, library: Library, tmp_path: Path) -> None:
    folder, extras = planned(model, library, tmp_path, axes=["seed=5,6"])
    score_sweep(model, folder, extras, ADVISE)
    for row, loras in enumerate(folder.sweep.rows):
        seed = folder.sweep.cell(row, 0).seed
        render, more = resolve(replace(REQUEST, seed=seed), model.facts, library)
        own = {ref.hash: 2 for ref in loras}
        asked = Question(
            render=replace(render, loras=loras), extras=more, skips=(1, 2, 12), reference=2, lora_references=own
        )
        said = measure(model, asked)
        # the same code's path on the same weights and latents: what is rounded to four places is equal
        assert values(folder, "guidance_kept")[row] == list(said.guidance_kept)
        assert values(folder, "conditioning_moved")[row] == list(said.conditioning_distance)
        assert values(folder, "picture_changed")[row] == list(said.change)
        uptake = list(said.loras[0].uptake) if loras else [None] * 3
        assert values(folder, "lora_uptake")[row] == uptake
    assert values(folder, "lora_uptake")[1][2] == 0  # its one layer is skipped there


def test_fractions_are_measured_and_schedules_are_named_as_missing(
    model: Model, library: Library, tmp_path: Path
) -> None:
    folder, extras = planned(model, library, tmp_path, skips="1,1.5,2,[1:2:0.5]")
    summary = score_sweep(model, folder, extras, ADVISE)
    first = values(folder, "conditioning_moved")[0]
    assert first[0] is not None and first[1] is not None and 0 < first[1] < first[0]
    assert first[2:] == [0, None]
    assert summary.missing == ("[1:2:0.5]: a Clip Skip that changes over the steps has no one set of numbers",)


def test_a_prompt_that_cannot_be_measured_is_named_and_its_pictures_stay(
    model: Model, library: Library, tmp_path: Path
) -> None:
    folder, extras = planned(model, library, tmp_path, axes=["prompt=frog||[frog:owl:0.5]"])
    summary = score_sweep(model, folder, extras, ADVISE)
    assert [row[0] is None for row in values(folder, "guidance_kept")] == [False, False, True, True]
    assert len(summary.missing) == 2 and "changes from step to step" in summary.missing[0]


def test_pictures_have_the_same_bytes_with_scores_and_without(model: Model, library: Library, tmp_path: Path) -> None:
    def digests(folder: SweepFolder, extras: Extras) -> list[str]:
        saved = draw_missing(model, folder, extras)
        return [hashlib.sha256(one.path.read_bytes()).hexdigest() for one in saved if hasattr(one, "path")]

    plain = digests(*planned(model, library, tmp_path / "plain"))
    folder, extras = planned(model, library, tmp_path / "scored")
    score_sweep(model, folder, extras, ADVISE)
    assert digests(folder, extras) == plain
    score_sweep(model, folder, extras, ADVISE)
    assert [hashlib.sha256(cell.path.read_bytes()).hexdigest() for cell in record(folder).flat] == plain


def test_what_was_stopped_goes_on_and_asks_nothing_twice(model: Model, library: Library, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(done: int, most: int) -> None:
        if done > most / 2:
            raise Stop

    folder, extras = planned(model, library, tmp_path)
    with pytest.raises(Stop):
        score_sweep(model, folder, extras, ADVISE, tell=stop)
    there = values(folder, "guidance_kept")
    assert None not in there[0] and there[1] == [None] * 3 and record(folder).scores.summary is None
    heard: list[int] = []
    score_sweep(model, folder, extras, ADVISE, tell=lambda done, most: heard.append(done))
    assert values(folder, "guidance_kept")[0] == there[0] and None not in values(folder, "guidance_kept")[1]
    assert heard
    heard.clear()
    again = score_sweep(model, folder, extras, ADVISE, tell=lambda done, most: heard.append(done))
    assert heard == [] and record(folder).scores.summary == again


def test_rows_of_each_model_of_an_axis_have_what_that_model_alone_says(
    model: Model, folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "models")
    whole = tiny_checkpoint(vocabulary=49408, layers=12)
    other = replace(whole, unet={name: one * 0.9 for name, one in whole.unet.items()})
    save_single_file(other, tmp_path / "models" / "other.safetensors")
    library = Library((tmp_path / "models",))
    both, extras = planned(model, library, tmp_path / "both", axes=["model=tiny||other"])
    opened: list[str] = []

    def open(facts: CheckpointFacts) -> Model:
        opened.append(facts.ref.name)
        return load_model(facts.source.path)

    summary = score_sweep(model, both, extras, ADVISE, open=open)
    assert summary.missing == () and opened == ["other"], "each is opened once"
    for name, rows in (("tiny", slice(0, 2)), ("other", slice(2, 4))):
        itself = open_model(name, library=library)
        alone, extras = planned(itself, library, tmp_path / name)
        score_sweep(itself, alone, extras, ADVISE)
        for name_of in ("guidance_kept", "picture_changed", "lora_uptake"):
            assert values(both, name_of)[rows] == values(alone, name_of)
    assert values(both, "guidance_kept")[:2] != values(both, "guidance_kept")[2:]


class Brightness:
    label, unit, higher_is_better = "brightness", "levels", True

    def __call__(self, picture: NDArray[np.uint8], prompt: str) -> float:
        assert prompt == REQUEST.prompt and picture.ndim == 3
        return float(picture.mean())


class Fussy(Brightness):
    def __call__(self, picture: NDArray[np.uint8], prompt: str) -> float:
        if picture[0, 0, 0] % 2:
            raise RuntimeError("an odd corner")
        return float("nan")


def closed() -> Brightness:
    raise ImportError("its weights are missing")


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Three scores as installed packages have them."""
    points = [
        EntryPoint(name=name, value=f"score.test_scoring:{what}", group="clipskip.scores")
        for name, what in (("brightness", "Brightness"), ("fussy", "Fussy"), ("closed", "closed"))
    ]

    def entry_points(*, group: str, name: str | None = None) -> list[EntryPoint]:
        return [point for point in points if point.group == group and name in (None, point.name)]

    monkeypatch.setattr("clipskip.score.scoring.entry_points", entry_points)
    yield


@pytest.mark.usefixtures("plugins")
def test_a_plug_in_scores_each_picture_and_one_that_fails_loses_no_other_number(
    model: Model, library: Library, tmp_path: Path
) -> None:
    folder, extras = planned(model, library, tmp_path)
    for _ in draw_missing(model, folder, extras):
        pass
    assert available() == ("advise", "brightness", "closed", "fussy")
    summary = score_sweep(model, folder, extras, Scoring(sources=("closed", "fussy", "brightness")))
    for cell in record(folder).flat:
        with Image.open(cell.path) as picture:
            assert dict(cell.scores) == {"brightness": pytest.approx(np.asarray(picture.convert("RGB")).mean())}
    assert summary.missing[0] == "closed: cannot be opened: ImportError: its weights are missing"
    assert sum(line.startswith("fussy: no number for ") for line in summary.missing) == len(summary.missing) - 1 > 0
    (measured,) = [one for one in record(folder).scores.measures if one.name == "brightness"]
    assert (measured.label, measured.unit, measured.source) == ("brightness", "levels", "brightness")


def test_a_package_that_is_installed_plugs_in_by_its_entry_point_alone(
    model: Model, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    about = site / "warmth_of_pictures-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: warmth-of-pictures\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[clipskip.scores]\nwarmth = warmth_of_pictures:open_score\n")
    (site / "warmth_of_pictures.py").write_text(
        "class Warmth:\n    label, unit, higher_is_better = 'warmth', 'levels', True\n"
        "    def __call__(self, picture, prompt):\n        return float(picture[..., 0].mean()) - float(picture[..., 2].mean())\n"
        "def open_score():\n    return Warmth()\n"
    )
    monkeypatch.syspath_prepend(site)
    assert "warmth" in available()
    folder, extras = planned(model, library, tmp_path / "sweep", skips="1,2")
    for _ in draw_missing(model, folder, extras):
        pass
    assert score_sweep(model, folder, extras, Scoring(sources=("warmth",))).missing == ()
    for cell in record(folder).flat:
        with Image.open(cell.path) as picture:
            pixels = np.asarray(picture.convert("RGB"), np.float64)
        assert dict(cell.scores) == {"warmth": pytest.approx(pixels[..., 0].mean() - pixels[..., 2].mean(), abs=1e-9)}


@pytest.mark.usefixtures("plugins")
def test_pictures_that_are_not_drawn_have_no_score(model: Model, library: Library, tmp_path: Path) -> None:
    folder, extras = planned(model, library, tmp_path)
    summary = score_sweep(model, folder, extras, Scoring(sources=("brightness",)))
    assert summary.missing == ("brightness: no number for 6 of 6 pictures: not drawn",)


def test_a_score_that_is_not_here_is_refused_by_name() -> None:
    with pytest.raises(SpecError, match="'beauty' is not here; use advise"):
        Scoring(sources=("advise", "beauty"))
    with pytest.raises(SpecError, match="--clip"):
        Scoring(sources=("clip",))
