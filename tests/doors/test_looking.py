"""`clipskip inspect`: hashes under the names that the field has for them, and what an embedding is."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_sd1 import single_file, tiny_checkpoint
from torch import Tensor

from clipskip.doors.looking import inspect_file
from clipskip.errors import DamagedFile
from clipskip.weights import read_facts, read_header
from clipskip.weights.library import STARTER


def test_an_embedding_is_told_with_its_vectors_and_a1111s_hash(tmp_path: Path) -> None:
    file = tmp_path / "bad.safetensors"
    save_file({"emb_params": torch.ones(3, 768)}, file)
    text = inspect_file(file, as_json=False)
    whole = hashlib.sha256(file.read_bytes()).hexdigest()
    assert "3 x 768, for SD 1.x" in text
    assert f"AutoV2 {whole[:10]}" in text and f"TI hash {whole[:12]}" in text
    hashes = json.loads(inspect_file(file, as_json=True))["hashes"]
    assert (hashes["AutoV1"], hashes["AutoV2"], hashes["sha256"]) == ("e3b0c442", whole[:10], whole)


def test_a_single_vector_of_another_family_is_told_too(tmp_path: Path) -> None:
    save_file({"emb_params": torch.ones(1024)}, tmp_path / "one.safetensors")
    assert "1 x 1024, for SD 2.x" in inspect_file(tmp_path / "one.safetensors", as_json=False)


def spoiled(tmp_path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Path:
    """The tiny checkpoint with something done to its tensors."""
    tensors, metadata = single_file(tiny_checkpoint())
    save_file(change(tensors), tmp_path / "odd.safetensors", metadata=metadata)
    return tmp_path / "odd.safetensors"


P = "cond_stage_model.transformer.text_model."


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: {name.replace(P, f"{P}text_model."): value for name, value in tensors.items()},
        lambda tensors: {name: value for name, value in tensors.items() if "token_embedding" not in name},
        lambda tensors: {name: value[:, :0] if "token_embedding" in name else value for name, value in tensors.items()},
        lambda tensors: {name: value for name, value in tensors.items() if "encoder.layers" not in name},
    ],
)
def test_what_a_file_lacks_is_told_once(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> None:
    with pytest.raises(DamagedFile) as caught:
        read_facts(spoiled(tmp_path, change))
    said = str(caught.value)
    assert said.count("incomplete") == 1 and said.count("download it again") == 1
    assert said.count("odd.safetensors") == 1 and "text encoder" in said


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.int64])
def test_position_ids_that_a_merge_broke_are_noted(tmp_path: Path, dtype: torch.dtype) -> None:
    ids = torch.arange(77)[None].to(dtype)
    wrong = ids.clone()
    wrong[0, 41] = 40.25 if dtype.is_floating_point else 40
    for name, value, noted in (("sound", ids, False), ("broken", wrong, True)):
        file = spoiled(tmp_path, lambda tensors, value=value: tensors | {f"{P}embeddings.position_ids": value})
        said = inspect_file(file, as_json=False)
        assert ("1 of its 77 position_ids are wrong" in said) is noted, name


def test_megabytes_of_metadata_are_not_answered_with(tmp_path: Path) -> None:
    metadata = {"a.thumbnail": "x" * 8_000_000} | {f"key{i}": "y" for i in range(5000)}
    save_file({"emb_params": torch.ones(2, 768)}, tmp_path / "big.safetensors", metadata=metadata)
    header = read_header(tmp_path / "big.safetensors")
    assert len(header.metadata["a.thumbnail"]) == 8_000_000
    said = inspect_file(tmp_path / "big.safetensors", as_json=True)
    assert len(said) < 300_000
    assert "7,998,000 more characters" in said and "more)" in said


def test_a_text_encoder_under_unknown_names_is_lacking_not_of_another_family(tmp_path: Path) -> None:
    """The starter, with its text encoder's prefix doubled as a broken conversion leaves it."""
    start = "cond_stage_model.transformer.text_model."
    tensors = load_file(STARTER / "starter.safetensors")
    broken = {name.replace(start, f"{start}text_model."): value for name, value in tensors.items()}
    save_file(broken, tmp_path / "broken.safetensors")
    with pytest.raises(DamagedFile) as error:
        read_facts(tmp_path / "broken.safetensors")
    said = str(error.value)
    assert said.count("incomplete") == 1 and "embeddings.token_embedding.weight" in said
    shown = inspect_file(tmp_path / "broken.safetensors", as_json=False)
    assert "0 layers" not in shown and "missing" in shown
