"""Samplers without noise: from a latent at the first sigma down to the last.

Each takes `model(x, sigma) -> denoised` and yields (latent, denoised) per step. Scalars are Python floats, so that
nothing waits for the device. Formulas: Karras et al. 2022 (arXiv:2206.00364), Lu et al. 2022 (arXiv:2206.00927,
2211.01095), Zhao et al. 2023 (arXiv:2302.04867), as k-diffusion applies them.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.polynomial.polynomial import Polynomial, polyfromroots

from clipskip.sample.noise import Latent, StepNoise

Model = Callable[[Latent, float], Latent]
Steps = Iterator[tuple[Latent, Latent]]

MOST_CHURN = math.sqrt(2) - 1
"""The greatest churn of a step, as a share of its sigma (Karras et al. 2022, section 4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedNoise:
    """The noise that a run adds, under k-diffusion's names."""

    eta: float = 1.0
    """The share of what an ancestral step takes away that returns as noise."""
    churn: float = 0.0
    """The churn of all steps together (Karras et al. 2022, algorithm 2: S_churn)."""
    tmin: float = 0.0
    tmax: float = math.inf
    """Churn applies between these two sigmas."""


NONE = AddedNoise(eta=0.0)
USUAL = AddedNoise()
Solver = Callable[[Model, Latent, Sequence[float], StepNoise, AddedNoise], Steps]

LMS_ORDER = 4
UNIPC_ORDER = 3
ADAMS_BASHFORTH = {2: (3, -1), 3: (23, -16, 5), 4: (55, -59, 37, -9)}
"""The weights of the last slopes in a move of each order over even times; each row is divided by its sum."""


def euler(model: Model, x: Latent, sigmas: Sequence[float], noise: StepNoise, added: AddedNoise = NONE) -> Steps:
    """Euler's method (Karras et al. 2022, algorithm 2 without its correction)."""
    for at, sigma_next in pairwise(sigmas):
        x, sigma = churned(x, at, noise, added=added, moves=len(sigmas) - 1)
        denoised = model(x, sigma)
        x = x + slope(x, denoised, sigma) * (sigma_next - sigma)
        yield x, denoised


def heun(model: Model, x: Latent, sigmas: Sequence[float], noise: StepNoise, added: AddedNoise = NONE) -> Steps:
    """Heun's method (Karras et al. 2022, algorithm 2)."""
    for at, sigma_next in pairwise(sigmas):
        x, sigma = churned(x, at, noise, added=added, moves=len(sigmas) - 1)
        denoised = model(x, sigma)
        d = slope(x, denoised, sigma)
        ahead = x + d * (sigma_next - sigma)
        if sigma_next > 0:
            d = (d + slope(ahead, model(ahead, sigma_next), sigma_next)) / 2
        x = x + d * (sigma_next - sigma)
        yield x, denoised


def dpm2(model: Model, x: Latent, sigmas: Sequence[float], noise: StepNoise, added: AddedNoise = NONE) -> Steps:
    """DPM-Solver-2 in k-diffusion's form: the slope at the geometric mean of the two sigmas."""
    for at, sigma_next in pairwise(sigmas):
        x, sigma = churned(x, at, noise, added=added, moves=len(sigmas) - 1)
        denoised = model(x, sigma)
        x = midpoint(model, x, denoised, sigma=sigma, target=sigma_next)
        yield x, denoised


def churned(x: Latent, sigma: float, noise: StepNoise, *, added: AddedNoise, moves: int) -> tuple[Latent, float]:
    """Return the latent with a step's share of the churn in it, and the sigma that it then has.

    A step outside of tmin and tmax draws its noise and discards it, as in k-diffusion, so that the other steps' noise
    stays the same.
    """
    if not added.churn:
        return x, sigma
    fresh = noise(sigma, sigma)
    if not added.tmin <= sigma <= added.tmax:
        return x, sigma
    up = sigma * (1 + min(added.churn / moves, MOST_CHURN))
    return x + fresh * math.sqrt(up**2 - sigma**2), up


def ancestral(sigma: float, sigma_next: float, eta: float = 1.0) -> tuple[float, float]:
    """Return the sigma to step down to, and the size of the noise that leads back up to the next one."""
    up = min(sigma_next, eta * math.sqrt(sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2))
    return math.sqrt(sigma_next**2 - up**2), up


def midpoint(model: Model, x: Latent, denoised: Latent, *, sigma: float, target: float) -> Latent:
    """Move by the slope half-way in log sigma; straight to 0 where the target is 0."""
    d = slope(x, denoised, sigma)
    if target == 0:
        return x - d * sigma
    middle = math.sqrt(sigma * target)
    half = x + d * (middle - sigma)
    return x + slope(half, model(half, middle), middle) * (target - sigma)


def lms(model: Model, x: Latent, sigmas: Sequence[float], noise: StepNoise, added: AddedNoise = NONE) -> Steps:
    """Linear multistep of order 4 (Adams-Bashforth over uneven sigmas, Liu et al. 2022)."""
    slopes: list[Latent] = []
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = model(x, sigma)
        slopes = [slope(x, denoised, sigma), *slopes[: LMS_ORDER - 1]]
        past = [sigmas[i - k] for k in range(len(slopes))]
        for d, share in zip(slopes, multistep_shares(past, sigma_next), strict=True):
            x = x + d * share
        yield x, denoised


def multistep_shares(past: Sequence[float], end: float) -> list[float]:
    """Return the exact integral from past[0] to `end` of each Lagrange polynomial over the past sigmas."""
    shares = []
    for node in past:
        other_nodes = [s for s in past if s != node]
        integral = Polynomial(polyfromroots(other_nodes)).integ(lbnd=past[0])
        shares.append(float(integral(end)) / math.prod(node - s for s in other_nodes))
    return shares


def dpmpp_2m(model: Model, x: Latent, sigmas: Sequence[float], noise: StepNoise, added: AddedNoise = NONE) -> Steps:
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095, algorithm 2)."""
    before: Latent | None = None
    h_before = 0.0
    for sigma, sigma_next in pairwise(sigmas):
        denoised = model(x, sigma)
        h = log_ratio(sigma, sigma_next)
        ahead = denoised
        if before is not None and sigma_next > 0:
            ahead = denoised + (denoised - before) * (h / h_before / 2)
        x = x * (sigma_next / sigma) - ahead * math.expm1(-h)
        before, h_before = denoised, h
        yield x, denoised


def ddim(model: Model, x: Latent, sigmas: Sequence[float], noise: StepNoise, added: AddedNoise = NONE) -> Steps:
    """DDIM (Song et al. 2020, equations 12 and 16), which is Euler's ancestral step in k-diffusion's scale.

    Like A1111's it stops above 0 and yields the latent at the model's own scale.
    """
    for sigma, sigma_next in pairwise(sigmas):
        denoised = model(x, sigma)
        down, up = ancestral(sigma, sigma_next, added.eta)
        x = x + slope(x, denoised, sigma) * (down - sigma)
        if up:
            x = x + noise(sigma, sigma_next) * up
        yield x / math.hypot(1, sigma_next), denoised


def plms(model: Model, x: Latent, sigmas: Sequence[float], noise: StepNoise, added: AddedNoise = NONE) -> Steps:
    """Pseudo linear multistep of order 4 (Liu et al. 2022, arXiv:2202.09778): DDIM's move along a mean of slopes.

    The first move takes the mean of the slopes at its two ends. It ends as `ddim` does.
    """
    slopes: list[Latent] = []
    for sigma, sigma_next in pairwise(sigmas):
        denoised = model(x, sigma)
        slopes = [slope(x, denoised, sigma), *slopes[: LMS_ORDER - 1]]
        if len(slopes) == 1:
            ahead = x + slopes[0] * (sigma_next - sigma)
            x = x + (slopes[0] + slope(ahead, model(ahead, sigma_next), sigma_next)) * ((sigma_next - sigma) / 2)
        else:
            shares = ADAMS_BASHFORTH[len(slopes)]
            for d, share in zip(slopes, shares, strict=True):
                x = x + d * (share / sum(shares) * (sigma_next - sigma))
        yield x / math.hypot(1, sigma_next), denoised


def unipc(model: Model, x: Latent, sigmas: Sequence[float], noise: StepNoise, added: AddedNoise = NONE) -> Steps:
    """UniPC with B(h) = h, as A1111 sets it: it stops above 0 and yields the latent at the model's own scale."""
    for (moved, denoised), sigma in zip(unipc_bh1(model, x, sigmas, noise), sigmas[1:], strict=True):
        yield moved / math.hypot(1, sigma), denoised


def unipc_bh1(model: Model, x: Latent, sigmas: Sequence[float], noise: StepNoise, added: AddedNoise = NONE) -> Steps:
    """UniPC with B(h) = h: ComfyUI's uni_pc."""
    return _unipc(model, x, sigmas, gain=lambda h: h)


def unipc_bh2(model: Model, x: Latent, sigmas: Sequence[float], noise: StepNoise, added: AddedNoise = NONE) -> Steps:
    """UniPC with B(h) = e^h - 1: ComfyUI's uni_pc_bh2."""
    return _unipc(model, x, sigmas, gain=lambda h: -math.expm1(-h))


def _unipc(model: Model, x: Latent, sigmas: Sequence[float], *, gain: Callable[[float], float]) -> Steps:
    """UniPC of order 3 with predicted pictures (Zhao et al. 2023, algorithm 3); `gain` is B as a function of h.

    The order falls at the end (lower_order_final), and the last step is not corrected.
    """
    moves = len(sigmas) - 1
    known = [(sigmas[0], model(x, sigmas[0]))]
    for i, sigma_next in enumerate(sigmas[1:]):
        order = min(UNIPC_ORDER, i + 1, moves - i)
        denoised = known[0][1]
        ahead = _unipc_move(x, known[:order], sigma_next, gain=gain)
        if i < moves - 1:
            known = [(sigma_next, model(ahead, sigma_next)), *known[: UNIPC_ORDER - 1]]
            ahead = _unipc_move(x, known[1 : order + 1], sigma_next, gain=gain, corrected=known[0][1])
        x = ahead
        yield x, denoised


def _unipc_move(
    x: Latent,
    known: Sequence[tuple[float, Latent]],
    target: float,
    *,
    gain: Callable[[float], float],
    corrected: Latent | None = None,
) -> Latent:
    """Move from known[0] by the predictor, or by the corrector where the picture at the target is given.

    Equations 5 and 9 of the paper, with h the gain in log signal to noise. rho solves R rho = b, and is 1/2 outright
    where a predictor of order 2 or a corrector of order 1 uses a single difference.
    """
    sigma, latest = known[0]
    h = log_ratio(sigma, target)
    ratios = [log_ratio(sigma, s) / h for s, _ in known[1:]]
    differences = [(denoised - latest) / r for r, (_, denoised) in zip(ratios, known[1:], strict=True)]
    if corrected is not None:
        ratios, differences = [*ratios, 1.0], [*differences, corrected - latest]
    result = x * (target / sigma) - latest * math.expm1(-h)
    for rho, difference in zip(_unipc_shares(ratios, h, gain(h)), differences, strict=True):
        result = result + difference * (gain(h) * rho)
    return result


def _unipc_shares(ratios: Sequence[float], h: float, gain: float) -> list[float]:
    """Return the rho that solve the order conditions: sum of rho_m r_m^(k-1) = k! phi_(k+1) h / B for k = 1, 2, ..."""
    if len(ratios) < 2:
        return [0.5] * len(ratios)
    phi, right_side = math.expm1(-h) / -h - 1, []
    for k in range(1, len(ratios) + 1):
        right_side.append(phi * math.factorial(k) / -gain)
        phi = phi / -h - 1 / math.factorial(k + 1)
    powers = np.vander(np.array(ratios), increasing=True).T
    solved: list[float] = np.linalg.solve(powers, np.array(right_side)).tolist()
    return solved


def slope(x: Latent, denoised: Latent, sigma: float) -> Latent:
    """Return dx / dsigma of the probability flow (Karras et al. 2022, equation 3)."""
    return (x - denoised) / sigma


def log_ratio(sigma: float, sigma_next: float) -> float:
    """Return h, the log signal to noise that a move gains; infinite when it reaches 0."""
    return math.log(sigma / sigma_next) if sigma_next > 0 else math.inf
