"""A sweep over other axes than Clip Skip: its rows, their names, and going on with it."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from clipskip.errors import SpecError
from clipskip.spec import Axis, ClipSkip, LoraRef, Request, parse_skips
from clipskip.sweep import History, Model, SweepFolder, draw_sweep, plan_sweep
from clipskip.sweep import folder as folder_module
from clipskip.weights import Library

ASKED = Request(prompt="a red frog", steps=1, seed=3, width=64, height=64, model="tiny")
OGRE = (LoraRef(name="ogre", text_encoder=0.5, unet=1.0),)


def planned(model: Model, library: Library, *axes: str, **changes: object):  # type: ignore[no-untyped-def]
    request = replace(ASKED, **changes)  # type: ignore[arg-type]
    sweep, _ = plan_sweep(request, parse_skips("1-2"), model.facts, library, axes=[Axis.parse(text) for text in axes])
    return sweep


def test_rows_are_the_combinations_without_and_with_the_loras(model: Model, library: Library) -> None:
    sweep = planned(model, library, "seed=5-6", "cfg=3,7", loras=OGRE)
    assert sweep.row_names[:3] == (
        "seed 5, CFG 3, without LoRA",
        "seed 5, CFG 3, ogre 0.5/1",
        "seed 5, CFG 7, without LoRA",
    )
    assert len(sweep.rows) == 8 and len(sweep.places) == 16
    cell = sweep.cell(7, 1)
    assert (cell.seed, cell.cfg_scale, cell.clip_skip, cell.loras[0].name) == (6, 7.0, ClipSkip(2), "ogre")


def test_lora_weights_vary_together_or_apart_and_the_row_without_stands_once(model: Model, library: Library) -> None:
    weights = planned(model, library, "lora-weight=0.2,0.8", loras=OGRE)
    assert [[(lora.text_encoder, lora.unet) for lora in row] for row in weights.rows] == [
        [],
        [(0.2, 0.2)],
        [(0.8, 0.8)],
    ]
    assert weights.row_names == ("without LoRA", "LoRA 0.2, ogre 0.2", "LoRA 0.8, ogre 0.8")
    assert [[value for _, value in point] for point in weights.points] == [[], [0.2], [0.8]]
    unet = planned(model, library, "lora-unet=0.2,0.8", loras=OGRE)
    assert [(row[0].text_encoder, row[0].unet) for row in unet.rows[1:]] == [(0.5, 0.2), (0.5, 0.8)]


def test_prompts_samplers_and_steps_are_read_anew(model: Model, library: Library) -> None:
    sweep = planned(model, library, "prompt=red||blue", "sampler=Euler a,euler", "steps=1-2", seed=-1)
    renders = [sweep.cell(row, 0) for row in range(len(sweep.rows))]
    assert [render.prompt for render in renders[::4]] == ["a red frog", "a blue frog"]
    assert [render.sampler for render in renders[:4:2]] == ["Euler a", "Euler"]
    assert len({render.seed for render in renders}) == 1, "a seed that is drawn is drawn once"


@pytest.mark.parametrize(
    ("axis", "said"),
    [("lora-weight=1", "needs a LoRA"), ("prompt=owl||cat", "neither prompt"), ("steps=0", "steps"), ("sampler=None", "sampler"),
     ("cfg=99", "cfg"), ("negative-clip-skip=13", "13")],
)  # fmt: skip
def test_values_that_cannot_be_drawn_are_refused_before_anything_is(
    model: Model, library: Library, axis: str, said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        planned(model, library, axis)


def test_a_sweep_without_axes_is_what_it_was(model: Model, library: Library) -> None:
    sweep = planned(model, library, loras=OGRE)
    assert sweep.variants == () and sweep.row_names == ("without LoRA", "ogre 0.5/1")


def test_it_is_drawn_found_again_and_its_sheet_is_paged(
    model: Model, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "MOST_PIXELS", 2 * 256 * 256 * 2)
    monkeypatch.setattr(folder_module, "MOST_EMBEDDED", 100)
    axes = [Axis.parse("seed=1-3")]
    request = replace(ASKED, loras=OGRE)
    drawn = draw_sweep(request, parse_skips("1-2"), model, folder=tmp_path / "sweep-x", library=library, axes=axes)
    assert drawn.whole and sorted(path.name for path in drawn.path.glob("grid*")) == [
        "grid-2.png",
        "grid-3.png",
        "grid.png",
    ]
    page = drawn.page.read_text()
    name = drawn.place(0, 0).name
    assert f'"image": "{name}"' in page and "data:image/png" not in page
    record = History(tmp_path).find("x")
    assert record.axes == tuple(axes) and record.complete
    again, _ = plan_sweep(record.request, record.skips, model.facts, library, axes=record.axes)
    assert again.key == drawn.sweep.key
    with Image.open(drawn.place(5, 1)) as picture:
        assert "Seed: 3" in picture.text["parameters"]  # type: ignore[attr-defined]
    assert "Seed" not in record.settings, "what varies is not among the shared settings"


def test_ten_thousand_cells_are_planned_quickly(model: Model, library: Library, tmp_path: Path) -> None:
    """The aim is two seconds on an idle machine; the bound leaves room for a busy one."""
    axes = [Axis.parse("seed=1-500"), Axis.parse("cfg=1-10")]
    started = time.process_time()
    sweep, _ = plan_sweep(ASKED, parse_skips("1-2"), model.facts, library, axes=axes)
    SweepFolder.create(tmp_path, sweep, model=model.facts)
    assert len(sweep.places) == 10_000
    assert time.process_time() - started < 8
