"""Trains a network with one worker a core: weights in shared memory, parts of a batch taken as a worker comes free.

Matrices move by orthogonalised momentum, the rest by Adam (muon.py). One checkpoint file, rewritten every three minutes;
a training started again with the same folder goes on from it.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.multiprocessing as mp
from common import log, save
from muon import Flat, orthogonal_step
from torch import Tensor, nn

from clipskip import heap

COUNTERS = {"step": "q", "spent": "d", "seen": "q", "mean": "d"}
PAUSE = 170


class Task(Protocol):
    """What is trained; instances travel to the workers."""

    def network(self) -> nn.Module:
        """The network at its start; only what requires gradients is trained."""
        ...

    def tune(self, network: nn.Module) -> None:
        """Makes a worker's bfloat16 network faster, its parameters staying the objects they are."""
        ...

    def feed(self) -> Callable[[nn.Module, torch.Generator, float], Tensor]:
        """A function of (network, generator, share of the time done) that gives one part's mean loss."""
        ...

    def report(self, network: nn.Module) -> str:
        """A line about the averaged network, for the log; may be empty."""
        ...


def rate(done: float, step: int) -> float:
    """The learning rate's factor: up over 30 steps, level to half time, then straight down to 2%."""
    return min(1, (step + 1) / 30) * min(1, 0.02 + 0.98 * (1 - done) / 0.5)


def add_options(parser: argparse.ArgumentParser, *, batch: int, micro: int, lr: float, adam_lr: float) -> None:
    """The options that every such training takes."""
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60, help="in all, over all starts")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--micro", type=int, default=micro, help="samples a part")
    parser.add_argument("--lr", type=float, default=lr)
    parser.add_argument("--adam-lr", type=float, default=adam_lr)


@heap.kept()
def work(rank: int, task: Task, path: Path, *, shared: dict[str, Any], options: argparse.Namespace) -> None:
    """One worker: takes parts until the step is full, then moves its share of the weights."""
    torch.set_num_threads(1)
    flat, state = shared["flat"], shared["state"]
    network = task.network().to(options.device)
    flat.attach(network)
    task.tune(network)
    loss_of, generator = task.feed(), torch.Generator()
    saved, logged = time.time(), time.time()
    parts, total = options.batch // options.micro, 60 * options.minutes
    while state["spent"].value < total:
        began, step, done = time.time(), int(state["step"].value), state["spent"].value / total
        flat.begin(rank)
        while (part := _take(state["part"], (step + 1) * parts)) is not None:
            generator.manual_seed(part)
            loss = loss_of(network, generator, done) / parts
            loss.backward()  # type: ignore[no-untyped-call]
            flat.collect(rank)
            state["loss"][part % parts] = float(loss.detach())
        shared["barrier"].wait()
        factor = rate(done, step)
        orthogonal_step(flat, rank, lr=options.lr * factor, adam_lr=options.adam_lr * factor, step=step)
        shared["barrier"].wait()
        if rank == 0:
            flat.limit()
            kept = _count(state, parts, options.batch, seconds=time.time() - began)
            if (step + 1) % 50 == 0:
                log(options.out, f"{_said(kept)} last 50 steps in {time.time() - logged:.0f} s")
                logged = time.time()
            if time.time() - saved > PAUSE or kept["spent"] >= total:
                saved = time.time()
                save(path, {**flat.state(), **kept})
                _report(task, flat, options.out)
        shared["barrier"].wait()


def _report(task: Task, flat: Flat, out: Path) -> None:
    network = task.network()
    network.load_state_dict(flat.unpack(flat.average), strict=False)
    if line := task.report(network):
        log(out, line)


def _count(state: dict[str, Any], parts: int, batch: int, *, seconds: float) -> dict[str, float]:
    state["step"].value += 1
    state["spent"].value += seconds
    state["seen"].value += batch
    state["mean"].value += (sum(state["loss"][:parts]) - state["mean"].value) * max(0.02, 1 / state["step"].value)
    return {name: state[name].value for name in COUNTERS}


def _said(kept: dict[str, float]) -> str:
    return f"step {kept['step']} {kept['spent'] / 60:.1f} min {kept['seen']} samples loss {kept['mean']:.4f}"


def _take(counter: Any, end: int) -> int | None:
    with counter.get_lock():
        if counter.value >= end:
            return None
        counter.value += 1
        return int(counter.value) - 1


def weights(path: Path, network: nn.Module, which: str = "ema") -> nn.Module:
    """The network with a checkpoint's average ("ema") or its weights as they are ("weights")."""
    found = torch.load(path, weights_only=True)
    flat = Flat(network, workers=1)
    network.load_state_dict(flat.unpack(found[which]), strict=False)
    return network


def train(task: Task, path: Path, options: argparse.Namespace) -> None:
    """Trains for the given minutes in all, going on from `path` where it exists."""
    if options.batch % options.micro:
        raise SystemExit(f"--batch {options.batch} is not a multiple of --micro {options.micro}; give both")
    options.out.mkdir(parents=True, exist_ok=True)
    context = mp.get_context("spawn")
    flat = Flat(task.network(), workers=options.workers, device=options.device)
    kept: dict[str, Any] = dict.fromkeys(COUNTERS, 0)
    if path.exists():
        found = torch.load(path, weights_only=True)
        flat.load(found)
        kept |= {name: found[name] for name in COUNTERS}
    flat.limit()
    flat.share()
    parts = options.batch // options.micro
    state: dict[str, Any] = {name: context.Value(kind, kept[name]) for name, kind in COUNTERS.items()}
    state |= {"part": context.Value("q", kept["step"] * parts), "loss": context.Array("d", parts)}
    shared = {"flat": flat, "state": state, "barrier": context.Barrier(options.workers)}
    if options.workers == 1:
        work(0, task, path, shared=shared, options=options)
        return
    mp.spawn(_spawned, args=(task, path, shared, options), nprocs=options.workers)  # type: ignore[no-untyped-call]


def _spawned(rank: int, task: Task, path: Path, shared: dict[str, Any], options: argparse.Namespace) -> None:
    work(rank, task, path, shared=shared, options=options)
