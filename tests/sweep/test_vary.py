"""A sweep over other axes than Clip Skip: its rows, their names, and going on with it."""

import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_sd1 import WIDTH, tiny_checkpoint

from clipskip.errors import NotFound, SpecError
from clipskip.spec import Axis, ClipSkip, LoraRef, Request, parse_skips
from clipskip.sweep import History, Model, SweepFolder, draw_sweep, open_model, plan_sweep
from clipskip.sweep import folder as folder_module
from clipskip.sweep.folder import pixels_of
from clipskip.weights import Library, save_single_file

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
    with pytest.raises(SpecError, match=said) as refused:
        planned(model, library, axis)
    assert refused.value.field == "axis", "the setting itself has another value, which is right"


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


@pytest.mark.parametrize(("seeds", "seconds"), [(50, 1), pytest.param(500, 2, marks=pytest.mark.slow)])
def test_thousands_of_cells_are_planned_quickly(
    seeds: int, seconds: float, model: Model, library: Library, tmp_path: Path
) -> None:
    """Planned, with the manifest of their names and settings written: in processor time, which a busy machine does not change."""
    axes = [Axis.parse(f"seed=1-{seeds}"), Axis.parse("cfg=1-10")]
    started = time.process_time()
    sweep, _ = plan_sweep(ASKED, parse_skips("1-2"), model.facts, library, axes=axes)
    SweepFolder.create(tmp_path, sweep, model=model.facts)
    assert len(sweep.places) == 20 * seeds
    assert time.process_time() - started < seconds


@pytest.fixture(scope="module")
def shelf(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Library:
    """The tiny model and its LoRA with a second LoRA, a second model, one of 3 layers, a VAE and an embedding."""
    place = tmp_path_factory.mktemp("shelf")
    shutil.copytree(folder, place, dirs_exist_ok=True)
    tensors = load_file(place / "loras" / "ogre.safetensors")
    save_file({name: -tensor for name, tensor in tensors.items()}, place / "loras" / "gnome.safetensors")
    other = tiny_checkpoint(vocabulary=49408, layers=12)
    save_single_file(replace(other, unet={name: -one for name, one in other.unet.items()}), place / "other.safetensors")
    save_single_file(tiny_checkpoint(vocabulary=49408, layers=3), place / "shallow.safetensors")
    (place / "vae").mkdir()
    save_file({name: one * 2 for name, one in other.vae.items()}, place / "vae" / "bright.safetensors")
    (place / "embeddings").mkdir()
    save_file({"emb_params": torch.randn(2, WIDTH)}, place / "embeddings" / "smudge.safetensors")
    return Library((place,))


BOTH = (*OGRE, LoraRef(name="gnome"))


def test_which_loras_are_on_is_an_axis(model: Model, shelf: Library) -> None:
    each = planned(model, shelf, "lora=none||each||all", loras=BOTH)
    assert each.row_names == ("without LoRA", "ogre 0.5/1", "gnome", "ogre 0.5/1 + gnome")
    assert str(each.axes[0]) == "lora=none||ogre||gnome||all", "as it is planned again"
    two = planned(model, shelf, "lora=none||gnome", "lora-weight=0.5,1", loras=BOTH)
    assert two.row_names == ("without LoRA", "LoRA 0.5, gnome 0.5", "LoRA 1, gnome")
    with pytest.raises(SpecError, match="'troll' is not one of this picture's LoRAs; use none, each, all, ogre"):
        planned(model, shelf, "lora=troll", loras=OGRE)
    with pytest.raises(SpecError, match="needs a LoRA"):
        planned(model, shelf, "lora=none||all")


def test_vaes_are_an_axis_and_own_is_the_checkpoints(model: Model, shelf: Library) -> None:
    sweep = planned(model, shelf, "vae=own||bright")
    assert [render.vae and render.vae.name for render in sweep.variants] == [None, "bright.safetensors"]
    assert sweep.row_names == ("VAE own, without LoRA", "VAE bright, without LoRA")


def test_embeddings_are_on_and_off(model: Model, shelf: Library) -> None:
    sweep = planned(
        model, shelf, "embedding=on||off", prompt="a red frog, (smudge:1.2), tall", negative_prompt="ugly, smudge"
    )
    assert [(render.prompt, render.negative_prompt, len(render.embeddings)) for render in sweep.variants] == [
        ("a red frog, (smudge:1.2), tall", "ugly, smudge", 1),
        ("a red frog, tall", "ugly", 0),
    ]
    with pytest.raises(SpecError, match="calls one by its file's name"):
        planned(model, shelf, "embedding=on||off")
    with pytest.raises(SpecError, match=r"use on\|\|off"):
        planned(model, shelf, "embedding=smudge", prompt="smudge")


def test_models_are_an_axis_and_each_row_is_drawn_with_its_own(model: Model, shelf: Library, tmp_path: Path) -> None:
    request = replace(ASKED, loras=OGRE)
    skips = parse_skips("1-2")
    both = draw_sweep(
        request, skips, model, folder=tmp_path / "both", library=shelf, axes=[Axis.parse("model=other||tiny")]
    )
    assert both.sweep.row_names == (
        "other, without LoRA",
        "other, ogre 0.5/1",
        "tiny, without LoRA",
        "tiny, ogre 0.5/1",
    )
    tiny = draw_sweep(request, skips, model, folder=tmp_path / "tiny", library=shelf)
    second = open_model("other", library=shelf)
    other = draw_sweep(replace(request, model="other"), skips, second, folder=tmp_path / "other", library=shelf)
    for row, alone in ((0, other), (1, other), (2, tiny), (3, tiny)):
        for column in range(2):
            assert pixels_of(both.place(row, column)).tolist() == pixels_of(alone.place(row % 2, column)).tolist()
    record = History(tmp_path).find("both")
    assert "Model" not in record.settings, "what varies is not among the shared settings"
    again, _ = plan_sweep(record.request, record.skips, model.facts, shelf, axes=record.axes)
    assert again.key == both.sweep.key


def test_a_combination_that_cannot_be_drawn_is_left_out_and_said(model: Model, shelf: Library) -> None:
    # LoRA ogre changes a fourth layer, which the model of three layers has not
    sweep = planned(model, shelf, "model=tiny||shallow", loras=OGRE)
    assert sweep.row_names == ("tiny, without LoRA", "tiny, ogre 0.5/1", "shallow, without LoRA")
    (line,) = sweep.left_out
    assert line.startswith("shallow, with LoRA: ")
    deep = planned(model, shelf, "model=tiny||shallow", "negative-clip-skip=2||5")
    assert len(deep.rows) == 3
    (line,) = deep.left_out
    assert line.startswith("shallow, negative Clip Skip 5: clip skip 5 is deeper than this encoder's 3 layers")


def test_a_value_that_can_be_drawn_with_nothing_is_an_error(model: Model, shelf: Library) -> None:
    request = replace(ASKED, loras=())
    with pytest.raises(SpecError, match="deeper than this encoder's 3 layers"):
        plan_sweep(request, parse_skips("1-5"), model.facts, shelf, axes=[Axis.parse("model=tiny||shallow")])
    with pytest.raises(NotFound, match="nowhere") as missing:
        planned(model, shelf, "model=tiny||nowhere")
    assert missing.value.field == "axis"
