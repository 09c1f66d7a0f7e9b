"""Every tensor's canonical name: diffusers' for UNet and VAE, the flat CLIPTextModel's for text encoders.

Checkpoints name the same tensors in several ways: LDM (CompVis' single files), OpenCLIP (SD 2 and SDXL text encoders,
with q, k and v in one matrix), and Hugging Face's with and without `text_model.`. Each way is a table of module names,
read in both directions. The correspondence is that of diffusers' `convert_ldm_*_checkpoint`
(loaders/single_file_utils.py); tests compare the tables with it.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

Shapes = Mapping[str, tuple[int, ...]]

PREFIXES = (
    ("model.diffusion_model.", "unet"),
    ("diffusion_model.", "unet"),
    ("first_stage_model.", "vae"),
    ("cond_stage_model.transformer.text_model.", "text_encoder"),
    ("cond_stage_model.transformer.", "text_encoder"),
    ("cond_stage_model.model.", "text_encoder"),
    ("conditioner.embedders.0.transformer.text_model.", "text_encoder"),
    ("conditioner.embedders.0.transformer.", "text_encoder"),
    ("conditioner.embedders.0.model.", "text_encoder_2"),
    ("conditioner.embedders.1.model.", "text_encoder_2"),
    ("unet/", "unet"),
    ("vae/", "vae"),
    ("text_encoder/text_model.", "text_encoder"),
    ("text_encoder/", "text_encoder"),
    ("text_encoder_2/text_model.", "text_encoder_2"),
    ("text_encoder_2/", "text_encoder_2"),
)
"""Prefixes of names, and the part that each belongs to. A refiner's only encoder is SDXL's second one."""
TEXT_PARTS = ("text_encoder", "text_encoder_2")
"""The parts that are text encoders, in the order of their vectors."""
BARE = (
    (r"(input_blocks|output_blocks|middle_block|time_embed|label_emb|out\.[02])\.", "unet"),
    (r"(down_blocks|up_blocks|mid_block|conv_in|conv_out|conv_norm_out|time_embedding|add_embedding)\.", "unet"),
    (r"(en|de)coder\.(conv_|norm_out|mid|down|up)|(post_)?quant_conv\.", "vae"),
    (r"(transformer\.)?text_model\.", "text_encoder"),
    (
        r"(embeddings\.|encoder\.layers\.|final_layer_norm\.|transformer\.resblocks\.|token_embedding\.|ln_final\.)",
        "text_encoder",
    ),
)
"""Patterns for files of a single part, which use no prefix."""
RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
UNET_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
VAE_RESNET = {name: name for name in ("norm1", "conv1", "norm2", "conv2")} | {"nin_shortcut": "conv_shortcut"}
VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
VAE_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""diffusers' names before 0.16."""
OPENCLIP_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
IGNORED = ("embeddings.position_ids", "logit_scale", "attn_mask")
"""Buffers of text encoders that some tools store, sometimes as floats; nothing reads them."""

SCALES = (".scale_weight", ".weight_scale")
"""Endings of what ComfyUI's files of scaled fp8 multiply a module's weight by: one number, or one for each output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSource:
    """The place in a file from which one canonical tensor is read."""

    name: str
    """The name in the file."""
    shape: tuple[int, ...]
    """The canonical shape; a 1x1 convolution's weight is reshaped to it."""
    third: int | None = None
    """0, 1 or 2: the third of a joint q, k and v along the first axis."""
    transposed: bool = False
    scale: str | None = None
    """The name of what the numbers are multiplied by, in files of scaled fp8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetLayout:
    """The layout on which LDM's numbering of blocks depends."""

    layers_per_block: int
    attention: tuple[bool, ...]
    """Whether each level has attention, from the outermost in."""


def split_parts(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return, for each part, the names in the file by the names within the part; names of no part are left out."""
    parts: dict[str, dict[str, str]] = {}
    bare: list[str] = []
    for name in names:
        plain = name.removeprefix("state_dict.")
        match = next(((prefix, part) for prefix, part in PREFIXES if plain.startswith(prefix)), None)
        if match is None:
            bare.append(name)
        else:
            parts.setdefault(match[1], {})[plain.removeprefix(match[0])] = name
    prefixed = set(parts)
    for name in bare:
        plain = name.removeprefix("state_dict.")
        part = next((part for pattern, part in BARE if re.match(pattern, plain)), None)
        if part is not None and part not in prefixed:
            parts.setdefault(part, {})[re.sub(r"^(transformer\.)?text_model\.", "", plain)] = name
    return parts


def canonical(shapes: Shapes) -> dict[str, dict[str, TensorSource]]:
    """Return, for each part, the source of each tensor by its canonical name."""
    parts = split_parts(shapes)
    return {
        part: {new: _scaled(source, shapes) for new, source in _sources(part, names, shapes)}
        for part, names in parts.items()
    }


def _scaled(source: TensorSource, shapes: Shapes) -> TensorSource:
    """Return the source with its scale, where the file has one for it."""
    module = source.name.removesuffix(".weight")
    found = (module + end for end in SCALES if source.name != module and module + end in shapes)
    return replace(source, scale=next(found, None)) if source.name.endswith(".weight") else source


def ldm_names(part: str, shapes: Shapes) -> dict[str, str]:
    """Return the name in a single file (LDM layout) by canonical name, with its prefix."""
    if part == "text_encoder":
        return {name: f"cond_stage_model.transformer.text_model.{name}" for name in shapes}
    prefix = {"unet": "model.diffusion_model.", "vae": "first_stage_model."}[part]
    forward = unet_modules(unet_layout(shapes)) if part == "unet" else vae_modules(*vae_layout(shapes))
    table = {ours: theirs for theirs, ours in forward.items()}
    renamed = {name: rename(name, table) for name in shapes}
    unnamed = [name for name, new in renamed.items() if new is None]
    assert not unnamed, f"no LDM name for {unnamed[:3]}"
    return {name: f"{prefix}{new}" for name, new in renamed.items()}


def rename(name: str, modules: Mapping[str, str]) -> str | None:
    """Return the name with its longest known module replaced; None where it contains no known module."""
    head, tail = name, ""
    while True:
        if head in modules:
            return modules[head] + tail
        head, dot, last = head.rpartition(".")
        if not dot:
            return None
        tail = f".{last}{tail}"


def unet_layout(names: Iterable[str]) -> UNetLayout:
    """Return the layout of a UNet in LDM's or diffusers' names."""
    names = tuple(names)
    if any(name.startswith("input_blocks.") for name in names):
        return _ldm_layout(names)
    levels = 1 + max(_indices(r"down_blocks\.([0-9][0-9]?)\.", names), default=-1)
    layers = 1 + max(_indices(r"down_blocks\.0\.resnets\.([0-9][0-9]?)\.", names), default=-1)
    attended = set(_indices(r"down_blocks\.([0-9][0-9]?)\.attentions\.", names))
    return UNetLayout(layers_per_block=layers, attention=tuple(i in attended for i in range(levels)))


def _ldm_layout(names: tuple[str, ...]) -> UNetLayout:
    # A downsampler ends each level but the last: its number is a multiple of layers + 1, even where one is missing.
    blocks = 1 + max(_indices(r"input_blocks\.([0-9][0-9]?)\.", names), default=0)
    step = math.gcd(*_indices(r"input_blocks\.([0-9][0-9]?)\.0\.op\.", names)) or blocks
    attended = {(i - 1) // step for i in _indices(r"input_blocks\.([0-9][0-9]?)\.1\.", names)}
    return UNetLayout(layers_per_block=step - 1, attention=tuple(i in attended for i in range(-(-blocks // step))))


def unet_modules(layout: UNetLayout) -> dict[str, str]:
    """Return diffusers' module by LDM's module, for a whole UNet."""
    modules = dict(UNET_ENDS)
    step, levels = layout.layers_per_block + 1, len(layout.attention)
    for level, attended in enumerate(layout.attention):
        down, up = f"down_blocks.{level}", f"up_blocks.{levels - 1 - level}"
        for layer in range(layout.layers_per_block):
            block = 1 + level * step + layer
            modules |= _resnet(f"input_blocks.{block}.0", f"{down}.resnets.{layer}")
            modules[f"input_blocks.{block}.1"] = f"{down}.attentions.{layer}"
        for layer in range(step):
            block = (levels - 1 - level) * step + layer
            modules |= _resnet(f"output_blocks.{block}.0", f"{up}.resnets.{layer}")
            if attended:
                modules[f"output_blocks.{block}.1"] = f"{up}.attentions.{layer}"
        if level < levels - 1:
            modules[f"input_blocks.{(level + 1) * step}.0.op"] = f"{down}.downsamplers.0.conv"
        if level > 0:
            place = 2 if attended else 1
            modules[f"output_blocks.{(levels - level) * step - 1}.{place}.conv"] = f"{up}.upsamplers.0.conv"
    return (
        modules
        | _resnet("middle_block.0", "mid_block.resnets.0")
        | _resnet("middle_block.2", "mid_block.resnets.1")
        | {"middle_block.1": "mid_block.attentions.0"}
    )


def vae_layout(names: Iterable[str]) -> tuple[int, int]:
    """Return the levels and layers per block of a VAE in either naming; the decoder has one layer more."""
    names = tuple(names)
    levels = 1 + max(_indices(r"(?:encoder\.down|decoder\.up)(?:_blocks)?\.([0-9][0-9]?)\.", names), default=-1)
    layers = _indices(r"encoder\.down(?:_blocks)?\.[0-9][0-9]?\.(?:block|resnets)\.([0-9][0-9]?)\.", names)
    return levels, 1 + max(layers, default=-1)


def vae_modules(levels: int, layers: int) -> dict[str, str]:
    """Return diffusers' module by LDM's module, for a whole VAE."""
    modules = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
    for side in ("encoder", "decoder"):
        modules |= {f"{side}.conv_in": f"{side}.conv_in", f"{side}.conv_out": f"{side}.conv_out"}
        modules |= {f"{side}.norm_out": f"{side}.conv_norm_out"}
        modules |= {f"{side}.mid.attn_1.{a}": f"{side}.mid_block.attentions.0.{b}" for a, b in VAE_ATTENTION.items()}
        for i in (0, 1):
            modules |= _joined_names(f"{side}.mid.block_{i + 1}", f"{side}.mid_block.resnets.{i}", VAE_RESNET)
    for level in range(levels):
        up = levels - 1 - level
        for layer in range(layers + 1):
            modules |= _joined_names(
                f"encoder.down.{level}.block.{layer}", f"encoder.down_blocks.{level}.resnets.{layer}", VAE_RESNET
            )
            modules |= _joined_names(
                f"decoder.up.{level}.block.{layer}", f"decoder.up_blocks.{up}.resnets.{layer}", VAE_RESNET
            )
        modules[f"encoder.down.{level}.downsample.conv"] = f"encoder.down_blocks.{level}.downsamplers.0.conv"
        modules[f"decoder.up.{level}.upsample.conv"] = f"decoder.up_blocks.{up}.upsamplers.0.conv"
    return modules


def openclip_modules(layers: int) -> dict[str, str]:
    """Return CLIPTextModel's module by OpenCLIP's; the joint in_proj is no single module and is left out."""
    modules = {"token_embedding": "embeddings.token_embedding", "ln_final": "final_layer_norm"}
    for i in range(layers):
        modules |= _joined_names(f"transformer.resblocks.{i}", f"encoder.layers.{i}", OPENCLIP_LAYER)
    return modules


def _sources(part: str, names: Mapping[str, str], shapes: Shapes) -> Iterator[tuple[str, TensorSource]]:
    if part.startswith("text_encoder"):
        yield from _text_sources(names, shapes)
    elif part == "unet":
        ldm = any(name.startswith("input_blocks.") for name in names)
        modules = unet_modules(unet_layout(names)) if ldm else {}
        for local, name in names.items():
            new = rename(local, modules) if ldm else local
            if new is not None:
                yield new, TensorSource(name=name, shape=shapes[name])
    else:
        ldm = any(re.match(r"(en|de)coder\.(mid\.|norm_out)", name) for name in names)
        modules = vae_modules(*vae_layout(names)) if ldm else {}
        for local, name in names.items():
            new = rename(local, modules) if ldm else _modern_vae(local)
            if new is not None:
                yield new, TensorSource(name=name, shape=_linear(new, shapes[name]))


def _text_sources(names: Mapping[str, str], shapes: Shapes) -> Iterator[tuple[str, TensorSource]]:
    openclip = any(name.startswith("transformer.resblocks.") for name in names)
    layers = 1 + max(_indices(r"transformer\.resblocks\.([0-9][0-9]?)\.", names), default=-1)
    modules = openclip_modules(layers) if openclip else {}
    for local, name in names.items():
        shape = shapes[name]
        joint = re.fullmatch(r"transformer\.resblocks\.([0-9][0-9]?)\.attn\.in_proj_(weight|bias)", local)
        if local in IGNORED:
            continue
        if joint:
            for third, letter in enumerate("qkv"):
                new = f"encoder.layers.{joint[1]}.self_attn.{letter}_proj.{joint[2]}"
                yield new, TensorSource(name=name, shape=(shape[0] // 3, *shape[1:]), third=third)
        elif local == "positional_embedding":
            yield "embeddings.position_embedding.weight", TensorSource(name=name, shape=shape)
        elif local == "text_projection.weight":
            yield local, TensorSource(name=name, shape=shape)
        elif local == "text_projection":
            yield "text_projection.weight", TensorSource(name=name, shape=shape[::-1], transposed=True)
        else:
            renamed = rename(local, modules) if openclip else local
            if renamed is not None:
                yield renamed, TensorSource(name=name, shape=shape)


def _modern_vae(name: str) -> str:
    match = re.fullmatch(r"(.*\.attentions\.0\.)(query|key|value|proj_attn)(\..*)", name)
    return f"{match[1]}{VAE_OLD_ATTENTION[match[2]]}{match[3]}" if match else name


def _linear(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the canonical shape of a VAE's attention, which is a 1x1 convolution in older files."""
    attention = re.search(r"\.attentions\.0\.to_\w+(\.0)?\.weight$", name)
    return shape[:2] if attention and shape[2:] == (1, 1) else shape


def _resnet(theirs: str, ours: str) -> dict[str, str]:
    return _joined_names(theirs, ours, RESNET)


def _joined_names(theirs: str, ours: str, table: Mapping[str, str]) -> dict[str, str]:
    return {f"{theirs}.{a}": f"{ours}.{b}" for a, b in table.items()}


def _indices(pattern: str, names: Iterable[str]) -> list[int]:
    return [int(match[1]) for name in names if (match := re.match(pattern, name))]
