"""What differs between families of models: a row in one table, not a branch."""

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True, kw_only=True)
class TextReading:
    """How a family's text encoder is read."""

    name: str
    """CLIP-L, OpenCLIP-H or OpenCLIP-bigG."""
    depth: int
    """Layers in the whole network."""
    width: int
    """Numbers per token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyRow:
    """One family's rule."""

    label: str
    encoders: tuple[TextReading, ...] = ()
    default_skip: int = 1
    final_norm: bool = True
    """Whether the final norm follows the layer that was read."""
    pooled: bool = False
    """Whether a pooled vector conditions too; the skip leaves it alone."""
    why_not: str = ""
    """Why Clip Skip means nothing here; empty where it means something."""


CLIP_L = TextReading(name="CLIP-L", depth=12, width=768)
OPENCLIP_H = TextReading(name="OpenCLIP-H", depth=24, width=1024)
OPENCLIP_G = TextReading(name="OpenCLIP-bigG", depth=32, width=1280)


class Family(Enum):
    """A family of models that one rule of Clip Skip fits."""

    SD1 = FamilyRow(label="SD 1.x", encoders=(CLIP_L,))
    SD2 = FamilyRow(label="SD 2.x", encoders=(OPENCLIP_H,), default_skip=2)
    SDXL = FamilyRow(label="SDXL", encoders=(CLIP_L, OPENCLIP_G), default_skip=2, final_norm=False, pooled=True)
    SD3 = FamilyRow(
        label="SD 3", why_not="its T5 encoder carries the prompt, and its CLIP layers are fixed by training"
    )
    FLUX = FamilyRow(
        label="Flux", why_not="its T5 encoder carries the prompt, and CLIP gives it one pooled vector alone"
    )

    @property
    def label(self) -> str:
        """The name that users know."""
        return self.value.label

    @property
    def usable(self) -> bool:
        """Whether Clip Skip means something here."""
        return not self.value.why_not

    @property
    def why_not(self) -> str:
        """Why Clip Skip means nothing here, or nothing."""
        return self.value.why_not

    @property
    def depth(self) -> int:
        """The deepest Clip Skip: that of the shallowest encoder."""
        return min((encoder.depth for encoder in self.value.encoders), default=0)
