"""Full-size SD 1.x at 512x512: our sweep beside diffusers on the same random weights, alternating in one run.

    python benchmarks/sweep.py --folder /tmp/clipskip-bench [--steps 2] [--rounds 3]

Each run is a process of its own; it prints seconds per guided step (median over its steps after the first), the
whole command's seconds and its peak memory. Ratios are within one run, so a noisy machine tilts both sides alike.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from fullsize import build_checkpoint, build_lora

PROMPT, NEGATIVE = "best quality, swamp, fireflies, ogre, reeds", "lowres, blurry"
HERE = Path(__file__).parent


def measure(command: list[str]) -> dict[str, float]:
    """Seconds and peak memory of one command, and the seconds per step that it prints as `step_s=`."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ)
    text = process.stdout.read() if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command}\n{text}")
    steps = [float(x) for x in re.findall(r"step_s=([\d.]+)", text)]
    return {
        "whole_s": time.perf_counter() - start,
        "peak_gb": usage.ru_maxrss / 1e6,
        "step_s": statistics.median(steps) if steps else float("nan"),
    }


def main() -> None:
    """Builds the files, runs everything in turn, prints a table and its JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clip-skip", default="1-2")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    checkpoint = build_checkpoint(options.folder / "random-sd15.safetensors")
    lora = build_lora(options.folder / "random-lora.safetensors", checkpoint)
    common = [str(checkpoint), str(lora), str(options.steps), options.clip_skip]
    runs: dict[str, list[str]] = {
        "clipskip": [sys.executable, str(HERE / "run_clipskip.py"), *common],
        "diffusers, as it comes": [sys.executable, str(HERE / "run_diffusers.py"), *common, "float32"],
        "diffusers, bfloat16": [sys.executable, str(HERE / "run_diffusers.py"), *common, "bfloat16"],
    }
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
    for _ in range(options.rounds):
        for name, command in runs.items():
            figures[name].append(measure(command))
            print(name, json.dumps(figures[name][-1]), flush=True)
    ours = {key: statistics.median(run[key] for run in figures["clipskip"]) for key in figures["clipskip"][0]}
    print("\n| | s / guided step | ratio | whole command, s | ratio | peak memory, GB |\n|---|---|---|---|---|---|")
    for name, measured in figures.items():
        m = {key: statistics.median(run[key] for run in measured) for key in ours}
        print(
            f"| {name} | {m['step_s']:.2f} | {m['step_s'] / ours['step_s']:.2f} | {m['whole_s']:.0f} "
            f"| {m['whole_s'] / ours['whole_s']:.2f} | {m['peak_gb']:.1f} |"
        )


if __name__ == "__main__":
    main()
