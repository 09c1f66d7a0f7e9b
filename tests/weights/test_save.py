"""What is written is read by diffusers as it stands."""

import os
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from tiny_sd1 import same, tiny_checkpoint

from clipskip.errors import OutputError
from clipskip.weights.checkpoint import load_checkpoint
from clipskip.weights.save import save_folder, save_single_file


def test_a_saved_folder_opens_in_diffusers_with_the_same_weights(tmp_path: Path) -> None:
    tiny = tiny_checkpoint(vocabulary=49408, dtype=torch.float32, layers=1)
    save_folder(tiny, tmp_path / "tiny")
    pipe = StableDiffusionPipeline.from_pretrained(
        tmp_path / "tiny", local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False
    )
    assert same(pipe.unet.state_dict(), tiny.unet) and same(pipe.vae.state_dict(), tiny.vae)
    text = {name.removeprefix("text_model."): tensor for name, tensor in pipe.text_encoder.state_dict().items()}
    assert same({name: text[name] for name in tiny.text[0]}, tiny.text[0])
    assert pipe.tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert pipe.tokenizer.model_max_length == 77
    assert pipe.scheduler.config.prediction_type == "v_prediction"
    assert (pipe.unet.config.attention_head_dim, pipe.vae.config.scaling_factor) == (4, 0.25)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "tiny").rglob("*") if path.is_file()}
    assert modes == {0o644}
    assert os.listdir(tmp_path) == ["tiny"]


def test_a_single_file_and_a_folder_lead_to_one_another(tmp_path: Path) -> None:
    tiny = tiny_checkpoint()
    save_folder(tiny, tmp_path / "tiny")
    save_single_file(load_checkpoint(tmp_path / "tiny", dtype=torch.float16), tmp_path / "tiny.safetensors", {"a": "b"})
    back = load_checkpoint(tmp_path / "tiny.safetensors", dtype=torch.float16)
    assert same(back.unet, tiny.unet) and same(back.vae, tiny.vae) and same(back.text[0], tiny.text[0])
    assert back.facts.unet == tiny.facts.unet and back.facts.vae == tiny.facts.vae
    assert back.facts.metadata["a"] == "b"


def test_what_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    tiny = tiny_checkpoint()
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "x.safetensors", tmp_path / "there"):
        (tmp_path / "there").mkdir(exist_ok=True)
        with pytest.raises(OutputError, match="cannot be written"):
            save_single_file(tiny, path)
    with pytest.raises(OutputError, match="already exists"):
        save_folder(tiny, tmp_path / "there")
    assert sorted(os.listdir(tmp_path)) == ["file", "there"]
