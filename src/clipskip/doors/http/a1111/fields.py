"""A1111's own fields of a picture that cannot be had here, and the values at which they change nothing."""

from collections.abc import Iterator, Mapping
from typing import Any

from clipskip.doors.http.reasons import Reason
from clipskip.errors import SpecError
from clipskip.sample import find_sampler

OFF = ("false", "0", "")
NEUTRAL: Mapping[str, tuple[str, ...]] = {
    "seed_resize_from_h": ("-1", *OFF),
    "seed_resize_from_w": ("-1", *OFF),
    "restore_faces": OFF,
    "tiling": OFF,
    "s_min_uncond": OFF,
    "s_churn": OFF,
    "s_noise": ("1",),
    "refiner_checkpoint": ("none", *OFF),
    "disable_extra_networks": OFF,
    "firstpass_image": OFF,
    "enable_hr": OFF,
    "token_merging_ratio": OFF,
    "token_merging_ratio_hr": OFF,
    "ddim_discretize": ("uniform", *OFF),
    "mask": OFF,
    "latent_mask": OFF,
    "initial_noise_multiplier": ("1",),
    "controlnet_units": OFF,
}
"""As `plain` writes them, A1111's own default first but for what is only off."""
SILENT = frozenset(
    {
        "hr_scale", "hr_upscaler", "hr_second_pass_steps", "hr_resize_x", "hr_resize_y", "hr_checkpoint_name",
        "hr_sampler_name", "hr_scheduler", "hr_prompt", "hr_negative_prompt", "firstphase_width", "firstphase_height",
        "refiner_switch_at", "s_tmin", "s_tmax", "force_task_id", "do_not_save_samples", "do_not_save_grid",
        "image_cfg_scale", "mask_blur", "mask_blur_x", "mask_blur_y", "mask_round", "inpainting_fill",
        "inpaint_full_res", "inpaint_full_res_padding", "inpainting_mask_invert", "comments", "do_not_reload_embeddings",
    }
)  # fmt: skip
"""A1111's own fields that count only with another one, which is refused by its own name, or only inside A1111."""
WITH_ETA = ("euler a", "dpm2 a", "2s a", "sde", "fast", "adaptive")
"""In the names of samplers that put noise back."""


def refused_fields(sent: Mapping[str, Any]) -> Iterator[Reason]:  # Any: whatever the client sent
    """Why fields are refused that would change the picture in A1111 and cannot here."""
    for name, neutral in NEUTRAL.items():
        if name in sent and plain(sent[name]) not in neutral:
            usual = neutral[0] or "nothing"
            why = f"{name} is {str(sent[name])[:60]!r}, which this server cannot do; send {usual} or leave it out"
            yield Reason(field=name, why=why)


def refused_eta(eta: float | None, sampler: str) -> Iterator[Reason]:
    """Why an eta is refused: A1111's own values are drawn, 0 for DDIM and 1 for the others that have one."""
    name = sampler.casefold()
    usual = 0 if name == "ddim" else 1 if any(part in name for part in WITH_ETA) else None
    if eta is not None and usual is not None and eta != usual:
        yield Reason(field="eta", why=f"eta is {eta:g}; {sampler} is drawn at {usual} here: send that")


def find_method(sampler: str, scheduler: str) -> tuple[str, str, bool]:
    """A1111's names of a sampling method and schedule type, and whether the type sent is one that the method leaves out.

    DDIM and its kin visit their own timesteps whatever the type (A1111 1.10, modules/sd_samplers_timesteps.py).
    """
    try:
        method, schedule = find_sampler(sampler, scheduler or "Automatic")
    except SpecError as error:
        field = {"sampler": "sampler_name"}.get(error.field or "", error.field)
        raise SpecError(str(error), field=field) from None
    idle = method.own_times is not None and schedule != "Automatic"
    return method.name, "Automatic" if idle else schedule, idle


def plain(value: Any) -> str:  # Any: as above
    """A value as the tables write it: 1.0 and "1" are 1, and what is empty is nothing."""
    if isinstance(value, bool):
        return str(value).casefold()
    if isinstance(value, int | float | str):
        try:
            return f"{float(value):g}"
        except (ValueError, OverflowError):
            return str(value).strip().casefold()
    return "" if not value else "something"
