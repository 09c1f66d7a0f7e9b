"""Bodies that OpenAI's clients send for pictures: its own fields, honoured or refused by name, and Stable Diffusion's
beside them."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from clipskip.doors.http.ours import Body, Layer, Name, Text, skip_of
from clipskip.doors.http.pictures import MOST_PICTURES, Writing
from clipskip.doors.http.ranges import within
from clipskip.errors import SpecError
from clipskip.image import PictureFormat
from clipskip.spec import Request

STEPS = {"low": 10, "auto": 20, "standard": 20, "medium": 20, "high": 30, "hd": 30, "xhigh": 40, "max": 50}
"""Steps of each quality, if no steps are sent."""
FORMATS = {"png": PictureFormat.PNG, "jpeg": PictureFormat.JPEG, "webp": PictureFormat.WEBP}
Quality = Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"]


class Asking(BaseModel):
    """OpenAI's fields of a picture that is made or changed, and Stable Diffusion's beside them."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    prompt: Text
    model: Name | None = None
    n: Annotated[int, Field(ge=1, le=MOST_PICTURES)] | None = None
    size: Annotated[str, StringConstraints(max_length=20)] | None = None
    quality: Quality | None = None
    """Sets the number of steps where `steps` does not."""
    output_format: Literal["png", "jpeg", "webp"] | None = None
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = None
    """Quality of a JPEG or WebP, in per cent."""
    response_format: Literal["b64_json"] | None = None
    background: Literal["auto", "opaque"] | None = None
    stream: bool | None = None
    partial_images: Annotated[int, Field(ge=0, le=3)] | None = None
    user: Annotated[str, StringConstraints(max_length=1000)] | None = None
    safety_identifier: Annotated[str, StringConstraints(max_length=1000)] | None = None
    negative_prompt: Text = ""
    clip_skip: Layer | None = None
    negative_clip_skip: Layer | None = None
    steps: Annotated[int, within("steps")] | None = None
    cfg_scale: Annotated[float, within("cfg_scale")] = 7.0
    sampler: Name = "Euler a"
    scheduler: Name = "Automatic"
    seed: Annotated[int, within("seed")] = -1

    def request(self, *, depth: int, usual: tuple[int | None, int | None] = (None, None)) -> Request:
        """Return what is asked of each picture, for a model of this depth and usual size."""
        width, height = sides(self.size) or usual
        skip, negative = self.clip_skip, self.negative_clip_skip
        return Request(
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            model=self.model,
            clip_skip=None if skip is None else skip_of(skip, depth=depth, field="clip_skip"),
            negative_clip_skip=None if negative is None else skip_of(negative, depth=depth, field="negative_clip_skip"),
            steps=self.steps or STEPS[self.quality or "auto"],
            cfg_scale=self.cfg_scale,
            sampler=self.sampler,
            scheduler=self.scheduler,
            seed=self.seed,
            width=width,
            height=height,
        )

    @property
    def format(self) -> str:
        """OpenAI's name of the files' format."""
        return self.output_format or "png"

    @property
    def writing(self) -> Writing:
        """Return how the pictures are written."""
        best = 100
        quality = best if self.output_compression is None else self.output_compression
        return Writing(format=FORMATS[self.format], quality=quality)


class GenerationBody(Asking):
    """A body that asks for pictures of a prompt."""

    style: Literal["natural"] | None = None
    moderation: Literal["auto", "low"] | None = None
    """Accepted and without effect: nothing is filtered here."""


def _form_number(value: Any) -> Any:  # Any: a form's text
    """Return a form's text as a number, if it is one: forms hold text alone."""
    if not isinstance(value, str):
        return value
    try:
        return int(value)
    except ValueError:
        pass
    try:
        return float(value)
    except ValueError:
        return value


class EditForm(Asking):
    """A body that asks for a picture drawn anew from another: the fields of a form, apart from its files."""

    model_config = ConfigDict(extra="forbid", strict=False, allow_inf_nan=False)

    input_fidelity: Literal["low"] | None = None
    strength: Annotated[float, Field(ge=0, le=1)] = 0.75
    """A1111's denoising strength: how much is drawn anew."""
    clip_skip: Annotated[Layer | None, BeforeValidator(_form_number)] = None
    negative_clip_skip: Annotated[Layer | None, BeforeValidator(_form_number)] = None


class ModelBody(Body):
    """A checkpoint, as OpenAI lists models."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "clipskip"


def sides(size: str | None) -> tuple[int, int] | None:
    """Return width and height of "512x768", or None for "auto"."""
    if size is None or size == "auto":
        return None
    match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", size)
    if match is None:
        raise SpecError(f"size {size!r} is not width x height; write it as 512x768, or auto", field="size")
    return int(match[1]), int(match[2])
