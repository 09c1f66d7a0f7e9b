"""LoRAs in an SDXL model, and out again: bit for bit, and without a second copy of what they change."""

import os
from pathlib import Path

import pytest
import tiny_sdxl
import torch
from safetensors.torch import save_file
from torch import Tensor

from clipskip.errors import DamagedFile, LoraError
from clipskip.spec import Family
from clipskip.sweep import Model, load_model
from clipskip.weights.lora import Lora, load_lora, merged, module_names

FORMS = [torch.float16, torch.bfloat16, torch.float32]


def open_model(folder: Path, dtype: torch.dtype = torch.float16, *, name: str = "xl") -> Model:
    return load_model(tiny_sdxl.write(tiny_sdxl.sdxl(), folder / f"{name}.safetensors", dtype=dtype))


@pytest.fixture(scope="module")
def on_everything(tmp_path_factory: pytest.TempPathFactory) -> Lora:
    """A LoRA on every matrix and convolution, with changed biases and norms."""
    folder = tmp_path_factory.mktemp("loras")
    model = open_model(folder)
    numbers, tensors = torch.Generator().manual_seed(3), {}
    for name in module_names(model.networks):
        weight = dict(model.networks[name.partition(".")[0]].named_modules())[name.partition(".")[2]].weight
        if not isinstance(weight, Tensor) or "embeddings" in name:
            continue
        if weight.dim() == 1:
            tensors |= {f"{name}.w_norm": torch.ones(len(weight)), f"{name}.b_norm": torch.ones(len(weight))}
            continue
        out, inputs, *kernel = weight.shape
        tensors[f"{name}.lora_up.weight"] = torch.randn(out, 2, *[1] * len(kernel), generator=numbers)
        tensors[f"{name}.lora_down.weight"] = torch.randn(2, inputs, *kernel, generator=numbers)
        if name.endswith(("to_q", "conv1")):
            tensors[f"{name}.diff_b"] = torch.ones(out)
    save_file(tensors, folder / "all.safetensors")
    return load_lora(folder / "all.safetensors", family=Family.SDXL)


def state(model: Model) -> dict[str, Tensor]:
    return {f"{part}.{n}": t.clone() for part, net in model.networks.items() for n, t in net.state_dict().items()}


def places(model: Model) -> dict[str, int]:
    """Where each weight of more than one axis lies."""
    return {n: p.data_ptr() for net in model.networks.values() for n, p in net.named_parameters() if p.dim() > 1}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("dtype", FORMS)
def test_weights_that_are_read_again_are_those_that_were_there(
    tmp_path: Path, on_everything: Lora, dtype: torch.dtype
) -> None:
    model = open_model(tmp_path, dtype)
    lora, before, lay = on_everything, state(model), places(model)
    with merged(model.networks, [(lora, 0.7, 0.9)]):
        kept = state(model)
    assert same(before, state(model)) and not same(before, kept)
    with merged(model.networks, [(lora, 0.7, 0.9)], originals=model.originals, most_kept=0):
        assert same(kept, state(model))
        assert places(model) == lay
    assert same(before, state(model)) and places(model) == lay and not model.is_spoiled


def test_few_originals_are_kept_and_nothing_is_read(tmp_path: Path, on_everything: Lora) -> None:
    model = open_model(tmp_path)
    lora, before = on_everything, state(model)
    size = sum(tensor.nbytes for tensor in before.values())
    with merged(model.networks, [(lora, 1.0, 1.0)], originals=model.originals, most_kept=size):
        model.facts.source.path.unlink()
    assert same(before, state(model))


def test_weights_that_are_read_again_come_back_when_drawing_fails(tmp_path: Path, on_everything: Lora) -> None:
    model = open_model(tmp_path)
    lora, before = on_everything, state(model)
    loras = merged(model.networks, [(lora, 1.0, 1.0)], originals=model.originals, most_kept=0)
    with pytest.raises(KeyboardInterrupt), loras:
        raise KeyboardInterrupt
    assert same(before, state(model))


def test_a_model_whose_file_changed_meanwhile_is_not_used_again(tmp_path: Path, on_everything: Lora) -> None:
    model = open_model(tmp_path)
    lora = on_everything
    loras = merged(model.networks, [(lora, 1.0, 1.0)], originals=model.originals, most_kept=0)
    with pytest.raises(DamagedFile, match="changed while it was in use"), loras:
        os.utime(model.facts.source.path, ns=(1, 1))
    assert model.is_spoiled
    with pytest.raises(LoraError, match="already merged"), merged(model.networks, []):
        pass
