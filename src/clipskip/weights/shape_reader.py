"""The networks' dimensions, read from tensor shapes, our own files' metadata and a folder's configs."""

import math
from collections.abc import Mapping, Sequence

from clipskip.errors import DamagedFile, WrongKind
from clipskip.networks import Shape, TextShape, UNetShape, VAEShape
from clipskip.spec import Family, FamilyRow, TextReading
from clipskip.weights.container import Header
from clipskip.weights.keys import TEXT_PARTS, Shapes, unet_layout, vae_layout

BIGG = "conditioner.embedders.1."
HEAD_WIDTH = 64
"""Width of an attention head in every CLIP text encoder that Stable Diffusion uses."""
TEXT_HEADS, TEXT_HEADS_2 = "clipskip.text.attention_heads", "clipskip.text_2.attention_heads"
UNET_HEADS = "clipskip.unet.attention_heads"
UNET_GROUPS = "clipskip.unet.norm_num_groups"
VAE_GROUPS = "clipskip.vae.norm_num_groups"
VAE_SCALE = "clipskip.vae.scaling_factor"
"""Metadata in our own files for what shapes do not tell; without it, the family's own values are used."""
GROUPS = 32
V_PX = 768
"""Side of the pictures of SD 2.x models that predict v."""
LATENT_PX = 8
SD1 = Family.SD1.value


def part_shape(part: str, tensors: Shapes, header: Header, *, family: Family = Family.SD1) -> Shape:
    """Return the dimensions of one network of a family's file."""
    row = family.value
    if part == "unet":
        return unet_shape(tensors, header, row=row)
    if part == "vae":
        return vae_shape(tensors, header, row=row)
    return text_shape(tensors, header, component=part, rule=dict(zip(TEXT_PARTS, row.encoders, strict=False)).get(part))


def text_shape(
    tensors: Shapes, header: Header, *, component: str = "text_encoder", rule: TextReading | None = None
) -> TextShape:
    """Return a text encoder's dimensions by its canonical tensors, with a projection where `rule` needs one."""
    name = header.path.name
    vocabulary, width = _tensor_shape(tensors, "embeddings.token_embedding.weight", 2, name)
    positions = _tensor_shape(tensors, "embeddings.position_embedding.weight", 2, name)[0]
    depth = text_depth(tensors)
    if not depth:
        raise DamagedFile(f"{name} has no text encoder layer; download it again")
    mlp = next((s[0] for key, s in tensors.items() if key.endswith(".mlp.fc1.bias") and s), 4 * width)
    config = header.configs.get(component, {})
    key = TEXT_HEADS_2 if component == "text_encoder_2" else TEXT_HEADS
    heads = _natural(config.get("num_attention_heads") or header.metadata.get(key) or width // HEAD_WIDTH, name)
    if heads < 1 or width % heads:
        raise WrongKind(
            f"{name}: a text encoder {width} wide cannot have {heads} attention heads; "
            f"state their number in the metadata {key}"
        )
    openclip = component == "text_encoder_2" or any(
        "resblocks" in key and not key.startswith(BIGG) for key in header.tensors
    )
    activation = str(config.get("hidden_act", "gelu" if openclip else "quick_gelu"))
    if activation not in ("gelu", "quick_gelu"):
        raise WrongKind(
            f"{name}: the text encoder's activation {activation[:40]!r} is not CLIP's (quick_gelu or gelu); "
            "give another model"
        )
    return TextShape(
        depth=depth,
        width=width,
        heads=heads,
        positions=positions,
        vocabulary=vocabulary,
        mlp_width=mlp,
        activation=activation,
        projection=_tensor_shape(tensors, "text_projection.weight", 2, name)[0]
        if rule is not None and rule.pooled
        else 0,
    )


def text_layers(names: Mapping[str, object]) -> tuple[int, ...]:
    """Return the numbers of the layers of which a text encoder has at least one tensor, in rising order."""
    start = "encoder.layers."
    numbers = {key.split(".")[2] for key in names if key.startswith(start)}
    return tuple(sorted(int(n) for n in numbers if n.isascii() and n.isdecimal() and len(n) < 3))


def text_depth(names: Mapping[str, object]) -> int:
    """Return how many layers a text encoder must have had: one more than the highest number."""
    return max(text_layers(names), default=-1) + 1


def unet_shape(tensors: Shapes, header: Header, *, row: FamilyRow = SD1) -> UNetShape:
    """Return a UNet's dimensions by its canonical tensors."""
    name, config = header.path.name, header.configs.get("unet", {})
    _refuse_unusual(config, name)
    layout = unet_layout(tensors)
    levels = range(len(layout.attention))
    channels = tuple(_tensor_shape(tensors, f"down_blocks.{i}.resnets.0.conv1.weight", 4, name)[0] for i in levels)
    cross = next((s[1] for key, s in tensors.items() if key.endswith(".attn2.to_k.weight") and len(s) == 2), 0)
    if not channels or not cross:
        raise DamagedFile(f"{name}: its UNet has no {'cross-attention' if channels else 'blocks'}; download it again")
    heads = config.get("num_attention_heads") or config.get("attention_head_dim") or header.metadata.get(UNET_HEADS)
    projection = next((s for key, s in tensors.items() if key.endswith(".attentions.0.proj_in.weight")), ())
    return UNetShape(
        in_channels=_tensor_shape(tensors, "conv_in.weight", 4, name)[1],
        out_channels=_tensor_shape(tensors, "conv_out.weight", 4, name)[0],
        block_out_channels=channels,
        layers_per_block=layout.layers_per_block,
        cross_attention_dim=cross,
        attention=tuple(_depth(tensors, f"down_blocks.{i}.attentions.0") for i in levels),
        middle_attention=_depth(tensors, "mid_block.attentions.0"),
        attention_heads=_heads(heads or row.unet_heads or [width // HEAD_WIDTH for width in channels], channels, name),
        added_width=tensors.get("add_embedding.linear_1.weight", (0, 0))[-1],
        norm_num_groups=_groups(config.get("norm_num_groups") or header.metadata.get(UNET_GROUPS), channels, name),
        use_linear_projection=len(projection) == 2,
        sample_size=native_px(header, row=row) // LATENT_PX,
    )


def vae_shape(tensors: Shapes, header: Header, *, row: FamilyRow = SD1) -> VAEShape:
    """Return a VAE's dimensions by its canonical tensors."""
    name, config = header.path.name, header.configs.get("vae", {})
    levels, layers = vae_layout(tensors)
    channels = tuple(
        _tensor_shape(tensors, f"encoder.down_blocks.{i}.resnets.0.conv1.weight", 4, name)[0] for i in range(levels)
    )
    if not channels:
        raise DamagedFile(f"{name}: its VAE has no blocks; download it again")
    return VAEShape(
        in_channels=_tensor_shape(tensors, "encoder.conv_in.weight", 4, name)[1],
        latent_channels=_tensor_shape(tensors, "decoder.conv_in.weight", 4, name)[1],
        block_out_channels=channels,
        layers_per_block=layers,
        norm_num_groups=_groups(config.get("norm_num_groups") or header.metadata.get(VAE_GROUPS), channels, name),
        scaling_factor=_positive(
            config.get("scaling_factor") or header.metadata.get(VAE_SCALE) or row.latent_scale, VAE_SCALE, name
        ),
    )


def native_px(header: Header, *, row: FamilyRow = SD1, predicts_v: bool = False) -> int:
    """Return the side in pixels that a model was trained at: by its metadata, its folder's UNet config or its
    family."""
    resolution = header.metadata.get("modelspec.resolution", "")
    side = resolution.lower().partition("x")[0].strip()
    if side.isdecimal() and 64 <= int(side[:6]) <= 4096:
        return int(side) // LATENT_PX * LATENT_PX
    latent = header.configs.get("unet", {}).get("sample_size")
    usual = V_PX if predicts_v and row is Family.SD2.value else row.native_px
    return latent * LATENT_PX if type(latent) is int and 8 <= latent <= 512 else usual


def _refuse_unusual(config: Mapping[str, object], name: str) -> None:
    """Raise an error for a UNet config with features that no Stable Diffusion UNet of these families has."""
    known = {"CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D", "UNetMidBlock2DCrossAttn"}
    for key in ("down_block_types", "up_block_types", "mid_block_type"):
        value = config.get(key) or ()
        for kind in (value,) if isinstance(value, str) else value if isinstance(value, list) else ():
            if kind not in known:
                raise WrongKind(
                    f"{name}: its UNet has blocks of the kind {str(kind)[:60]!r}, which Stable Diffusion does not have; give another model"
                )
    if config.get("act_fn", "silu") != "silu":
        raise WrongKind(
            f"{name}: its UNet's activation is {str(config['act_fn'])[:40]!r}; Stable Diffusion's is silu: give another model"
        )


def _tensor_shape(tensors: Shapes, key: str, dimensions: int, name: str) -> tuple[int, ...]:
    shape = tensors.get(key)
    if shape is None:
        raise DamagedFile(f"{name} is incomplete: it has no {key}; download it again")
    if len(shape) != dimensions or 0 in shape:
        raise DamagedFile(f"{name} is damaged: {key} has the shape {list(shape)}; download it again")
    return shape


def _depth(tensors: Shapes, attention: str) -> int:
    """Return how many transformer blocks follow one another in a place of the UNet."""
    start = f"{attention}.transformer_blocks."
    numbers = {key.removeprefix(start).split(".")[0] for key in tensors if key.startswith(start)}
    return max((int(n) for n in numbers if n.isascii() and n.isdecimal() and len(n) < 3), default=-1) + 1


def _heads(value: object, channels: Sequence[int], name: str) -> tuple[int, ...]:
    value = value.split(",") if isinstance(value, str) and "," in value else value
    listed = isinstance(value, list | tuple)
    heads = tuple(_natural(v, name) for v in value) if isinstance(value, list | tuple) else (_natural(value, name),)
    heads = heads if listed else heads * len(channels)
    if len(heads) != len(channels) or any(h < 1 or c % h for h, c in zip(heads, channels, strict=False)):
        raise WrongKind(
            f"{name}: its UNet's channels {list(channels)} cannot be divided among {list(heads)} attention heads; "
            "correct its config or metadata"
        )
    return heads


def _groups(value: object, channels: Sequence[int], name: str) -> int:
    groups = _natural(value or GROUPS, name)
    if groups < 1 or math.gcd(*channels) % groups:
        raise WrongKind(
            f"{name}: group normalization cannot divide channels {list(channels)} into {groups} groups; "
            "correct its config or metadata"
        )
    return groups


def _natural(value: object, name: str) -> int:
    if type(value) is int or (isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 7):
        return int(value)
    raise DamagedFile(
        f"{name}: {str(value)[:40]!r} in its metadata or config is not a whole number from 0 to 999,999; correct it"
    )


def _positive(value: object, key: str, name: str) -> float:
    try:
        number = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not 0 < number < math.inf:
        raise DamagedFile(f"{name}: its {key} is {str(value)[:40]!r}, not a positive number; correct it")
    return number
