"""The starter as it ships: the same model from its single file and as a diffusers folder, LoRAs that fit it."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel

from clipskip.weights import Checkpoint, hash_file, load_checkpoint, read_header, save_folder
from clipskip.weights.lora import load_lora

STARTER = Path(__file__).parents[2] / "src" / "clipskip" / "starter"
FILE = STARTER / "starter.safetensors"
LORAS = sorted((STARTER / "loras").glob("*.safetensors"))
MOST_BYTES = 62 * 2**20


@pytest.fixture(scope="module")
def starter() -> Checkpoint:
    return load_checkpoint(FILE, dtype=torch.float16)


@pytest.fixture(scope="module")
def folder(starter: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("starter") / "folder"
    save_folder(starter, path)
    return path


@pytest.mark.parametrize(
    ("part", "kind"), [("text_encoder", CLIPTextModel), ("unet", UNet2DConditionModel), ("vae", AutoencoderKL)]
)
def test_a_diffusers_folder_holds_the_single_files_tensors_bit_for_bit(
    starter: Checkpoint, folder: Path, part: str, kind: type[torch.nn.Module]
) -> None:
    ours = {"text_encoder": starter.text[0], "unet": starter.unet, "vae": starter.vae}[part]
    theirs = kind.from_pretrained(folder / part, torch_dtype=torch.float16).state_dict()  # type: ignore[attr-defined]
    theirs = {name.removeprefix("text_model."): value for name, value in theirs.items()}
    assert {n for n in theirs if not n.endswith("position_ids")} == set(ours)
    assert all(torch.equal(theirs[name], value) for name, value in ours.items())


def test_the_file_says_what_shapes_cannot_tell(starter: Checkpoint) -> None:
    assert (starter.facts.prediction, starter.facts.trained_clip_skip, starter.facts.native_px) == ("v", 2, 128)
    assert set(starter.facts.unet.attention_heads) == {4}
    assert (starter.facts.encoders[0].shape.heads, starter.facts.vae.norm_num_groups) == (2, 8)


def test_model_and_loras_stay_within_their_size() -> None:
    assert sum(path.stat().st_size for path in (FILE, *LORAS)) <= MOST_BYTES


@pytest.mark.parametrize("path", LORAS, ids=lambda path: path.stem)
def test_a_lora_says_its_clip_skip_trigger_and_hash(path: Path) -> None:
    said = read_header(path).metadata
    assert (said["ss_clip_skip"], said["modelspec.trigger_phrase"]) == ("2", path.stem)
    assert said["sshs_model_hash"] == hash_file(path).data_sha256
    assert said["ss_new_sd_model_hash"] == hash_file(FILE).sha256


@pytest.mark.parametrize("path", LORAS, ids=lambda path: path.stem)
def test_a_lora_changes_modules_of_the_starter_in_both_networks(path: Path, starter: Checkpoint) -> None:
    present = {f"text_encoder.{n}" for n in starter.text[0]} | {f"unet.{n}" for n in starter.unet}
    modules = load_lora(path).modules
    assert all(f"{name}.weight" in present for name in modules)
    assert {name.split(".")[0] for name in modules} == {"text_encoder", "unet"}
