"""Attention at SD 1.x's shapes (512x512, guided: batch 2): ours, torch's and diffusers' own, alternating.

Run: python benchmarks/attention.py [rounds]. Prints a Markdown table of median milliseconds and of the relative
difference from float32 by the definition.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch
from diffusers.models.attention_processor import Attention as Layer
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from torch import Tensor

from clipskip.networks.attention import (
    Attention,
    Memory,
    attend,
    attend_in_chunks,
    best_dtype,
    native_kernel,
    prefers_chunks,
)

HEADS, BATCH = 8, 2
SHAPES = [(4096, 4096, 40), (1024, 1024, 80), (256, 256, 160), (64, 64, 160), (4096, 77, 40), (1024, 77, 80)]
"""Tokens, tokens attended to, numbers per head."""
Run = Callable[[], Tensor]


def main(rounds: int) -> None:
    dtype = best_dtype(torch.device("cpu"))
    slow = "chunks" if prefers_chunks(torch.device("cpu"), dtype) else "fused"
    chosen = slow if native_kernel() is None else "kernel"
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {dtype}; ours here: {chosen}\n")
    for title, build in (("kernels", kernels), ("whole layers, projections included", layers)):
        print(f"{title}\n")
        for number, (tokens, others, width) in enumerate(SHAPES):
            ways, reference = build(tokens, others, width, dtype)
            times = alternate(ways, rounds)
            if number == 0:
                print("| tokens | over | head |", " | ".join(ways), "|")
                print("|---" * (3 + len(ways)) + "|")
            cells = [f"{times[name]:.1f} ({difference(run(), reference):.0e})" for name, run in ways.items()]
            print(f"| {tokens} | {others} | {width} |", " | ".join(cells), "|", flush=True)
        print()


def kernels(tokens: int, others: int, width: int, dtype: torch.dtype) -> tuple[dict[str, Run], Tensor]:
    """All of ours on ready queries, keys and values."""
    wide = HEADS * width
    exact = [torch.randn(BATCH, count, wide) for count in (tokens, others, others)]
    q, k, v = (t.to(dtype) for t in exact)
    ways: dict[str, Run] = {
        "fused": lambda: attend(q, k, v, heads=HEADS),
        "chunks": lambda: attend_in_chunks(q, k, v, heads=HEADS),
    }
    kernel = native_kernel()
    if kernel is not None and kernel.takes(q, k, v, heads=HEADS):
        ways = {"kernel": lambda: kernel(q.clone(), k, v, heads=HEADS), **ways}
    return ways, attend(*(t.float() for t in (q, k, v)), heads=HEADS)


def layers(tokens: int, others: int, width: int, dtype: torch.dtype) -> tuple[dict[str, Run], Tensor]:
    """One attention layer of the UNet under each processor, with the text's keys remembered in ours."""
    wide, cross = HEADS * width, tokens != others
    layer = Layer(wide, cross_attention_dim=768 if cross else None, heads=HEADS, dim_head=width).eval()
    hidden, text = torch.randn(BATCH, tokens, wide), torch.randn(BATCH, others, 768) if cross else None
    reference = layer(hidden, encoder_hidden_states=text)
    low, words = hidden.to(dtype), None if text is None else text.to(dtype)
    memory: Memory = {}
    ours = Attention(wide, text_width=768 if cross else None, heads=HEADS)
    ours.load_state_dict(layer.state_dict())
    ours, layer = ours.to(dtype), layer.to(dtype)

    def under(processor: object) -> Run:
        def run() -> Tensor:
            layer.processor = processor
            return layer(low, encoder_hidden_states=words)

        return run

    ways = {
        "ours": lambda: ours(low, words, memory, onto=torch.zeros_like(low)),
        "AttnProcessor2_0": under(AttnProcessor2_0()),
        "AttnProcessor": under(AttnProcessor()),
    }
    return ways, reference


def alternate(ways: dict[str, Run], rounds: int) -> dict[str, float]:
    """Median milliseconds of each way, the ways taking turns after one round to warm up."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, run in ways.items():
            start = time.perf_counter()
            run()
            taken[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(times[1:]) for name, times in taken.items()}


def difference(got: Tensor, expected: Tensor) -> float:
    """Relative, in the norm of all numbers."""
    return ((got.float() - expected).norm() / expected.norm()).item()


if __name__ == "__main__":
    torch.manual_seed(0)
    with torch.no_grad():
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
