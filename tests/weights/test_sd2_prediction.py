"""SD 2.x's two kinds have the same tensors: which one a file is, in the order in which it is asked."""

from dataclasses import replace
from pathlib import Path

import pytest
import tiny_sdxl
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from typer.testing import CliRunner

from clipskip.doors.cli import app
from clipskip.networks import TextShape, UNetShape, VAEShape
from clipskip.weights import identify, load_checkpoint, read_facts, read_header
from clipskip.weights.prediction import LIMIT, NORM, PROBED, by_answer

V, EPSILON = -4.0, 1.0
"""Added to all that the UNet answers, so that its mean is far on one side of A1111's limit."""
H = TextShape(depth=24, width=64, heads=1, mlp_width=128, activation="gelu")
WHOLE = UNetShape(
    block_out_channels=(64, 64, 64, 64),
    layers_per_block=2,
    cross_attention_dim=H.width,
    attention=(1, 1, 1, 0),
    attention_heads=(1, 1, 1, 1),
    use_linear_projection=True,
    sample_size=8,
)
"""As deep as a real one, so that it has the norm that ComfyUI looks at, with heads and groups as pickles must have them."""
VAE = VAEShape(block_out_channels=(32, 32, 32, 32), layers_per_block=1, scaling_factor=0.18215)


def parts(shape: UNetShape = tiny_sdxl.SD2_UNET, *, bend: float = 0.0, spread: float | None = None) -> tiny_sdxl.Parts:
    text, vae = (tiny_sdxl.H, tiny_sdxl.VAE) if shape is tiny_sdxl.SD2_UNET else (H, VAE)
    made = tiny_sdxl.make(20, text_encoder=text, unet=shape, vae=vae)
    unet = made.states["unet"]
    unet["conv_out.bias"] = unet["conv_out.bias"] + bend
    if spread is not None:
        biases = torch.linspace(-1, 1, len(unet[NORM]))
        unet[NORM] = biases * (spread / biases.std(correction=0))
    return made


def diffusers_mean(made: tiny_sdxl.Parts) -> float:
    """A1111's number, from diffusers' UNet of the same weights."""
    unet = UNet2DConditionModel(**made.shapes["unet"].config())
    unet.load_state_dict(made.states["unet"])
    grey = torch.full((1, 4, 8, 8), 0.5)
    with torch.inference_mode():
        answer: Tensor = unet(grey, 999, torch.full((1, 2, tiny_sdxl.H.width), 0.5)).sample
    return float((answer - grey).mean())


@pytest.mark.parametrize("bend", [V, -0.6, EPSILON])
def test_the_unets_answer_is_diffusers_answer(bend: float) -> None:
    made = parts(bend=bend)
    mean = diffusers_mean(made)
    said = by_answer(made.states["unet"], tiny_sdxl.SD2_UNET)
    assert said.prediction == ("v" if mean < LIMIT else "epsilon")
    assert f"({mean:.2f};" in said.source  # both in float32: equal to the digits shown


@pytest.mark.parametrize(("bend", "expected"), [(V, "v"), (EPSILON, "epsilon")])
def test_a_file_that_says_nothing_is_asked_when_it_is_opened(tmp_path: Path, bend: float, expected: str) -> None:
    path = tiny_sdxl.write(parts(bend=bend), tmp_path / "sd2.safetensors")
    assert identify(read_header(path)).prediction == ""
    for facts in (read_facts(path), load_checkpoint(path, dtype=torch.float32).facts):
        assert facts.prediction == expected
        assert PROBED in facts.prediction_note and "--prediction" in facts.prediction_note
    assert load_checkpoint(path, dtype=torch.float32, prediction="v").facts.prediction_note == ""


def test_a_yaml_and_a_name_are_believed_before_the_unet_is_asked(tmp_path: Path) -> None:
    path = tiny_sdxl.write(parts(bend=V), tmp_path / "sd2.safetensors")
    (tmp_path / "sd2.yaml").write_text('parameterization: "eps"')
    assert (read_facts(path).prediction, read_facts(path).prediction_note) == ("epsilon", "")
    named = tiny_sdxl.write(parts(bend=EPSILON), tmp_path / "sd2-v-pred.safetensors")
    assert (read_facts(named).prediction, read_facts(named).prediction_note) == ("v", "")


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize(("spread", "expected"), [(0.12, "v"), (0.05, "epsilon")])
def test_a_norms_biases_tell_before_the_unets_answer(
    tmp_path: Path, spread: float, expected: str, pickled: bool
) -> None:
    made = parts(WHOLE, bend=EPSILON if expected == "v" else V, spread=spread)
    path = tmp_path / "sd2.ckpt"
    if pickled:
        torch.save({"state_dict": tiny_sdxl.single_file(made)}, path)
    else:
        path = tiny_sdxl.write(made, path.with_suffix(".safetensors"))
    facts = [
        read_facts(path, allow_pickle=True),
        load_checkpoint(path, dtype=torch.float32, allow_pickle=True).facts,
    ]
    assert [(one.prediction, one.prediction_note) for one in facts] == [(expected, "")] * 2


def test_an_inpainting_unet_is_neither_measured_nor_asked(tmp_path: Path) -> None:
    made = parts(replace(WHOLE, in_channels=9), bend=V, spread=0.5)
    assert identify(read_header(tiny_sdxl.write(made, tmp_path / "sd2.safetensors"))).prediction == ""


def test_the_answer_is_said_where_it_is_drawn_with_and_inspect_says_what_headers_can(tmp_path: Path) -> None:
    path, run = tiny_sdxl.write(parts(bend=V), tmp_path / "sd2.safetensors"), CliRunner().invoke
    shown = run(app, ["inspect", str(path)]).output
    assert "not stated; its UNet is tested when pictures are drawn with it" in shown
    drawn = [
        "generate",
        "a toad",
        "--model",
        str(path),
        "--size",
        "64x64",
        "--steps",
        "1",
        "--out",
        str(tmp_path),
        "--yes",
    ]
    for more, told in (([], True), (["--prediction", "epsilon"], False)):
        result = run(app, [*drawn, *more])
        assert result.exit_code == 0, result.output
        assert ("does not say what it predicts" in " ".join(result.output.split())) is told
