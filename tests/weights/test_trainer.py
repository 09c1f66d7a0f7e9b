"""Trainers' configs: settings as sd-scripts 48d368f, kohya_ss 45088f0 and OneTrainer 23df383 write and read them."""

import json
from pathlib import Path

import pytest

from clipskip.errors import NotFound, WrongKind
from clipskip.spec import Dialect, Family
from clipskip.weights.trainer import TrainerConfig, configs_beside, read_trainer_config


def config(folder: Path, name: str, content: str | dict[str, object]) -> TrainerConfig:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return read_trainer_config(path)


def onetrainer(**values: object) -> dict[str, object]:
    return {"training_method": "LORA", "model_type": "STABLE_DIFFUSION_15", **values}


@pytest.mark.parametrize(
    ("text", "family", "skip"),
    [
        ('output_name = "ogre"\nclip_skip = 2\n', Family.SD1, 2),
        ('[model]\noutput_name = "ogre"\n[anything]\nclip_skip = 3\n', Family.SD1, 3),  # sections count for nothing
        ('output_name = "ogre"\n', Family.SD1, 1),
        ('output_name = "ogre"\n', Family.SD2, 2),
        ('output_name = "ogre"\nv2 = true\nclip_skip = 2\n', Family.SD2, 3),
        ('output_name = "ogre"\nclip_skip = 1\n', Family.SDXL, 2),  # not used there
        ('output_name = "ogre"\nclip_skip = 0\n', Family.SD1, None),  # hidden_states[-0]: bare token embeddings
    ],
)
def test_kohya_s_toml_trains_at(tmp_path: Path, text: str, family: Family, skip: int | None) -> None:
    read = config(tmp_path, "x.toml", text)
    assert read.tool is Dialect.KOHYA
    assert read.trained_at(family)[0] == skip


@pytest.mark.parametrize(("value", "skip"), [("2", 2), (1, 1), (0, 1), ("", 1)])
def test_kohya_s_gui_writes_numbers_as_text_and_0_for_none(tmp_path: Path, value: object, skip: int) -> None:
    read = config(tmp_path, "x.json", {"LoRA_type": "Standard", "clip_skip": value, "sdxl": False})
    assert read.trained_at(Family.SD1)[0] == skip


def test_kohya_s_gui_says_when_it_trains_sdxl(tmp_path: Path) -> None:
    read = config(tmp_path, "x.json", {"LoRA_type": "Standard", "clip_skip": "1", "sdxl": True})
    assert read.family is Family.SDXL
    assert read.trained_at(Family.SDXL) == (2, "which sd-scripts does not use on SDXL")


def test_a_dataset_config_has_class_tokens_and_no_clip_skip(tmp_path: Path) -> None:
    text = (
        '[general]\nflip_aug = true\n[[datasets]]\n[[datasets.subsets]]\nimage_dir = "a"\nclass_tokens = "ogre  man"\n'
    )
    read = config(tmp_path, "x.toml", text)
    assert read.is_dataset
    assert read.words == ("ogre man",)
    assert read.trained_at(Family.SD1)[0] is None


@pytest.mark.parametrize(
    ("values", "family", "skip"),
    [
        (onetrainer(text_encoder_layer_skip=1), Family.SD1, 2),
        (onetrainer(), Family.SD1, 1),
        (onetrainer(model_type="STABLE_DIFFUSION_21", text_encoder_layer_skip=1), Family.SD2, 3),
        (onetrainer(model_type="STABLE_DIFFUSION_XL_10_BASE"), Family.SDXL, 2),
        (
            onetrainer(
                model_type="STABLE_DIFFUSION_XL_10_BASE", text_encoder_layer_skip=1, text_encoder_2_layer_skip=1
            ),
            Family.SDXL,
            3,
        ),
    ],
)
def test_onetrainer_counts_layers_beyond_the_model_s_own(
    tmp_path: Path, values: dict[str, object], family: Family, skip: int
) -> None:
    read = config(tmp_path, "x.json", values)
    assert (read.tool, read.family) == (Dialect.ONETRAINER, family)
    assert read.trained_at(family)[0] == skip


def test_onetrainer_s_two_encoders_of_sdxl_may_differ(tmp_path: Path) -> None:
    values = onetrainer(model_type="STABLE_DIFFUSION_XL_10_BASE", text_encoder_2_layer_skip=3)
    skip, note = config(tmp_path, "x.json", values).trained_at(Family.SDXL)
    assert skip is None
    assert note == "which is Clip Skip 2 of CLIP-L and 5 of OpenCLIP-bigG"


@pytest.mark.parametrize("text", ["", "{}", "[1]", "{broken", '{"prompt": "a"}', "a = 1\n", '{"model_type": "x"}'])
def test_other_files_are_no_trainer_s_config(tmp_path: Path, text: str) -> None:
    with pytest.raises(WrongKind, match="not a config of"):
        config(tmp_path, "x.json", text)


def test_a_config_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="give a trainer's config"):
        read_trainer_config(tmp_path / "none.toml")


def test_the_configs_beside_a_lora_are_those_that_name_it(tmp_path: Path) -> None:
    config(tmp_path, "config_lora-20261128-101010.toml", 'output_name = "ogre"\nclip_skip = 2\n')
    config(tmp_path, "other.toml", 'output_name = "gnome"\nclip_skip = 3\n')
    config(tmp_path, "settings.json", onetrainer(output_model_destination="C:\\out\\ogre.safetensors"))
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    found = configs_beside(tmp_path / "ogre-000010.safetensors", output_name="ogre")
    assert [one.path.name for one in found] == ["config_lora-20261128-101010.toml", "settings.json"]


def test_onetrainer_s_workspace_has_the_config_of_the_run_that_saved_the_file(tmp_path: Path) -> None:
    for name in ("config", "save"):
        (tmp_path / name).mkdir()
    for day, skip in (("26", 0), ("28", 1), ("29", 2)):
        config(tmp_path / "config", f"a2026-11-{day}_10-00-00.json", onetrainer(text_encoder_layer_skip=skip))
    (found,) = configs_beside(tmp_path / "save" / "a2026-11-28_12-30-00-save-900-3-0.safetensors")
    assert found.path.name == "a2026-11-28_10-00-00.json"
