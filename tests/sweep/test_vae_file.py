"""VAE files: found in the folders of A1111 and ComfyUI and beside a checkpoint, checked for fit, and drawn with."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_sd1 import random_state

from clipskip.errors import DamagedFile, NotFound, WrongKind
from clipskip.networks import VAEShape, tensors_of
from clipskip.spec import Hires, Request, render_infotext, request_from_text
from clipskip.sweep import Drawn, Model, open_model, resolve
from clipskip.weights import FileKind, Library, hash_file

ASKED = Request(prompt="swamp", steps=2, seed=5, width=64, height=64)
SHAPE = VAEShape(block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, scaling_factor=0.25)


def vae_file(path: Path, shape: VAEShape = SHAPE, *, seed: int = 7) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(random_state(tensors_of(shape), torch.float16, seed=seed), path)
    return path


@pytest.fixture
def own(folder: Path, tmp_path: Path) -> Library:
    """A1111's folders, with a model and a VAE."""
    (tmp_path / "models/Stable-diffusion").mkdir(parents=True)
    shutil.copy(folder / "tiny.safetensors", tmp_path / "models/Stable-diffusion")
    vae_file(tmp_path / "models/VAE/warm.safetensors")
    return Library((tmp_path,))


def drawn(asked: Request, model: Model, library: Library) -> np.ndarray:
    render, extras = resolve(asked, model.facts, library)
    (found,) = (event for event in model.draw([render], extras) if isinstance(event, Drawn))
    return found.pixels


def test_a_vae_decodes_as_the_checkpoint_with_it_inside_does(own: Library, tmp_path: Path) -> None:
    model = open_model("tiny", library=own)
    asked = replace(ASKED, hires=Hires(scale=1.5, steps=2, upscaler="None"))
    found, plain = drawn(replace(asked, vae="warm"), model, own), drawn(asked, model, own)
    whole = load_file(tmp_path / "models/Stable-diffusion/tiny.safetensors")
    names = load_file(tmp_path / "models/VAE/warm.safetensors")
    model.vae.load_state_dict({name: value.to(model.vae.dtype) for name, value in names.items()})
    assert len(whole) > len(names)
    assert np.array_equal(found, drawn(asked, model, own)) and not np.array_equal(found, plain)


def test_the_settings_name_a_vae_and_its_hash_and_find_it_again(own: Library, tmp_path: Path) -> None:
    model = open_model("tiny", library=own)
    digits = hash_file(tmp_path / "models/VAE/warm.safetensors").autov2
    render, _ = resolve(replace(ASKED, vae="warm.safetensors"), model.facts, own)
    text = render_infotext(render)
    assert f"VAE hash: {digits}, VAE: warm.safetensors" in text
    (tmp_path / "models/VAE/warm.safetensors").rename(tmp_path / "models/VAE/other.safetensors")
    again, _ = resolve(request_from_text(text), model.facts, own)
    assert again.vae and (again.vae.hash, again.vae.name) == (digits, "other.safetensors")


def test_the_vae_beside_a_checkpoint_is_its_own_until_none_is_asked(own: Library, tmp_path: Path) -> None:
    model = open_model("tiny", library=own)
    assert resolve(ASKED, model.facts, own)[0].vae is None
    vae_file(tmp_path / "models/Stable-diffusion/tiny.vae.safetensors")
    render, _ = resolve(ASKED, model.facts, own)
    assert render.vae and render.vae.name == "tiny.vae.safetensors"
    assert resolve(replace(ASKED, vae="None"), model.facts, own)[0].vae is None
    assert {found.stem for found in own.files(FileKind.CHECKPOINT)} == {"tiny"}
    assert {found.stem for found in own.files(FileKind.VAE)} == {"warm", "tiny.vae"}


def test_a_pickled_vae_beside_a_checkpoint_is_said_and_needs_the_switch(own: Library, tmp_path: Path) -> None:
    model = open_model("tiny", library=own)
    state = load_file(tmp_path / "models/VAE/warm.safetensors")
    torch.save({"state_dict": state}, tmp_path / "models/Stable-diffusion/tiny.vae.pt")
    render, extras = resolve(ASKED, model.facts, own)
    assert render.vae is None and any("tiny.vae.pt" in note and "--allow-pickle" in note for note in extras.notes)
    render, _ = resolve(ASKED, model.facts, own, allow_pickle=True)
    assert render.vae and render.vae.name == "tiny.vae.pt"


def test_a_checkpoints_name_asks_for_its_vae(own: Library, folder: Path, tmp_path: Path) -> None:
    model = open_model("tiny", library=own)
    shutil.copy(
        tmp_path / "models/Stable-diffusion/tiny.safetensors", tmp_path / "models/Stable-diffusion/other.safetensors"
    )
    render, extras = resolve(replace(ASKED, vae="other"), model.facts, own)
    assert render.vae and render.vae.name == "other.safetensors" and render.vae.hash in extras.vaes
    pixels = [
        next(e for e in model.draw([one], extras) if isinstance(e, Drawn)).pixels
        for one in (render, replace(render, vae=None))
    ]
    assert (pixels[0] == pixels[1]).all(), "the same VAE"


def test_comfyuis_folder_is_known(folder: Path, tmp_path: Path) -> None:
    vae_file(tmp_path / "models/vae/warm.safetensors")
    assert Library((tmp_path,)).find("warm", FileKind.VAE).name == "warm.safetensors"


def test_a_vae_that_does_not_fit_is_refused_before_drawing_with_the_sizes(own: Library, tmp_path: Path) -> None:
    model = open_model("tiny", library=own)
    vae_file(tmp_path / "models/VAE/wide.safetensors", replace(SHAPE, block_out_channels=(32, 64)))
    with pytest.raises(WrongKind, match=r"wide.*does not fit this model.*\[32, 3, 3, 3\].*\[16, 3, 3, 3\]"):
        resolve(replace(ASKED, vae="wide"), model.facts, own)


def test_what_is_no_vae_or_is_not_there_is_an_error(own: Library, folder: Path, tmp_path: Path) -> None:
    model = open_model("tiny", library=own)
    shutil.copy(folder / "loras/ogre.safetensors", tmp_path / "models/VAE/ogre.safetensors")
    with pytest.raises(WrongKind, match="LoRA, not a VAE"):
        resolve(replace(ASKED, vae="ogre"), model.facts, own)
    with pytest.raises(NotFound, match="cold"):
        resolve(replace(ASKED, vae="cold"), model.facts, own)


def test_a_vae_that_lacks_a_tensor_or_changes_is_damaged(own: Library, tmp_path: Path) -> None:
    model, path = open_model("tiny", library=own), tmp_path / "models/VAE/warm.safetensors"
    render, extras = resolve(replace(ASKED, vae="warm"), model.facts, own)
    state = load_file(path)
    save_file(state | {"quant_conv.bias": state["quant_conv.bias"] + 1}, path)
    with pytest.raises(DamagedFile, match="changed while it was in use"):
        list(model.draw([render], extras))
    del state["decoder.conv_out.bias"]
    save_file(state, path)
    with pytest.raises(DamagedFile, match=r"lacks decoder\.conv_out\.bias"):
        resolve(replace(ASKED, vae="warm"), model.facts, own)
