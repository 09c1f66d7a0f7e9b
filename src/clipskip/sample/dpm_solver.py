"""DPM-Solver in moves of one to three calls: A1111's DPM fast and DPM adaptive, in the same form as the samplers of
`ode`.

Lu et al. 2022 (arXiv:2206.00927): algorithms 1 and 2, section 3.4 (fast) and appendix C (adaptive), as k-diffusion
applies them: with eta a move goes below its sigma, and noise leads back up to it. They end above sigma 0.
"""

import math
from collections.abc import Sequence

import torch

from clipskip.errors import SpecError
from clipskip.sample.noise import Latent, StepNoise
from clipskip.sample.ode import USUAL, AddedNoise, Model, Steps, ancestral, slope
from clipskip.sample.schedules import Sigmas
from clipskip.sample.sigmas import NoiseTable

RELATIVE, ABSOLUTE = 0.05, 0.0078
"""The error that a move of DPM adaptive may have: a share of the latent, or this much."""
FIRST_MOVE = 0.05
"""The first move, in log sigma."""
ACCEPTED = 0.81
"""A move is repeated when the next one would be smaller than this share of it."""
ERROR_ORDERS = {True: 1.5, False: 3.0}
"""The error's order as k-diffusion assumes it, with noise and without."""
END = 1e-5
"""The distance in log sigma below which a run has arrived."""
MOST_MOVES = 1000
"""The number of moves after which DPM adaptive gives up; A1111 would go on."""


def fast_orders(calls: int) -> list[int]:
    """Return how many of the model's calls each move takes: 3, fewer at the end (section 3.4)."""
    moves = calls // 3 + 1
    return [3] * (moves - 2) + [2, 1] if calls % 3 == 0 else [3] * (moves - 1) + [calls % 3]


def fast_levels(steps: int, table: NoiseTable) -> Sigmas:
    """Return the levels of a run all the way down the table."""
    return fast_between(table.high, table.low, steps)


def fast_between(high: float, low: float, calls: int) -> Sigmas:
    """Return a level for each call: moves are even in log sigma, and calls within a move."""
    orders = fast_orders(calls)
    shares = [(move + call / order) / len(orders) for move, order in enumerate(orders) for call in range(order)]
    return (*(high * (low / high) ** share for share in shares), low)


def adaptive_levels(steps: int, table: NoiseTable) -> Sigmas:
    """Return the two ends, whatever the number of steps; the levels between them are found during the run."""
    return table.high, table.low


def dpm_fast(model: Model, x: Latent, sigmas: Sequence[float], noise: StepNoise, added: AddedNoise = USUAL) -> Steps:
    """DPM-Solver-fast over `fast_levels`. It yields for each call; the latent changes with the last call of a move."""
    at = 0
    for order in fast_orders(len(sigmas) - 1):
        sigma, sigma_next = sigmas[at], sigmas[at + order]
        target, up = _below(sigma, sigma_next, end=sigmas[-1], eta=added.eta)
        denoised = model(x, sigma)
        d = slope(x, denoised, sigma)
        if order == 1:
            moved = x + d * (target - sigma)
        elif order == 2:
            ahead = _slope_at(model, x + d * (math.sqrt(sigma * target) - sigma), math.sqrt(sigma * target))
            moved = x + ahead * (target - sigma)
        else:
            moved = _second_and_third(model, x, d, sigma=sigma, target=target)[1]
        for _ in range(order - 1):
            yield x, denoised
        x = moved + noise(sigma, sigma_next) * up
        at += order
        yield x, denoised


def dpm_adaptive(
    model: Model, x: Latent, sigmas: Sequence[float], noise: StepNoise, added: AddedNoise = USUAL
) -> Steps:
    """DPM-Solver-23 between two sigmas, for one picture at a time. Moves are sized by how much orders 2 and 3
    differ."""
    if len(x) != 1:
        raise SpecError(
            "DPM adaptive sizes its moves for one picture, and several were given; draw them one by one",
            field="sampler",
        )
    sigma, end, h = sigmas[0], sigmas[-1], FIRST_MOVE
    before = x
    for _ in range(MOST_MOVES):
        sigma_next = max(end, sigma * math.exp(-h))
        target, up = _below(sigma, sigma_next, end=end, eta=added.eta)
        denoised = model(x, sigma)
        d = slope(x, denoised, sigma)
        second, third = _second_and_third(model, x, d, sigma=sigma, target=target)
        next_share = _next_share(second, third, before, noisy=added.eta > 0)
        h *= next_share
        if next_share < ACCEPTED:
            continue
        before, x, sigma = second, third + noise(sigma, sigma_next) * up, sigma_next
        yield x, denoised
        if math.log(sigma / end) <= END:
            return
    raise SpecError(f"DPM adaptive did not finish in {MOST_MOVES} moves; use another sampler", field="sampler")


def _below(sigma: float, sigma_next: float, *, end: float, eta: float) -> tuple[float, float]:
    """Return the sigma to move to, not below the last, and the size of the noise that leads up from it to the next
    one."""
    target = max(end, ancestral(sigma, sigma_next, eta)[0])
    return target, math.sqrt(max(sigma_next**2 - target**2, 0.0))


def _second_and_third(model: Model, x: Latent, d: Latent, *, sigma: float, target: float) -> tuple[Latent, Latent]:
    """Return the latents by order 2 and by order 3, which share the slope at a third of the move in log sigma."""
    h = math.log(sigma / target)
    s_1, s_2 = sigma * math.exp(-h / 3), sigma * math.exp(-2 * h / 3)
    bend_1 = _slope_at(model, x + d * (s_1 - sigma), s_1) - d
    second = x + (d + bend_1 * 1.5) * (target - sigma)
    inner = x + d * (s_2 - sigma) - bend_1 * (2 * s_2 * _excess(2 * h / 3))
    bend_2 = _slope_at(model, inner, s_2) - d
    return second, x + d * (target - sigma) - bend_2 * (1.5 * target * _excess(h))


def _excess(h: float) -> float:
    """Return (e^h - 1) / h - 1."""
    return math.expm1(h) / h - 1


def _slope_at(model: Model, x: Latent, sigma: float) -> Latent:
    return slope(x, model(x, sigma), sigma)


def _next_share(second: Latent, third: Latent, before: Latent, *, noisy: bool) -> float:
    """Return the next move's size relative to this one's (k-diffusion's controller, its integral part alone)."""
    allowed = (RELATIVE * torch.maximum(second.abs(), before.abs())).clamp(min=ABSOLUTE)
    error = ((second - third) / allowed).square().mean().sqrt().item()
    return 1 + math.atan((error + 1e-8) ** (-1 / ERROR_ORDERS[noisy]) - 1)
