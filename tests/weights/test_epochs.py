"""Files as trainers name them, put in order."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from clipskip.errors import LoraError
from clipskip.weights import read_header
from clipskip.weights.lora.epochs import order_epochs

KOHYA = {"ss_output_name": "ogre", "ss_session_id": "42", "ss_training_started_at": "1700000000.25"}


def write(folder: Path, name: str, metadata: dict[str, str] | None = None, *, rank: int = 4) -> None:
    key = "lora_te_text_model_encoder_layers_3_self_attn_q_proj"
    tensors = {f"{key}.lora_down.weight": torch.ones(rank, 8), f"{key}.lora_up.weight": torch.ones(8, rank)}
    save_file(tensors, folder / f"{name}.safetensors", metadata=metadata)


def ordered(folder: Path) -> list[tuple[str, str]]:
    files = sorted(folder.glob("*.safetensors"))
    return [(epoch.name, epoch.label) for epoch in order_epochs([read_header(path) for path in files])]


def test_kohya_s_metadata_puts_the_unnumbered_file_last(tmp_path: Path) -> None:
    for epoch, name in ((10, "ogre"), (2, "ogre-000002"), (9, "ogre-000009")):
        write(tmp_path, name, {**KOHYA, "ss_epoch": str(epoch), "ss_steps": str(epoch * 50)})
    assert ordered(tmp_path) == [
        ("ogre-000002", "epoch 2, 100 steps"),
        ("ogre-000009", "epoch 9, 450 steps"),
        ("ogre", "epoch 10, 500 steps"),
    ]


def test_metadata_goes_before_names(tmp_path: Path) -> None:
    write(tmp_path, "best-000001", {**KOHYA, "ss_epoch": "7"})
    write(tmp_path, "old-000009", {**KOHYA, "ss_epoch": "3"})
    assert [name for name, _ in ordered(tmp_path)] == ["old-000009", "best-000001"]


def test_without_metadata_kohya_s_names_tell_epochs_or_steps(tmp_path: Path) -> None:
    for name in ("ogre-000010", "ogre-000002", "ogre"):
        write(tmp_path, name)
    assert ordered(tmp_path) == [("ogre-000002", "epoch 2"), ("ogre-000010", "epoch 10"), ("ogre", "the last")]
    other = tmp_path / "steps"
    other.mkdir()
    for name in ("ogre-step00000500", "ogre-step00001500"):
        write(other, name)
    assert ordered(other) == [("ogre-step00000500", "500 steps"), ("ogre-step00001500", "1500 steps")]


def test_onetrainer_s_names_have_steps_and_epoch(tmp_path: Path) -> None:
    for name in ("swamp-2026-11-28_10-00-00-save-900-3-0", "swamp-2026-11-27_22-00-00-save-1200-4-0"):
        write(tmp_path, name, {"ot_branch": "master"})
    assert [label for _, label in ordered(tmp_path)] == ["epoch 3, 900 steps", "epoch 4, 1200 steps"]


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (("epoch-2", "epoch-10"), ["epoch 2", "epoch 10"]),
        (("ogre_e02", "ogre_e11"), ["epoch 2", "epoch 11"]),
        (("ogre_000000500", "ogre_000002000"), ["500 steps", "2000 steps"]),
    ],
)
def test_names_that_people_and_other_trainers_give(tmp_path: Path, names: tuple[str, ...], labels: list[str]) -> None:
    for name in names:
        write(tmp_path, name)
    assert [label for _, label in ordered(tmp_path)] == labels


def test_a_training_that_was_resumed_goes_on_after_the_first(tmp_path: Path) -> None:
    again = {**KOHYA, "ss_session_id": "43", "ss_training_started_at": "1700090000"}
    write(tmp_path, "ogre-000002", {**again, "ss_epoch": "2", "ss_steps": "100"})
    write(tmp_path, "ogre-000009", {**KOHYA, "ss_epoch": "9", "ss_steps": "450"})
    assert [name for name, _ in ordered(tmp_path)] == ["ogre-000009", "ogre-000002"]


def test_files_of_two_loras_are_told_apart(tmp_path: Path) -> None:
    write(tmp_path, "ogre-000001")
    write(tmp_path, "gnome-000001")
    with pytest.raises(LoraError, match=r"files belong to 2 LoRAs: gnome \(1\), ogre \(1\)"):
        ordered(tmp_path)


def test_another_rank_is_another_lora(tmp_path: Path) -> None:
    write(tmp_path, "ogre-000001")
    write(tmp_path, "ogre-000002", rank=8)
    with pytest.raises(LoraError, match="not epochs of one LoRA"):
        ordered(tmp_path)


def test_an_order_that_nothing_tells_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "a", {"ss_output_name": "ogre"})
    write(tmp_path, "b", {"ss_output_name": "ogre"})
    with pytest.raises(LoraError, match="nothing says in which order"):
        ordered(tmp_path)
