"""No test reaches a network, and all check shapes; a tiny random model on disk, and a LoRA for it."""

import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import shape_checks

if TYPE_CHECKING:
    from clipskip.sweep import Model
    from clipskip.weights import Library

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
shape_checks.install()
gc.disable()  # until all tests are collected


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what opens the page in a browser: `make test` leaves it to `make browser`."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")


def pytest_collection_finish() -> None:
    """Keep the garbage collector from walking torch, all modules and all tests again and again: half of the time of small tests."""
    gc.enable()
    gc.set_threshold(50_000)
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny.safetensors (12 layers, trained at 2) and loras/ogre.safetensors"""
    import torch
    from safetensors.torch import save_file
    from tiny_sd1 import WIDTH, tiny_checkpoint

    from clipskip.weights import save_single_file

    found = tmp_path_factory.mktemp("models")
    save_single_file(tiny_checkpoint(vocabulary=49408, layers=12), found / "tiny.safetensors")
    (found / "loras").mkdir()
    torch.manual_seed(1)
    name = "lora_te_text_model_encoder_layers_3_self_attn_q_proj"
    tensors = {
        f"{name}.lora_down.weight": torch.randn(4, WIDTH),
        f"{name}.lora_up.weight": torch.randn(WIDTH, 4),
        f"{name}.alpha": torch.tensor(4.0),
    }
    save_file(tensors, found / "loras" / "ogre.safetensors", metadata={"ss_clip_skip": "2"})
    return found


@pytest.fixture(scope="session")
def library(folder: Path) -> "Library":
    from clipskip.weights import Library

    return Library((folder,))


@pytest.fixture(scope="session")
def model(library: "Library") -> "Model":
    from clipskip.sweep import open_model

    return open_model("tiny", library=library)
