"""Large text encoders are freed while pictures are drawn: the same pictures, and encoders that are again as in the file."""

import os
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_sdxl
import torch
from safetensors.torch import save_file
from torch import Tensor

from clipskip.errors import DamagedFile, LoraError
from clipskip.networks import best_dtype
from clipskip.spec import ClipSkip, Family, Hires, LoraRef, Render, Request
from clipskip.sweep import Drawn, Extras, Model, resolve
from clipskip.weights import Library, load_checkpoint
from clipskip.weights.lora import load_lora

ASKED = Request(
    prompt="swamp, (ogre:1.2)", negative_prompt="blurry", steps=2, seed=5, width=64, height=64, clip_skip=ClipSkip(1)
)
FIRST = "lora_te1_text_model_encoder_layers_11_mlp_fc1"
SECOND = "lora_te2_text_model_encoder_layers_31_self_attn_v_proj"
UNET = "lora_unet_middle_block_1_proj_in"

Open = Callable[[int], Model]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """An SDXL model in fp16, and LoRAs on both text encoders with the UNet, on one, and on a UNet that is not its."""
    home = tmp_path_factory.mktemp("models")
    parts = tiny_sdxl.sdxl()
    tiny_sdxl.write(parts, home / "xl.safetensors", dtype=torch.float16)
    sizes = {FIRST: (64, 32), SECOND: (40, 40), UNET: (64, 64)}
    for name, modules in {"all": sizes, "first": {FIRST: (64, 32)}, "misfit": {FIRST: (64, 32), UNET: (8, 64)}}.items():
        numbers, tensors = torch.Generator().manual_seed(len(name)), dict[str, Tensor]()
        for module, (out, inputs) in modules.items():
            tensors[f"{module}.lora_up.weight"] = torch.randn(out, 2, generator=numbers)
            tensors[f"{module}.lora_down.weight"] = torch.randn(2, inputs, generator=numbers)
        save_file(tensors, home / f"{name}.safetensors")
    return Library((home,))


@pytest.fixture
def opened(library: Library) -> Open:
    """Open the model with so many bytes that its file holds too kept at most."""

    def open_with(most_kept: int) -> Model:
        place, dtype = torch.device("cpu"), best_dtype(torch.device("cpu"))
        checkpoint = load_checkpoint(library.folders[0] / "xl.safetensors", dtype=dtype, text_dtype=torch.float32)
        return Model(checkpoint, device=place, dtype=dtype, most_kept=most_kept)

    return open_with


def texts(model: Model) -> dict[str, Tensor]:
    return {
        f"{part}.{n}": t.clone() for part, net in model.reader.networks.items() for n, t in net.state_dict().items()
    }


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def sets(model: Model, library: Library) -> tuple[list[Render], Extras]:
    """Pictures without and with LoRAs, and one whose second pass has others than its first."""
    plain, both = resolve(replace(ASKED, loras=(LoraRef(name="all"), LoraRef(name="first"))), model.facts, library)
    every, first = plain.loras
    hires = Hires(scale=2, steps=1, strength=0.5)
    second, more = resolve(
        replace(ASKED, loras=(LoraRef(name="all"),), hires=replace(hires, prompt="moor <lora:first:1>")),
        model.facts,
        library,
    )
    alone = [replace(plain, loras=loras) for loras in ((), (every,), (first,), (every, first))]
    return [*alone, second], replace(both, loras={**both.loras, **more.loras})


def pictures(model: Model, renders: list[Render], extras: Extras) -> dict[int, bytes]:
    return {e.index: e.pixels.tobytes() for e in model.draw(renders, extras) if isinstance(e, Drawn)}


def test_pictures_are_the_same_to_the_bit_and_the_encoders_again_as_in_the_file(opened: Open, library: Library) -> None:
    kept, freed = opened(10**9), opened(0)
    before = texts(freed)
    renders, extras = sets(kept, library)
    expected = pictures(kept, renders, extras)
    for _ in range(2):
        assert pictures(freed, renders, extras) == expected
    assert len(set(expected.values())) == len(renders)
    assert same(before, texts(freed)) and not freed.is_spoiled


def test_they_are_gone_while_the_steps_are_drawn(opened: Open, library: Library) -> None:
    for most_kept, there in ((10**9, True), (0, False)):
        model = opened(most_kept)
        renders, extras = sets(model, library)
        held = [weakref.ref(network) for network in model.reader.networks.values()]
        for _ in model.draw(renders[:2], extras):
            assert [ref() is not None for ref in held] == [there, there]


def test_a_lora_that_does_not_fit_is_refused_before_a_text_is_read(opened: Open, library: Library) -> None:
    model = opened(0)
    held, before = model.reader.encoders[0].network, texts(model)
    renders, _ = sets(model, library)
    lora = load_lora(library.folders[0] / "misfit.safetensors", family=Family.SDXL)
    ref = LoraRef(name="misfit", hash=lora.hash)
    with pytest.raises(LoraError, match="proj_in"):
        list(model.draw([replace(renders[0], loras=(ref,))], Extras(loras={lora.hash: lora})))
    assert model.reader.encoders[0].network is held and same(before, texts(model))


def test_a_file_that_changed_meanwhile_is_told(opened: Open, library: Library, tmp_path: Path) -> None:
    model = opened(0)
    renders, extras = sets(model, library)
    list(model.draw(renders[:1], extras))
    os.utime(model.facts.source.path, ns=(1, 1))
    with pytest.raises(DamagedFile, match="changed while it was in use"):
        model.reader.check(ClipSkip(1))
