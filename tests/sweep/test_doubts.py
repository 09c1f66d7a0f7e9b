"""What is told before anything is drawn: LoRAs that do not fit, files that are missing or others, sizes far from the model's own."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_sd1 import WIDTH

from clipskip.errors import LoraError
from clipskip.spec import ClipSkip, LoraRef, Request, request_from_text
from clipskip.sweep import Studio, doubts_of, plan_sweep
from clipskip.weights import Library, read_facts
from clipskip.weights.lora import check_fit, load_lora
from clipskip.weights.pickles import read_allowed

NAME = "lora_te_text_model_encoder_layers_{}_self_attn_q_proj"
ASKED = Request(prompt="a frog", model="tiny", steps=1, seed=5)


def lora(path: Path, *, layer: int = 3, width: int = WIDTH) -> Path:
    name = NAME.format(layer)
    tensors = {f"{name}.lora_down.weight": torch.ones(4, width), f"{name}.lora_up.weight": torch.ones(width, 4)}
    save_file(tensors, path)
    return path


@pytest.mark.parametrize(("layer", "width", "said"), [(3, 99, r"has down \[4, 99\]"), (20, WIDTH, "20")])
def test_a_lora_that_does_not_fit_is_refused_by_headers_alone(
    folder: Path, tmp_path: Path, layer: int, width: int, said: str
) -> None:
    wrong, header = (
        load_lora(lora(tmp_path / "wrong.safetensors", layer=layer, width=width)),
        read_allowed(folder / "tiny.safetensors", allow_pickle=False)[0],
    )
    with pytest.raises(LoraError, match=said):
        check_fit(wrong, header, text_encoder=1, unet=1)
    check_fit(wrong, header, text_encoder=0, unet=1)
    check_fit(load_lora(lora(tmp_path / "right.safetensors")), header, text_encoder=1, unet=1)


def test_a_lora_that_does_not_fit_stops_a_sweep_before_its_first_picture(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "loras").mkdir()
    lora(tmp_path / "loras" / "wide.safetensors", width=99)
    studio = Studio(tmp_path / "out", Library((folder, tmp_path)))
    with pytest.raises(LoraError, match="does not fit"):
        studio.start(replace(ASKED, loras=(LoraRef(name="wide"),)), [ClipSkip(1)], previews=False)
    studio.close()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("size", "said"), [((64, 64), ""), ((None, 192), ""), ((256, 128), ""), ((256, 256), "4 times the area")]
)
def test_a_size_far_from_the_models_own_is_doubted(
    folder: Path, library: Library, size: tuple[int | None, int], said: str
) -> None:
    facts = read_facts(folder / "tiny.safetensors")
    asked = replace(ASKED, width=size[0], height=size[1])
    sweep, extras = plan_sweep(asked, [ClipSkip(1)], facts, library)
    texts = [one.text for one in doubts_of(asked, sweep.base, facts, extras)]
    assert [said in text for text in texts] == ([True] if said else [])


def test_an_embedding_of_the_settings_that_no_folder_has_is_doubted(folder: Path, library: Library) -> None:
    noted = 'TI hashes: "badhand: 0123456789ab, easynegative: ba9876543210"'
    text = f"a frog, badhand\nNegative prompt: easynegative\nSteps: 1, Seed: 5, Size: 64x64, {noted}"
    asked, facts = replace(request_from_text(text), model="tiny"), read_facts(folder / "tiny.safetensors")
    sweep, extras = plan_sweep(asked, [ClipSkip(1)], facts, library)
    doubts = doubts_of(asked, sweep.base, facts, extras)
    assert [one.field for one in doubts] == ["prompt", "prompt"]
    assert "badhand" in doubts[0].text and "easynegative" in doubts[1].text
