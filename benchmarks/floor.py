"""The floor of a guided step: its FLOP, counted, at the rates at which this machine multiplies matrices now."""

import json
import time
from pathlib import Path

import torch
from common import parse_task
from torch.utils.flop_counter import FlopCounterMode

from clipskip.networks import UNet, best_dtype
from clipskip.weights import read_facts

SIDE, ROUNDS = 4096, 5


def flop(checkpoint: Path, size_px: int) -> int:
    """Of one guided step, on shapes alone."""
    shape = read_facts(checkpoint).unet
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        cells, text = torch.empty(2, 4, size_px // 8, size_px // 8), torch.empty(2, 77, shape.cross_attention_dim)
        beside = torch.empty(2, shape.added_width) if shape.added_width else None
        UNet(shape)(cells, torch.empty(()), text, added=beside)
    return counter.get_total_flops()


def rate(dtype: torch.dtype) -> float:
    """GFLOP/s of square matrix products, the best of some."""
    a, b = (torch.randn(SIDE, SIDE).to(dtype) for _ in range(2))
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * SIDE**3 / min(times) / 1e9


def main() -> None:
    task = parse_task()
    dtype = best_dtype(torch.device("cpu"))
    count, fast, exact = flop(task.checkpoint, task.size_px), rate(dtype), rate(torch.float32)
    facts = {"gflop": count / 1e9, "dtype": str(dtype), "gflop_per_s": fast, "float32_gflop_per_s": exact}
    print("RESULT " + json.dumps({"steps_s": [count / 1e9 / fast], **facts}))


if __name__ == "__main__":
    main()
