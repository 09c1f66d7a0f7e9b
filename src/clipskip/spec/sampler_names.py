"""Every tool's names of samplers and schedule types, translated to A1111's."""

from clipskip.spec.record_reader import plain_key

AUTOMATIC = "Automatic"
COMFY_SAMPLERS = {
    "euler": "Euler", "euler_ancestral": "Euler a", "heun": "Heun", "lms": "LMS", "dpm_2": "DPM2", "dpm_2_ancestral": "DPM2 a",
    "dpmpp_2m": "DPM++ 2M", "dpmpp_sde": "DPM++ SDE", "dpmpp_2m_sde": "DPM++ 2M SDE", "dpmpp_2m_sde_heun": "DPM++ 2M SDE Heun",
    "dpmpp_3m_sde": "DPM++ 3M SDE", "dpmpp_2s_ancestral": "DPM++ 2S a", "ddim": "Euler", "uni_pc": "UniPC bh1",
    "uni_pc_bh2": "UniPC bh2", "lcm": "LCM", "dpm_fast": "DPM fast", "dpm_adaptive": "DPM adaptive",
}  # fmt: skip
"""ComfyUI's `ddim` is Euler on the named schedule (comfy/samplers.py ksampler); its UniPC uses that schedule too."""
SCHEDULES = {
    "normal": "Normal", "karras": "Karras", "exponential": "Exponential", "sgm_uniform": "SGM Uniform", "simple": "Simple",
    "ddim_uniform": "DDIM", "beta": "Beta", "kl_optimal": "KL Optimal", "turbo": "Turbo",
    "align_your_steps": "Align Your Steps", "polyexponential": "Polyexponential", "automatic": AUTOMATIC,
    "default": AUTOMATIC, "betas": "Beta",
}  # fmt: skip
OTHER_SAMPLERS = {
    "euler_a": "Euler a", "dpm2": "DPM2", "dpm2_a": "DPM2 a", "kdpm_2": "DPM2", "kdpm_2_a": "DPM2 a", "dpm_2_a": "DPM2 a",
    "dpmpp_2s": "DPM++ 2S a", "dpmpp_2s_a": "DPM++ 2S a", "unipc": "UniPC", "plms": "PLMS", "ddim": "DDIM",
}  # fmt: skip
"""Names in InvokeAI, NovelAI and Easy Diffusion that differ from ComfyUI's."""
COMFY_OWN_TIMES = ("DPM fast", "DPM adaptive")
"""ComfyUI's samplers that use only the ends of the named schedule."""
OWN_TIMES = frozenset({"ddim", "ddim cfg++", "plms", "unipc", "dpm fast", "dpm adaptive"})
"""Samplers that take no schedule type: A1111 notes the one that its menu shows, and draws without it
(1.10 modules/sd_samplers_timesteps.py get_timesteps; sd_samplers_kdiffusion.py for the last two)."""
SPACED_BY_SCHEDULE = frozenset({"dpm fast", "dpm adaptive"})
"""Those that begin and end at levels of a schedule type where a picture begins at another, or has a second pass."""
SCHEDULES_IN_NAMES = (
    "Karras", "Exponential", "Polyexponential", "SGM Uniform", "SGMUniform", "Uniform", "Normal", "Simple", "Beta",
)  # fmt: skip
"""Up to A1111 1.8 a sampler's name ended in its schedule type."""


def split_name(name: str, schedule: str) -> tuple[str, str]:
    """Split sampler and schedule type; a name of A1111 1.8 ("DPM++ 2M Karras") contains both."""
    for label in SCHEDULES_IN_NAMES:
        if name.endswith(f" {label}") and schedule.casefold() in (AUTOMATIC.casefold(), label.casefold()):
            return name.removesuffix(f" {label}"), label
    return name, schedule


def comfy_names(sampler: str, schedule: str) -> tuple[str, str]:
    """Return A1111's names of ComfyUI's sampler and schedule; unknown ones stay, for the error to name.

    ComfyUI's first releases called its samplers sample_euler; `_gpu` says where the noise is drawn.
    """
    name = sampler.removeprefix("sample_")
    name = COMFY_SAMPLERS.get(name.removesuffix("_gpu"), sampler)
    return name, AUTOMATIC if name in COMFY_OWN_TIMES else SCHEDULES.get(schedule, schedule)


def is_comfy(sampler: str) -> bool:
    """Return whether a settings text names its sampler as only nodes of ComfyUI do: euler_ancestral, or euler_ancestral_karras."""
    return "_" in sampler and comfy_text_names(sampler, AUTOMATIC)[0] != sampler


def comfy_text_names(sampler: str, schedule: str) -> tuple[str, str]:
    """A1111's names of what nodes of ComfyUI write into settings texts: its own names, with the schedule behind, or A1111's."""
    for name in sorted(COMFY_SAMPLERS, key=len, reverse=True):
        rest = sampler.removeprefix(name)
        if rest != sampler and (not rest or rest[1:] in SCHEDULES):
            return comfy_names(name, rest[1:] or schedule)
    return other_names(sampler, schedule)


def other_names(sampler: str, schedule: str) -> tuple[str, str]:
    """Return A1111's names of a sampler and schedule from A1111 or any tool but ComfyUI; `_k` means Karras'
    schedule."""
    name, kind = split_name(sampler.strip(), SCHEDULES.get(schedule.strip().lower(), schedule.strip()))
    small = name.lower().removeprefix("k_").removeprefix("sample_")
    bare = small.removesuffix("_k")
    if bare != small:
        kind = "Karras"
    known = OTHER_SAMPLERS | {key: label for key, label in COMFY_SAMPLERS.items() if key not in OTHER_SAMPLERS}
    return known.get(bare.removesuffix("_gpu"), name), kind


def takes_no_schedule(sampler: str, *, begun: bool) -> bool:
    """Return whether a sampler visits its own timesteps, so that a schedule type beside it says nothing; where a picture is `begun`
    at another, fewer do."""
    names = OWN_TIMES - SPACED_BY_SCHEDULE if begun else OWN_TIMES
    return plain_key(sampler) in {plain_key(name) for name in names}
