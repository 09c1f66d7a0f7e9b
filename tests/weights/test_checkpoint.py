"""A checkpoint is loaded whole, finite and free of its file, from single files, folders and (if allowed) pickles."""

import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_sd1 import same, single_file, tiny_checkpoint
from torch import Tensor

from clipskip.errors import DamagedFile, FileError, NotFound, SpecError, UnsafeFile, WrongKind
from clipskip.weights.checkpoint import Checkpoint, load_checkpoint, load_text, plain_name
from clipskip.weights.save import save_folder, save_single_file

TEXT = "cond_stage_model.transformer.text_model."


@pytest.fixture(scope="module")
def tiny() -> Checkpoint:
    return tiny_checkpoint()


@pytest.fixture
def file(tiny: Checkpoint, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_single_file(tiny, path)
    return path


def write(tiny: Checkpoint, path: Path, spoil: Callable[[dict[str, Tensor]], object]) -> Path:
    """The tiny checkpoint with something done to its tensors."""
    state, metadata = single_file(tiny)
    spoil(state)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path, metadata=metadata)
    return path


def refusal(path: Path, kind: type[FileError], **options: bool) -> str:
    with pytest.raises(kind) as caught:
        load_checkpoint(path, dtype=torch.float16, **options)
    assert caught.type is kind
    line = str(caught.value)
    assert "\n" not in line and len(line) < 500
    return line


def test_a_single_file_gives_back_what_was_saved(tiny: Checkpoint, file: Path) -> None:
    loaded = load_checkpoint(file, dtype=torch.float16)
    assert same(loaded.text[0], tiny.text[0]) and same(loaded.unet, tiny.unet) and same(loaded.vae, tiny.vae)
    assert (loaded.facts.encoders[0].shape, loaded.facts.unet, loaded.facts.vae) == (
        tiny.facts.encoders[0].shape,
        tiny.facts.unet,
        tiny.facts.vae,
    )
    assert (loaded.facts.prediction, loaded.facts.trained_clip_skip, loaded.facts.native_px) == ("v", 2, 128)
    assert file.stat().st_mode & 0o777 == 0o644


def test_a_folder_gives_back_what_was_saved(tiny: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    save_folder(tiny, folder)
    loaded = load_checkpoint(folder, dtype=torch.float16)
    assert same(loaded.text[0], tiny.text[0]) and same(loaded.unet, tiny.unet) and same(loaded.vae, tiny.vae)
    assert (loaded.facts.encoders[0].shape, loaded.facts.unet, loaded.facts.vae) == (
        tiny.facts.encoders[0].shape,
        tiny.facts.unet,
        tiny.facts.vae,
    )
    assert (
        loaded.facts.prediction == "v" and loaded.facts.source.name == "tiny" and len(loaded.facts.source.sha256) == 64
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_dtype_is_the_one_asked_for(tiny: Checkpoint, file: Path, dtype: torch.dtype) -> None:
    loaded = load_checkpoint(file, dtype=dtype)
    assert {tensor.dtype for part in (loaded.text[0], loaded.unet, loaded.vae) for tensor in part.values()} == {dtype}
    assert same(loaded.text[0], {name: tensor.to(dtype) for name, tensor in tiny.text[0].items()})


def test_the_prediction_asked_for_wins_over_the_files(file: Path) -> None:
    assert load_checkpoint(file, dtype=torch.float16, prediction="epsilon").facts.prediction == "epsilon"


@pytest.mark.parametrize("fate", ["overwritten", "truncated", "deleted"])
def test_nothing_that_becomes_of_the_file_reaches_the_weights(tiny: Checkpoint, file: Path, fate: str) -> None:
    loaded = load_checkpoint(file, dtype=torch.float16)
    if fate == "overwritten":
        with file.open("r+b") as handle:
            handle.write(os.urandom(file.stat().st_size))
    elif fate == "truncated":
        os.truncate(file, 100)
    else:
        file.unlink()
    assert same(loaded.text[0], tiny.text[0]) and same(loaded.unet, tiny.unet) and same(loaded.vae, tiny.vae)
    assert not loaded.facts.source.unchanged


def test_the_text_encoder_may_have_a_dtype_of_its_own(tiny: Checkpoint, file: Path) -> None:
    loaded = load_checkpoint(file, dtype=torch.bfloat16, text_dtype=torch.float32)
    assert same(loaded.text[0], {name: tensor.float() for name, tensor in tiny.text[0].items()})
    assert loaded.unet["conv_in.bias"].dtype is torch.bfloat16 and loaded.facts.source.unchanged


def test_the_bytes_of_the_weights_are_told_before_they_are_read(file: Path) -> None:
    told: list[int] = []
    kinds = {"dtype": torch.bfloat16, "text_dtype": torch.float32}
    loaded = load_checkpoint(file, **kinds, check_bytes=told.append)
    assert told == [sum(t.nbytes for state in (*loaded.text, loaded.unet, loaded.vae) for t in state.values())]

    def refuse(needed: int) -> None:
        raise SpecError("too large")

    with pytest.raises(SpecError, match="too large"):
        load_checkpoint(file, **kinds, check_bytes=refuse)


def test_no_mapping_of_the_file_is_left(file: Path) -> None:
    loaded = load_checkpoint(file, dtype=torch.float16)
    assert str(file) not in Path("/proc/self/maps").read_text()
    assert loaded.facts.source.ref.hash == loaded.facts.source.sha256[:10]


def test_averaged_weights_and_training_state_are_left_out(tiny: Checkpoint, tmp_path: Path) -> None:
    def add(state: dict[str, Tensor]) -> None:
        state |= {f"model_ema.{name.replace('.', '')}": tensor + 1 for name, tensor in list(state.items())[:200]}
        state |= {"betas": torch.zeros(1000), "global_step": torch.zeros(1, dtype=torch.int64)}
        state[f"{TEXT}embeddings.position_ids"] = torch.arange(77.0)[None] + 0.4

    loaded = load_checkpoint(write(tiny, tmp_path / "ema.safetensors", add), dtype=torch.float16)
    assert same(loaded.unet, tiny.unet) and same(loaded.text[0], tiny.text[0])


def test_text_encoder_names_without_text_model_are_read(tiny: Checkpoint, tmp_path: Path) -> None:
    state, metadata = single_file(tiny)
    path = tmp_path / "nai.safetensors"
    save_file({name.replace(".text_model.", "."): t.contiguous() for name, t in state.items()}, path, metadata=metadata)
    assert same(load_checkpoint(path, dtype=torch.float16).text[0], tiny.text[0])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (f"{TEXT}encoder.layers.1.mlp.fc1.bias", "text encoder: encoder.layers.1.mlp.fc1.bias"),
        ("model.diffusion_model.middle_block.1.norm.weight", "UNet: mid_block.attentions.0.norm.weight"),
        ("first_stage_model.quant_conv.bias", "VAE: quant_conv.bias"),
        ("model.diffusion_model.conv_in.weight", ""),
    ],
)
def test_a_missing_tensor_is_named(tiny: Checkpoint, tmp_path: Path, name: str, words: str) -> None:
    path = write(tiny, tmp_path / "model.safetensors", lambda state: state.pop(name, None))
    if words:
        assert f"is incomplete: it lacks {words}" in refusal(path, DamagedFile)


@pytest.mark.parametrize("layer", [0, 1])
def test_a_missing_text_layer_is_named(tiny: Checkpoint, tmp_path: Path, layer: int) -> None:
    def drop(state: dict[str, Tensor]) -> None:
        for name in [name for name in state if f"encoder.layers.{layer}." in name]:
            del state[name]

    path = write(tiny, tmp_path / "model.safetensors", drop)
    assert f"it lacks text encoder layer {layer} (counted from 0)" in refusal(path, DamagedFile)


def test_a_missing_last_layer_of_clip_l_is_noticed_by_its_width(tmp_path: Path) -> None:
    tensors = {f"{TEXT}embeddings.token_embedding.weight": torch.zeros(4, 768)}
    tensors |= {f"{TEXT}embeddings.position_embedding.weight": torch.zeros(4, 768)}
    tensors |= {f"{TEXT}encoder.layers.{i}.layer_norm1.bias": torch.zeros(768) for i in range(11)}
    save_file(tensors, tmp_path / "text.safetensors")
    with pytest.raises(DamagedFile, match="lacks text encoder layer 11"):
        load_text(tmp_path / "text.safetensors", dtype=torch.float32)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("part", [TEXT, "model.", "first_stage_model."])
def test_weights_that_are_not_finite_are_refused_by_name(
    tiny: Checkpoint, tmp_path: Path, part: str, bad: float
) -> None:
    state, _ = single_file(tiny)
    name = next(name for name in reversed(state) if name.startswith(part))

    def spoil(state: dict[str, Tensor]) -> None:
        state[name] = state[name].clone()
        state[name].view(-1)[-1] = bad

    line = refusal(write(tiny, tmp_path / "model.safetensors", spoil), DamagedFile)
    assert f"{name} contains NaN or infinity" in line


def test_numbers_too_large_for_the_dtype_are_told_from_damage(tiny: Checkpoint, tmp_path: Path) -> None:
    name = "model.diffusion_model.out.2.bias"
    path = write(tiny, tmp_path / "model.safetensors", lambda state: state.update({name: torch.full((4,), 1e6)}))
    assert "too large for float16; load it as bfloat16 or float32" in refusal(path, DamagedFile)
    assert load_checkpoint(path, dtype=torch.bfloat16).unet["conv_out.bias"][0] == 999424


def test_a_tensor_of_another_shape_is_named(tiny: Checkpoint, tmp_path: Path) -> None:
    name = "model.diffusion_model.out.2.bias"
    path = write(tiny, tmp_path / "model.safetensors", lambda state: state.update({name: torch.zeros(7)}))
    assert "conv_out.bias of shape [4] (it has [7])" in refusal(path, DamagedFile)


def test_whole_numbers_are_no_weights(tiny: Checkpoint, tmp_path: Path) -> None:
    name = "model.diffusion_model.out.2.bias"
    path = write(tiny, tmp_path / "model.safetensors", lambda s: s.update({name: torch.zeros(4, dtype=torch.int8)}))
    assert "is stored as I8" in refusal(path, WrongKind)


def test_eight_bit_floats_are_weights(tiny: Checkpoint, tmp_path: Path) -> None:
    name = "model.diffusion_model.out.2.bias"
    small = torch.tensor([1.0, 2.0, 0.5, 0.0]).to(torch.float8_e4m3fn)
    path = write(tiny, tmp_path / "model.safetensors", lambda state: state.update({name: small}))
    assert load_checkpoint(path, dtype=torch.float16).unet["conv_out.bias"].tolist() == [1.0, 2.0, 0.5, 0.0]


@pytest.mark.parametrize("name", ["model.ckpt", "model.safetensors"])
@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("new", [True, False])
def test_a_pickled_checkpoint_needs_the_switch_and_is_then_the_same(
    tiny: Checkpoint, tmp_path: Path, nested: bool, new: bool, name: str
) -> None:
    path = tmp_path / name
    state, _ = single_file(replace(tiny, facts=replace(tiny.facts, vae=replace(tiny.facts.vae, norm_num_groups=8))))
    torch.save({"state_dict": state, "global_step": 7} if nested else state, path, _use_new_zipfile_serialization=new)
    assert "--allow-pickle" in refusal(path, UnsafeFile)
    text = load_text(path, dtype=torch.float16, allow_pickle=True)
    assert same(text.states[0], tiny.text[0])


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("allowed", [True, False])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, allowed: bool) -> None:
    path, marker = tmp_path / "model.ckpt", tmp_path / "marker"
    torch.save({"state_dict": {"a": torch.zeros(2), "b": Evil(marker)}}, path)
    line = refusal(path, UnsafeFile, allow_pickle=allowed)
    assert not marker.exists()
    assert ("posix.system" in line) is allowed


def test_a_lightning_checkpoint_gets_a_hint(tmp_path: Path) -> None:
    # The global's name is all that matters; it is written by hand, as the package is not here.
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": {"a": torch.zeros(2)}, "callbacks": {"XX": 1}}, path)
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    data = next(name for name in content if name.endswith("data.pkl"))
    text = b"X\x02\x00\x00\x00XX"
    assert text in content[data]
    content[data] = content[data].replace(text, b"cpytorch_lightning.callbacks.model_checkpoint\nModelCheckpoint\n")
    with zipfile.ZipFile(path, "w") as archive:
        for name, piece in content.items():
            archive.writestr(name, piece)
    line = refusal(path, UnsafeFile, allow_pickle=True)
    assert "PyTorch Lightning" in line and "keeps only its state_dict" in line


def test_a_zip_bomb_is_refused_by_its_directory(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", b"\x80\x02}q\x00.")
        archive.writestr("model/data/0", bytes(5_000_000))
    assert "would unpack from" in refusal(path, UnsafeFile, allow_pickle=True)


def test_a_tensor_that_claims_more_than_it_stores_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    torch.save({"a": torch.zeros(1).expand(10**12)}, path)
    assert "does not store all its numbers" in refusal(path, DamagedFile, allow_pickle=True)


@pytest.mark.parametrize("content", [b"\x80\x02garbage", b"PK\x03\x04" + bytes(100), b"text", b""])
def test_a_broken_pickle_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(content)
    with pytest.raises((DamagedFile, UnsafeFile)) as caught:
        load_checkpoint(path, dtype=torch.float16, allow_pickle=True)
    assert "\n" not in str(caught.value)


def test_a_pickle_of_something_else_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    torch.save([1, 2], path)
    assert "a pickle of a list" in refusal(path, WrongKind, allow_pickle=True)


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    for allowed in (True, False):
        assert "does not exist" in refusal(tmp_path / "none.safetensors", NotFound, allow_pickle=allowed)


def test_the_text_encoder_alone_is_the_same(tiny: Checkpoint, file: Path) -> None:
    text = load_text(file, dtype=torch.float16)
    assert (
        same(text.states[0], tiny.text[0])
        and text.encoders[0].shape == tiny.facts.encoders[0].shape
        and text.trained_clip_skip == 2
    )


@pytest.mark.parametrize(
    ("stem", "name"), [("a, b: c", "a_ b_ c"), ('"x"', "x"), (",", "model"), ("anything-v4.0", "anything-v4.0")]
)
def test_a_models_name_can_stand_in_an_infotext(stem: str, name: str) -> None:
    assert plain_name(stem) == name
