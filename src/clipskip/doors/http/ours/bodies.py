"""Bodies of requests: strict types, bounded numbers, no unknown fields."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, create_model
from pydantic_core import PydanticCustomError

from clipskip.doors.http.ours.views import skip_json
from clipskip.doors.http.ranges import within
from clipskip.errors import SkipOutOfRange, SpecError
from clipskip.spec import (
    SETTINGS,
    ClipSkip,
    Dialect,
    Family,
    LoraRef,
    Request,
    Setting,
    Skip,
    Translation,
    check_depths,
    depths,
    parse_columns,
    parse_skip,
    parse_skips,
    shown,
    translate,
    values_of,
    with_values,
)

MOST_CHARACTERS = 100_000
Text = Annotated[str, StringConstraints(max_length=MOST_CHARACTERS)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=400)]


def _as_skip(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float | str) or value == "":
        raise PydanticCustomError(
            "clip_skip",
            "Clip Skip is a number, from 1 (the last layer) to the depth of the model's encoder; or text, "
            "as [1:2:0.5] for a schedule or 2/5 for two encoders",
        )
    return value


def _as_list(value: object) -> object:
    if not isinstance(value, str | list):
        raise PydanticCustomError(
            "clip_skips",
            'Clip Skips are a list, as [1, 2], or text, as "1-5", from 1 to the depth of the model\'s encoder',
        )
    return value


Layer = Annotated[float | Name, BeforeValidator(_as_skip)]
"""A Clip Skip; `skip_of` checks it against the model's depth."""
Layers = Annotated[
    Annotated[str, StringConstraints(max_length=400)] | Annotated[list[Layer], Field(max_length=64)],
    BeforeValidator(_as_list),
]
"""A list of Clip Skips."""


class Body(BaseModel):
    """A request's JSON."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class LoraBody(Body):
    """A LoRA at its strengths."""

    name: Name
    text_encoder: Annotated[float, Field(ge=-100, le=100)] = 1.0
    unet: Annotated[float, Field(ge=-100, le=100)] = 1.0
    hash: Annotated[str, StringConstraints(max_length=64)] = ""


def _setting_field(row: Setting) -> Any:  # Any: pydantic's annotations
    """Return a settings row as a field that may be left out; null clears what a settings block says."""
    if row.choices:
        return Literal[row.choices]
    if row.kind is str:
        return Text if "prompt" in row.name else Name
    return Annotated[row.kind, within(row.key)]


FIELDS: dict[str, Any] = {row.key: (_setting_field(row) | None, None) for row in SETTINGS}  # Any: as above
SettingsFields: Any = create_model("SettingsFields", __base__=Body, **FIELDS)


class SweepBody(SettingsFields):  # type: ignore[misc]  # as above
    """A sweep, or a settings block with what differs from it."""

    prompt: Text | None = None
    negative_prompt: Text | None = None
    model: Name | None = None
    vae: Name | None = None
    refiner: Name | None = None
    loras: Annotated[list[LoraBody], Field(max_length=64, default_factory=list)]
    clip_skips: Layers = "1-5"
    axes: Annotated[list[Text], Field(max_length=10, default_factory=list, description="name=values, as in seed=1-4")]
    scores: Annotated[
        list[Name], Field(max_length=16, default_factory=list, description="what is measured of the cells: advise, ...")
    ]
    negative_clip_skip: Layer | None = None
    settings: Text | None = None
    previews: bool = True

    def columns(self, *, depth: int) -> tuple[Skip, ...]:
        """Return the Clip Skips of the columns."""
        if isinstance(self.clip_skips, str):
            return parse_columns(self.clip_skips)
        return skips_of(self.clip_skips, depth=depth)

    def changed(self, asked: Request) -> Request:
        """Return the settings block's request with the body's own fields over it; null clears the size and means
        nothing elsewhere."""
        names = ("prompt", "negative_prompt", "model", "vae", "refiner")
        sent: dict[str, Any] = {name: value for name in names if (value := getattr(self, name)) is not None}
        values = {row.key: value for row in SETTINGS if (value := getattr(self, row.key)) is not None}
        open_sizes = {
            name: None for name in ("width", "height") if name in self.model_fields_set and name not in values
        }
        sent |= {"vae_hash": None} if "vae" in sent else {}
        return with_values(replace(asked, **sent), values | open_sizes)

    def negative(self, *, depth: int) -> Skip | None:
        """Return the negative prompt's Clip Skip."""
        skip = self.negative_clip_skip
        return None if skip is None else skip_of(skip, depth=depth, field="negative_clip_skip")

    def refs(self) -> tuple[LoraRef, ...]:
        """Return the LoRAs."""
        return tuple(LoraRef(name=lora.name, text_encoder=lora.text_encoder, unet=lora.unet) for lora in self.loras)


class AdviseBody(Body):
    """A request for advice. Without a prompt, the answer is only what the model and LoRAs were trained at."""

    prompt: Text = ""
    negative_prompt: Text = ""
    model: Name | None = None
    loras: Annotated[list[LoraBody], Field(max_length=16)] = []
    clip_skips: Annotated[str, StringConstraints(max_length=400)] = "1-6"
    seed: Annotated[int, Field(ge=0, le=2**64 - 1)] = 0


class LayersBody(Body):
    """A text whose way through the layers is asked for."""

    prompt: Text
    model: Name | None = None


class PromptBody(Body):
    """A prompt to read."""

    prompt: Text
    tool: Annotated[str, Field(alias="as", max_length=40)] = "a1111"
    """The program by whose rules it is read: a1111 or comfyui."""
    negative: bool = False
    steps: Annotated[int, within("steps")] = 20
    model: Name | None = None
    loras: Annotated[list[LoraBody], Field(max_length=64)] = []


class SettingsBody(Body):
    """A settings block."""

    text: Text


class SessionBody(Body):
    """The sign-in page's form."""

    token: Annotated[str, StringConstraints(max_length=1000)]


class DialectBody(Body):
    """A Clip Skip to translate into other tools' numbers."""

    clip_skip: Layer
    """A number, or text: a schedule, two encoders' numbers, or a word of the tool it comes from."""
    tool: Name | None = None
    """The tool it comes from; clipskip when left out."""
    family: Name = "sd1"
    steps: Annotated[int, Field(ge=1, le=300)] | None = None
    """Denoiser calls of the picture, to write a schedule step by step."""

    def translated(self) -> Translation:
        """Return the Clip Skip, and what to know of it."""
        family = Family.parse(self.family)
        if self.tool is not None:
            return translate(self.clip_skip, Dialect.parse(self.tool), family=family)
        deepest = depths(family)
        if not deepest:
            raise SpecError(family.means_nothing, field="family")
        skip = skip_of(self.clip_skip, depth=deepest[0], field="clip_skip")
        return Translation(skip=check_depths(skip, deepest))


class ColumnsBody(Body):
    """A list of Clip Skips as a user types it."""

    text: Annotated[str, StringConstraints(max_length=400)]
    model: Name | None = None


class InspectBody(Body):
    """A file of the library, by name."""

    name: Name


class EncodeBody(Body):
    """A text whose conditioning is wanted."""

    prompt: Text
    clip_skips: Layers = "1-12"
    model: Name | None = None

    def skips(self, *, depth: int) -> tuple[ClipSkip, ...]:
        """Return the Clip Skips."""
        if isinstance(self.clip_skips, str):
            return parse_skips(self.clip_skips)
        skips = dict.fromkeys(skips_of(self.clip_skips, depth=depth))
        for skip in skips:
            if not isinstance(skip, ClipSkip):
                raise SpecError(f"clip_skips has {skip}, which is not one layer; give numbers", field="clip_skips")
        return tuple(skip for skip in skips if isinstance(skip, ClipSkip))


def request_json(asked: Request) -> dict[str, object]:
    """Return a Request as the page's form takes it."""
    skip, negative = asked.clip_skip, asked.negative_clip_skip
    return {
        "prompt": asked.prompt,
        "negative_prompt": asked.negative_prompt,
        "model": asked.model,
        "loras": [{"name": lora.name, "text_encoder": lora.text_encoder, "unet": lora.unet} for lora in asked.loras],
        "clip_skip": None if skip is None else skip_json(skip),
        "negative_clip_skip": None if negative is None else skip_json(negative),
        "vae": asked.vae,
        "refiner": asked.refiner,
        **values_of(asked),
    }


def skips_of(values: Sequence[float | str], *, depth: int) -> tuple[Skip, ...]:
    """Read a list of Clip Skips."""
    if not values:
        raise SpecError('clip_skips is empty; give at least one, as in [1, 2] or "1-5"', field="clip_skips")
    return tuple(skip_of(value, depth=depth, field="clip_skips") for value in values)


def skip_of(value: float | str, *, depth: int, field: str) -> Skip:
    """Read a Clip Skip of a model of this depth: a number, or a text such as "[1:2:0.5]" or "2/5"."""
    if isinstance(value, str):
        if not set("[/=").intersection(value):
            raise SpecError(
                f"{field} has the text {value[:40]!r}; send a number from 1 to {depth}, a schedule as [1:2:0.5], or for "
                "two encoders 2/5",
                field=field,
            )
        try:
            return parse_skip(value)
        except SpecError as error:
            raise type(error)(str(error), field=field) from None
    if not 1 <= value <= depth:
        raise SkipOutOfRange(
            f"Clip Skip {shown(value)} is not one of this model's; use 1 to {depth}, where 1 is the last layer",
            field=field,
        )
    return ClipSkip(value)
