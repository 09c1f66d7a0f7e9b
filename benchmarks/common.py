"""What every worker of a comparison takes and gives: the same noise and texts in, times and latents out."""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

PROMPT, NEGATIVE = "best quality, swamp, fireflies, ogre, reeds", "lowres, blurry"
SEED, CFG, CLIP_SKIP = 5, 7.0, 2
STEPS = 4
"""Euler's timesteps are then 999, 666, 333 and 0 everywhere: whole ones, so that all visit the same noise levels."""
INPUTS = "inputs.safetensors"


@dataclass(frozen=True, kw_only=True)
class Task:
    """One worker's run."""

    checkpoint: Path
    folder: Path
    size_px: int
    name: str

    @property
    def diffusers_folder(self) -> Path:
        """The checkpoint as diffusers reads it."""
        return self.folder / self.checkpoint.stem

    def inputs(self) -> dict[str, Tensor]:
        """`noise` [1, 4, h, w], `positive` and `negative` [1, 77, width], on SDXL `pooled` and `negative_pooled` too."""
        return load_file(self.folder / INPUTS)

    def finish(self, steps_s: Sequence[float], latent: Tensor, **more: object) -> None:
        """Tells the times, and leaves the latents for comparison."""
        np.save(self.folder / f"{self.name}.npy", latent.detach().float().numpy())
        print("RESULT " + json.dumps({"steps_s": list(steps_s), **more}), flush=True)


def parse_task() -> Task:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("size_px", type=int)
    parser.add_argument("name")
    return Task(**vars(parser.parse_args()))


def write_inputs(path: Path, texts: dict[str, Tensor], size_px: int) -> None:
    """Texts as diffusers takes them, and the noise of the seed."""
    noise = torch.randn(1, 4, size_px // 8, size_px // 8, generator=torch.Generator().manual_seed(SEED))
    save_file({"noise": noise, **texts}, path)


def twice(work: Callable[[], object]) -> float:
    """Seconds of the second of two runs."""
    work()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
