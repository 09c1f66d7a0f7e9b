"""The samplers under A1111's names, and the noise levels that each one visits."""

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
    """Denoiser calls per step; the integer steps of prompt editing count calls."""
    schedule: str = "Uniform"
    """The schedule type that Automatic stands for."""
    own_times: Schedule | None = None
    """Set where a sampler visits its own noise levels, whatever schedule type is asked for. From a picture, DPM fast and DPM
    adaptive begin and end at levels of the schedule type (1.10 modules/sd_samplers_kdiffusion.py sample_img2img)."""
    spaced_anew: bool = False
    """Whether it spaces its timesteps evenly when it begins at a picture (UniPC)."""
    unit_scale: bool = False
    """Whether its latents start and end at the model's own scale; k-diffusion's are the picture plus noise of size
    sigma."""
    path: Callable[[Sigmas], Sigmas] | None = None
    """Changes the schedule's levels, where the sampler does not go straight down."""
    eta: float | None = None
    """How much noise it puts back by default; None where it takes no eta."""
    churns: bool = False
    """Whether it takes sigma churn, tmin and tmax."""
    scales_noise: bool = False
    """Whether it takes sigma noise; a sampler with churn takes it together with churn."""
    alone: bool = False
    """Whether it draws one picture at a time, because pictures in a batch would change one another."""
    uses_ensd: bool = False
    """Whether A1111 records the eta noise seed delta for it."""
    discard_penultimate: bool = False
    """Whether one more level is made and the one before the last left out."""
    brownian: bool = False
    """Whether its noise is a Brownian path's instead of the picture's next draw."""
    consistency: bool = False
    """For LCM models only: their 50 noise levels and boundary condition."""

    trained: NoiseTable | None = None
    """The noise levels of the model that it samples; Stable Diffusion's usual ones when None."""

    @property
    def table(self) -> NoiseTable:
        """The noise levels of the model at which it samples."""
        trained = self.trained or stable_diffusion()
        return latent_consistency(trained) if self.consistency else trained

    def leaves_schedule(self, *, begun: bool) -> bool:
        """Return whether a schedule type changes nothing, for a picture that begins at another or not."""
        return self.own_times is not None and (self.unit_scale or not begun)

    def sigmas(self, steps: int, *, schedule: str = AUTOMATIC) -> Sigmas:
        """Return the noise levels of a run, falling. `schedule` is a name of SCHEDULES, or Automatic."""
        if self.own_times is not None:
            if schedule != AUTOMATIC:
                raise SpecError(
                    f"{self.name} visits its own timesteps, so the schedule type {schedule} would have no effect; "
                    f"use {AUTOMATIC}",
                    field="scheduler",
                )
            return self._moving(self.own_times(steps, self.table), steps)
        levels = self.levels(steps, schedule=schedule)
        return self.path(levels) if self.path else levels

    def levels(self, steps: int, *, schedule: str) -> Sigmas:
        """Return the levels of a schedule type, before the sampler changes them."""
        discards = self.name in COMFYUI_DISCARDS if self.table.comfyui else self.discard_penultimate
        levels = SCHEDULES[self.schedule if schedule == AUTOMATIC else schedule](steps + discards, self.table)
        return (*levels[:-2], levels[-1]) if discards else levels

    def timesteps(self, steps: int) -> Sigmas:
        """Return the levels of DDIM's timesteps, which PLMS and UniPC use as well."""
        return timesteps_ddim(steps, self.table)

    def _moving(self, levels: Sigmas, steps: int) -> Sigmas:
        if len(levels) < 2:
            raise SpecError(
                f"{self.name} moves between timesteps, and {steps} step has only one; use 2 steps or more",
                field="steps",
            )
        return levels


COMFYUI_DISCARDS = frozenset({"DPM2", "DPM2 a", "UniPC bh1", "UniPC bh2"})
"""Samplers of which ComfyUI's KSampler leaves out the level before the last (comfy/samplers.py)."""

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
    Sampler(name="UniPC bh1", solve=ode.unipc_bh1, schedule="Normal", path=above_zero, discard_penultimate=True),
    Sampler(name="UniPC bh2", solve=ode.unipc_bh2, schedule="Normal", path=above_zero, discard_penultimate=True),
    Sampler(name="LCM", solve=sde.lcm, aliases=("k_lcm",), consistency=True),
)


def find_sampler(name: str, scheduler: str = AUTOMATIC, *, begun: bool = False) -> tuple[Sampler, str]:
    """Find the sampler and schedule type of a name in any of A1111's spellings, in upper or lower case.

    Up to A1111 1.8 a name carried its schedule ("DPM++ 2M Karras", "k_dpmpp_2m_ka"); that has precedence over
    Automatic. Samplers that visit their own timesteps (DDIM) accept any schedule type and ignore it, as in A1111:
    theirs is Automatic, but for those that take one where a picture is `begun` at another. Raises SpecError for an
    unknown name, or for a name and a schedule type that disagree.
    """
    sampler, schedule = _sampler_row(name, scheduler)
    return sampler, AUTOMATIC if sampler.leaves_schedule(begun=begun) else schedule


def _sampler_row(name: str, scheduler: str) -> tuple[Sampler, str]:
    schedule = find_schedule(scheduler)
    spelled = name.strip().casefold()
    by_name = {n.casefold(): s for s in SAMPLERS for n in (s.name, *s.aliases)}
    if spelled in by_name:
        return by_name[spelled], schedule
    for kind, label in _suffixes().items():
        sampler = by_name.get(spelled.removesuffix(kind)) if spelled.endswith(kind) else None
        if sampler is not None:
            if schedule not in (AUTOMATIC, label):
                raise SpecError(
                    f"the sampler {name!r} names another schedule type than {scheduler!r}; give one of the two",
                    field="scheduler",
                )
            return sampler, label
    ours = ", ".join(s.name for s in SAMPLERS)
    raise SpecError(f"the sampler {name!r} is unknown; use one of {ours}", field="sampler")


def find_schedule(name: str) -> str:
    """Return A1111's name of a schedule type, in upper or lower case and with the words joined in any way."""
    plain = {_sampler_key(n): n for n in (AUTOMATIC, *SCHEDULES)}
    if _sampler_key(name) not in plain:
        ours = ", ".join((AUTOMATIC, *SCHEDULES))
        raise SpecError(f"the schedule type {name!r} is unknown; use one of {ours}", field="scheduler")
    return plain[_sampler_key(name)]


def _sampler_key(name: str) -> str:
    return name.casefold().replace(" ", "").replace("_", "")


def _suffixes() -> dict[str, str]:
    """Return the suffixes that a sampler's name may have, longest first, with the schedule type that each means."""
    spelled = {f" {n.casefold()}": n for n in (AUTOMATIC, *SCHEDULES)}
    return dict(sorted(spelled.items(), key=lambda kind: -len(kind[0]))) | {"_ka": "Karras", "_exp": "Exponential"}
