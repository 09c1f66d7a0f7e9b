"""What all 12 Clip Skips of one prompt cost, against one encoding: full-size CLIP-L, random weights, one run.

    python benchmarks/encode_layers.py [--rounds 40] [--dtype bfloat16] [--device cuda]

The two are timed by turns, so that another load on the machine falls on both; the medians and their ratio are printed.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from clipskip.encode import last_layer_needed, read_layer
from clipskip.networks import TextEncoder, TextShape
from clipskip.spec import ClipSkip

CLIP_L = TextShape(depth=12, width=768, heads=12, mlp_width=3072)
SKIPS = tuple(ClipSkip(n) for n in range(1, CLIP_L.depth + 1))


def read(encoder: TextEncoder, ids: Tensor, skips: tuple[ClipSkip, ...]) -> list[Tensor]:
    """The vectors of each skip, from one pass."""
    states = encoder.layers(ids, upto=last_layer_needed(skips, depth=CLIP_L.depth))
    return [read_layer(states, skip, depth=CLIP_L.depth, final_norm=encoder.final_layer_norm) for skip in skips]


def seconds(work: Callable[[], object], *, device: str) -> float:
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    torch.manual_seed(0)
    encoder = TextEncoder(CLIP_L).to(device=asked.device, dtype=getattr(torch, asked.dtype)).eval()
    ids = torch.randint(0, CLIP_L.vocabulary, (1, CLIP_L.positions), device=asked.device)
    cases = {
        "Clip Skip 1 (one encoding)": lambda: read(encoder, ids, SKIPS[:1]),
        "Clip Skip 1 to 12, one pass": lambda: read(encoder, ids, SKIPS),
        "Clip Skip 2 alone": lambda: read(encoder, ids, SKIPS[1:2]),
        "Clip Skip 12 alone": lambda: read(encoder, ids, SKIPS[11:]),
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(asked.rounds + 3):
        for name, work in cases.items():
            took = seconds(work, device=asked.device)
            if turn >= 3:
                times[name].append(took)
    one = median(times["Clip Skip 1 (one encoding)"])
    print(
        f"CLIP-L, 77 tokens, {asked.dtype}, {asked.device}, {torch.get_num_threads()} threads, {asked.rounds} rounds\n"
    )
    print(f"| {'what':28} | median ms | ratio |\n|{'-' * 30}|{'-' * 11}|{'-' * 7}|")
    for name, taken in times.items():
        print(f"| {name:28} | {median(taken) * 1e3:9.2f} | {median(taken) / one:5.2f} |")


if __name__ == "__main__":
    main()
