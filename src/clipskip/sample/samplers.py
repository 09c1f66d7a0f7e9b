"""The samplers that we have, under A1111's names, and the noise levels that each one visits."""

from collections.abc import Callable
from dataclasses import dataclass

from clipskip.errors import SpecError
from clipskip.sample import dpm_solver, ode, sde
from clipskip.sample.schedules import (
    SCHEDULES,
    Schedule,
    Sigmas,
    above_zero,
    timesteps_ddim,
    timesteps_unipc,
    with_restarts,
)
from clipskip.sample.sigmas import NoiseTable, latent_consistency, stable_diffusion

AUTOMATIC = "Automatic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """One sampler as A1111 1.10 sets it up (modules/sd_samplers_kdiffusion.py and its neighbours)."""

    name: str
    solve: ode.Solver
    aliases: tuple[str, ...] = ()
    order: int = 1
    """Denoiser calls per step: integer steps of prompt editing count calls."""
    schedule: str = "Uniform"
    """The schedule type that Automatic stands for."""
    own_times: Schedule | None = None
    """Set where a sampler visits its own noise levels, whatever schedule type is asked for."""
    spaced_anew: bool = False
    """From a picture it spaces its timesteps evenly (UniPC)."""
    unit_scale: bool = False
    """Its latents start and end at the model's own scale, where k-diffusion's are the picture plus noise of size sigma."""
    path: Callable[[Sigmas], Sigmas] | None = None
    """What it makes of the schedule's levels, where it does not go straight down."""
    eta: float | None = None
    """How much noise it puts back where nothing else is asked; None where it takes no eta."""
    churns: bool = False
    """It takes sigma churn, tmin and tmax."""
    scales_noise: bool = False
    """It takes sigma noise; one that churns takes it with churn."""
    alone: bool = False
    """It draws one picture at a time: in a batch they would change one another."""
    uses_ensd: bool = False
    """A1111 notes the eta noise seed delta for it."""
    discard_penultimate: bool = False
    """One level more is made, and the last before the end left out."""
    brownian: bool = False
    """Its noise is a Brownian path's, not the picture's next draw."""
    consistency: bool = False
    """For LCM models only: their 50 noise levels and boundary condition."""

    trained: NoiseTable | None = None
    """The noise levels of the model that it samples; Stable Diffusion's usual ones when not given."""

    @property
    def table(self) -> NoiseTable:
        """Those of the model's noise levels that it samples at."""
        trained = self.trained or stable_diffusion()
        return latent_consistency(trained) if self.consistency else trained

    def sigmas(self, steps: int, *, schedule: str = AUTOMATIC) -> Sigmas:
        """The noise levels of a run, falling. `schedule` is a name of SCHEDULES, or Automatic."""
        if self.own_times is not None:
            if schedule != AUTOMATIC:
                raise SpecError(
                    f"{self.name} visits its own timesteps, so schedule type {schedule} would change nothing; "
                    f"use {AUTOMATIC}",
                    field="scheduler",
                )
            return self._moving(self.own_times(steps, self.table), steps)
        levels = self.levels(steps, schedule=schedule)
        return self.path(levels) if self.path else levels

    def levels(self, steps: int, *, schedule: str) -> Sigmas:
        """The levels of a schedule type, whatever the sampler makes of them."""
        levels = SCHEDULES[self.schedule if schedule == AUTOMATIC else schedule](
            steps + self.discard_penultimate, self.table
        )
        return (*levels[:-2], levels[-1]) if self.discard_penultimate else levels

    def timesteps(self, steps: int) -> Sigmas:
        """The levels of DDIM's timesteps, which PLMS and UniPC count by as well."""
        return timesteps_ddim(steps, self.table)

    def _moving(self, levels: Sigmas, steps: int) -> Sigmas:
        if len(levels) < 2:
            raise SpecError(
                f"{self.name} moves between timesteps and {steps} step has only one; use 2 or more", field="steps"
            )
        return levels


SAMPLERS = (
    Sampler(name="DPM++ 2M", solve=ode.dpmpp_2m, aliases=("k_dpmpp_2m",), schedule="Karras"),
    Sampler(
        name="DPM++ SDE",
        eta=1.0,
        scales_noise=True,
        solve=sde.dpmpp_sde,
        aliases=("k_dpmpp_sde",),
        order=2,
        schedule="Karras",
        brownian=True,
    ),
    Sampler(
        name="DPM++ 2M SDE",
        eta=1.0,
        scales_noise=True,
        solve=sde.dpmpp_2m_sde,
        aliases=("k_dpmpp_2m_sde",),
        schedule="Exponential",
        brownian=True,
    ),
    Sampler(
        name="DPM++ 2M SDE Heun",
        eta=1.0,
        scales_noise=True,
        solve=sde.dpmpp_2m_sde_heun,
        aliases=("k_dpmpp_2m_sde_heun",),
        schedule="Exponential",
        brownian=True,
    ),
    Sampler(
        name="DPM++ 2S a",
        eta=1.0,
        scales_noise=True,
        solve=sde.dpmpp_2s_a,
        aliases=("k_dpmpp_2s_a",),
        order=2,
        schedule="Karras",
        uses_ensd=True,
    ),
    Sampler(
        name="DPM++ 3M SDE",
        eta=1.0,
        scales_noise=True,
        solve=sde.dpmpp_3m_sde,
        aliases=("k_dpmpp_3m_sde",),
        schedule="Exponential",
        discard_penultimate=True,
        brownian=True,
    ),
    Sampler(name="Euler a", eta=1.0, solve=sde.euler_a, aliases=("k_euler_a", "k_euler_ancestral"), uses_ensd=True),
    Sampler(name="Euler", churns=True, solve=ode.euler, aliases=("k_euler",)),
    Sampler(name="LMS", solve=ode.lms, aliases=("k_lms",)),
    Sampler(name="Heun", churns=True, solve=ode.heun, aliases=("k_heun",), order=2),
    Sampler(
        name="DPM2",
        churns=True,
        solve=ode.dpm2,
        aliases=("k_dpm_2",),
        order=2,
        schedule="Karras",
        discard_penultimate=True,
    ),
    Sampler(
        name="DPM2 a",
        eta=1.0,
        scales_noise=True,
        solve=sde.dpm2_a,
        aliases=("k_dpm_2_a",),
        order=2,
        schedule="Karras",
        uses_ensd=True,
        discard_penultimate=True,
    ),
    Sampler(
        name="DPM fast",
        eta=1.0,
        scales_noise=True,
        solve=dpm_solver.dpm_fast,
        aliases=("k_dpm_fast",),
        own_times=dpm_solver.fast_levels,
        uses_ensd=True,
    ),
    Sampler(
        name="DPM adaptive",
        eta=1.0,
        solve=dpm_solver.dpm_adaptive,
        aliases=("k_dpm_ad",),
        own_times=dpm_solver.adaptive_levels,
        alone=True,
        uses_ensd=True,
    ),
    Sampler(name="Restart", solve=sde.restart, order=2, schedule="Karras", path=with_restarts),
    Sampler(name="DDIM", eta=0.0, solve=ode.ddim, aliases=("k_ddim",), own_times=timesteps_ddim, unit_scale=True),
    Sampler(name="PLMS", solve=ode.plms, own_times=timesteps_ddim, unit_scale=True),
    Sampler(
        name="UniPC",
        solve=ode.unipc,
        aliases=("k_unipc",),
        own_times=timesteps_unipc,
        unit_scale=True,
        spaced_anew=True,
    ),
    Sampler(name="UniPC bh1", solve=ode.unipc_bh1, schedule="Normal", path=above_zero),
    Sampler(name="UniPC bh2", solve=ode.unipc_bh2, schedule="Normal", path=above_zero),
    Sampler(name="LCM", solve=sde.lcm, aliases=("k_lcm",), consistency=True),
)


def find_sampler(name: str, scheduler: str = AUTOMATIC) -> tuple[Sampler, str]:
    """The sampler and schedule type of a name in any of A1111's spellings, whatever the case.

    Up to A1111 1.8 a name carried its schedule ("DPM++ 2M Karras", "k_dpmpp_2m_ka"); that wins over Automatic. Samplers
    that visit their own timesteps (DDIM) take any schedule type and leave it, as in A1111: theirs is Automatic.
    """
    sampler, schedule = _named(name, scheduler)
    return sampler, AUTOMATIC if sampler.own_times else schedule


def _named(name: str, scheduler: str) -> tuple[Sampler, str]:
    schedule = find_schedule(scheduler)
    wanted = name.strip().casefold()
    by_name = {n.casefold(): s for s in SAMPLERS for n in (s.name, *s.aliases)}
    if wanted in by_name:
        return by_name[wanted], schedule
    for kind, label in _suffixes().items():
        sampler = by_name.get(wanted.removesuffix(kind)) if wanted.endswith(kind) else None
        if sampler is not None:
            if schedule not in (AUTOMATIC, label):
                raise SpecError(
                    f"sampler {name!r} and schedule type {scheduler!r} disagree; give one", field="scheduler"
                )
            return sampler, label
    ours = ", ".join(s.name for s in SAMPLERS)
    raise SpecError(f"sampler {name!r} is not one that we have; use one of {ours}", field="sampler")


def find_schedule(name: str) -> str:
    """A1111's name of a schedule type, whatever the case and however the words are joined."""
    plain = {_joined(n): n for n in (AUTOMATIC, *SCHEDULES)}
    if _joined(name) not in plain:
        ours = ", ".join((AUTOMATIC, *SCHEDULES))
        raise SpecError(f"schedule type {name!r} is not one that we have; use one of {ours}", field="scheduler")
    return plain[_joined(name)]


def _joined(name: str) -> str:
    return name.casefold().replace(" ", "").replace("_", "")


def _suffixes() -> dict[str, str]:
    """What may follow a sampler's name, longest first, and the schedule type that it means."""
    spelled = {f" {n.casefold()}": n for n in SCHEDULES}
    return dict(sorted(spelled.items(), key=lambda kind: -len(kind[0]))) | {"_ka": "Karras", "_exp": "Exponential"}
