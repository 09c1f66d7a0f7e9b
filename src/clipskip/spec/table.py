"""The plain settings of a picture, one row each, for all checks, options, request bodies, manifests and texts.

A row, and a field of the same name in the dataclass that the row names, put a setting at every door. Names, ranges and
wording are A1111 1.10's where it has the setting.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from clipskip.errors import SpecError

Plain = int | float | str

MAX_SEED = 2**64 - 1
MAX_PX, MAX_HIRES_PX = 2048, 4096
ZERO_TERMINAL_SNR = "Zero Terminal SNR"
"""A noise schedule that ends at noise alone, under A1111's name."""
RESIZE_MODES = ("Just resize", "Crop and resize", "Resize and fill", "Just resize (latent upscale)")
MASKED_CONTENT = ("fill", "original", "latent noise", "latent nothing")
MASK_MODES = ("Inpaint masked", "Inpaint not masked")
INPAINT_AREAS = ("Whole picture", "Only masked")
"""A1111's API numbers each of these from 0, in this order."""
MASK_EDGES = ("Hard", "Soft")
REFINED_PASSES = ("first pass", "second pass", "both passes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One plain setting."""

    name: str
    """The field's name."""
    long_name: str = ""
    """A longer name, where the field's is unclear outside its part."""
    part: str = ""
    """The part whose field it is: the Render itself (empty), its `hires`, its `start` or the start's `mask`."""
    kind: type[int] | type[float] | type[str]
    label: str
    """Its label in an infotext."""
    help: str
    low: int | float = -math.inf
    high: int | float = math.inf
    choices: tuple[str, ...] = ()
    absent: Plain | None = None
    """Its value when a settings text leaves it out, where that is not the field's default."""
    option: str = ""
    """Its command-line option, where that is not its key with dashes."""
    a1111: str = ""
    """Its name in the bodies of A1111's API, where that is not its key."""

    @property
    def key(self) -> str:
        """Its unique name in request bodies, manifests and errors."""
        name = self.long_name or self.name
        return f"{self.part}_{name}" if self.part in ("hires", "mask") else name

    @property
    def flag(self) -> str:
        """Its command-line option."""
        return self.option or f"--{self.key.replace('_', '-')}"

    def check(self, value: object) -> None:
        """Raise SpecError for a value out of range or not among the choices. None passes, for fields that may be
        None."""
        if value is None:
            return
        if self.choices and value not in self.choices:
            raise SpecError(f"{self._words} {value!r} is unknown; use one of {', '.join(self.choices)}", field=self.key)
        if self.kind is not str and not (_is_number(value) and self.low <= value <= self.high):  # type: ignore[operator]  # a number
            raise SpecError(f"{self._words} {value} is out of range; use {self.low} to {self.high}", field=self.key)

    @property
    def _words(self) -> str:
        return self.key.replace("_", " ")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


PICTURE = (
    Setting(name="steps", kind=int, low=1, high=150, label="Steps", help="Sampling steps."),
    Setting(
        name="sampler", kind=str, label="Sampler", a1111="sampler_name",
        help='Sampling method, as A1111 names it: "Euler a", "DPM++ 2M Karras".',
    ),
    Setting(
        name="scheduler", kind=str, label="Schedule type", help="Schedule type: Automatic, Karras, Exponential, ..."
    ),
    Setting(name="cfg_scale", kind=float, low=1, high=30, label="CFG scale", option="--cfg", help="CFG scale."),
    Setting(name="seed", kind=int, low=0, high=MAX_SEED, label="Seed", help="Seed; -1 draws one."),
    Setting(name="width", kind=int, low=64, high=MAX_PX, label="Size-1", option="--size", help="Width in pixels."),
    Setting(name="height", kind=int, low=64, high=MAX_PX, label="Size-2", option="--size", help="Height in pixels."),
    Setting(
        name="variation_seed", kind=int, low=0, high=MAX_SEED, label="Variation seed", a1111="subseed",
        help="Seed of the noise to mix in; -1 draws one.",
    ),
    Setting(
        name="variation_strength", kind=float, low=0, high=1, label="Variation seed strength", a1111="subseed_strength",
        help="Share of the variation seed's noise.",
    ),
    Setting(
        name="ensd", kind=int, low=-MAX_SEED, high=MAX_SEED, label="ENSD", a1111="eta_noise_seed_delta",
        help="A1111's eta noise seed delta: an offset to the seed of the noise that samplers add.",
    ),
    Setting(
        name="rng", kind=str, choices=("CPU", "GPU", "NV"), absent="GPU", label="RNG", a1111="randn_source",
        help="Random number generator. GPU and NV both give CUDA's numbers, on any device.",
    ),
    Setting(
        name="emphasis", kind=str, choices=("Original", "No norm", "Ignore", "None", "ComfyUI"), label="Emphasis",
        help="How prompt weights are applied. ComfyUI also reads the prompt by ComfyUI's rules.",
    ),
    Setting(
        name="prediction", kind=str, choices=("epsilon", "v"), label="Prediction",
        help="What the model predicts; by default, what its file says.",
    ),
    Setting(
        name="eta", kind=float, low=0, high=1, label="Eta",
        help="Share of the removed noise that ancestral and SDE samplers and DDIM add back at each step; by default 1, for "
        "DDIM 0.",
    ),
    Setting(
        name="s_churn", kind=float, low=0, high=1000, label="Sigma churn",
        help="Noise that Euler, Heun and DPM2 add over the whole run (Karras et al. 2022, algorithm 2).",
    ),
    Setting(name="s_tmin", kind=float, low=0, high=1000, label="Sigma tmin", help="Lowest sigma at which churn adds noise."),
    Setting(
        name="s_tmax", kind=float, low=0, high=1000, label="Sigma tmax",
        help="Highest sigma at which churn adds noise; 0 means no limit.",
    ),
    Setting(
        name="s_noise", kind=float, low=0, high=10, label="Sigma noise",
        help="Scale of the noise that samplers add; 1 is the theoretical value.",
    ),
    Setting(
        name="crop_top", kind=int, low=0, high=MAX_HIRES_PX, label="Crop top", a1111="sdxl_crop_top",
        help="Pixels cropped from the top, as SDXL is told.",
    ),
    Setting(
        name="crop_left", kind=int, low=0, high=MAX_HIRES_PX, label="Crop left", a1111="sdxl_crop_left",
        help="Pixels cropped from the left, as SDXL is told.",
    ),
    Setting(
        name="refiner_switch_at", kind=float, low=0.01, high=1, label="Refiner switch at",
        help="Share of the noise that is removed before the refiner takes over.",
    ),
    Setting(
        name="noise_schedule", kind=str, choices=("Default", ZERO_TERMINAL_SNR), label="Noise Schedule",
        a1111="sd_noise_schedule",
        help="Noise levels that the model was trained with, where its file does not say.",
    ),
    Setting(
        name="empty_negative", kind=str, choices=("Zeros", "Read"), label="Empty negative",
        help="How SDXL takes an empty negative prompt: as zeros (A1111), or read like any other text (ComfyUI).",
    ),
)  # fmt: skip
HIRES = (
    Setting(name="scale", part="hires", kind=float, low=1, high=8, label="Hires upscale", a1111="hr_scale",
        help="Draw a second pass (A1111's hires fix), larger by this factor.",
    ),
    Setting(
        name="width", part="hires", kind=int, low=0, high=MAX_HIRES_PX, label="Hires resize-1", option="--hires-size",
        a1111="hr_resize_x", help="Width of the second pass, instead of a scale; 0 follows the height.",
    ),
    Setting(
        name="height", part="hires", kind=int, low=0, high=MAX_HIRES_PX, label="Hires resize-2", option="--hires-size",
        a1111="hr_resize_y", help="Height of the second pass, instead of a scale; 0 follows the width.",
    ),
    Setting(name="steps", part="hires", kind=int, low=0, high=150, label="Hires steps", a1111="hr_second_pass_steps",
        help="Steps of the second pass; 0 means as many as the first pass.",
    ),
    Setting(name="upscaler", part="hires", kind=str, label="Hires upscaler", a1111="hr_upscaler",
        help='Upscaler for the second pass: "Latent" and its variants, None, Lanczos, Nearest, or an upscaler model.',
    ),
    Setting(name="sampler", part="hires", kind=str, label="Hires sampler", a1111="hr_sampler_name",
        help="Sampling method of the second pass; by default the first pass's.",
    ),
    Setting(name="scheduler", part="hires", kind=str, label="Hires schedule type", a1111="hr_scheduler",
        help="Schedule type of the second pass; by default the first pass's.",
    ),
    Setting(name="prompt", part="hires", kind=str, label="Hires prompt", a1111="hr_prompt",
        help="Prompt of the second pass; by default the first pass's, with its LoRAs.",
    ),
    Setting(name="negative_prompt", part="hires", kind=str, label="Hires negative prompt", option="--hires-negative",
        a1111="hr_negative_prompt", help="Negative prompt of the second pass; by default the first pass's.",
    ),
    Setting(name="strength", long_name="denoising_strength", part="hires", kind=float, low=0, high=1,
        label="Denoising strength", option="--hires-denoise", a1111="denoising_strength",
        help="Denoising strength of the second pass.",
    ),
    Setting(name="refined", long_name="refiner", part="hires", kind=str, choices=REFINED_PASSES, label="Hires refiner",
        a1111="hires_fix_refiner_pass", help="Passes in which the refiner takes over.",
    ),
)  # fmt: skip
START = (
    Setting(name="strength", long_name="denoising_strength", part="start", kind=float, low=0, high=1,
        label="Denoising strength", option="--denoise", help="Denoising strength: how much of the --init picture is redrawn.",
    ),
    Setting(name="resize_mode", part="start", kind=str, choices=RESIZE_MODES, label="Resize mode",
        help="How the --init picture is resized.",
    ),
    Setting(name="noise_multiplier", part="start", kind=float, low=0, high=1.5, label="Noise multiplier",
        a1111="initial_noise_multiplier", help="Scale of the noise added to the --init picture.",
    ),
)  # fmt: skip
MASK = (
    Setting(name="blur", part="mask", kind=int, low=0, high=64, absent=0, label="Mask blur",
        help="Blur of the mask's edge, in pixels.",
    ),
    Setting(name="blur_y", part="mask", kind=int, low=0, high=64, label="Mask blur Y",
        help="Vertical blur of the mask's edge, in pixels; by default the same as --mask-blur.",
    ),
    Setting(name="edge", part="mask", kind=str, choices=MASK_EDGES, label="Mask edge", a1111="mask_round",
        help="Hard redraws or keeps each latent cell whole; Soft blends it by the mask's grey.",
    ),
    Setting(name="mode", part="mask", kind=str, choices=MASK_MODES, label="Mask mode", a1111="inpainting_mask_invert",
        help="Whether the white part of the mask is redrawn, or the rest.",
    ),
    Setting(name="content", part="mask", kind=str, choices=MASKED_CONTENT, absent="original", label="Masked content",
        a1111="inpainting_fill", help="What fills the masked part before it is redrawn.",
    ),
    Setting(name="area", part="mask", kind=str, choices=INPAINT_AREAS, label="Inpaint area", a1111="inpaint_full_res",
        help="Redraw at the whole picture's scale, or only the mask's surroundings, at the full size.",
    ),
    Setting(name="padding", part="mask", kind=int, low=0, high=1024, absent=32, label="Masked area padding",
        a1111="inpaint_full_res_padding", help="Pixels around the mask that are drawn with it under Only masked.",
    ),
    Setting(name="weight", part="mask", kind=float, low=0, high=1, label="Conditional mask weight", a1111="inpainting_mask_weight",
        help="How strongly the picture under the mask is hidden from an inpainting checkpoint.",
    ),
)  # fmt: skip
SETTINGS: tuple[Setting, ...] = (*PICTURE, *HIRES, *START, *MASK)
"""All rows, in the order of a settings text within each part."""


def range_of(key: str) -> tuple[int | float, int | float]:
    """Return the least and the greatest value of the setting with this key."""
    row = next(row for row in SETTINGS if row.key == key)
    return row.low, row.high


def check(value: object, rows: Iterable[Setting]) -> None:
    """Raise SpecError for the first field of a dataclass that its row does not allow."""
    for row in rows:
        row.check(getattr(value, row.name))
