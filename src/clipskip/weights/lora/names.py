"""Spellings of a module's name to its canonical name, by a table of the names that a model really has.

Underscored names (`down_blocks_0_attentions_1_proj_in`) cannot be split by a rule, because parts of names contain
underscores themselves; so every name of the model is spelled out once and looked up.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from types import MappingProxyType

from torch import nn

from clipskip.networks import TextShape, UNetShape, tensors_of
from clipskip.spec import Family
from clipskip.weights.keys import openclip_modules, rename, unet_layout, unet_modules

TEXT, TEXT_2, UNET = "text_encoder", "text_encoder_2", "unet"
PARTS = (TEXT, TEXT_2, UNET)
DEEPEST = 32
"""The text layers with known names: OpenCLIP bigG's. They name a LoRA for more layers than the model has."""
PREFIXES = (
    # kohya, and most who came after; the first of SDXL's two encoders is numbered, that of SD 1.x too by some
    ("lora_te1_", TEXT, "_"),
    ("lora_te2_", TEXT_2, "_"),
    ("lora_te_", TEXT, "_"),
    ("lora_unet_", UNET, "_"),
    ("oft_te1_", TEXT, "_"),
    ("oft_te2_", TEXT_2, "_"),
    ("oft_te_", TEXT, "_"),
    ("oft_unet_", UNET, "_"),
    # LyCORIS and SimpleTuner
    ("lycoris_te1_", TEXT, "_"),
    ("lycoris_te2_", TEXT_2, "_"),
    ("lycoris_te_", TEXT, "_"),
    ("lycoris_text_encoder_2_", TEXT_2, "_"),
    ("lycoris_text_encoder_", TEXT, "_"),
    ("lycoris_unet_", UNET, "_"),
    ("lycoris_", UNET, "_"),
    ("lycoris_", TEXT, "_"),
    # OneTrainer: kohya's prefixes before dotted names, and the layout that it calls OMI, with LDM's names for the UNet
    ("lora_te1.", TEXT, "."),
    ("lora_te2.", TEXT_2, "."),
    ("lora_te.", TEXT, "."),
    ("lora_unet.", UNET, "."),
    ("clip_l.", TEXT, "."),
    ("clip_h.", TEXT, "."),
    ("clip_g.", TEXT_2, "."),
    # ComfyUI: the names of its own state, as "Extract and Save" writes them
    ("text_encoders.clip_l.transformer.", TEXT, "."),
    ("text_encoders.clip_h.transformer.", TEXT, "."),
    ("text_encoders.clip_g.transformer.", TEXT_2, "."),
    ("text_encoders.clip_l.", TEXT, "."),
    ("text_encoders.clip_h.", TEXT, "."),
    ("text_encoders.clip_g.", TEXT_2, "."),
    ("clip_l.transformer.", TEXT, "."),
    ("clip_h.transformer.", TEXT, "."),
    ("clip_g.transformer.", TEXT_2, "."),
    ("diffusion_model.", UNET, "."),
    # diffusers and peft
    ("text_encoder.", TEXT, "."),
    ("text_encoder_2.", TEXT_2, "."),
    ("unet.", UNET, "."),
    # single files' own names
    ("model.diffusion_model.", UNET, "."),
    ("cond_stage_model.transformer.", TEXT, "."),
    ("conditioner.embedders.0.transformer.", TEXT, "."),
    ("cond_stage_model.model.", TEXT, "."),
    ("conditioner.embedders.1.model.", TEXT_2, "."),
    # OpenCLIP's module within the wrapper that Stability's code puts around it
    ("lora_te_model_", TEXT, "_"),
    ("lora_te2_model_", TEXT_2, "_"),
    ("", UNET, "."),
    ("", TEXT, "."),
)
"""Prefixes of module names in files, the part that each belongs to, and the separator of its pieces. All that fit are
tried."""
PEFT = "base_model.model."
"""peft's prefix for the names of a wrapped model, at the start or after the part."""
IDLE = f"{TEXT}.text_projection"
"""What makes the pooled vector of an encoder whose pooled vector nothing reads: of all but SDXL's second. ComfyUI has it in
every encoder, and saves it with the rest."""
JOINT = "self_attn.in_proj"
"""OpenCLIP's one matrix for queries, keys and values, which are three modules here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NameTable:
    """Every spelling of the modules of one model."""

    spellings: Mapping[tuple[str, str], Mapping[str, str]]
    """By part and separator: the canonical full name of each spelling without its prefix."""
    ambiguous: frozenset[str]
    """Underscored spellings that two modules share; they resolve to nothing."""

    def resolve(self, head: str) -> str | None:
        """Return the canonical name of the module that a key's head names, or None."""
        plain = head.replace(PEFT, "", 1).replace(".processor.", ".").replace(".base_layer.", ".")
        for prefix, part, separator in PREFIXES:
            if plain.startswith(prefix):
                name = self.spellings.get((part, separator), {}).get(plain[len(prefix) :])
                if name is not None:
                    return name
        return None


def name_table(names: Iterable[str]) -> NameTable:
    """Return the table of the modules with these canonical full names."""
    names = tuple(names)
    spellings: dict[tuple[str, str], dict[str, str]] = {(part, sep): {} for part in PARTS for sep in "._"}
    ambiguous: set[str] = set()
    unet = [name.removeprefix("unet.") for name in names if name.startswith("unet.")]
    ldm = {ours: theirs for theirs, ours in unet_modules(unet_layout(unet)).items()}
    openclip = {ours: theirs for theirs, ours in openclip_modules(DEEPEST).items()}
    for layer, letter in product(range(DEEPEST), "qkv"):  # A1111's names for the thirds of the joint matrix
        openclip[f"encoder.layers.{layer}.self_attn.{letter}_proj"] = (
            f"transformer.resblocks.{layer}.attn.{letter}_proj"
        )
    for layer, end in product(range(DEEPEST), (".in_proj", ".in_proj_weight", "")):  # the last is peft's
        spelling = f"transformer.resblocks.{layer}.attn{end}"
        for part in {name.partition(".")[0] for name in names} - {UNET}:
            for separator in "._":
                name = f"{part}.encoder.layers.{layer}.{JOINT}"
                spellings[part, separator][spelling.replace(".", separator)] = name
    for name in (*names, IDLE):
        part, _, local = name.partition(".")
        for spelling in _module_spellings(part, local, ldm if part == UNET else openclip):
            spellings[part, "."][spelling] = name
            joined = spelling.replace(".", "_")
            if spellings[part, "_"].setdefault(joined, name) != name:
                ambiguous.add(joined)
    for part in PARTS:
        spellings[part, "_"] = {text: name for text, name in spellings[part, "_"].items() if text not in ambiguous}
    return NameTable(spellings=MappingProxyType(spellings), ambiguous=frozenset(ambiguous))


def _module_spellings(part: str, local: str, first: Mapping[str, str]) -> Iterator[str]:
    """Yield the ways in which files write one module, with dots; `first` has the names of the part's publishers."""
    if part == UNET:
        yield local
        yield local.removesuffix(".0") if local.endswith(".to_out.0") else local
        single = rename(local, first)
        if single is not None:
            yield single
        return
    single = rename(local, first)
    if single is not None:
        yield single
    # diffusers' first LoRAs named the text encoder's projections like the UNet's.
    attention, _, projection = local.rpartition(".")
    as_unet = f"{attention}.to_{projection.removesuffix('_proj')}" if attention.endswith(".self_attn") else local
    for name in (local, as_unet):
        yield from (name, f"text_model.{name}")


def module_names(modules: Mapping[str, nn.Module]) -> tuple[str, ...]:
    """Return the canonical full names of all modules with weights, in order: `text_encoder...` and `unet...`."""
    return tuple(
        f"{part}.{name}"
        for part, root in modules.items()
        for name, module in root.named_modules()
        if name and isinstance(getattr(module, "weight", None), nn.Parameter)
    )


def sd1_names(*, text_layers: int = 12) -> tuple[str, ...]:
    """Return the canonical full names of all modules with weights in SD 1.x."""
    text = TextShape(depth=text_layers, width=768, heads=12, mlp_width=3072)
    unet = UNetShape(
        block_out_channels=(320, 640, 1280, 1280),
        layers_per_block=2,
        cross_attention_dim=768,
        attention=(True, True, True, False),
        attention_heads=(8, 8, 8, 8),
    )
    tensors = [*(f"{TEXT}.{n}" for n in tensors_of(text)), *(f"{UNET}.{n}" for n in tensors_of(unet))]
    return tuple(name.removesuffix(".weight") for name in tensors if name.endswith(".weight"))


def sdxl_names() -> tuple[str, ...]:
    """Return the canonical full names of all modules with weights in SDXL: two text encoders, and deeper attention."""
    unet = UNetShape(
        block_out_channels=(320, 640, 1280),
        layers_per_block=2,
        cross_attention_dim=2048,
        attention=(False, True, True),
        attention_heads=(5, 10, 20),
    )
    first = TextShape(depth=12, width=768, heads=12, mlp_width=3072)
    second = TextShape(depth=32, width=1280, heads=20, mlp_width=5120)
    blocks = [*tensors_of(unet), "add_embedding.linear_1.weight", "add_embedding.linear_2.weight"]
    tensors = [
        *(f"{TEXT}.{name}" for name in tensors_of(first)),
        *(f"{TEXT_2}.{name}" for name in (*tensors_of(second), "text_projection.weight")),
        *(f"{UNET}.{deeper}" for name in blocks for deeper in _deepened(name)),
    ]
    return tuple(name.removesuffix(".weight") for name in tensors if name.endswith(".weight"))


def _deepened(name: str) -> Iterator[str]:
    """Yield a name in SDXL's first transformer block and in the others of its 2 or 10."""
    outer = re.match(r"(down_blocks\.1|up_blocks\.1)\.", name)
    for number in range((2 if outer else 10) if ".transformer_blocks.0." in name else 1):
        yield name.replace(".transformer_blocks.0.", f".transformer_blocks.{number}.")


@cache
def sd1_table() -> NameTable:
    """Return the table for SD 1.x and models of its block structure, with text layers to spare.

    Where the innermost two levels differ in width, as in the starter, there is one module more than in SD 1.x.
    """
    return name_table((*sd1_names(text_layers=DEEPEST), "unet.down_blocks.3.resnets.0.conv_shortcut"))


@cache
def sdxl_table() -> NameTable:
    """Return the table for SDXL and models of its block structure."""
    return name_table(sdxl_names())


def table_of(family: Family | None) -> NameTable:
    """Return the table of a family's modules: SD 2.x has SD 1.x's blocks, and an unknown family is tried as SD 1.x."""
    return sdxl_table() if family is Family.SDXL else sd1_table()


@cache
def table_for(family: Family, unet: UNetShape) -> NameTable:
    """Return the table of one model's modules: its family's, or its own where its UNet has other blocks."""
    own = tuple(name.removesuffix(".weight") for name in tensors_of(unet) if name.endswith(".weight"))
    known = sdxl_names() if family is Family.SDXL else sd1_names(text_layers=DEEPEST)
    if unet_layout(own) == unet_layout(name.removeprefix("unet.") for name in known if name.startswith("unet.")):
        return table_of(family)
    return name_table([*(name for name in known if not name.startswith("unet.")), *(f"{UNET}.{name}" for name in own)])
