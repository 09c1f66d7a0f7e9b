"""Bodies that A1111's clients send for a picture, as A1111 1.10 takes them (modules/api/models.py,
modules/processing.py)."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from clipskip.doors.http.ours import MOST_CHARACTERS
from clipskip.doors.http.pictures import MOST_PICTURES
from clipskip.doors.http.ranges import within

MOST_BASE64 = 60 * 2**20
"""The most characters of one picture."""
Text = Annotated[str, Field(max_length=MOST_CHARACTERS)]
Name = Annotated[str, Field(max_length=400)]
Seed = Annotated[int, within("seed")]
Picture = Annotated[str, Field(max_length=MOST_BASE64)]


class LaxBody(BaseModel):
    """A body whose values are converted and whose unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, coerce_numbers_to_str=True)


class PictureBody(LaxBody):
    """The body of txt2img."""

    prompt: Text = ""
    negative_prompt: Text = ""
    styles: Annotated[list[Name], Field(max_length=100)] = []
    seed: Seed = -1
    subseed: Seed = -1
    subseed_strength: Annotated[float, within("variation_strength")] = 0.0
    sampler_name: Name = ""
    sampler_index: Name = "Euler"
    """A1111's older name of `sampler_name`, which wins over it."""
    scheduler: Name = "Automatic"
    batch_size: Annotated[int, Field(ge=1, le=MOST_PICTURES)] = 1
    n_iter: Annotated[int, Field(ge=1, le=MOST_PICTURES)] = 1
    steps: Annotated[int, within("steps")] = 50
    cfg_scale: Annotated[float, within("cfg_scale")] = 7.0
    width: Annotated[int, within("width")] | None = None
    """The checkpoint's own size when left out."""
    height: Annotated[int, within("height")] | None = None
    eta: Annotated[float, within("eta")] | None = None
    """The options' value when left out; so are the next four."""
    s_churn: Annotated[float, within("s_churn")] | None = None
    s_tmin: Annotated[float, within("s_tmin")] | None = None
    s_tmax: Annotated[float, within("s_tmax")] | None = None
    s_noise: Annotated[float, within("s_noise")] | None = None
    enable_hr: bool = False
    """Whether a second, larger pass follows (hires fix). Without it the next fields are not used."""
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
    """A model that draws the last steps of the picture."""
    refiner_switch_at: float = 0.8
    infotext: Text = ""
    """A settings text; fields that are sent beside it win."""
    CLIP_stop_at_last_layers: Any = None
    """Obeyed here. A1111 obeys it among the `override_settings` only, and those win."""
    clip_skip: Any = None
    """SD.Next's and stable-diffusion.cpp's name of Clip Skip."""
    override_settings: Annotated[dict[Name, Any], Field(max_length=400)] = {}
    override_settings_restore_afterwards: bool = True
    script_name: Name = ""
    script_args: Annotated[list[Any], Field(max_length=200)] = []
    alwayson_scripts: Annotated[dict[Name, Any], Field(max_length=100)] = {}
    send_images: bool = True
    save_images: bool = False

    @property
    def count(self) -> int:
        """The number of pictures asked for."""
        return self.batch_size * self.n_iter

    @property
    def refiner(self) -> str | None:
        """The model that draws the last steps, or None if there is none or no steps are left to it."""
        idle = self.refiner_checkpoint.casefold() in ("", "none") or self.refiner_switch_at >= 1
        return None if idle else self.refiner_checkpoint

    @property
    def sampler(self) -> str:
        """The sampling method. A1111's first one stands in if the older name is sent empty."""
        return self.sampler_name or self.sampler_index or "DPM++ 2M"


class ImageBody(PictureBody):
    """The body of img2img."""

    init_images: Annotated[list[Picture], Field(max_length=MOST_PICTURES)] = []
    denoising_strength: Annotated[float, within("denoising_strength")] = 0.75
    resize_mode: Annotated[int, Field(ge=0, le=3)] = 0
    include_init_images: bool = False
    initial_noise_multiplier: float | None = None
    """The options' value when left out."""
    mask: Picture = ""
    """White is drawn anew and black is kept. Without a mask the next fields are not used."""
    mask_blur: int | None = None
    """Sets both of the next two."""
    mask_blur_x: int = 4
    mask_blur_y: int = 4
    mask_round: bool = True
    inpainting_fill: int = 0
    inpaint_full_res: bool = True
    inpaint_full_res_padding: int = 0
    inpainting_mask_invert: int = 0


class PngInfoBody(LaxBody):
    """The body of png-info: a picture."""

    image: Picture


class OptionsBody(LaxBody):
    """The body of options: any of them by name."""

    model_config = ConfigDict(extra="allow")


def taking(kind: type[LaxBody]) -> dict[str, Any]:  # Any: OpenAPI's own
    """Return the OpenAPI description of a body that the route reads itself."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": _inlined(schema)}}}}


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:  # Any: as above
    """Return a schema with its definitions put where they are used, because a route's own schema has no place for
    them."""
    parts = schema.pop("$defs", {})

    def put(value: Any) -> Any:  # Any: as above
        if isinstance(value, dict):
            name = str(value.get("$ref", "")).rpartition("/")[2]
            return put(parts[name]) if name in parts else {key: put(inner) for key, inner in value.items()}
        return [put(inner) for inner in value] if isinstance(value, list) else value

    inlined: dict[str, Any] = put(schema)
    return inlined
