"""From a request to pictures on disk, with a tiny random model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from clipskip.errors import DamagedFile, NotFound, OutputError, SkipOutOfRange, UnsafeFile
from clipskip.image import read_infotext
from clipskip.spec import ClipSkip, LoraRef, Request, parse_skips, render_infotext, request_from_text
from clipskip.sweep import (
    Advance,
    Drawn,
    Model,
    Saved,
    SweepFolder,
    draw_missing,
    draw_one,
    draw_sweep,
    draw_to,
    open_model,
    plan_sweep,
    resolve,
    warnings_of,
)
from clipskip.weights import Library

ASKED = Request(
    prompt="swamp, (ogre:1.2) <lora:ogre:0.8>", negative_prompt="blurry", steps=2, seed=5, width=64, height=64
)


def sweep_in(path: Path, model: Model, library: Library, *, skips: str = "1-2") -> tuple[SweepFolder, object]:
    sweep, extras = plan_sweep(ASKED, parse_skips(skips), model.facts, library)
    return SweepFolder.create(path, sweep), extras


def test_a_request_resolves_to_files_by_content_and_the_models_own_defaults(model: Model, library: Library) -> None:
    render, extras = resolve(replace(ASKED, width=None, height=None), model.facts, library)
    assert render.clip_skip == ClipSkip(2), "trained at 2"
    assert (render.width, render.height, render.prompt) == (128, 128, "swamp, (ogre:1.2)")
    assert len(render.model.hash) == 10 and render.loras[0].hash in extras.loras
    assert render.loras[0].text_encoder == 0.8


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"clip_skip": ClipSkip(13)}, SkipOutOfRange),
        ({"negative_clip_skip": ClipSkip(12.5)}, SkipOutOfRange),
        ({"prompt": "<lora:shrek:1>"}, NotFound),
        ({"loras": (LoraRef(name="shrek"),)}, NotFound),
    ],
)
def test_what_is_not_there_is_said_before_anything_is_drawn(
    model: Model, library: Library, change: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        resolve(replace(ASKED, **change), model.facts, library)


def test_a_sweep_writes_each_picture_with_its_settings_then_grid_and_page(
    tmp_path: Path, model: Model, library: Library
) -> None:
    folder, extras = sweep_in(tmp_path, model, library)
    saved = [event for event in draw_missing(model, folder, extras) if isinstance(event, Saved)]
    assert len({event.path for event in saved}) == 4
    for event in saved:
        assert read_infotext(event.path) == render_infotext(event.render)
        assert f"Clip skip: {event.render.clip_skip}," in read_infotext(event.path)
    folder.finish()
    with Image.open(folder.grid) as picture:
        assert picture.width > 2 * 256
    assert folder.page.read_text().count("data:image/png") == 4


def test_clip_skip_and_lora_each_change_the_picture(tmp_path: Path, model: Model, library: Library) -> None:
    folder, extras = sweep_in(tmp_path, model, library)
    drawn = [event.path for event in draw_missing(model, folder, extras) if isinstance(event, Saved)]
    pixels = [np.asarray(Image.open(path)).astype(int) for path in drawn]
    different = [(a != b).any() for i, a in enumerate(pixels) for b in pixels[i + 1 :]]
    assert all(different)


def test_what_is_there_and_whole_is_not_drawn_again(tmp_path: Path, model: Model, library: Library) -> None:
    folder, extras = sweep_in(tmp_path, model, library)
    first = {e.path: e.path.read_bytes() for e in draw_missing(model, folder, extras) if isinstance(e, Saved)}
    lost, cut = list(first)[:2]
    lost.unlink()
    cut.write_bytes(first[cut][:200])
    (tmp_path / ".half.png.1.partial").write_bytes(b"left by a crash")
    steps = [e for e in draw_missing(model, folder, extras) if not isinstance(e, Saved)]
    assert {i for step in steps for i in step.indices} == {0, 1} and len(steps) == ASKED.steps
    assert {path: path.read_bytes() for path in first} == first


def test_stopping_in_the_middle_keeps_what_is_done_and_puts_the_weights_back(
    tmp_path: Path, model: Model, library: Library
) -> None:
    before = {name: value.clone() for name, value in model.reader.encoders[0].network.state_dict().items()}
    folder, extras = sweep_in(tmp_path, model, library)
    events = draw_missing(model, folder, extras)
    while not (isinstance(next(events), Saved) and folder.has(1, 0)):
        pass
    events.close()
    assert all((value == before[name]).all() for name, value in model.reader.encoders[0].network.state_dict().items())
    assert folder.has(0, 0) and folder.has(1, 0)


def test_drawn_together_is_drawn_alone(model: Model, library: Library) -> None:
    base, extras = resolve(ASKED, model.facts, library)
    renders = [replace(base, seed=seed) for seed in (5, 6, 7)]
    together = [e.pixels for e in model.draw(renders, extras) if isinstance(e, Drawn)]
    for render, pixels in zip(renders, together, strict=True):
        alone = next(e.pixels for e in model.draw([render], extras) if isinstance(e, Drawn))
        # bfloat16 sums in another order for another batch: 2**-8 of the latent, a few of 255 in the picture
        assert np.abs(alone.astype(int) - pixels).max() <= 8


def test_pictures_never_overwrite_each_other(tmp_path: Path, model: Model, library: Library) -> None:
    base, extras = resolve(ASKED, model.facts, library)
    paths = [e.path for _ in range(2) for e in draw_to(model, [base], extras, folder=tmp_path) if isinstance(e, Saved)]
    assert len(set(paths)) == 2 and all(path.exists() for path in paths)


def test_a_folder_that_cannot_be_written_is_said_first(tmp_path: Path, model: Model, library: Library) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="--out"):
        sweep_in(tmp_path / "file" / "out", model, library)


def test_a_checkpoint_replaced_while_in_use_stops_the_work(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes((folder / "tiny.safetensors").read_bytes())
    library = Library((tmp_path, folder))
    model = open_model("m", library=library)
    base, extras = resolve(ASKED, model.facts, library)
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(DamagedFile):
        next(model.draw([base], extras))


def test_a_model_is_found_by_the_hash_in_a_settings_text(library: Library, model: Model) -> None:
    assert open_model("some other name", hash=model.facts.ref.hash, library=library).facts.ref == model.facts.ref
    with pytest.raises(NotFound, match="69528490df"):
        open_model("anything-v4.0-pruned", hash="69528490df", library=library)


def test_a_lora_that_was_renamed_is_found_by_the_hash_in_a_settings_text(model: Model, library: Library) -> None:
    known = resolve(ASKED, model.facts, library)[0].loras[0].hash
    asked = replace(ASKED, prompt="swamp <lora:shrek:0.8>", lora_hashes=(("shrek", known),))
    assert resolve(asked, model.facts, library)[0].loras[0].name == "ogre"


def test_previews_come_with_each_step_when_asked_for(model: Model, library: Library) -> None:
    base, extras = resolve(replace(ASKED, loras=()), model.facts, library)
    renders = [base, replace(base, seed=6)]
    plain = [e for e in model.draw(renders, extras) if isinstance(e, Advance)]
    looked = [e for e in model.draw(renders, extras, previews=True) if isinstance(e, Advance)]
    assert all(event.previews == () for event in plain)
    assert len(looked) == len(plain) and all(len(event.previews) == len(event.indices) for event in looked)
    assert {look.shape for event in looked for look in event.previews} == {(8, 8, 3)}


def test_a_picture_is_drawn_by_the_prediction_that_was_asked(tmp_path: Path) -> None:
    """The starter says v: asked for v it draws the same picture, asked for epsilon another, and the record says which."""
    model = open_model("starter")
    plain = Request(prompt="swamp", seed=5, steps=2, width=64, height=64)
    own, v, epsilon = (draw_one(replace(plain, prediction=p), model) for p in (None, "v", "epsilon"))
    assert np.array_equal(own.pixels, v.pixels)
    assert not np.array_equal(own.pixels, epsilon.pixels)
    assert own.render.key != v.render.key
    assert "Prediction: epsilon" in render_infotext(epsilon.render)
    assert request_from_text(render_infotext(epsilon.render)).prediction == "epsilon"
    assert "Prediction" not in render_infotext(own.render)


@pytest.mark.parametrize("wrap", [False, True])
def test_python_draws_with_pickled_embeddings_where_it_is_told_to(tmp_path: Path, wrap: bool) -> None:
    (tmp_path / "embeddings").mkdir()
    vectors = torch.nn.Parameter(torch.randn(2, 128)) if wrap else torch.randn(2, 128)
    content = {"string_to_token": {"*": 265}, "string_to_param": {"*": vectors}, "name": "oldstyle"}
    torch.save(content, tmp_path / "embeddings" / "oldstyle.pt")
    model, library = open_model("starter"), Library((tmp_path,))
    asked = Request(prompt="oldstyle a toad", seed=5, steps=1, width=64, height=64)
    with pytest.raises(UnsafeFile, match="allow_pickle=True in Python"):
        draw_one(asked, model, library=library)
    drawn = draw_one(asked, model, library=library, allow_pickle=True)
    assert [one.name for one in drawn.render.embeddings] == ["oldstyle"]
    swept = draw_sweep(asked, [ClipSkip(1)], model, folder=tmp_path / "out", library=library, allow_pickle=True)
    assert swept.has(0, 0)


def test_a_model_that_was_opened_with_pickles_allowed_is_drawn_with_pickles(tmp_path: Path) -> None:
    (tmp_path / "embeddings").mkdir()
    torch.save({"string_to_param": {"*": torch.randn(2, 128)}}, tmp_path / "embeddings" / "oldstyle.pt")
    model, library = open_model("starter", allow_pickle=True), Library((tmp_path,))
    asked = Request(prompt="oldstyle a toad", seed=5, steps=1, width=64, height=64)
    assert [one.name for one in draw_one(asked, model, library=library).render.embeddings] == ["oldstyle"]
    assert draw_sweep(asked, [ClipSkip(1)], model, folder=tmp_path / "out", library=library).has(0, 0)
    with pytest.raises(UnsafeFile):
        draw_one(asked, model, library=library, allow_pickle=False)


@pytest.mark.parametrize(("name", "noted"), [("toad", True), ("easynegative", False), ("bad-hands-5", False)])
def test_an_embedding_that_hides_an_ordinary_word_is_noted(tmp_path: Path, name: str, noted: bool) -> None:
    (tmp_path / "embeddings").mkdir()
    save_file({"emb_params": torch.randn(1, 128)}, tmp_path / "embeddings" / f"{name}.safetensors")
    asked = Request(prompt=f"a {name} there", seed=5, steps=1, width=64, height=64)
    _, extras = resolve(asked, open_model("starter").facts, Library((tmp_path,)))
    assert [one.name for one in extras.embeddings] == [name]
    assert any("ordinary word" in line for line in warnings_of(asked, extras)) is noted
