"""Spellings of a module's name -> its canonical name, from a table made of the names that a model really has.

Underscored names (`down_blocks_0_attentions_1_proj_in`) cannot be split by rule, since parts of names contain
underscores themselves; so every name of the model is spelled out once and looked up.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from torch import nn

from clipskip.networks import TextShape, UNetShape, tensors_of
from clipskip.weights.keys import rename, unet_layout, unet_modules

TEXT, UNET = "text_encoder", "unet"
DEEPEST = 32
"""Text layers that names are known for: OpenCLIP bigG's. A LoRA for more layers than the model has is named by them."""
PREFIXES = (
    ("lora_te1_", TEXT, "_"),
    ("lora_te_", TEXT, "_"),
    ("lora_unet_", UNET, "_"),
    ("oft_te1_", TEXT, "_"),
    ("oft_te_", TEXT, "_"),
    ("oft_unet_", UNET, "_"),
    ("lycoris_te_", TEXT, "_"),
    ("lycoris_text_encoder_", TEXT, "_"),
    ("lycoris_unet_", UNET, "_"),
    ("lycoris_", UNET, "_"),
    ("lycoris_", TEXT, "_"),
    ("text_encoder.", TEXT, "."),
    ("unet.", UNET, "."),
    ("model.diffusion_model.", UNET, "."),
    ("diffusion_model.", UNET, "."),
    ("cond_stage_model.transformer.", TEXT, "."),
    ("", UNET, "."),
    ("", TEXT, "."),
)
"""How a module's name starts in a file, the part it belongs to, and what joins its pieces. All that fit are tried."""
PEFT = "base_model.model."
"""What peft puts before the names of a wrapped model: first, or after the part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NameTable:
    """Every spelling of the modules of one model."""

    spellings: Mapping[tuple[str, str], Mapping[str, str]]
    """(part, separator) -> spelling without its prefix -> canonical full name."""
    ambiguous: frozenset[str]
    """Underscored spellings that two modules share; they resolve to nothing."""

    def resolve(self, head: str) -> str | None:
        """The canonical name of the module that a key's head names, or None."""
        plain = head.replace(PEFT, "", 1).replace(".processor.", ".")
        for prefix, part, separator in PREFIXES:
            if plain.startswith(prefix):
                found = self.spellings[part, separator].get(plain[len(prefix) :])
                if found is not None:
                    return found
        return None


def name_table(names: Iterable[str]) -> NameTable:
    """The table of the modules with these canonical full names."""
    names = tuple(names)
    spellings: dict[tuple[str, str], dict[str, str]] = {(part, sep): {} for part in (TEXT, UNET) for sep in "._"}
    ambiguous: set[str] = set()
    unet = [name.removeprefix("unet.") for name in names if name.startswith("unet.")]
    ldm = {ours: theirs for theirs, ours in unet_modules(unet_layout(unet)).items()}
    for name in names:
        part, _, local = name.partition(".")
        for spelling in _spellings(part, local, ldm):
            spellings[part, "."][spelling] = name
            joined = spelling.replace(".", "_")
            if spellings[part, "_"].setdefault(joined, name) != name:
                ambiguous.add(joined)
    for part in (TEXT, UNET):
        spellings[part, "_"] = {text: name for text, name in spellings[part, "_"].items() if text not in ambiguous}
    return NameTable(spellings=MappingProxyType(spellings), ambiguous=frozenset(ambiguous))


def _spellings(part: str, local: str, ldm: Mapping[str, str]) -> Iterator[str]:
    """The ways in which files write one module, pieces joined by dots."""
    if part == UNET:
        yield local
        yield local.removesuffix(".0") if local.endswith(".to_out.0") else local
        single = rename(local, ldm)
        if single is not None:
            yield single
        return
    # diffusers' first LoRAs called the text encoder's projections as it called the UNet's.
    attention, _, projection = local.rpartition(".")
    first = f"{attention}.to_{projection.removesuffix('_proj')}" if attention.endswith(".self_attn") else local
    for name in (local, first):
        yield from (name, f"text_model.{name}")


def module_names(modules: Mapping[str, nn.Module]) -> tuple[str, ...]:
    """The canonical full names of all modules with weights, in order: `text_encoder...` and `unet...`."""
    return tuple(
        f"{part}.{name}"
        for part, root in modules.items()
        for name, module in root.named_modules()
        if name and isinstance(getattr(module, "weight", None), nn.Parameter)
    )


def sd1_names(*, text_layers: int = 12) -> tuple[str, ...]:
    """The canonical full names of all modules with weights in SD 1.x."""
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


@cache
def sd1_table() -> NameTable:
    """The table for SD 1.x and models of its block structure, with text layers to spare.

    Where the innermost two levels differ in width, as in the starter, there is one module more than SD 1.x has.
    """
    return name_table((*sd1_names(text_layers=DEEPEST), "unet.down_blocks.3.resnets.0.conv_shortcut"))
