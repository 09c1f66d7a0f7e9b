"""Which family of models a LoRA was made for: by its keys, else by its shapes, else by what its trainer wrote."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from clipskip.spec.family import Family

Shapes = Mapping[str, tuple[int, ...]]

KEYS: tuple[tuple[str, Family | None, str], ...] = (
    (r"lora_te3_|text_encoder_3\.|.*joint_(transformer_)?blocks[._]\d", Family.SD3, ""),
    (r".*(double_blocks|single_blocks|single_transformer_blocks)[._]\d", Family.FLUX, ""),
    (
        r"(lora_)?transformer[._](?!text_model)|(lora_unet_|diffusion_model\.)?(blocks|layers)[._]\d"
        r"|lora_prior_|(text_encoders\.|lora_)?(t5|gemma|qwen|llama|umt5)",
        None,
        "a model that is no Stable Diffusion 1 or 2 and no SDXL (its keys are a transformer's)",
    ),
    (r"lora_te2[._]|text_encoder_2\.|(text_encoders\.)?clip_g\.|.*(label_emb|add_embedding)[._]", Family.SDXL, ""),
    (r"(lora_|lycoris_)?(unet|diffusion_model|model\.diffusion_model)?.*transformer_blocks[._][1-9]", Family.SDXL, ""),
    (r"(text_encoders\.)?clip_h\.", Family.SD2, ""),
)
"""How keys start that only one family's LoRAs have, and whose they are; a label where that is no family known here."""
TEXT_IN: Mapping[int, Family] = {768: Family.SD1, 1024: Family.SD2, 2048: Family.SDXL}
"""Width of the text that the UNet attends to."""
FIRST_OF_TWO = ("lora_te1_", "lora_te1.")
"""How a text encoder is numbered where there are two."""
ENCODER_IN: Mapping[int, Family] = {768: Family.SD1, 1024: Family.SD2}
"""Width of a single text encoder, which says less than metadata: SDXL's first is as wide as SD 1.x's."""
SECOND_AXIS = (
    r"(lora_down(\.weight)?|lora_A(\.[\w-]+)?(\.weight)?|lora(_linear_layer)?\.down\.weight|hada_w1_b|diff|set_weight)"
)
"""Parts whose second axis is what the module takes in."""
STATED = (
    (r"sdxl|xl-v1|xl_base|pony|illustrious|noobai", Family.SDXL),
    (r"sd3|diffusion-3", Family.SD3),
    (r"flux", Family.FLUX),
    (r"sd_?v?2|diffusion-v2", Family.SD2),
    (r"sd_?v?1|diffusion-v1", Family.SD1),
)
"""What metadata says of the base model (kohya's ss_base_model_version, Stability's modelspec.architecture)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraFamily:
    """A family, and how it was told."""

    family: Family | None = None
    other: str = ""
    """What models it is for where that is no family known here."""
    by_weights: bool = False
    """Whether keys and shapes say so."""
    stated: bool = False
    """Whether its trainer wrote so, where keys and shapes do not tell; with neither it is what is usual for its names."""

    @property
    def said(self) -> bool:
        """Whether the file says so itself."""
        return self.by_weights or self.stated

    @property
    def label(self) -> str:
        """The family's name, or nothing where it cannot be told."""
        return self.family.label if self.family else self.other

    def excludes(self, model: Family) -> bool:
        """Whether its weights or its trainer say that it is for another family than this model's."""
        return self.said and self.family is not model


def lora_family(shapes: Shapes, metadata: Mapping[str, str]) -> LoraFamily:
    """The family that a LoRA was made for.

    Keys and the UNet's shapes go before metadata, which is copied and edited.
    """
    for pattern, family, other in KEYS:
        if any(re.match(pattern, key) for key in shapes):
            return LoraFamily(family=family, other=other, by_weights=True)
    seen = next((TEXT_IN[width] for width in _widths(r".*attn2[._]to_[kv]", shapes) if width in TEXT_IN), None)
    if seen is not None:
        return LoraFamily(family=seen, by_weights=True)
    stated = stated_family(metadata)
    if stated is not None:
        return LoraFamily(family=stated, stated=True)
    if any(key.startswith(FIRST_OF_TWO) for key in shapes):
        return LoraFamily(family=Family.SDXL)
    widths = _widths(r".*self_attn[._][qkv]_proj", shapes)
    return LoraFamily(family=next((ENCODER_IN[width] for width in widths if width in ENCODER_IN), None))


def stated_family(metadata: Mapping[str, str]) -> Family | None:
    """The family that its metadata names."""
    said = f"{metadata.get('ss_base_model_version', '')} {metadata.get('modelspec.architecture', '')}"[:400].lower()
    return next((family for pattern, family in STATED if re.search(pattern, said)), None)


def _widths(module: str, shapes: Shapes) -> Iterator[int]:
    """What modules of this name take in, by the parts that tell."""
    pattern = re.compile(rf"{module}\.{SECOND_AXIS}")
    for key, shape in shapes.items():
        if len(shape) > 1 and pattern.fullmatch(key):
            yield shape[1]
        elif len(shape) > 1 and re.fullmatch(rf"{module}\.lokr_w1(_b)?", key):
            stem = key[: key.rindex(".")]
            larger = shapes.get(f"{stem}.lokr_w2") or shapes.get(f"{stem}.lokr_w2_b") or ()
            yield shape[1] * (larger[1] if len(larger) > 1 else 0)


def text_width(shapes: Shapes) -> int | None:
    """Numbers per token of the text that a LoRA was made for, or None when its shapes do not tell."""
    texts = chain(_widths(r".*attn2[._]to_[kv]", shapes), _widths(r".*self_attn[._][qkv]_proj", shapes))
    return next(texts, None)
