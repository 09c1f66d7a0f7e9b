"""The layer that conditions the picture: one value type, one rule."""

import math
import re
from dataclasses import dataclass

from clipskip.errors import SkipOutOfRange, SpecError


@dataclass(frozen=True, slots=True, order=True)
class ClipSkip:
    """The layer to read, counted from the end: 1 is the last layer (A1111's number).

    A fraction lies between two layers: 1.5 is half-way between the last and the one before it,
    mixed before the final norm. The range is 1 to the encoder's depth; `check` says so by name.
    """

    from_end: float

    def __post_init__(self) -> None:
        number = self.from_end
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise SkipOutOfRange(
                f"clip skip {number!r} is not a number; use 1 (the last layer) or more", field="clip_skip"
            )
        if number < 1:
            raise SkipOutOfRange(
                f"clip skip {number:g} does not exist: 1 is the last layer; use 1 or more", field="clip_skip"
            )
        object.__setattr__(self, "from_end", int(number) if float(number).is_integer() else float(number))

    @classmethod
    def from_a1111(cls, clip_skip: int) -> "ClipSkip":
        """A1111's and Forge's slider on SD 1.x."""
        return cls(clip_skip)

    @classmethod
    def from_comfy(cls, stop_at_clip_layer: int) -> "ClipSkip":
        """ComfyUI's CLIPSetLastLayer: -1 is the last layer."""
        return cls(-stop_at_clip_layer)

    @classmethod
    def from_diffusers(cls, clip_skip: int | None) -> "ClipSkip":
        """diffusers' argument on SD 1.x: layers skipped, None for none."""
        return cls(1 + (clip_skip or 0))

    @classmethod
    def from_invoke(cls, skipped_layers: int) -> "ClipSkip":
        """InvokeAI's field on SD 1.x: layers skipped."""
        return cls(1 + skipped_layers)

    @classmethod
    def from_sdnext(cls, clip_skip: float) -> "ClipSkip":
        """SD.Next's slider on SD 1.x, fractions included."""
        return cls(clip_skip)

    @classmethod
    def from_kohya(cls, clip_skip: int | None) -> "ClipSkip":
        """kohya's --clip_skip and ss_clip_skip on SD 1.x: None is the last layer."""
        return cls(clip_skip or 1)

    @classmethod
    def from_sdcpp(cls, clip_skip: int) -> "ClipSkip":
        """stable-diffusion.cpp's --clip-skip on SD 1.x: 0 and below leave it to the model, which is 1."""
        return cls(max(clip_skip, 1))

    @classmethod
    def parse(cls, text: str) -> "ClipSkip":
        """The Clip Skip that a user typed: "2" or "1.5"."""
        if not re.fullmatch(r"\s*[+-]?\d+(\.\d*)?\s*", text):
            raise SkipOutOfRange(
                f"clip skip {text!r} is not a number; use 1 (the last layer) or more", field="clip_skip"
            )
        return cls(float(text))

    def __str__(self) -> str:
        return f"{self.from_end:g}" if self.from_end < 1e6 else str(self.from_end)

    @property
    def fraction(self) -> float:
        """How far from layer `shallow` towards the next deeper skip: 0 for whole numbers."""
        return self.from_end - math.floor(self.from_end)

    @property
    def shallow(self) -> int:
        """The whole Clip Skip at or above this layer."""
        return math.floor(self.from_end)

    @property
    def deep(self) -> int:
        """The whole Clip Skip at or below this layer: equal to `shallow` for whole numbers."""
        return math.ceil(self.from_end)

    def check(self, depth: int) -> "ClipSkip":
        """This Clip Skip, or SkipOutOfRange when an encoder of `depth` layers has no such layer."""
        if self.from_end > depth:
            raise SkipOutOfRange(
                f"clip skip {self} is deeper than this encoder's {depth} layers; use 1 to {depth}", field="clip_skip"
            )
        return self


def parse_skips(text: str) -> tuple[ClipSkip, ...]:
    """The Clip Skips of a sweep, as a user types them: "1-5", "1,2,4", "1-12", "1-3:0.5", "2"."""
    found: list[ClipSkip] = []
    for part in text.split(","):
        span = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*-\s*(\d+(?:\.\d+)?)\s*(?::\s*(\d+(?:\.\d+)?))?\s*", part)
        if span is None:
            found.append(ClipSkip.parse(part))
            continue
        first, last, step = float(span[1]), float(span[2]), float(span[3] or 1)
        if last < first or step <= 0 or (last - first) / step > 1000:
            raise SpecError(
                f"clip skip range {part.strip()!r} is empty or too long; write it as 1-5 or 1-3:0.5", field="clip_skip"
            )
        count = math.floor((last - first) / step + 1e-9)
        found += [ClipSkip(round(first + i * step, 6)) for i in range(count + 1)]
    return tuple(dict.fromkeys(found))
