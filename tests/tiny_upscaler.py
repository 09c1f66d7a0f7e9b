"""A tiny random ESRGAN on disk, what it makes of a picture computed on its own, and the real spandrel without torchvision."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, leaky_relu

FEATURES, GROWTH = 8, 32
"""spandrel's ESRGAN takes any number of features, and the paper's 32 for growth alone."""


def spandrel() -> ModuleType:
    """The installed spandrel, whole and unchanged; the test is skipped where there is none.

    Its import asks torchvision for three names, which two of its forty architectures use (LaMa and RestoreFormer). The CPU's
    torch has no torchvision beside it, so empty modules with these names stand in for it while spandrel is imported, and
    are taken away again. No test calls them.
    """
    if importlib.util.find_spec("spandrel") is None:
        pytest.skip("spandrel is not installed")
    if "spandrel" not in sys.modules and importlib.util.find_spec("torchvision") is None:
        functional = ModuleType("torchvision.transforms.functional")
        functional.__dict__.update(InterpolationMode=None, rotate=None, normalize=None)
        names = ("torchvision", "torchvision.transforms")
        stand_in = {name: ModuleType(name) for name in names} | {functional.__name__: functional}
        sys.modules.update(stand_in)
        try:
            importlib.import_module("spandrel")
        finally:
            for name in stand_in:
                del sys.modules[name]
    return importlib.import_module("spandrel")


def esrgan_state(*, blocks: int = 1, seed: int = 3, reach: bool = True) -> dict[str, Tensor]:
    """The tensors of a fourfold ESRGAN by its published names; without `reach`, each pixel is made of its own alone."""
    torch.manual_seed(seed)
    sizes = {"conv_first": (3, FEATURES), "conv_body": (FEATURES, FEATURES), "conv_up1": (FEATURES, FEATURES)}
    sizes |= {"conv_up2": (FEATURES, FEATURES), "conv_hr": (FEATURES, FEATURES), "conv_last": (FEATURES, 3)}
    for block in range(blocks):
        for dense in (1, 2, 3):
            for at in range(1, 6):
                out = FEATURES if at == 5 else GROWTH
                sizes[f"body.{block}.rdb{dense}.conv{at}"] = (FEATURES + (at - 1) * GROWTH, out)
    state = {}
    for name, (into, out) in sizes.items():
        kernel = torch.randn(out, into, 3, 3) * (0.6 / into**0.5 / (3 if reach else 1))
        if not reach:
            kernel[:, :, [0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 2, 0, 1, 2]] = 0
        state |= {f"{name}.weight": kernel, f"{name}.bias": torch.randn(out) * 0.1}
    state["conv_last.bias"] += 0.5
    return state


def esrgan(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """What ESRGAN's paper makes of pictures [1, 3, height, width] (Wang et al. 2018: RRDB without normalisation)."""

    def convolved(name: str, x: Tensor) -> Tensor:
        return conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)

    def dense(name: str, x: Tensor) -> Tensor:
        seen = [x]
        for at in (1, 2, 3, 4):
            seen.append(leaky_relu(convolved(f"{name}.conv{at}", torch.cat(seen, 1)), 0.2))
        return x + 0.2 * convolved(f"{name}.conv5", torch.cat(seen, 1))

    first = convolved("conv_first", x)
    body = first
    for block in sorted({name.split(".")[1] for name in state if name.startswith("body.")}):
        inner = body
        for at in (1, 2, 3):
            inner = dense(f"body.{block}.rdb{at}", inner)
        body = body + 0.2 * inner
    up = first + convolved("conv_body", body)
    for at in (1, 2):
        up = leaky_relu(convolved(f"conv_up{at}", interpolate(up, scale_factor=2, mode="nearest")), 0.2)
    return convolved("conv_last", leaky_relu(convolved("conv_hr", up), 0.2))


def expected(state: dict[str, Tensor], pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The picture [height, width, 3] four times as large, as numbers of 0 to 255; A1111 puts blue first."""
    x = torch.from_numpy(pixels[:, :, ::-1].copy()).permute(2, 0, 1)[None].double() / 255
    made = esrgan({name: tensor.double() for name, tensor in state.items()}, x)[0]
    found: NDArray[np.float64] = (made.clamp(0, 1) * 255).permute(1, 2, 0).numpy()[:, :, ::-1]
    return found


def save_esrgan(path: Path, state: dict[str, Tensor] | None = None) -> Path:
    """The file, by the ending of its name: safetensors, or a pickle as Real-ESRGAN publishes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = esrgan_state() if state is None else state
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"params_ema": state}, path)
    return path


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
