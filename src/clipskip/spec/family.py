"""The differences between families of models, as rows of one table."""

import re
from dataclasses import dataclass
from enum import Enum
from math import log

from clipskip.errors import SpecError

END = 49407
"""The token that ends a text, and fills the rest of a chunk where a family has no padding token of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextReading:
    """The way in which a family reads one of its text encoders."""

    name: str
    """CLIP-L, OpenCLIP-H or OpenCLIP-bigG."""
    depth: int
    """Number of layers in the whole network."""
    width: int
    """Width of a token's vector."""
    padding: int = END
    """The token that fills a chunk after its first end token."""
    pooled: bool = False
    """Whether its pooled vector conditions too: the last layer at the end token, normed and projected, whatever the
    skip."""

    def whole_depth(self, stored: int, *, width: int) -> int:
        """Return the depth of the whole network for a file of this width with so many layers: SD 2.x folders lack the
        last."""
        return max(stored, self.depth) if width == self.width else stored


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyRow:
    """One family's row."""

    label: str
    names: tuple[str, ...] = ()
    """Other names that users have for it, compared without case, spaces and punctuation."""
    encoders: tuple[TextReading, ...] = ()
    default_skip: int = 1
    final_norm: bool = True
    """Whether the final norm is applied to the layer that was read."""
    native_px: int = 512
    """Side of the pictures that its models are trained on, where a file does not tell."""
    sizes: tuple[tuple[int, int], ...] = ()
    """Width and height of the shapes that its models are trained on, where they are more than a square."""
    unet_heads: int | None = 8
    """Attention heads at each of the UNet's levels; None means one for every 64 channels."""
    latent_scale: float = 0.18215
    """The factor on its VAE's latents for the UNet."""
    why_not: str = ""
    """Why Clip Skip has no meaning here; empty where it has one."""
    moves: str = ""
    """What ComfyUI's CLIPSetLastLayer changes here nevertheless."""


CLIP_L = TextReading(name="CLIP-L", depth=12, width=768)
OPENCLIP_H = TextReading(name="OpenCLIP-H", depth=24, width=1024, padding=0)
OPENCLIP_G = TextReading(name="OpenCLIP-bigG", depth=32, width=1280, padding=0, pooled=True)

_UPRIGHT = (
    (512, (2048, 1984, 1920, 1856)), (576, (1792, 1728, 1664)), (640, (1600, 1536)), (704, (1472, 1408, 1344)),
    (768, (1344, 1280)), (832, (1216, 1152)), (896, (1152, 1088)), (960, (1088, 1024)),
)  # fmt: skip
"""Podell et al. 2023 (SDXL), appendix I: the heights that go with each width; each shape lies down too."""
SDXL_SIZES = (
    (1024, 1024),
    *((width, height) for width, heights in _UPRIGHT for height in heights),
    *((height, width) for width, heights in _UPRIGHT for height in heights),
)
"""The sizes that SDXL was trained at."""


class Family(Enum):
    """A family of models with the same rule for Clip Skip."""

    SD1 = FamilyRow(label="SD 1.x", names=("sd1", "sd14", "sd15", "starter"), encoders=(CLIP_L,))
    SD2 = FamilyRow(
        label="SD 2.x", names=("sd2", "sd20", "sd21"), encoders=(OPENCLIP_H,), default_skip=2, unet_heads=None
    )
    SDXL = FamilyRow(
        label="SDXL",
        names=("xl", "sdxl10", "pony", "illustrious", "noobai"),
        encoders=(CLIP_L, OPENCLIP_G),
        default_skip=2,
        final_norm=False,
        native_px=1024,
        sizes=SDXL_SIZES,
        unet_heads=None,
        latent_scale=0.13025,
    )
    SD3 = FamilyRow(
        label="SD 3",
        names=("sd3", "sd35"),
        why_not="its T5 encoder carries the prompt, and its CLIP layers are fixed by training",
        moves="the layer of T5, and those of both CLIP encoders",
    )
    FLUX = FamilyRow(
        label="Flux",
        names=("flux1",),
        why_not="its T5 encoder carries the prompt, and CLIP gives it one pooled vector alone",
        moves="the layer of T5",
    )
    CHROMA = FamilyRow(label="Chroma", why_not="T5 alone reads the prompt", moves="the layer of T5")
    T5 = FamilyRow(
        label="models with T5 alone",
        names=("pixart", "auraflow"),
        why_not="no CLIP encoder reads the prompt, so there is no layer to skip to",
        moves="the layer of T5",
    )
    LUMINA2 = FamilyRow(
        label="Lumina 2",
        names=("lumina", "neta"),
        why_not="Gemma 2, a language model, reads the prompt",
        moves="the layer of Gemma 2, whose own is the one before the last",
    )
    QWEN_IMAGE = FamilyRow(
        label="Qwen-Image",
        names=("qwen",),
        why_not="Qwen2.5-VL, a language model, reads the prompt",
        moves="the layer of Qwen2.5-VL, whose own is the last",
    )
    Z_IMAGE = FamilyRow(
        label="Z-Image",
        names=("zimageturbo",),
        why_not="Qwen3 4B, a language model, reads the prompt",
        moves="the layer of Qwen3, whose own is the one before the last",
    )
    ANIMA = FamilyRow(
        label="Anima",
        why_not="Qwen3 0.6B, a language model, reads the prompt",
        moves="the layer of Qwen3, whose own is the last",
    )
    HIDREAM = FamilyRow(
        label="HiDream",
        names=("hidreami1",),
        why_not="LLaMA and T5 read the prompt, and CLIP gives one pooled vector alone",
        moves="the layer of T5, and leaves one layer of LLaMA where the model wants all",
    )

    @property
    def label(self) -> str:
        """The name that users know."""
        return self.value.label

    @property
    def usable(self) -> bool:
        """Return whether Clip Skip has a meaning for this family."""
        return not self.value.why_not

    @property
    def why_not(self) -> str:
        """Why Clip Skip has no meaning for this family; empty where it has one."""
        return self.value.why_not

    def size_like(self, width: int, height: int) -> tuple[int, int] | None:
        """Return the size in training whose shape is nearest to this one's; None where all were squares."""
        shape = width / height
        return min(self.value.sizes, key=lambda size: abs(log(size[0] / size[1] / shape)), default=None)

    @property
    def means_nothing(self) -> str:
        """The message for users who ask for Clip Skip on a family without it."""
        return (
            f"Clip Skip means nothing on {self.label}: {self.why_not}. ComfyUI's CLIPSetLastLayer would move "
            f"{self.value.moves}. A `Clip skip: 2` in such a picture's settings is noise: leave it out"
        )

    @property
    def depth(self) -> int:
        """The deepest Clip Skip: the depth of the shallowest encoder."""
        return min((encoder.depth for encoder in self.value.encoders), default=0)

    @property
    def default_skip(self) -> int:
        """The Clip Skip of a picture that names none."""
        return self.value.default_skip

    @classmethod
    def parse(cls, name: str) -> "Family":
        """Parse the family that a user typed: sd1, "SD 1.5", sdxl, pony."""
        plain = _family_key(name)
        for family in cls:
            if plain in (_family_key(family.label), family.name.lower(), *family.value.names):
                return family
        known = ", ".join(family.name.lower() for family in cls)
        raise SpecError(f"the family {name!r} is unknown; use one of {known}", field="family")


def _family_key(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()
