"""Every tensor that a network of given dimensions has, by canonical name and shape: what a whole file must hold."""

from collections.abc import Iterable
from itertools import pairwise

from clipskip.weights.shapes import TextShape, UNetShape, VAEShape

Tensors = dict[str, tuple[int, ...]]


def text_tensors(shape: TextShape) -> Tensors:
    """The tensors of a CLIP text encoder, as in transformers' CLIPTextModel."""
    width, found = shape.width, _norm("final_layer_norm", shape.width)
    found["embeddings.token_embedding.weight"] = (shape.vocabulary, width)
    found["embeddings.position_embedding.weight"] = (shape.positions, width)
    for i in range(shape.depth):
        layer = f"encoder.layers.{i}"
        found |= _norm(f"{layer}.layer_norm1", width) | _norm(f"{layer}.layer_norm2", width)
        for letter in ("q", "k", "v", "out"):
            found |= _linear(f"{layer}.self_attn.{letter}_proj", width, width)
        found |= _linear(f"{layer}.mlp.fc1", width, shape.mlp_width)
        found |= _linear(f"{layer}.mlp.fc2", shape.mlp_width, width)
    return found


def unet_tensors(shape: UNetShape) -> Tensors:
    """The tensors of diffusers' UNet2DConditionModel with SD 1.x's block types."""
    channels, layers = shape.block_out_channels, shape.layers_per_block
    first, last, embedding = channels[0], channels[-1], 4 * channels[0]
    found = _conv("conv_in", shape.in_channels, first) | _norm("conv_norm_out", first)
    found |= _conv("conv_out", first, shape.out_channels)
    found |= _linear("time_embedding.linear_1", first, embedding) | _linear(
        "time_embedding.linear_2", embedding, embedding
    )
    found |= _attention("mid_block.attentions.0", last, shape)
    for i in (0, 1):
        found |= _resnet(f"mid_block.resnets.{i}", last, last, embedding=embedding)
    skips = [first]
    for level, (before, width) in enumerate(pairwise((first, *channels))):
        block = f"down_blocks.{level}"
        for layer in range(layers):
            found |= _resnet(f"{block}.resnets.{layer}", width if layer else before, width, embedding=embedding)
            found |= _attention(f"{block}.attentions.{layer}", width, shape) if shape.attention[level] else {}
        skips += [width] * layers
        if level < len(channels) - 1:
            found |= _conv(f"{block}.downsamplers.0.conv", width, width)
            skips.append(width)
    return found | _up_blocks(shape, skips, embedding)


def vae_tensors(shape: VAEShape) -> Tensors:
    """The tensors of diffusers' AutoencoderKL."""
    channels, latent = shape.block_out_channels, shape.latent_channels
    last = channels[-1]
    found = _conv("quant_conv", 2 * latent, 2 * latent, 1) | _conv("post_quant_conv", latent, latent, 1)
    found |= _conv("encoder.conv_in", shape.in_channels, channels[0]) | _conv("encoder.conv_out", last, 2 * latent)
    found |= _conv("decoder.conv_in", latent, last) | _conv("decoder.conv_out", channels[0], shape.in_channels)
    found |= _norm("encoder.conv_norm_out", last) | _norm("decoder.conv_norm_out", channels[0])
    found |= _vae_middle("encoder.mid_block", last) | _vae_middle("decoder.mid_block", last)
    found |= _vae_levels("encoder.down_blocks", (channels[0], *channels), shape.layers_per_block, "downsamplers")
    return found | _vae_levels("decoder.up_blocks", (last, *channels[::-1]), shape.layers_per_block + 1, "upsamplers")


def _up_blocks(shape: UNetShape, skips: list[int], embedding: int) -> Tensors:
    """The way up: each resnet takes what the one before it gives, beside one of the outputs kept on the way down."""
    found: Tensors = {}
    left, before = list(skips), shape.block_out_channels[-1]
    levels = len(shape.block_out_channels)
    for up, level in enumerate(reversed(range(levels))):
        width, block = shape.block_out_channels[level], f"up_blocks.{up}"
        for layer in range(shape.layers_per_block + 1):
            found |= _resnet(f"{block}.resnets.{layer}", before + left.pop(), width, embedding=embedding)
            found |= _attention(f"{block}.attentions.{layer}", width, shape) if shape.attention[level] else {}
            before = width
        if level:
            found |= _conv(f"{block}.upsamplers.0.conv", width, width)
    return found


def _vae_levels(name: str, widths: Iterable[int], layers: int, sampler: str) -> Tensors:
    found: Tensors = {}
    pairs = list(pairwise(widths))
    for level, (before, width) in enumerate(pairs):
        for layer in range(layers):
            found |= _resnet(f"{name}.{level}.resnets.{layer}", width if layer else before, width)
        if level < len(pairs) - 1:
            found |= _conv(f"{name}.{level}.{sampler}.0.conv", width, width)
    return found


def _vae_middle(name: str, width: int) -> Tensors:
    found = _norm(f"{name}.attentions.0.group_norm", width)
    for linear in ("to_q", "to_k", "to_v", "to_out.0"):
        found |= _linear(f"{name}.attentions.0.{linear}", width, width)
    return found | _resnet(f"{name}.resnets.0", width, width) | _resnet(f"{name}.resnets.1", width, width)


def _resnet(name: str, before: int, width: int, *, embedding: int = 0) -> Tensors:
    found = _norm(f"{name}.norm1", before) | _conv(f"{name}.conv1", before, width)
    found |= _norm(f"{name}.norm2", width) | _conv(f"{name}.conv2", width, width)
    found |= _linear(f"{name}.time_emb_proj", embedding, width) if embedding else {}
    return found | (_conv(f"{name}.conv_shortcut", before, width, 1) if before != width else {})


def _attention(name: str, width: int, shape: UNetShape) -> Tensors:
    """One transformer block, between two projections; its feed-forward is gated, so twice as wide on the way in."""
    block, cross = f"{name}.transformer_blocks.0", shape.cross_attention_dim
    found = _norm(f"{name}.norm", width)
    for end in ("proj_in", "proj_out"):
        both = _linear(f"{name}.{end}", width, width)
        found |= both if shape.use_linear_projection else _conv(f"{name}.{end}", width, width, 1)
    for i in (1, 2, 3):
        found |= _norm(f"{block}.norm{i}", width)
    for attention, keys in (("attn1", width), ("attn2", cross)):
        found[f"{block}.{attention}.to_q.weight"] = (width, width)
        found[f"{block}.{attention}.to_k.weight"] = found[f"{block}.{attention}.to_v.weight"] = (width, keys)
        found |= _linear(f"{block}.{attention}.to_out.0", width, width)
    return found | _linear(f"{block}.ff.net.0.proj", width, 8 * width) | _linear(f"{block}.ff.net.2", 4 * width, width)


def _norm(name: str, width: int) -> Tensors:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _linear(name: str, before: int, width: int) -> Tensors:
    return {f"{name}.weight": (width, before), f"{name}.bias": (width,)}


def _conv(name: str, before: int, width: int, side: int = 3) -> Tensors:
    return {f"{name}.weight": (width, before, side, side), f"{name}.bias": (width,)}
