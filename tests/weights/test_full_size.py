"""A full-size SD 1.x file loads within the memory that is promised, and is then free of the file."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

GOLDEN = Path(__file__).parents[1] / "golden" / "sd15-single-file.json"
MEASURE = """
import json, os, sys, time
import torch
from clipskip.weights import load_checkpoint
peak = lambda: int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) * 1024
before, start = peak(), time.perf_counter()
model = load_checkpoint(sys.argv[1], dtype=getattr(torch, sys.argv[2]))
seconds = time.perf_counter() - start
parts = (*model.text, model.unet, model.vae)
print(json.dumps({
    "weights": sum(t.nbytes for part in parts for t in part.values()),
    "peak": peak() - before,
    "seconds": seconds,
    "depth": model.facts.encoders[0].shape.depth,
    "mapped": sys.argv[1] in open("/proc/self/maps").read(),
}))
"""


@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """2.1 GB of random fp16 weights under the names of an SD 1.x single file."""
    path = tmp_path_factory.mktemp("full") / "full.safetensors"
    shapes = json.loads(GOLDEN.read_text())["tensors"]
    noise = (torch.randn(49408 * 768, generator=torch.Generator().manual_seed(0)) * 0.02).half()
    state = {name: noise[: torch.Size(shape).numel()].clone().view(shape) for name, shape in shapes.items()}
    save_file(state, path)
    yield path
    path.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_loading_takes_at_most_1_3_times_the_weights(full_size: Path, tmp_path: Path, dtype: str) -> None:
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", MEASURE, str(full_size), dtype]
    found = json.loads(subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout)
    print(dtype, found)
    assert found["peak"] <= 1.3 * found["weights"]
    assert found["depth"] == 12 and not found["mapped"]
