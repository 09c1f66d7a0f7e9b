"""The family of models that a LoRA was made for: by its keys, else its shapes, else its trainer's metadata."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from clipskip.spec import Family

Shapes = Mapping[str, tuple[int, ...]]

KEYS: tuple[tuple[str, Family | None, str], ...] = (
    (r"lora_te3_|text_encoder_3\.|.*joint_(transformer_)?blocks[._]\d", Family.SD3, ""),
    (r".*(double_blocks|single_blocks|single_transformer_blocks)[._]\d", Family.FLUX, ""),
    (
        r"(lora_)?transformer[._](?!text_model)"
        r"|(lora_unet_|lycoris_|(model\.)?diffusion_model\.|base_model\.model\.)?(transformer_blocks|blocks|layers)[._]\d"
        r"|lora_prior_|(text_encoders\.|lora_)?(t5|gemma|qwen|llama|umt5)",
        None,
        "a model other than Stable Diffusion 1, 2 and SDXL (its keys are a transformer's)",
    ),
    (r"lora_te2[._]|text_encoder_2\.|(text_encoders\.)?clip_g\.|.*(label_emb|add_embedding)[._]", Family.SDXL, ""),
    (r"(lora_|lycoris_)?(unet|diffusion_model|model\.diffusion_model)?.*transformer_blocks[._][1-9]", Family.SDXL, ""),
    (r"(text_encoders\.)?clip_h\.", Family.SD2, ""),
)
"""Patterns of keys that only one family's LoRAs have, with that family, or a label where it is unknown here."""
TEXT_IN: Mapping[int, Family] = {768: Family.SD1, 1024: Family.SD2, 2048: Family.SDXL}
"""Family by the width of the text that the UNet attends to."""
FIRST_OF_TWO = ("lora_te1_", "lora_te1.")
"""Prefixes of a text encoder that is numbered because there are two."""
ENCODER_IN: Mapping[int, Family] = {768: Family.SD1, 1024: Family.SD2}
"""Family by the width of a single text encoder. Metadata tells more, because SDXL's first is as wide as SD 1.x's."""
SECOND_AXIS = (
    r"(lora_down(\.weight)?|lora_A(\.[\w-]+)?(\.weight)?|lora(_linear_layer)?\.down\.weight|hada_w1_b|diff|set_weight)"
)
"""Parts whose second axis is the module's input width."""
_OUTERMOST = re.compile(
    r".*(down_blocks[._]0[._]attentions|up_blocks[._]3[._]attentions|input_blocks[._][12][._]1|output_blocks[._](9|10|11)[._]1)"
)
_TEXT_LAYER = re.compile(
    r"(?:lora_te_|lycoris_te_|text_encoder\.|(?:text_encoders\.)?clip_[lh]\.).*encoder[._]layers[._]([0-9]{1,3})[._]"
)
STATED = (
    (r"sdxl|xl-v1|xl_base|pony|illustrious|noobai", Family.SDXL),
    (r"sd3|diffusion-3", Family.SD3),
    (r"flux", Family.FLUX),
    (r"sd_?v?2|diffusion-v2", Family.SD2),
    (r"sd_?v?1|diffusion-v1", Family.SD1),
)
"""The base model as metadata names it (kohya's ss_base_model_version, Stability's modelspec.architecture)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraFamily:
    """A LoRA's family, and how it was recognised."""

    family: Family | None = None
    other: str = ""
    """The models that it is for, where their family is unknown here."""
    by_weights: bool = False
    """Whether keys and shapes show it."""
    stated: bool = False
    """Whether only the trainer's metadata states it. With neither, it is the usual family for such names."""

    @property
    def is_told(self) -> bool:
        """Return whether the file itself tells the family."""
        return self.by_weights or self.stated

    @property
    def label(self) -> str:
        """The family's name; empty where the file does not tell."""
        return self.family.label if self.family else self.other

    def excludes(self, model: Family) -> bool:
        """Return whether its weights or its metadata show that it is for another family than this model's."""
        return self.is_told and self.family is not model


def lora_family(shapes: Shapes, metadata: Mapping[str, str]) -> LoraFamily:
    """Return the family that a LoRA was made for.

    Keys and the UNet's shapes count before metadata, which people copy and edit.
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
    family = next((ENCODER_IN[width] for width in widths if width in ENCODER_IN), None)
    return LoraFamily(family=family) if family else _by_names(shapes)


def _by_names(shapes: Shapes) -> LoraFamily:
    """Return the family that the names alone leave open, for files whose widths are no family's, or that have none.

    SDXL's UNet has no attention in its outermost blocks; one text encoder with more than 12 layers is SD 2.x's.
    """
    layers = [int(match[1]) for key in shapes if (match := _TEXT_LAYER.match(key))]
    if layers and max(layers) >= Family.SD1.depth:
        return LoraFamily(family=Family.SD2)
    if not any(map(_OUTERMOST.match, shapes)):
        return LoraFamily()
    first = layers and max(layers) == Family.SD1.depth - 1
    return LoraFamily(family=Family.SD1) if first else LoraFamily(other="SD 1.x or SD 2.x")


def stated_family(metadata: Mapping[str, str]) -> Family | None:
    """Return the family that its metadata names."""
    words = f"{metadata.get('ss_base_model_version', '')} {metadata.get('modelspec.architecture', '')}"[:400].lower()
    return next((family for pattern, family in STATED if re.search(pattern, words)), None)


def _widths(module: str, shapes: Shapes) -> Iterator[int]:
    """Yield the input widths of modules with this name, from the parts that tell them."""
    pattern = re.compile(rf"{module}\.{SECOND_AXIS}")
    for key, shape in shapes.items():
        if len(shape) > 1 and pattern.fullmatch(key):
            yield shape[1]
        elif len(shape) > 1 and re.fullmatch(rf"{module}\.lokr_w1(_b)?", key):
            stem = key[: key.rindex(".")]
            larger = shapes.get(f"{stem}.lokr_w2") or shapes.get(f"{stem}.lokr_w2_b") or ()
            yield shape[1] * (larger[1] if len(larger) > 1 else 0)


def text_width(shapes: Shapes) -> int | None:
    """Return the width of the text encoder that a LoRA was made for; None when its shapes do not tell."""
    texts = chain(_widths(r".*attn2[._]to_[kv]", shapes), _widths(r".*self_attn[._][qkv]_proj", shapes))
    return next(texts, None)
