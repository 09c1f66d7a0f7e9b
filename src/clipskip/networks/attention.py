"""Attention for the UNet's shapes on this device, with a memory for texts that stay the same."""

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
"""What the rows attend to: as many numbers wide, not as many tokens long."""
Text = Float[Tensor, "batch others text_width"]
Memory = dict[tuple[int, int], tuple[Tensor, Tensor]]
"""Keys and values of texts that stay the same, by (layer, text) identity, each as wide as its layer.

It lives as long as one render, and so do the texts: no identity is ever another text's.
"""

CHUNK = 512
"""Rows of scores at once: 512 x 4096 in bfloat16 is 4 MB."""
LONG = 1024
"""Tokens from which on the chunked way was measured to pay."""


def best_dtype(device: torch.device) -> torch.dtype:
    """What a UNet runs fastest in: half on a GPU, bfloat16 on a CPU that multiplies it, else float32."""
    if device.type != "cpu":
        return torch.float16
    known = capabilities()
    fast = known.get("avx512_bf16") or known.get("amx_bf16") or known.get("bf16")
    return torch.bfloat16 if fast else torch.float32


@cache
def capabilities() -> Mapping[str, object]:
    """What this CPU can do, by torch's names; nothing where torch is too old to say (before 2.10)."""
    asked = getattr(torch.cpu, "get_capabilities", dict)
    return dict(asked())


@cache
def native_kernel() -> Kernel | None:
    """Our own kernel, on processors with AMX that have or can build it."""
    return load_kernel() if capabilities().get("amx_bf16") else None


def prefers_chunks(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether products over chunks beat torch's fused attention: in bfloat16 on CPUs without AMX tiles.

    With AMX torch's own is twice as fast (0.09 s against 0.17 s for (2, 8, 4096, 40), and our kernel 0.05 s); without it
    the same shape took 0.59 s against 0.13 s. Known, not timed, so that one machine always gives one picture.
    """
    return device.type == "cpu" and dtype == torch.bfloat16 and not capabilities().get("amx_bf16")


@final
class Attention(nn.Module):
    """Attention of the picture's cells to each other, or to the text; parameters as diffusers names them."""

    def __init__(self, width: int, *, text_width: int | None = None, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(text_width or width, width, bias=False)
        self.to_v = nn.Linear(text_width or width, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, cells: Rows, text: Text | None = None, memory: Memory | None = None, *, onto: Rows) -> Rows:
        """What each cell gathers from the text, or from the other cells where there is none, added to `onto`."""
        keys, values = (self.to_k(cells), self.to_v(cells)) if text is None else self._remembered(text, memory)
        gathered = attend_fastest(self.to_q(cells), keys, values, heads=self.heads)
        return added(self.to_out[0], gathered, onto=onto)

    def _remembered(self, text: Text, memory: Memory | None) -> tuple[Others, Others]:
        """The text's keys and values, computed once for as long as `memory` and the text live."""
        if memory is None:
            return self.to_k(text), self.to_v(text)
        place = (id(self), id(text))
        if place not in memory:
            memory[place] = (self.to_k(text), self.to_v(text))
        return memory[place]


def attend_fastest(queries: Rows, keys: Others, values: Others, *, heads: int) -> Rows:
    """softmax(q k / sqrt(d)) v per head, the fastest way that there is for these here; may change the queries."""
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
    """The same as plain matrix products, head by head and CHUNK rows at a time, so that the scores stay in cache."""
    result = torch.empty_like(queries)
    width = queries.shape[-1] // heads
    nothing = queries.new_zeros(1)
    for one in range(queries.shape[0]):
        for start in range(0, heads * width, width):
            head = slice(start, start + width)
            across = keys[one, :, head].T
            for row in range(0, queries.shape[1], CHUNK):
                rows = slice(row, row + CHUNK)
                scores = torch.addmm(nothing, queries[one, rows, head], across, beta=0, alpha=width**-0.5)
                result[one, rows, head] = scores.softmax(-1) @ values[one, :, head]
    return result
