"""The kernel in C: attention by its definition, as near as torch's own; and quietly absent where it cannot be built."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from clipskip.networks import native
from clipskip.networks.attention import attend, attend_fastest, capabilities, native_kernel
from clipskip.networks.native import Kernel, build

needs_amx = pytest.mark.skipif(
    not capabilities().get("amx_bf16") or native_kernel() is None, reason="no AMX here, or no compiler"
)


def rows(batch: int, tokens: int, width: int, seed: int) -> Tensor:
    return torch.randn(batch, tokens, width, generator=torch.Generator().manual_seed(seed)).bfloat16()


def exact(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """Attention by its definition, in float64."""
    q, k, v = (t.double().unflatten(-1, (heads, -1)).transpose(1, 2) for t in (queries, keys, values))
    return ((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)


def kernel() -> Kernel:
    found = native_kernel()
    assert found is not None
    return found


def ours(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """The kernel's answer, which it writes over the queries."""
    return kernel()(queries.clone(), keys, values, heads=heads)


def apart(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).norm() / other.double().norm())


SHAPES = [
    (2, 8, 256, 256, 160), (2, 8, 1024, 77, 80), (1, 8, 1100, 1100, 40), (2, 8, 64, 154, 160), (1, 2, 33, 31, 64),
    (1, 1, 1, 1, 40), (3, 5, 31, 257, 8), (1, 3, 100, 513, 120), (2, 2, 32, 256, 152), (1, 1, 65, 4096, 16),
]  # fmt: skip
"""Batch, heads, rows, keys, numbers a head: the UNet's, and all that is not whole tiles and blocks."""


@needs_amx
@pytest.mark.parametrize(("batch", "heads", "tokens", "others", "width"), SHAPES)
@pytest.mark.parametrize("size", [1.0, 8.0])
def test_it_is_as_near_to_the_definition_as_torchs(
    batch: int, heads: int, tokens: int, others: int, width: int, size: float
) -> None:
    """At a size of 8 scores reach 200 and more, and nearly all the weight falls on one key."""
    q, k, v = (rows(batch, n, heads * width, i) for i, n in enumerate((tokens, others, others)))
    q, k = q * size, k * (size**0.5)
    right = exact(q, k, v, heads)
    mine, torchs = apart(ours(q, k, v, heads), right), apart(attend(q, k, v, heads=heads), right)
    # both keep scores in float32 and round weights and results to bfloat16, 2^-9: they differ in the order of sums
    assert mine <= 1.1 * torchs + 2e-4
    assert mine < 4e-3


@needs_amx
def test_rows_may_be_a_view_of_something_wider() -> None:
    whole = rows(2, 300, 3 * 80, 0)
    q, k, v = whole[:, :70, :80], whole[:, :, 80:160], whole[:, :, 160:]
    assert kernel().takes(q, k, v, heads=2)
    wanted = ours(*(t.contiguous() for t in (q, k, v)), heads=2)
    outside = whole[:, 70:].clone()
    assert torch.equal(kernel()(q, k, v, heads=2), wanted)
    assert torch.equal(whole[:, 70:], outside) and torch.equal(q, wanted), "only the queries are written over"


@needs_amx
def test_the_number_of_threads_changes_no_bit() -> None:
    q, k, v = (rows(1, 700, 80, i) for i in range(3))
    first, threads = ours(q, k, v, 2), torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            assert torch.equal(ours(q, k, v, 2), first)
    finally:
        torch.set_num_threads(threads)


@needs_amx
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_a_number_stays_visible(bad: float) -> None:
    q, k, v = (rows(1, 40, 80, i) for i in range(3))
    for place in (q, k, v):
        spoilt = [t.clone() if t is place else t for t in (q, k, v)]
        next(t for t, own in zip(spoilt, (q, k, v), strict=True) if own is place)[0, 7, 3] = bad
        out = ours(*spoilt, heads=2)
        assert not out[0, 7, :40].isfinite().all()
        assert out[0, :, 40:].isfinite().all(), "the other head has nothing of it"


@needs_amx
def test_the_fastest_way_is_the_kernel_for_bfloat16_and_not_for_the_rest() -> None:
    q, k, v = (rows(1, 40, 80, i) for i in range(3))
    assert torch.equal(attend_fastest(q.clone(), k, v, heads=2), ours(q, k, v, 2))
    wide = [t.float() for t in (q, k, v)]
    assert torch.equal(attend_fastest(*wide, heads=2), attend(*wide, heads=2))
    assert not kernel().takes(*(rows(1, 9, 4, i) for i in range(3)), heads=1), "a head of 4"
    assert not kernel().takes(*(rows(1, 9, 512, i) for i in range(3)), heads=1), "a head of 512"
    assert not kernel().takes(*(rows(1, 80, 9, i).mT for i in range(3)), heads=2), "tokens that are not together"


def test_without_a_compiler_or_a_folder_or_a_sound_source_there_is_no_kernel(tmp_path: Path) -> None:
    assert build(tmp_path, compilers=("no-such-compiler",)) is None
    broken = tmp_path / "broken.c"
    broken.write_text("this is not C")
    assert build(tmp_path / "cache", source=broken) is None
    assert not list((tmp_path / "cache").glob("*")), "nothing half made is left"
    (tmp_path / "file").write_text("")
    assert build(tmp_path / "file") is None
    assert build(tmp_path, source=tmp_path / "missing.c") is None


@needs_amx
def test_a_kernel_that_is_wrong_is_not_used(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.c"
    wrong.write_text(native.SOURCE.read_text().replace(".scale = scale", ".scale = 2 * scale"))
    assert build(tmp_path / "cache", source=wrong) is None
    assert list((tmp_path / "cache").glob("*.so")), "it was built"


@needs_amx
def test_it_is_built_and_checked_whatever_the_default_device(tmp_path: Path) -> None:
    with torch.device("meta"):
        assert build(tmp_path) is not None
        assert not kernel().takes(*(torch.empty(1, 9, 80, dtype=torch.bfloat16) for _ in range(3)), heads=2)


def test_it_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPSKIP_NATIVE", "0")
    assert native.load_kernel() is None


@needs_amx
def test_processes_may_build_it_at_once(tmp_path: Path) -> None:
    code = (
        f"from pathlib import Path; from clipskip.networks.native import build; assert build(Path({str(tmp_path)!r}))"
    )
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [one.wait(120) for one in running] == [0, 0]
    assert [path.suffix for path in tmp_path.iterdir()] == [".so"]
