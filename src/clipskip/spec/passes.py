"""The start of a picture that does not begin at noise alone, and the larger pass that may follow."""

from dataclasses import dataclass, replace

from clipskip.errors import SpecError
from clipskip.spec.lora import LoraRef
from clipskip.spec.table import (
    HIRES,
    INPAINT_AREAS,
    MASK,
    MASK_EDGES,
    MASK_MODES,
    MASKED_CONTENT,
    REFINED_PASSES,
    RESIZE_MODES,
    START,
    check,
)

LATENT = "Latent"
LATENT_PX = 8
"""Pixels per latent cell, each way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """The part of a picture that is drawn anew, as in A1111's inpainting: white is drawn, black is kept."""

    hash: str
    """32 hex digits of its pixels."""
    blur: int = 4
    """Pixels across, and up and down where `blur_y` is None."""
    blur_y: int | None = None
    edge: str = MASK_EDGES[0]
    """Hard: a latent cell is drawn or kept whole. Soft: a grey one is a mixture of both at each step."""
    weight: float = 1.0
    """How much of the picture under the mask an inpainting model does not see; others are not shown it."""
    mode: str = MASK_MODES[0]
    content: str = MASKED_CONTENT[1]
    """The initial content of the masked part: the colours around it, the picture itself, noise or nothing."""
    area: str = INPAINT_AREAS[0]
    padding: int = 32
    """In pixels; used where only the mask's surroundings are drawn."""

    def __post_init__(self) -> None:
        check(self, MASK)

    @property
    def rounded(self) -> bool:
        """Return whether grey counts as black or white."""
        return self.edge == MASK_EDGES[0]

    @property
    def inverted(self) -> bool:
        """Return whether black is drawn and white is kept."""
        return self.mode == MASK_MODES[1]

    @property
    def cropped(self) -> bool:
        """Return whether only the mask's surroundings are drawn, at the render's size, and put back into the picture."""
        return self.area == INPAINT_AREAS[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A picture that drawing begins at, instead of noise alone."""

    hash: str
    """32 hex digits of its pixels."""
    strength: float = 0.75
    """A1111's denoising strength, 0 to 1: how much of the way down is drawn anew."""
    resize_mode: str = RESIZE_MODES[0]
    noise_multiplier: float = 1.0
    """Of the noise that is put into the picture at the beginning."""
    mask: Mask | None = None

    def __post_init__(self) -> None:
        check(self, START)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hires:
    """A second pass over the enlarged picture: A1111's hires fix."""

    upscaler: str = LATENT
    """Latent or one of its variants, None, Lanczos, Nearest, or the name of an upscaler model."""
    upscaler_hash: str = ""
    """First 10 hex digits of the sha256 of an upscaler model's file."""
    scale: float = 2.0
    """Used where neither width nor height is given."""
    width: int = 0
    height: int = 0
    """A side of 0 follows from the other; where both are given, what exceeds the size is cut off."""
    steps: int = 0
    """0 means as many as in the first pass."""
    strength: float = 0.7
    """A1111's denoising strength; at 0 the picture is only enlarged."""
    sampler: str | None = None
    scheduler: str | None = None
    """None means the first pass's own, as for the sampler and the prompts."""
    prompt: str | None = None
    negative_prompt: str | None = None
    loras: tuple[LoraRef, ...] | None = None
    """The LoRAs of the second pass's own prompt; None means the picture's."""
    refined: str = REFINED_PASSES[1]
    """The pass in which a refiner takes over; each begins with the model itself, as in A1111."""

    def __post_init__(self) -> None:
        check(self, HIRES)

    @property
    def with_tags(self) -> "Hires":
        """The same pass as a user would ask for it, with its LoRAs as tags of its prompt."""
        tags = [lora.tag for lora in self.loras or ()]
        prompt = self.prompt if self.loras is None else " ".join(filter(None, [self.prompt, *tags]))
        return replace(self, prompt=prompt, loras=None)

    def refines(self, *, second: bool) -> bool:
        """Return whether a refiner takes over in the second pass, or else in the first."""
        return self.refined != REFINED_PASSES[0 if second else 1]

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the enlarged size, in pixels, of a picture of this size, before anything is cut off."""
        if not (self.width or self.height):
            return int(width * self.scale), int(height * self.scale)
        if not self.height or (self.width and width / height < self.width / self.height):
            return self.width, self.width * height // width
        return self.height * width // height, self.height

    def cut(self, width: int, height: int) -> tuple[int, int]:
        """Return how many latent cells, across and down, exceed the size asked for."""
        across, down = self.size(width, height)
        if not (self.width and self.height):
            return 0, 0
        return (across - self.width) // LATENT_PX, (down - self.height) // LATENT_PX

    def check_size(self, width: int, height: int) -> None:
        """Raise SpecError when the enlarged picture is too small or too large to be drawn."""
        across, down = self.size(width, height)
        rows = {row.name: row for row in HIRES}
        if not (LATENT_PX <= across <= rows["width"].high and LATENT_PX <= down <= rows["height"].high):
            raise SpecError(
                f"the second pass would be {across} x {down} pixels; at most {rows['width'].high} each way are possible: "
                "ask for a smaller hires scale or size",
                field="hires_scale",
            )
