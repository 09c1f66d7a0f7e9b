"""Attention: the same numbers as diffusers' own processors, faster; keys and values of fixed texts once."""

from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention as TheirLayer
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from clipskip.networks import attention
from clipskip.networks.attention import (
    Attention,
    Memory,
    attend,
    attend_in_chunks,
    best_dtype,
    capabilities,
    prefers_chunks,
)

CPU = torch.device("cpu")


def rows(tokens: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(2, tokens, width, generator=torch.Generator().manual_seed(seed))


def exact(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """Attention by its definition, in float64."""
    q, k, v = (t.double().unflatten(-1, (heads, -1)).transpose(1, 2) for t in (queries, keys, values))
    return ((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)


SHAPES = [(1100, 1100, 40), (256, 256, 80), (64, 64, 160), (256, 77, 40), (64, 154, 160)]
"""Tokens, tokens attended to, numbers per head; 1100 is no multiple of the chunk."""


@pytest.mark.parametrize(("tokens", "others", "width"), SHAPES)
@pytest.mark.parametrize("way", [attend, attend_in_chunks])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    # float32: sums of a thousand terms in another order. bfloat16 keeps 8 bits: scores and probabilities are each
    # rounded by up to 2^-9 and errors average out over the tokens; torch's fused kernel keeps them in float32.
    [(torch.float32, 2e-6), (torch.bfloat16, 8e-3)],
)
def test_attention_is_its_definition(
    tokens: int, others: int, width: int, way: Any, dtype: torch.dtype, tolerance: float
) -> None:
    q, k, v = (
        rows(tokens, 2 * width).to(dtype),
        rows(others, 2 * width, 1).to(dtype),
        rows(others, 2 * width, 2).to(dtype),
    )
    expected = exact(q, k, v, heads=2)
    assert (way(q, k, v, heads=2) - expected).norm() / expected.norm() < tolerance


def layers(cross: bool) -> tuple[Attention, TheirLayer]:
    """Ours and diffusers' with the same weights."""
    torch.manual_seed(0)
    width = 16 if cross else None
    theirs = TheirLayer(32, cross_attention_dim=width, heads=4, dim_head=8, processor=AttnProcessor()).eval()
    ours = Attention(32, text_width=width, heads=4)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize("cross", [False, True])
@torch.no_grad()
def test_our_layer_gives_what_diffusers_gives(cross: bool) -> None:
    (ours, theirs), hidden, text = layers(cross), rows(1100, 32), rows(9, 16, 1) if cross else None
    assert torch.allclose(
        ours(hidden, text, onto=torch.zeros_like(hidden)), theirs(hidden, encoder_hidden_states=text), atol=1e-6
    )


@torch.no_grad()
def test_remembered_keys_and_values_are_used_again_and_change_nothing() -> None:
    ours, hidden, text = layers(cross=True)[0], rows(9, 32), rows(7, 16, 1)
    memory: Memory = {}
    plain = ours(hidden, text, onto=torch.zeros_like(hidden))
    assert all(torch.equal(ours(hidden, text, memory, onto=torch.zeros_like(hidden)), plain) for _ in range(2))
    assert list(memory) == [(id(ours), id(text))]
    other = rows(7, 16, 2)
    assert torch.equal(
        ours(hidden, other, memory, onto=torch.zeros_like(hidden)), ours(hidden, other, onto=torch.zeros_like(hidden))
    )


@pytest.mark.parametrize(
    ("known", "dtype"),
    [
        ([], torch.float32),
        (["avx512_bf16"], torch.bfloat16),
        (["bf16"], torch.bfloat16),
        (["avx512_bf16", "avx512_fp16", "amx_bf16"], torch.bfloat16),
        (["avx512_bf16", "avx512_fp16"], torch.float32),
    ],
    ids=["AVX2", "AMD since Zen 4", "Arm", "Intel with AMX", "Intel in a virtual machine that hides AMX"],
)
def test_a_cpu_draws_in_what_it_multiplies_fastest(
    known: list[str], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "capabilities", lambda: dict.fromkeys(known, True))
    assert best_dtype(CPU) == dtype


def test_a_gpu_draws_in_half_precision() -> None:
    assert best_dtype(torch.device("cuda")) == torch.float16


def test_chunks_are_for_bfloat16_on_cpus_alone() -> None:
    assert not prefers_chunks(torch.device("cuda"), torch.bfloat16)
    assert not prefers_chunks(CPU, torch.float32)
    assert prefers_chunks(CPU, torch.bfloat16) != bool(capabilities().get("amx_bf16"))
