"""Seconds until a checkpoint is ready, its file being in the page cache: ours, diffusers', and merely reading the file."""

import json
import time
from collections.abc import Callable

from common import Task, parse_task

CHUNK = 16 << 20


def main() -> None:
    """Imports are left out."""
    task = parse_task()
    opening = {"open-clipskip": ours, "open-diffusers": diffusers, "open-read": reading}[task.name](task)
    start = time.perf_counter()
    kept = opening()
    print("RESULT " + json.dumps({"whole_s": time.perf_counter() - start}))
    del kept


def ours(task: Task) -> Callable[[], object]:
    from clipskip.sweep import open_model

    return lambda: open_model(str(task.checkpoint.resolve()))


def diffusers(task: Task) -> Callable[[], object]:
    import torch
    from diffusers import StableDiffusionPipeline

    folder = str(task.diffusers_folder)
    return lambda: StableDiffusionPipeline.from_pretrained(
        folder, torch_dtype=torch.bfloat16, safety_checker=None, local_files_only=True
    )


def reading(task: Task) -> Callable[[], object]:
    buffer = bytearray(CHUNK)

    def read() -> int:
        with task.checkpoint.open("rb", buffering=0) as file:
            return sum(iter(lambda: file.readinto(buffer), 0))

    return read


if __name__ == "__main__":
    main()
