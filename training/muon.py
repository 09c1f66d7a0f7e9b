"""Weights, gradients and averages as flat vectors that workers share; a step of Muon and Adam on a worker's part."""

from dataclasses import dataclass

import torch
from common import fast_dtype
from torch import Tensor, nn

BETAS, MOMENTUM, DECAY, AVERAGE = (0.9, 0.99), 0.95, 0.01, 0.998
SMALL = ("conv_in.", "conv_out.", "time_embedding.")
LIMITED, LONGEST_ROW = ("to_q.weight", "to_k.weight"), 1.6
"""Queries and keys are read from normalised vectors, so rows of this length keep scores at a spread of two or three."""


@dataclass(frozen=True)
class Block:
    """A range of the flat vector: `count` matrices of rows x columns (Muon), or loose values (Adam: rows 0)."""

    start: int
    count: int
    rows: int
    columns: int

    @property
    def size(self) -> int:
        """How many values."""
        return self.count * max(1, self.rows) * self.columns

    @property
    def cost(self) -> int:
        """Roughly what a step of one matrix costs."""
        return max(1, self.rows) * self.columns * max(50, min(self.rows, self.columns))


class Flat:
    """One vector for each of: weights, their average, two moments, and every worker's gradients."""

    def __init__(self, model: nn.Module, *, workers: int, device: str = "cpu") -> None:
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        loose = [n for n, p in named.items() if p.ndim < 2 or any(small in n for small in SMALL)]
        shapes: dict[tuple[int, int], list[str]] = {}
        for name, value in named.items():
            if name not in loose:
                shapes.setdefault((value.shape[0], value[0].numel()), []).append(name)
        self.names = loose + [name for names in shapes.values() for name in names]
        self.shapes = {name: named[name].shape for name in self.names}
        sizes = [named[n].numel() for n in self.names]
        self.starts = dict(zip(self.names, torch.tensor([0, *sizes]).cumsum(0).tolist(), strict=False))
        self.blocks = [Block(0, 1, 0, sum(named[n].numel() for n in loose))]
        for (rows, columns), names in shapes.items():
            self.blocks.append(Block(self.starts[names[0]], len(names), rows, columns))
        self.weights = torch.cat([_flat(named[n].detach()) for n in self.names]).to(device)
        self.average, self.first, self.second = self.weights.clone(), *(torch.zeros_like(self.weights) for _ in "12")
        self.grads = [torch.zeros_like(self.weights) for _ in range(workers)]
        self.copy, self.copy_grads = (torch.empty(0, dtype=fast_dtype(device), device=device) for _ in "12")
        self.shares = _shares(self.blocks, workers)

    def share(self) -> None:
        """Moves everything into shared memory."""
        for value in (self.weights, self.average, self.first, self.second, *self.grads):
            if value.device.type == "cpu":
                value.share_memory_()

    def attach(self, model: nn.Module) -> None:
        """Makes the model's parameters and gradients views of this process's copy in the fast dtype."""
        self.copy = self.weights.to(self.copy.dtype, copy=True)
        self.copy_grads = torch.zeros_like(self.copy)
        model.to(self.copy.dtype)
        for name, value in model.named_parameters():
            if value.requires_grad:
                value.data, value.grad = self._view(self.copy, name), self._view(self.copy_grads, name)

    def begin(self, rank: int) -> None:
        """Casts the weights for a step and forgets the last one's gradients."""
        self.copy.copy_(self.weights)
        self.grads[rank].zero_()

    @torch.no_grad()
    def limit(self) -> None:
        """Shortens the rows of queries' and keys' weights that have grown too long (docs/decisions/0015)."""
        for name in self.names:
            if name.endswith(LIMITED):
                rows = self._view(self.weights, name)
                rows.mul_((LONGEST_ROW / rows.norm(dim=1, keepdim=True)).clamp(max=1))

    def collect(self, rank: int) -> None:
        """Adds a part's gradients to the step's."""
        self.grads[rank].add_(self.copy_grads)
        self.copy_grads.zero_()

    def unpack(self, vector: Tensor) -> dict[str, Tensor]:
        """A state dict out of a flat vector."""
        return {name: self._view(vector, name).clone(memory_format=torch.contiguous_format) for name in self.names}

    def _view(self, vector: Tensor, name: str) -> Tensor:
        """One parameter of a flat vector, convolutions with channels last."""
        shape = self.shapes[name]
        part = vector[self.starts[name] :][: shape.numel()]
        return part.view(shape[0], *shape[2:], shape[1]).movedim(-1, 1) if len(shape) == 4 else part.view(shape)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {"weights": self.weights, "ema": self.average, "first": self.first, "second": self.second}

    def load(self, found: dict[str, Tensor]) -> None:
        """Goes on from a checkpoint."""
        for name, value in self.state().items():
            value.copy_(found[name])


def _flat(value: Tensor) -> Tensor:
    return (value.movedim(1, -1) if value.ndim == 4 else value).reshape(-1)


def _shares(blocks: list[Block], workers: int) -> list[list[Block]]:
    """Every shape's matrices dealt out in runs, which are multiplied at once; who has least to do takes the odd one."""
    dealt: list[list[Block]] = [[] for _ in range(workers)]
    spent = [0.0] * workers
    for block in sorted(blocks, key=lambda b: -b.cost):
        start = block.start
        for turn, rank in enumerate(sorted(range(workers), key=spent.__getitem__)):
            count = block.count // workers + (turn < block.count % workers)
            if count:
                dealt[rank].append(Block(start, count, block.rows, block.columns))
                start += dealt[rank][-1].size
                spent[rank] += count * block.cost
    return dealt


def orthogonal(x: Tensor) -> Tensor:
    """The nearest matrices with equal singular values, roughly: five Newton-Schulz steps (Jordan 2024)."""
    flip = x.shape[-2] > x.shape[-1]
    x = x.mT if flip else x
    x = (x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)).to(fast_dtype(x.device))
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return (x.mT if flip else x).float()


@torch.no_grad()
def orthogonal_step(flat: Flat, rank: int, *, lr: float, adam_lr: float, step: int) -> None:
    """Moves one worker's share: matrices by orthogonalised momentum, loose values by Adam; then the average."""
    for block in flat.shares[rank]:
        place = slice(block.start, block.start + block.size)
        weight, grad = flat.weights[place], flat.grads[0][place]
        for other in flat.grads[1:]:
            grad = grad + other[place]
        first, second = flat.first[place], flat.second[place]
        if block.rows:
            first.lerp_(grad, 1 - MOMENTUM)
            move = grad.lerp(first, MOMENTUM).view(block.count, block.rows, block.columns)
            scale = max(1.0, block.rows / block.columns) ** 0.5
            weight.mul_(1 - lr * DECAY).add_(orthogonal(move).reshape(-1), alpha=-lr * scale)
        else:
            first.lerp_(grad, 1 - BETAS[0])
            second.lerp_(grad.square(), 1 - BETAS[1])
            corrected = (second / (1 - BETAS[1] ** (step + 1))).sqrt() + 1e-8
            weight.addcdiv_(first, corrected, value=-adam_lr / (1 - BETAS[0] ** (step + 1)))
        flat.average[place].lerp_(weight, 1 - min(AVERAGE, (1 + step) / (10 + step)))
