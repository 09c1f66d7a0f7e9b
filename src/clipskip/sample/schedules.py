"""Schedule types: the noise levels that a run of n steps visits, under A1111's names.

Each gives falling sigmas; all but KL Optimal, as in A1111, end with 0. Formulas are those of A1111 1.10
(modules/sd_schedulers.py); where another paper or tool defines one, it is named.
"""

import math
from collections.abc import Callable

import numpy as np

from clipskip.sample.sigmas import TRAINED_STEPS, NoiseTable

Sigmas = tuple[float, ...]
Schedule = Callable[[int, NoiseTable], Sigmas]

ALIGN_YOUR_STEPS = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
ALIGN_YOUR_STEPS_SDXL = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)
"""For SD 1.5 and SDXL, from the page of Sabour et al. 2024, "Align Your Steps"."""
BETA_SHAPE = 0.6
"""Both parameters of the beta distribution; A1111's default (Lee et al. 2024, arXiv:2407.12173)."""
NEARLY_ZERO = 0.001
KARRAS_RHO = 7.0
RESTARTED_FROM, RESTARTED_TWICE_FROM = 20, 36
RESTART_SPAN = (0.1, 2.0)


def uniform(steps: int, table: NoiseTable) -> Sigmas:
    """Evenly spaced timesteps from the last to the first (k-diffusion's own, A1111's old default)."""
    times = np.linspace(table.timesteps[-1], table.timesteps[0], steps)
    return (*(table.sigma(t) for t in times), 0.0)


def karras(steps: int, table: NoiseTable) -> Sigmas:
    """Even in sigma^(1/7) (Karras et al. 2022, equation 5)."""
    return (*_karras_between(table.high, table.low, steps), 0.0)


def _karras_between(high: float, low: float, count: int) -> list[float]:
    ends = high ** (1 / KARRAS_RHO), low ** (1 / KARRAS_RHO)
    levels: list[float] = (np.linspace(*ends, count) ** KARRAS_RHO).tolist()
    return levels


def exponential(steps: int, table: NoiseTable) -> Sigmas:
    """Even in log sigma; the same as Polyexponential at its default rho of 1."""
    return (*np.exp(np.linspace(math.log(table.high), math.log(table.low), steps)).tolist(), 0.0)


def sgm_uniform(steps: int, table: NoiseTable) -> Sigmas:
    """Evenly spaced timesteps that stop one short of the first (Stability's generative-models)."""
    times = np.linspace(table.timesteps[-1], table.timesteps[0], steps + 1)[:-1]
    return (*(table.sigma(t) for t in times), 0.0)


def simple(steps: int, table: NoiseTable) -> Sigmas:
    """Return every (1000 / n)-th of the model's sigmas, counted down from the largest, rounded down."""
    stride = len(table.sigmas) / steps
    return (*(table.sigmas[-1 - int(i * stride)] for i in range(steps)), 0.0)


def ddim(steps: int, table: NoiseTable) -> Sigmas:
    """Return every (1000 // n)-th of the model's sigmas from the second up: more than n of them when n does not divide
    1000."""
    stride = max(len(table.sigmas) // steps, 1)
    return (*reversed(table.sigmas[1::stride]), 0.0)


def turbo(steps: int, table: NoiseTable) -> Sigmas:
    """Timesteps 1000 i / n - 1, rounded (Forge; ComfyUI's SDTurboScheduler)."""
    times = np.clip(np.round(np.arange(steps, 0, -1) * (TRAINED_STEPS / steps) - 1), 0, TRAINED_STEPS - 1)
    return (*(table.sigma(t) for t in times), 0.0)


def align_your_steps(steps: int, table: NoiseTable) -> Sigmas:
    """Return the published sigmas for SD 1.5 or SDXL, interpolated in log sigma to n."""
    published = ALIGN_YOUR_STEPS_SDXL if table.sdxl else ALIGN_YOUR_STEPS
    given = np.linspace(0, 1, len(published))
    logs = np.interp(np.linspace(0, 1, steps), given, np.log(published))
    return (*np.exp(logs).tolist(), 0.0)


def kl_optimal(steps: int, table: NoiseTable) -> Sigmas:
    """Even in atan sigma, ending at the smallest sigma instead of 0 (Align Your Steps, theorem 3.1); ComfyUI's ends at 0."""
    if table.comfyui:
        return (*np.tan(np.linspace(math.atan(table.high), math.atan(table.low), steps)).tolist(), 0.0)
    return tuple(np.tan(np.linspace(math.atan(table.high), math.atan(table.low), steps + 1)).tolist())


def beta(steps: int, table: NoiseTable) -> Sigmas:
    """Quantiles of the beta distribution, scaled to the model's range of sigmas.

    A1111 scales over sigma; ComfyUI, under the same name, over timesteps.
    """
    from scipy.special import betaincinv  # here, because it takes 0.2 s of every start and few pictures need it

    if table.comfyui:
        last = len(table.sigmas) - 1
        times = np.rint(betaincinv(BETA_SHAPE, BETA_SHAPE, 1 - np.arange(steps) / steps) * last)
        return (*(table.sigmas[int(t)] for t in dict.fromkeys(times.tolist())), 0.0)
    parts = betaincinv(BETA_SHAPE, BETA_SHAPE, np.linspace(1, 0, steps))
    return (*(table.low + parts * (table.high - table.low)).tolist(), 0.0)


def timesteps_ddim(steps: int, table: NoiseTable) -> Sigmas:
    """Return the levels of A1111's DDIM: timesteps 1, 1 + s, 1 + 2s ... with s = 1000 // n, downwards, ending at 1.

    It makes one move fewer than it has timesteps and stops at timestep 1, not at 0: 19 moves for 20 steps
    (modules/sd_samplers_timesteps_impl.py).
    """
    times = range(0, TRAINED_STEPS, TRAINED_STEPS // steps)
    return tuple(table.sigmas[min(t + 1, TRAINED_STEPS - 1)] for t in reversed(times))


def timesteps_unipc(steps: int, table: NoiseTable) -> Sigmas:
    """Return the levels of A1111's UniPC: evenly spaced times between which log alpha is linear, ending at timestep 0.

    n is DDIM's number of timesteps: 31 for 30 steps (Zhao et al. 2023, "time_uniform").
    """
    count = len(range(0, TRAINED_STEPS, TRAINED_STEPS // steps))
    return unipc_between(table.high, count, table)


def unipc_between(high: float, moves: int, table: NoiseTable) -> Sigmas:
    """Return the levels of so many moves from a level of the table down to timestep 0."""
    times = np.linspace(table.timestep(high), 0, moves + 1)
    log_alphas = np.interp(times, table.timesteps, -0.5 * np.log1p(np.square(table.sigmas)))
    return tuple(np.sqrt(np.expm1(-2 * log_alphas)).tolist())


def above_zero(levels: Sigmas) -> Sigmas:
    """Return a schedule's levels as ComfyUI's UniPC takes them: the last is not 0, which has no log
    (extra_samplers/uni_pc.py)."""
    return levels if levels[-1] else (*levels[:-1], NEARLY_ZERO)


def with_restarts(levels: Sigmas) -> Sigmas:
    """Return A1111's Restart levels: from 20 steps on, the way goes from about 0.1 back up to about 2.

    The second way down takes 9 steps, or from 36 steps on a quarter of them, twice; the other steps are Karras' between
    the same ends. The jump up is no step. With fewer than 20 steps all are Heun's.
    """
    steps = len(levels) - 1
    if steps < RESTARTED_FROM:
        return levels
    again, times = (steps // 4, 2) if steps >= RESTARTED_TWICE_FROM else (9, 1)
    first = np.array([*_karras_between(levels[0], levels[-2], steps - again * times), 0.0])
    low, high = (int(np.abs(first - level).argmin()) for level in RESTART_SPAN)
    back = _karras_between(first[high], first[low], again + 1) * times if high < low else []
    return (*first[: low + 1].tolist(), *back, *first[low + 1 :].tolist())


SCHEDULES: dict[str, Schedule] = {
    "Uniform": uniform,
    "Karras": karras,
    "Exponential": exponential,
    "Polyexponential": exponential,
    "SGM Uniform": sgm_uniform,
    "KL Optimal": kl_optimal,
    "Align Your Steps": align_your_steps,
    "Simple": simple,
    "Normal": uniform,
    "DDIM": ddim,
    "Beta": beta,
    "Turbo": turbo,
}
"""A1111's schedule types (Turbo is Forge's), apart from Automatic, which means the sampler's own."""
