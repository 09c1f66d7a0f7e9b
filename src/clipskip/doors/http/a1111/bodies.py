"""What A1111's clients send for a picture: what counts, what may be sent because it changes nothing, and no more.

Names and defaults are A1111 1.10's (modules/api/models.py, modules/processing.py).
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from clipskip.doors.http.ours import Name, Text
from clipskip.doors.http.pictures import MOST_PICTURES
from clipskip.errors import SpecError

MOST_BASE64 = 60 * 2**20
"""Characters of a picture."""
Number = Annotated[float, Field(ge=-1e9, le=1e9)]
Seed = Annotated[int, Field(ge=-1, le=2**64 - 1)]
NEUTRAL: dict[str, tuple[object, ...]] = {
    "styles": ([],),
    "seed_resize_from_h": (-1, 0),
    "seed_resize_from_w": (-1, 0),
    "restore_faces": (False,),
    "tiling": (False,),
    "s_min_uncond": (0,),
    "s_churn": (0,),
    "s_tmax": (0,),
    "s_tmin": (0,),
    "s_noise": (1,),
    "refiner_checkpoint": ("", "None"),
    "disable_extra_networks": (False,),
    "firstpass_image": ("",),
    "firstphase_width": (0,),
    "firstphase_height": (0,),
    "comments": ({},),
    "enable_hr": (False,),
    "infotext": ("",),
    "token_merging_ratio": (0,),
    "token_merging_ratio_hr": (0,),
    "mask": ("",),
    "latent_mask": ("",),
    "initial_noise_multiplier": (1,),
    "resize_mode": (0,),
    "controlnet_units": ([],),
}
"""Values at which a field that is not offered changes nothing."""
IDLE = frozenset(
    {
        "hr_scale", "hr_upscaler", "hr_second_pass_steps", "hr_resize_x", "hr_resize_y", "hr_checkpoint_name",
        "hr_sampler_name", "hr_scheduler", "hr_prompt", "hr_negative_prompt", "hr_additional_modules", "hr_cfg",
        "refiner_switch_at", "force_task_id", "do_not_save_samples", "do_not_save_grid", "image_cfg_scale",
        "mask_blur", "mask_blur_x", "mask_blur_y", "mask_round", "inpainting_fill", "inpaint_full_res",
        "inpaint_full_res_padding", "inpainting_mask_invert",
    }
)  # fmt: skip
"""Fields that count only with another one, which is refused by its own name, or only inside A1111."""


WITH_ETA = ("euler a", "dpm2 a", "2s a", "sde", "fast", "adaptive")
"""In the names of samplers that put noise back."""


class PictureBody(BaseModel):
    """txt2img's body."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    prompt: Text = ""
    negative_prompt: Text = ""
    seed: Seed = -1
    subseed: Seed = -1
    subseed_strength: Annotated[float, Field(ge=0, le=1)] = 0.0
    sampler_name: Name | None = None
    sampler_index: Name = "Euler"
    """A1111's older name of the same; `sampler_name` wins."""
    scheduler: Name = "Automatic"
    batch_size: Annotated[int, Field(ge=1, le=MOST_PICTURES)] = 1
    n_iter: Annotated[int, Field(ge=1, le=MOST_PICTURES)] = 1
    steps: Annotated[int, Field(ge=1, le=150)] = 50
    cfg_scale: Annotated[float, Field(ge=1, le=30)] = 7.0
    width: Annotated[int, Field(ge=64, le=2048)] | None = None
    """The checkpoint's own when not given."""
    height: Annotated[int, Field(ge=64, le=2048)] | None = None
    eta: Annotated[float, Field(ge=0, le=1)] | None = None
    denoising_strength: Annotated[float, Field(ge=0, le=1)] = 0.75
    clip_skip: Number | None = None
    """SD.Next's and stable-diffusion.cpp's field; `override_settings.CLIP_stop_at_last_layers` wins."""
    override_settings: Annotated[dict[Name, Any], Field(max_length=100)] = {}
    override_settings_restore_afterwards: bool = True
    script_name: Annotated[str, Field(max_length=100)] = ""
    script_args: Annotated[list[Any], Field(max_length=50)] = []
    alwayson_scripts: Annotated[dict[str, Any], Field(max_length=50)] = {}
    send_images: bool = True
    save_images: bool = False

    @model_validator(mode="before")
    @classmethod
    def _null_is_the_default(cls, sent: Any) -> Any:  # Any: whatever the client sent
        return {name: value for name, value in sent.items() if value is not None} if isinstance(sent, dict) else sent

    @property
    def count(self) -> int:
        """Pictures in all."""
        return self.batch_size * self.n_iter

    def check(self) -> None:
        """SpecError, by name, for a field that would change the picture in A1111 and cannot here."""
        if self.count > MOST_PICTURES:
            raise SpecError(
                f"batch_size {self.batch_size} x n_iter {self.n_iter} is {self.count} pictures; "
                f"{MOST_PICTURES} is the most of one request",
                field="n_iter",
            )
        for name, value in (self.model_extra or {}).items():
            if name in IDLE:
                continue
            if name not in NEUTRAL:
                raise SpecError(f"{name[:80]!r} is no field that is known here; leave it out", field=name[:80])
            if not any(
                value == usual and isinstance(value, bool) is isinstance(usual, bool) for usual in NEUTRAL[name]
            ):
                raise SpecError(
                    f"{name} is {str(value)[:60]!r}, which this server cannot do; send {NEUTRAL[name][0]!r} or leave it out",
                    field=name,
                )
        self._check_eta()
        self._check_scripts()

    def _check_eta(self) -> None:
        """A1111's own values, 0 for DDIM and 1 for the others that have one; webuiapi always sends 1."""
        name = self.sampler.casefold()
        usual = 0 if name == "ddim" else 1 if any(part in name for part in WITH_ETA) else None
        if self.eta is not None and usual is not None and self.eta != usual:
            raise SpecError(f"eta is {self.eta:g}; {self.sampler} is drawn at {usual} here: send that", field="eta")

    def _check_scripts(self) -> None:
        for name, script in self.alwayson_scripts.items():
            args = script.get("args") if isinstance(script, dict) else None
            if args != [] and not (isinstance(args, list) and args[0] is False):
                raise SpecError(f"the script {name[:80]!r} is not here; leave it out", field="alwayson_scripts")

    @property
    def sampler(self) -> str:
        """The sampling method."""
        return self.sampler_name or self.sampler_index


class ImageBody(PictureBody):
    """img2img's body."""

    init_images: Annotated[list[Annotated[str, Field(max_length=MOST_BASE64)]], Field(max_length=MOST_PICTURES)] = []
    include_init_images: bool = False

    @property
    def init_image(self) -> str:
        """The picture to begin at, as base64; SpecError where there is none, or more than one."""
        if len(self.init_images) != 1:
            raise SpecError(
                f"init_images has {len(self.init_images)} pictures; send one, as base64", field="init_images"
            )
        return self.init_images[0]
