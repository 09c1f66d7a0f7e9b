"""What the trainer does to weights between steps."""

import sys
from pathlib import Path

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
