"""A refiner beside a second pass: A1111's rule which of the two passes it takes over in (sd_samplers_common.py apply_refiner)."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_sdxl
import torch
from torch import Tensor, nn

from clipskip.errors import SpecError
from clipskip.image import read_infotext
from clipskip.spec import Hires, Request, parse_skips, render_infotext, request_from_text
from clipskip.sweep import Drawn, SweepFolder, draw_missing, load_model, plan_sweep, resolve
from clipskip.weights import FileKind, Library

ASKED = Request(
    prompt="a [red:blue:0.5] frog", negative_prompt="blurry", steps=6, seed=5, width=64, height=64, sampler="Euler",
    refiner="refiner", refiner_switch_at=0.6, hires=Hires(scale=2, steps=5, strength=0.9),
)  # fmt: skip
CALLS = list[tuple[str, int, float, Tensor]]
"""Whose UNet, cells a side, timestep, the vectors beside the texts."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    folder = tmp_path_factory.mktemp("refined")
    tiny_sdxl.write(tiny_sdxl.sdxl(), folder / "pony.safetensors")
    tiny_sdxl.write(tiny_sdxl.refiner(), folder / "refiner.safetensors")
    return Library((folder,))


def listen(unet: nn.Module, name: str, calls: CALLS) -> None:
    def note(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        calls.append((name, given[0].shape[-1], float(given[1]), given[-1].float()))

    unet.register_forward_pre_hook(note)


def calls_of(asked: Request, library: Library) -> CALLS:
    """Every call of a UNet while this is drawn."""
    model = load_model(library.find("pony", FileKind.CHECKPOINT))
    render, extras = resolve(asked, model.facts, library)
    assert extras.refiner is not None
    calls: CALLS = []
    listen(model.unet, "model", calls)
    listen(model.refiner(extras.refiner).unet, "refiner", calls)
    assert sum(isinstance(event, Drawn) for event in model.draw([render], extras)) == 1
    return calls


def waves(number: float) -> Tensor:
    angles = [number * 10000 ** (-i / 128) for i in range(128)]
    return torch.tensor([*map(math.cos, angles), *map(math.sin, angles)])


@pytest.mark.parametrize("refined", ["first pass", "second pass", "both passes"])
def test_the_refiner_takes_over_in_the_passes_that_are_asked_for(library: Library, refined: str) -> None:
    assert ASKED.hires
    calls = calls_of(replace(ASKED, hires=replace(ASKED.hires, refined=refined)), library)
    for cells, mine in ((8, "first pass"), (16, "second pass")):
        asked_of = [(name, timestep) for name, side, timestep, _ in calls if side == cells]
        assert asked_of, refined
        for name, timestep in asked_of:
            late = (999 - timestep) / 1000 >= 0.6
            assert (name == "refiner") == (late and refined in (mine, "both passes")), (cells, timestep)
        assert len({(999 - timestep) / 1000 >= 0.6 for _, timestep in asked_of}) == 2


def test_the_refiner_is_told_the_second_passs_size_and_scores(library: Library) -> None:
    told = [added for name, side, _, added in calls_of(ASKED, library) if (name, side) == ("refiner", 16)]
    assert told
    for score in (6.0, 2.5):
        expected = torch.cat([waves(number) for number in (128, 128, 0, 0, score)])
        rows = [row for added in told for row in added if torch.allclose(row[-1280:], expected, atol=2e-2)]  # bfloat16
        assert len(rows) >= len(told)


def test_a_settings_text_says_in_which_pass_and_is_read_again(library: Library, tmp_path: Path) -> None:
    assert ASKED.hires
    model = load_model(library.find("pony", FileKind.CHECKPOINT))
    for refined in ("first pass", "both passes", "second pass"):
        render, _ = resolve(replace(ASKED, hires=replace(ASKED.hires, refined=refined)), model.facts, library)
        text = render_infotext(render)
        assert (f"Hires refiner: {refined}" in text) == (refined != "second pass")  # which A1111 leaves out
        again, _ = resolve(request_from_text(text), model.facts, library)
        assert (again.hires, again.refiner) == (render.hires, render.refiner)
    sweep, extras = plan_sweep(replace(ASKED, steps=2), parse_skips("1-2"), model.facts, library)
    folder = SweepFolder.create(tmp_path / "s", sweep)
    for _ in draw_missing(model, folder, extras):
        pass
    assert "Refiner: refiner" in read_infotext(next((tmp_path / "s").glob("row*.png")))


def test_a_refiner_that_has_no_step_is_said(library: Library) -> None:
    model = load_model(library.find("pony", FileKind.CHECKPOINT))
    assert ASKED.hires
    _, extras = resolve(replace(ASKED, hires=replace(ASKED.hires, strength=0)), model.facts, library)
    assert any("the refiner" in note and "second pass" in note for note in extras.notes)
    with pytest.raises(SpecError, match="hires refiner 'third' is unknown; use one of first pass"):
        Hires(refined="third")
