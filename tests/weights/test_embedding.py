"""A textual inversion is read from every form that tools write, or refused in one line."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from clipskip.errors import DamagedFile, FileError, UnsafeFile, WrongKind
from clipskip.weights.embedding import load_embedding

VECTORS = torch.arange(3 * 768).reshape(3, 768).float() / 1000


def refusal(path: Path, kind: type[FileError], *, width: int = 768, allow_pickle: bool = True) -> str:
    with pytest.raises(kind) as caught:
        load_embedding(path, widths=(width,), allow_pickle=allow_pickle)
    assert caught.type is kind and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("content", [{"emb_params": VECTORS}, {"<swamp>": VECTORS}, {"*": VECTORS.half().float()}])
def test_safetensors_forms(tmp_path: Path, content: dict[str, Tensor]) -> None:
    path = tmp_path / "swamp.safetensors"
    save_file(content, path)
    found = load_embedding(path, widths=(768,))
    assert found.name == "swamp" and found.warning is None and len(found.hash) == 12
    assert torch.equal(found.vectors[0], next(iter(content.values())))


def test_one_vector_may_lack_its_axis(tmp_path: Path) -> None:
    save_file({"<swamp>": VECTORS[0].half()}, tmp_path / "swamp.safetensors")
    found = load_embedding(tmp_path / "swamp.safetensors", widths=(768,))
    assert found.vectors[0].shape == (1, 768) and found.vectors[0].dtype is torch.float32


PICKLES = {
    "A1111": {"string_to_token": {"*": 265}, "string_to_param": {"*": VECTORS}, "name": "x", "step": 5},
    "A1111, ParameterDict": {"string_to_param": nn.ParameterDict({"*": nn.Parameter(VECTORS)}), "name": "x"},
    "diffusers": {"<swamp>": VECTORS[0]},
    "kohya": {"string_to_param": {"*": nn.Parameter(VECTORS)}},
}


@pytest.mark.parametrize("form", PICKLES)
def test_pickled_forms_need_the_switch(tmp_path: Path, form: str) -> None:
    path = tmp_path / "swamp.pt"
    torch.save(PICKLES[form], path)
    assert "--allow-pickle" in refusal(path, UnsafeFile, allow_pickle=False)
    found = load_embedding(path, widths=(768,), allow_pickle=True)
    assert torch.equal(found.vectors[0], VECTORS[:1] if form == "diffusers" else VECTORS)
    assert not found.vectors[0].requires_grad


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        ({"emb_params": torch.zeros(2, 1024)}, WrongKind, "1024 wide (SD 2.x); this model's text encoder is 768 wide"),
        ({"emb_params": torch.zeros(2, 100)}, WrongKind, "100 wide; this model's"),
        ({"clip_l": VECTORS, "clip_g": torch.zeros(3, 1280)}, WrongKind, "for SDXL"),
        ({"a": VECTORS, "b": VECTORS + 1}, WrongKind, "instead of one set of vectors"),
        ({f"lora_{i}.lora_down.weight": torch.zeros(2) for i in range(9)}, WrongKind, "contains 9 tensors"),
        ({"emb_params": torch.zeros(0, 768)}, DamagedFile, "shape [0, 768]"),
        ({"emb_params": torch.zeros(2, 3, 768)}, DamagedFile, "shape [2, 3, 768]"),
        ({"emb_params": VECTORS * float("nan")}, DamagedFile, "NaN or infinity"),
    ],
)
def test_what_is_no_embedding_for_this_model_says_so(
    tmp_path: Path, content: dict[str, Tensor], kind: type[FileError], words: str
) -> None:
    save_file(content, tmp_path / "x.safetensors")
    assert words in refusal(tmp_path / "x.safetensors", kind)


@pytest.mark.parametrize(
    ("content", "widths"),
    [
        ({"emb_params": torch.zeros(2, 1024)}, (768,)),
        ({"clip_l": VECTORS, "clip_g": torch.zeros(3, 1280)}, (768,)),
        ({"emb_params": VECTORS}, (768, 1280)),
    ],
)
def test_an_embedding_of_another_family_says_what_to_do(
    tmp_path: Path, content: dict[str, Tensor], widths: tuple[int, ...]
) -> None:
    save_file(content, tmp_path / "frog.safetensors")
    with pytest.raises(WrongKind, match=r"use one made for this model, or take its name out of the prompt$"):
        load_embedding(tmp_path / "frog.safetensors", widths=widths)


@pytest.mark.parametrize("content", [{"string_to_param": {}}, {"string_to_param": None}, {"a": 1}, {}])
def test_a_pickle_without_vectors_says_so(tmp_path: Path, content: dict[str, object]) -> None:
    torch.save(content, tmp_path / "x.pt")
    assert "without tensors; give a model or an embedding" in refusal(tmp_path / "x.pt", WrongKind)


def test_a_pickled_checkpoint_is_no_embedding(tmp_path: Path) -> None:
    torch.save({str(i): VECTORS for i in range(30)}, tmp_path / "x.pt")
    assert "contains 30 tensors" in refusal(tmp_path / "x.pt", WrongKind)


def test_more_vectors_than_a_chunk_are_loaded_with_a_warning(tmp_path: Path) -> None:
    save_file({"emb_params": torch.zeros(76, 768)}, tmp_path / "long.safetensors")
    assert "76 vectors, more than the 75" in str(load_embedding(tmp_path / "long.safetensors", widths=(768,)).warning)
