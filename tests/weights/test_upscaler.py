"""Upscaler models: found in the folders of A1111 and ComfyUI, told apart from others, and opened by spandrel itself."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_upscaler import esrgan, esrgan_state, noise, save_esrgan, spandrel

from clipskip.errors import DamagedFile, NotFound, SpecError, UnsafeFile, WrongKind
from clipskip.weights import FileKind, Library, find_upscaler, identify, load_upscaler, read_header

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def module() -> Iterator[ModuleType]:
    yield spandrel()


def test_a_model_makes_of_a_picture_what_the_paper_says(tmp_path: Path) -> None:
    state = esrgan_state(blocks=2)
    file = find_upscaler(str(save_esrgan(tmp_path / "x.safetensors", state)), Library(()))
    x = torch.from_numpy(noise(20, 24)).permute(2, 0, 1)[None] / 255
    made = load_upscaler(file, device=CPU)(x)
    wanted = esrgan({name: tensor.double() for name, tensor in state.items()}, x.double()).clamp(0, 1)
    assert made.shape == (1, 3, 80, 96)
    assert (made - wanted).abs().max() < 1e-4, "float32 against float64; one in 255 is 4e-3"


@pytest.mark.parametrize(
    "place",
    ["models/ESRGAN", "models/RealESRGAN", "models/upscale_models", "upscale_models", "ESRGAN", "models/DAT", "SwinIR"],
)
def test_the_folders_of_a1111_and_comfyui_are_looked_into(tmp_path: Path, place: str) -> None:
    (tmp_path / "models/Stable-diffusion").mkdir(parents=True)
    path = save_esrgan(tmp_path / place / "4x-Sharp.safetensors")
    library = Library((tmp_path,))
    assert [found.stem for found in library.files(FileKind.UPSCALER)] == ["4x-Sharp"]
    file = find_upscaler("4x-Sharp", library)
    assert (file.path, file.ref.name) == (path, "4x-Sharp")
    assert library.files(FileKind.CHECKPOINT) == ()


def test_a_loose_file_is_told_by_its_tensors_and_by_its_hash(tmp_path: Path) -> None:
    path = save_esrgan(tmp_path / "any.safetensors")
    library = Library((tmp_path,))
    assert identify(read_header(path)).kind is FileKind.UPSCALER
    assert [found.stem for found in library.files(FileKind.UPSCALER)] == ["any"]
    digits = find_upscaler("any", library).ref.hash
    assert find_upscaler("another name", library, hash=digits).path == path


def test_a1111s_names_of_published_files_find_them(tmp_path: Path) -> None:
    save_esrgan(tmp_path / "ESRGAN" / "RealESRGAN_x4plus.safetensors")
    for name in ("R-ESRGAN 4x+", "RealESRGAN_x4plus"):
        assert find_upscaler(name, Library((tmp_path,))).ref.name == "R-ESRGAN 4x+"


def test_a_pickle_is_read_behind_the_switch_alone(tmp_path: Path) -> None:
    state = esrgan_state()
    save_esrgan(tmp_path / "ESRGAN" / "old.pth", state)
    library = Library((tmp_path,))
    with pytest.raises(UnsafeFile, match="--allow-pickle"):
        find_upscaler("old", library)
    made = load_upscaler(find_upscaler("old", library, allow_pickle=True), device=CPU)(torch.full((1, 3, 8, 8), 0.5))
    save_esrgan(tmp_path / "new.safetensors", state)
    same = load_upscaler(find_upscaler("new", library), device=CPU)(torch.full((1, 3, 8, 8), 0.5))
    assert torch.equal(made, same)


def test_what_is_no_upscaler_is_refused_before_anything_is_drawn(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WrongKind, match="not an upscaler model"):
        find_upscaler(str(folder / "tiny.safetensors"), Library(()))
    with pytest.raises(NotFound, match="no upscaler called '4x'"):
        find_upscaler("4x", Library((tmp_path,)))


def test_a_model_that_lacks_a_tensor_or_holds_nan_is_damaged(tmp_path: Path) -> None:
    state = esrgan_state()
    state.pop("body.0.rdb2.conv3.weight")
    lacking = find_upscaler(str(save_esrgan(tmp_path / "a.safetensors", state)), Library(()))
    with pytest.raises(DamagedFile, match="does not contain a whole"):
        load_upscaler(lacking, device=CPU)
    state = esrgan_state()
    state["conv_hr.bias"][2] = torch.nan
    spoiled = find_upscaler(str(save_esrgan(tmp_path / "b.safetensors", state)), Library(()))
    with pytest.raises(DamagedFile, match=r"conv_hr\.bias contains NaN"):
        load_upscaler(spoiled, device=CPU)


def test_a_file_that_changed_meanwhile_is_not_used(tmp_path: Path) -> None:
    file = find_upscaler(str(save_esrgan(tmp_path / "x.safetensors")), Library(()))
    save_file(esrgan_state(seed=9), file.path)
    with pytest.raises(DamagedFile, match="changed"):
        load_upscaler(file, device=CPU)


def test_without_the_extra_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_esrgan(tmp_path / "x.safetensors")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SpecError, match=r"pip install 'clipskip\[upscalers\]'"):
        find_upscaler(str(path), Library(()))


def test_half_precision_files_are_drawn_with_in_single(tmp_path: Path) -> None:
    state = {name: tensor.half() for name, tensor in esrgan_state().items()}
    file = find_upscaler(str(save_esrgan(tmp_path / "x.safetensors", state)), Library(()))
    made = load_upscaler(file, device=CPU)(torch.from_numpy(noise(8, 8)).permute(2, 0, 1)[None] / 255)
    assert made.dtype is torch.float32 and np.isfinite(made.numpy()).all()
