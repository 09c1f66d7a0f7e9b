"""Attention in the fastest form for the UNet's shapes on this device, with cached keys and values for constant
texts."""

from collections.abc import Mapping
from functools import cache
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from clipskip.networks.fused import added
from clipskip.networks.native import Kernel, load_kernel

Rows = Float[Tensor, "batch tokens width"]
Others = Float[Tensor, "batch others width"]
"""What the rows attend to: vectors of the same width, in another number."""
Text = Float[Tensor, "batch others text_width"]
Memory = dict[tuple[int, int], tuple[Tensor, Tensor]]
"""Cached keys and values of texts that stay the same, by the identities of layer and text.

A cache lives as long as one render, and so do its texts, so no identity is ever reused for another text.
"""

CHUNK = 512
"""Rows of scores computed at once: 512 x 4096 in bfloat16 is 4 MB."""
LONG = 1024
"""The number of tokens from which attention in chunks was measured to be faster."""


def best_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype in which a UNet runs fastest: float16 on a GPU, bfloat16 on a CPU that multiplies it faster than
    float32, else float32.

    Processors with AVX512-FP16 are Intel's with AMX. Where a virtual machine hides AMX from them, what is left for
    bfloat16, AVX512-BF16, multiplies half as fast as float32.
    """
    if device.type != "cpu":
        return torch.float16
    known = capabilities()
    vectors = known.get("avx512_bf16") and not known.get("avx512_fp16")
    fast = known.get("amx_bf16") or known.get("bf16") or vectors
    return torch.bfloat16 if fast else torch.float32


@cache
def capabilities() -> Mapping[str, object]:
    """Return what this CPU can do, by torch's names; empty where torch is too old to say (before 2.10)."""
    query = getattr(torch.cpu, "get_capabilities", dict)
    return dict(query())


@cache
def native_kernel() -> Kernel | None:
    """Return our own kernel on processors with AMX where it is built or can be built, else None."""
    return load_kernel() if capabilities().get("amx_bf16") else None


def prefers_chunks(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether matrix products over chunks beat torch's fused attention: in bfloat16 on CPUs without AMX tiles.

    With AMX torch's attention is twice as fast (0.09 s against 0.17 s for (2, 8, 4096, 40); our kernel takes 0.05 s);
    without it the same shape took 0.59 s against 0.13 s. The choice is fixed rather than timed, so that one machine
    always gives the same picture.
    """
    return device.type == "cpu" and dtype == torch.bfloat16 and not capabilities().get("amx_bf16")


@final
class Attention(nn.Module):
    """Attention of the picture's cells to each other, or to the text. Parameters are named as in diffusers."""

    def __init__(self, width: int, *, text_width: int | None = None, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(text_width or width, width, bias=False)
        self.to_v = nn.Linear(text_width or width, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, cells: Rows, text: Text | None = None, memory: Memory | None = None, *, onto: Rows) -> Rows:
        """Return `onto` plus what each cell gathers from the text, or from the other cells where `text` is None."""
        keys, values = (self.to_k(cells), self.to_v(cells)) if text is None else self._remembered(text, memory)
        gathered = attend_fastest(self.to_q(cells), keys, values, heads=self.heads)
        return added(self.to_out[0], gathered, onto=onto)

    def _remembered(self, text: Text, memory: Memory | None) -> tuple[Others, Others]:
        """Return the text's keys and values, computed once for as long as `memory` and the text live."""
        if memory is None:
            return self.to_k(text), self.to_v(text)
        place = (id(self), id(text))
        if place not in memory:
            memory[place] = (self.to_k(text), self.to_v(text))
        return memory[place]


def attend_fastest(queries: Rows, keys: Others, values: Others, *, heads: int) -> Rows:
    """softmax(q k / sqrt(d)) v per head, by the fastest way for these shapes on this device; may overwrite the
    queries."""
    kernel = native_kernel()
    if kernel is not None and kernel.takes(queries, keys, values, heads=heads):
        return kernel(queries, keys, values, heads=heads)
    if keys.shape[1] >= LONG and prefers_chunks(queries.device, queries.dtype):
        return attend_in_chunks(queries, keys, values, heads=heads)
    return attend(queries, keys, values, heads=heads)


def attend(queries: Rows, keys: Others, values: Others, *, heads: int) -> Rows:
    """softmax(q k / sqrt(d)) v per head, by torch's fused attention."""
    q, k, v = (rows.view(*rows.shape[:2], heads, -1).transpose(1, 2) for rows in (queries, keys, values))
    return scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def attend_in_chunks(queries: Rows, keys: Others, values: Others, *, heads: int) -> Rows:
    """Return what `attend` returns, by plain matrix products over CHUNK rows of one head, so that the scores stay in
    cache."""
    result = torch.empty_like(queries)
    width = queries.shape[-1] // heads
    nothing = queries.new_zeros(1)
    for item in range(queries.shape[0]):
        for start in range(0, heads * width, width):
            head = slice(start, start + width)
            across = keys[item, :, head].T
            for row in range(0, queries.shape[1], CHUNK):
                rows = slice(row, row + CHUNK)
                scores = torch.addmm(nothing, queries[item, rows, head], across, beta=0, alpha=width**-0.5)
                result[item, rows, head] = scores.softmax(-1) @ values[item, :, head]
    return result
