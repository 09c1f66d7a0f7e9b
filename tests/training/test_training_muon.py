"""What the trainer does to weights between steps."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.append(str(Path(__file__).parents[2] / "training"))
import muon


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(8, 4, bias=False) for _ in range(3))


def test_only_rows_of_queries_and_keys_that_are_too_long_are_shortened() -> None:
    torch.manual_seed(0)
    model = Attention()
    nn.init.normal_(model.to_q.weight, std=3)
    nn.init.normal_(model.to_v.weight, std=3)
    flat = muon.Flat(model, workers=1)
    before, _ = flat.unpack(flat.weights), flat.limit()
    after = flat.unpack(flat.weights)
    norms = before["to_q.weight"].norm(dim=1, keepdim=True)
    assert float(norms.min()) > muon.LONGEST_ROW
    assert torch.allclose(after["to_q.weight"], before["to_q.weight"] * muon.LONGEST_ROW / norms)
    assert float(before["to_k.weight"].norm(dim=1).max()) < muon.LONGEST_ROW
    assert torch.equal(after["to_k.weight"], before["to_k.weight"])
    assert torch.equal(after["to_v.weight"], before["to_v.weight"])


def test_parts_add_up_in_float32_and_begin_forgets_them() -> None:
    torch.manual_seed(0)
    model = nn.Linear(8, 4, bias=False)
    flat = muon.Flat(model, workers=1)
    flat.attach(model)
    flat.begin(0)
    parts = [torch.randn(3, 8).bfloat16().to(flat.copy.dtype) for _ in range(2)]
    for x in parts:
        model(x).sum().backward()
        flat.collect(0)
    wanted = sum(x.float().sum(0) for x in parts)
    assert torch.allclose(flat.grads[0].view(4, 8), wanted.expand(4, 8), atol=2**-7 * float(wanted.abs().max()))
    flat.begin(0)
    assert not flat.grads[0].any() and not flat.copy_grads.any()


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(6, 6, 3, padding=1) for _ in range(5)), nn.Conv2d(6, 4, 1), nn.Flatten(), nn.Linear(16, 3)
    )


def test_flat_vectors_give_back_the_parameters_they_were_made_of() -> None:
    model, attached = small(), small()
    flat = muon.Flat(model, workers=1)
    found = flat.unpack(flat.weights)
    assert set(found) == set(dict(model.named_parameters()))
    assert all(torch.equal(found[name], value) for name, value in model.named_parameters())
    flat.attach(attached)
    x = torch.randn(2, 6, 2, 2)
    assert torch.equal(attached(x.to(flat.copy.dtype)), model.to(flat.copy.dtype)(x.to(flat.copy.dtype)))


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_shares_are_everything_once(workers: int) -> None:
    flat = muon.Flat(small(), workers=workers)
    places = sorted((block.start, block.start + block.size) for share in flat.shares for block in share)
    assert [start for start, _ in places] == [0, *(end for _, end in places[:-1])]
    assert places[-1][1] == len(flat.weights)


def test_a_step_is_the_same_for_any_number_of_workers() -> None:
    """Matrices of a shape move together or apart; a batched product may round otherwise than a single one."""
    moved = []
    for workers in (1, 2):
        flat = muon.Flat(small(), workers=workers)
        flat.grads[-1].copy_(torch.randn(len(flat.weights), generator=torch.Generator().manual_seed(1)))
        before = flat.weights.clone()
        for rank in range(workers):
            muon.orthogonal_step(flat, rank, lr=0.1, adam_lr=0.1, step=0)
        moved.append(flat.weights - before)
    assert torch.allclose(*moved, atol=2**-7 * float(moved[0].abs().max()))


@pytest.mark.parametrize("shape", [(3, 24, 24), (1, 64, 12), (2, 12, 64)])
def test_momentum_is_orthogonalised_by_five_newton_schulz_steps(shape: tuple[int, int, int]) -> None:
    """Each step acts on singular values alone, s to 3.4445 s - 4.775 s^3 + 2.0315 s^5 (Jordan 2024): by float64's SVD. Products
    in bfloat16, five times over, are good to a few hundredths of the largest value."""
    torch.manual_seed(0)
    x = torch.randn(shape)
    left, values, right = torch.linalg.svd(
        x.double() / x.double().norm(dim=(-2, -1), keepdim=True), full_matrices=False
    )
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    wanted = left @ torch.diag_embed(values) @ right
    assert float((muon.orthogonal(x) - wanted).abs().max()) < 0.05 * float(wanted.abs().max())
