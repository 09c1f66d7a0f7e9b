"""Samplers that add noise at each step, in the same form as those of `ode`.

Formulas: Karras et al. 2022, Lu et al. 2022 (arXiv:2211.01095), Luo et al. 2023 (arXiv:2310.04378), as k-diffusion and
A1111 apply them. `added.eta` is the share of the noise taken away by a step that the step puts back.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from clipskip.sample.noise import Latent, StepNoise
from clipskip.sample.ode import USUAL, AddedNoise, Model, Steps, ancestral, heun, log_ratio, midpoint, slope


def euler_a(model: Model, x: Latent, sigmas: Sequence[float], noise: StepNoise, added: AddedNoise = USUAL) -> Steps:
    """Ancestral sampling with Euler's step."""
    for sigma, sigma_next in pairwise(sigmas):
        denoised = model(x, sigma)
        down, up = ancestral(sigma, sigma_next, added.eta)
        x = x + slope(x, denoised, sigma) * (down - sigma)
        if sigma_next > 0:
            x = x + noise(sigma, sigma_next) * up
        yield x, denoised


def dpm2_a(model: Model, x: Latent, sigmas: Sequence[float], noise: StepNoise, added: AddedNoise = USUAL) -> Steps:
    """Ancestral sampling with DPM2's step."""
    for sigma, sigma_next in pairwise(sigmas):
        denoised = model(x, sigma)
        down, up = ancestral(sigma, sigma_next, added.eta)
        x = midpoint(model, x, denoised, sigma=sigma, target=down)
        if sigma_next > 0:
            x = x + noise(sigma, sigma_next) * up
        yield x, denoised


def dpmpp_2s_a(model: Model, x: Latent, sigmas: Sequence[float], noise: StepNoise, added: AddedNoise = USUAL) -> Steps:
    """Ancestral sampling with DPM-Solver++(2S), with its midpoint half-way in log sigma."""
    for sigma, sigma_next in pairwise(sigmas):
        denoised = model(x, sigma)
        down, up = ancestral(sigma, sigma_next, added.eta)
        ahead = denoised
        if down > 0:
            middle = math.sqrt(sigma * down)
            ahead = model(towards(x, denoised, sigma=sigma, target=middle), middle)
        x = towards(x, ahead, sigma=sigma, target=down)
        if sigma_next > 0:
            x = x + noise(sigma, sigma_next) * up
        yield x, denoised


def dpmpp_sde(model: Model, x: Latent, sigmas: Sequence[float], noise: StepNoise, added: AddedNoise = USUAL) -> Steps:
    """DPM-Solver++ SDE with its midpoint half-way in log sigma, where only the second picture determines the move."""
    for sigma, sigma_next in pairwise(sigmas):
        denoised = model(x, sigma)
        ahead = denoised
        if sigma_next > 0:
            middle = math.sqrt(sigma * sigma_next)
            down, up = ancestral(sigma, middle, added.eta)
            half = towards(x, denoised, sigma=sigma, target=down) + noise(sigma, middle) * up
            ahead = model(half, middle)
        down, up = ancestral(sigma, sigma_next, added.eta)
        x = towards(x, ahead, sigma=sigma, target=down)
        if sigma_next > 0:
            x = x + noise(sigma, sigma_next) * up
        yield x, denoised


def dpmpp_2m_sde(
    model: Model, x: Latent, sigmas: Sequence[float], noise: StepNoise, added: AddedNoise = USUAL
) -> Steps:
    """DPM-Solver++(2M) SDE, midpoint form."""
    yield from _two_step_sde(model, x, sigmas, noise, eta=added.eta, heun=False)


def dpmpp_2m_sde_heun(
    model: Model, x: Latent, sigmas: Sequence[float], noise: StepNoise, added: AddedNoise = USUAL
) -> Steps:
    """DPM-Solver++(2M) SDE, Heun form."""
    yield from _two_step_sde(model, x, sigmas, noise, eta=added.eta, heun=True)


def _two_step_sde(
    model: Model, x: Latent, sigmas: Sequence[float], noise: StepNoise, *, eta: float, heun: bool
) -> Steps:
    before: Latent | None = None
    h_before = 0.0
    for sigma, sigma_next in pairwise(sigmas):
        denoised = model(x, sigma)
        h = log_ratio(sigma, sigma_next)
        x, gone = _decayed(x, denoised, sigma=sigma, target=sigma_next, eta=eta)
        if before is not None and sigma_next > 0:
            share = 1 - gone / (h * (1 + eta)) if heun else gone / 2
            x = x + (denoised - before) * (share * h / h_before)
        x = _noisier(x, noise, sigma=sigma, target=sigma_next, eta=eta)
        before, h_before = denoised, h
        yield x, denoised


def _decayed(x: Latent, denoised: Latent, *, sigma: float, target: float, eta: float) -> tuple[Latent, float]:
    """Return the latent after a move without its noise, and the share of the picture that came in."""
    h = log_ratio(sigma, target)
    kept, gone = target / sigma * math.exp(-eta * h if eta else 0.0), -math.expm1(-(1 + eta) * h)
    return x * kept + denoised * gone, gone


def _noisier(x: Latent, noise: StepNoise, *, sigma: float, target: float, eta: float) -> Latent:
    """Return the latent with the noise that leads back up to the target."""
    if not target or not eta:
        return x
    gone = -math.expm1(-2 * eta * log_ratio(sigma, target))
    return x + noise(sigma, target) * (target * math.sqrt(gone))


def dpmpp_3m_sde(
    model: Model, x: Latent, sigmas: Sequence[float], noise: StepNoise, added: AddedNoise = USUAL
) -> Steps:
    """DPM-Solver++(3M) SDE, as in k-diffusion."""
    past: list[tuple[Latent, float]] = []
    for sigma, sigma_next in pairwise(sigmas):
        denoised = model(x, sigma)
        h = log_ratio(sigma, sigma_next)
        x, _ = _decayed(x, denoised, sigma=sigma, target=sigma_next, eta=added.eta)
        if sigma_next > 0 and past:
            x = x + _curve(denoised, past, h, eta=added.eta)
        x = _noisier(x, noise, sigma=sigma, target=sigma_next, eta=added.eta)
        past = [(denoised, h), *past[:1]]
        yield x, denoised


def _curve(denoised: Latent, past: Sequence[tuple[Latent, float]], h: float, *, eta: float) -> Latent:
    """Return what the last one or two pictures add: first and second differences over the past moves, in units of h."""
    span = (1 + eta) * h
    phi_2 = math.expm1(-span) / span + 1
    latest, h_1 = past[0]
    first = (denoised - latest) * (h / h_1)
    if len(past) == 1:
        return first * phi_2
    older, h_2 = past[1]
    r_0, r_1 = h_1 / h, h_2 / h
    second = (first - (latest - older) / r_1) / (r_0 + r_1)
    return (first + second * r_0) * phi_2 - second * (phi_2 / span - 0.5)


def restart(model: Model, x: Latent, sigmas: Sequence[float], noise: StepNoise, added: AddedNoise = USUAL) -> Steps:
    """Heun's steps, with noise where the sigmas go up again (Xu et al. 2023, arXiv:2306.14878, algorithm 1)."""
    denoised = x
    for sigma, sigma_next in pairwise(sigmas):
        if sigma_next > sigma:
            x = x + noise(sigma, sigma_next) * math.sqrt(sigma_next**2 - sigma**2)
        else:
            ((x, denoised),) = heun(model, x, (sigma, sigma_next), noise)
        yield x, denoised


def lcm(model: Model, x: Latent, sigmas: Sequence[float], noise: StepNoise, added: AddedNoise = USUAL) -> Steps:
    """Multistep consistency sampling: jump to the picture, then add fresh noise (Luo et al. 2023, algorithm 3)."""
    for sigma, sigma_next in pairwise(sigmas):
        x = denoised = model(x, sigma)
        if sigma_next > 0:
            x = denoised + noise(sigma, sigma_next) * sigma_next
        yield x, denoised


def towards(x: Latent, denoised: Latent, *, sigma: float, target: float) -> Latent:
    """Move to a smaller sigma in a straight line to the picture, which is exact while the picture stays the same."""
    return denoised + (x - denoised) * (target / sigma)
