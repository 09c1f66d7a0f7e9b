"""What A1111's clients send for a picture, as A1111 1.10 takes it (modules/api/models.py, modules/processing.py).

Values are converted as its API converts them: "7.0" is 7, 2.0 is 2, "false" is false, null is what is not there.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from clipskip.doors.http.ours import MOST_CHARACTERS
from clipskip.doors.http.pictures import MOST_PICTURES

MOST_BASE64 = 60 * 2**20
"""Characters of a picture."""
Text = Annotated[str, Field(max_length=MOST_CHARACTERS)]
Name = Annotated[str, Field(max_length=400)]
Seed = Annotated[int, Field(ge=-1, le=2**64 - 1)]
Picture = Annotated[str, Field(max_length=MOST_BASE64)]


class LaxBody(BaseModel):
    """A body in which values are converted, and fields that are not known are left out."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, coerce_numbers_to_str=True)


class PictureBody(LaxBody):
    """txt2img's body."""

    prompt: Text = ""
    negative_prompt: Text = ""
    styles: Annotated[list[Name], Field(max_length=100)] = []
    seed: Seed = -1
    subseed: Seed = -1
    subseed_strength: Annotated[float, Field(ge=0, le=1)] = 0.0
    sampler_name: Name = ""
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
    """The option's when not given, as for the next four."""
    s_churn: Annotated[float, Field(ge=0, le=1000)] | None = None
    s_tmin: Annotated[float, Field(ge=0, le=1000)] | None = None
    s_tmax: Annotated[float, Field(ge=0, le=1000)] | None = None
    s_noise: Annotated[float, Field(ge=0, le=10)] | None = None
    enable_hr: bool = False
    """Whether a second, larger pass follows (hires fix); without it none of the next counts."""
    hr_scale: float = 2.0
    hr_resize_x: int = 0
    hr_resize_y: int = 0
    hr_upscaler: Name = "Latent"
    hr_second_pass_steps: int = 0
    hr_checkpoint_name: Name = ""
    hr_sampler_name: Name = ""
    hr_scheduler: Name = ""
    hr_prompt: Text = ""
    hr_negative_prompt: Text = ""
    denoising_strength: float = 0.75
    refiner_checkpoint: Name = ""
    """A model that finishes the picture."""
    refiner_switch_at: float = 0.8
    infotext: Text = ""
    """A settings text; fields that are sent beside it win."""
    CLIP_stop_at_last_layers: Any = None
    """Obeyed here, where A1111 obeys it only among the `override_settings`, which win."""
    clip_skip: Any = None
    """SD.Next's and stable-diffusion.cpp's name of the same."""
    override_settings: Annotated[dict[Name, Any], Field(max_length=400)] = {}
    override_settings_restore_afterwards: bool = True
    script_name: Name = ""
    script_args: Annotated[list[Any], Field(max_length=200)] = []
    alwayson_scripts: Annotated[dict[Name, Any], Field(max_length=100)] = {}
    send_images: bool = True
    save_images: bool = False

    @property
    def count(self) -> int:
        """Pictures in all."""
        return self.batch_size * self.n_iter

    @property
    def refiner(self) -> str | None:
        """The model that finishes the picture, where there is a share of it left to finish."""
        idle = self.refiner_checkpoint.casefold() in ("", "none") or self.refiner_switch_at >= 1
        return None if idle else self.refiner_checkpoint

    @property
    def sampler(self) -> str:
        """The sampling method; A1111's first of all where the older name is sent empty."""
        return self.sampler_name or self.sampler_index or "DPM++ 2M"


class ImageBody(PictureBody):
    """img2img's body."""

    init_images: Annotated[list[Picture], Field(max_length=MOST_PICTURES)] = []
    denoising_strength: Annotated[float, Field(ge=0, le=1)] = 0.75
    resize_mode: Annotated[int, Field(ge=0, le=3)] = 0
    include_init_images: bool = False
    initial_noise_multiplier: float | None = None
    """The option's when not given."""
    mask: Picture = ""
    """White is drawn anew, black is kept; without one none of the next counts."""
    mask_blur: int | None = None
    """Both of the next two."""
    mask_blur_x: int = 4
    mask_blur_y: int = 4
    mask_round: bool = True
    inpainting_fill: int = 0
    inpaint_full_res: bool = True
    inpaint_full_res_padding: int = 0
    inpainting_mask_invert: int = 0


class PngInfoBody(LaxBody):
    """A picture."""

    image: Picture


def taking(kind: type[LaxBody]) -> dict[str, Any]:  # Any: OpenAPI's own
    """What the description says of a route that reads its body itself."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": _inlined(schema)}}}}


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:  # Any: as above
    """A schema whose parts stand in their places: a route's own has nowhere else for them."""
    parts = schema.pop("$defs", {})

    def put(value: Any) -> Any:  # Any: as above
        if isinstance(value, dict):
            name = str(value.get("$ref", "")).rpartition("/")[2]
            return put(parts[name]) if name in parts else {key: put(inner) for key, inner in value.items()}
        return [put(inner) for inner in value] if isinstance(value, list) else value

    found: dict[str, Any] = put(schema)
    return found
