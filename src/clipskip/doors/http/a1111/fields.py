"""A1111's fields of a picture that this server cannot honour, and the values at which they change nothing."""

from collections.abc import Iterator, Mapping
from typing import Any

from clipskip.doors.http.reasons import Reason
from clipskip.errors import SpecError
from clipskip.sample import AUTOMATIC, SAMPLERS, find_sampler, find_schedule
from clipskip.spec import other_names

OFF = ("false", "0", "")
NEUTRAL: Mapping[str, tuple[str, ...]] = {
    "seed_resize_from_h": ("-1", *OFF),
    "seed_resize_from_w": ("-1", *OFF),
    "restore_faces": OFF,
    "tiling": OFF,
    "s_min_uncond": OFF,
    "disable_extra_networks": OFF,
    "firstpass_image": OFF,
    "token_merging_ratio": OFF,
    "token_merging_ratio_hr": OFF,
    "ddim_discretize": ("uniform", *OFF),
    "latent_mask": OFF,
    "controlnet_units": OFF,
}
"""As `plain` writes them. A1111's own default stands first, except for fields that are merely off."""
SILENT = frozenset(
    {
        "mask_blur_x", "mask_blur_y", "mask_round", "initial_noise_multiplier",
        "firstphase_width", "firstphase_height", "force_task_id",
        "do_not_save_samples", "do_not_save_grid", "image_cfg_scale", "comments",
        "do_not_reload_embeddings",
    }
)  # fmt: skip
"""A1111's fields that count only for its other way of drawing, or only inside A1111."""


def refused_fields(sent: Mapping[str, Any]) -> Iterator[Reason]:  # Any: whatever the client sent
    """Yield why fields are refused that would change the picture in A1111 and cannot here."""
    for name, neutral in NEUTRAL.items():
        if name in sent and table_text(sent[name]) not in neutral:
            usual = neutral[0] or "nothing"
            why = f"{name} is {str(sent[name])[:60]!r}, which this server cannot do; send {usual} or leave it out"
            yield Reason(field=name, why=why)


def find_method(sampler: str, scheduler: str, *, begun: bool) -> tuple[str, str, bool]:
    """Return A1111's names of a sampling method and schedule type, and whether the type sent is one that the method leaves out.

    Other tools' names of methods (euler_a, dpmpp_2m) are understood: A1111 would draw with DPM++ 2M instead, without a
    word. DDIM and its kin visit their own timesteps whatever the type (A1111 1.10, modules/sd_samplers_timesteps.py).
    """
    known = {name.casefold() for method in SAMPLERS for name in (method.name, *method.aliases)}
    if sampler.casefold() not in known:
        sampler, scheduler = other_names(sampler, scheduler or AUTOMATIC)
    try:
        method, schedule = find_sampler(sampler, scheduler or AUTOMATIC, begun=begun)
    except SpecError as error:
        field = {"sampler": "sampler_name"}.get(error.field or "", error.field)
        raise SpecError(str(error), field=field) from None
    idle = method.leaves_schedule(begun=begun) and find_schedule(scheduler or AUTOMATIC) != AUTOMATIC
    return method.name, schedule, idle


def table_text(value: Any) -> str:  # Any: as above
    """Return a value as the tables write it: 1.0 and "1" become 1, and anything empty becomes nothing."""
    if isinstance(value, bool):
        return str(value).casefold()
    if isinstance(value, int | float | str):
        try:
            return f"{float(value):g}"
        except (ValueError, OverflowError):
            return str(value).strip().casefold()
    return "" if not value else "something"
