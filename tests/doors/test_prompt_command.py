"""`clipskip prompt` beside a folder of LoRAs and embeddings."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from clipskip.doors.prompt_command import read_aloud
from clipskip.errors import SpecError


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A1111's folders, with one LoRA and three embeddings."""
    (tmp_path / "Lora").mkdir()
    (tmp_path / "embeddings").mkdir()
    name = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    lora = {f"{name}.lora_down.weight": torch.ones(2, 768), f"{name}.lora_up.weight": torch.ones(3072, 2)}
    save_file(lora, tmp_path / "Lora" / "ogre.safetensors")
    save_file({"emb_params": torch.ones(3, 768)}, tmp_path / "embeddings" / "Bad Hands.safetensors")
    save_file({"emb_params": torch.ones(768)}, tmp_path / "embeddings" / "swampy.safetensors")
    (tmp_path / "embeddings" / "frog.pt").write_bytes(b"\x80\x02}q\x00.")
    return tmp_path


def read(text: str, models: Path, *, negative: bool = False) -> dict[str, object]:
    read_json = read_aloud(text, steps=10, negative=negative, clip_skip=None, as_json=True, folders=[models])
    found: dict[str, object] = json.loads(read_json)
    return found


def test_it_names_the_file_of_each_lora_and_says_which_is_missing(models: Path) -> None:
    text = read_aloud(
        "a <lora:OGRE:0.8> <lora:ogrre>", steps=10, negative=False, clip_skip=None, as_json=False, folders=[models]
    )
    assert f"file of LoRA OGRE: {models / 'Lora' / 'ogre.safetensors'}" in text
    assert "missing: no LoRA called 'ogrre'" in text and "similar names: ogre" in text
    files = read("a <lora:ogre:0.8> <lora:nix>", models)["files"]
    assert files["loras"] == {"ogre": str(models / "Lora" / "ogre.safetensors"), "nix": None}  # type: ignore[index]


def test_an_embedding_takes_its_vectors_places_whatever_its_case_and_spaces(models: Path) -> None:
    found = read("bad\n  HANDS, swamp", models, negative=True)
    tokens = found["parts"][0]["texts"][0]["chunks"][0]["tokens"]  # type: ignore[index]
    assert [(token["text"].strip(), token["vectors"]) for token in tokens] == [
        ("Bad Hands", 3),
        (",", 1),
        ("swamp", 1),
    ]
    assert found["embeddings"] == ["Bad Hands"]
    assert found["files"]["embeddings"] == {"Bad Hands": str(models / "embeddings" / "Bad Hands.safetensors")}  # type: ignore[index]


def test_a_pickled_embedding_that_may_be_meant_is_noted_and_not_opened(models: Path) -> None:
    (note,) = read("a frog", models)["files"]["unread"]  # type: ignore[index]
    assert "frog.pt is a pickle" in note


def test_a_tag_cannot_name_a_file_outside_the_folders(models: Path) -> None:
    outside = models.parent / "secret.safetensors"
    save_file({"emb_params": torch.ones(3, 768)}, outside)
    assert read(f"a <lora:{outside}:1> <lora:../secret:1>", models)["files"]["loras"] == {  # type: ignore[index]
        str(outside): None,
        "../secret": None,
    }


def test_without_folders_and_tags_it_loads_no_torch() -> None:
    code = (
        "import sys; from clipskip.doors.prompt_command import read_aloud;"
        "read_aloud('a (cat:1.2)', steps=9, negative=False, clip_skip=None, as_json=False);"
        "assert 'torch' not in sys.modules"
    )
    env = {name: value for name, value in os.environ.items() if name != "CLIPSKIP_MODELS"}
    subprocess.run([sys.executable, "-c", code], check=True, env=env)


def test_a_prompt_is_shown_as_comfyui_reads_it(models: Path) -> None:
    text = read_aloud(
        "(a (b:1.3):0.5), #1 embedding:swampy <lora:ogre:1>", steps=10, negative=False, clip_skip=None, as_json=False,
        folders=[models], tool="comfyui",
    )  # fmt: skip
    assert "x0.5: a 320" in text and "x1.3: b 321" in text and "<swampy> 1 vectors" in text
    assert "<lora:ogre:1> is read as words" in text and "file of embedding swampy" in text
    with pytest.raises(SpecError, match="a1111 or comfyui"):
        read_aloud("a", steps=10, negative=False, clip_skip=None, as_json=False, tool="compel")
