"""`clipskip inspect`: hashes under the names that the field has for them, and what an embedding is."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from clipskip.doors.looking import inspect_file


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
