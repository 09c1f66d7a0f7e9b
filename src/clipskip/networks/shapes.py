"""The dimensions from which each network is built, and the names that transformers and diffusers give them."""

from dataclasses import dataclass

SIZE_WAVES = 256
"""Numbers that encode one size, crop or score in the vector beside the text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextShape:
    """A CLIP text encoder's dimensions."""

    depth: int
    """Number of layers."""
    width: int
    heads: int
    positions: int = 77
    vocabulary: int = 49408
    mlp_width: int
    activation: str = "quick_gelu"
    """quick_gelu (OpenAI's CLIP) or gelu (OpenCLIP)."""
    projection: int = 0
    """Width of the pooled vector; 0 where the encoder has none."""

    def config(self) -> dict[str, object]:
        """Return the arguments of transformers' CLIPTextConfig."""
        return {
            "vocab_size": self.vocabulary,
            "hidden_size": self.width,
            "intermediate_size": self.mlp_width,
            "num_hidden_layers": self.depth,
            "num_attention_heads": self.heads,
            "max_position_embeddings": self.positions,
            "hidden_act": self.activation,
            "projection_dim": self.projection or self.width,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetShape:
    """A UNet's dimensions."""

    in_channels: int = 4
    out_channels: int = 4
    block_out_channels: tuple[int, ...]
    layers_per_block: int
    cross_attention_dim: int
    attention: tuple[int, ...]
    """Transformer blocks in a row at each level, from the outermost in; 0 where a level has no attention."""
    middle_attention: int = 1
    """Transformer blocks in a row in the middle."""
    attention_heads: tuple[int, ...]
    """Attention heads per level."""
    added_width: int = 0
    """Width of the vector beside the text (pooled vector, sizes, crop): 2816 in SDXL, 0 where there is none."""
    norm_num_groups: int = 32
    use_linear_projection: bool = False
    sample_size: int = 64
    """Side of the latent that the network was trained on."""

    def config(self) -> dict[str, object]:
        """Return the arguments of diffusers' UNet2DConditionModel, whose `attention_head_dim` is the number of
        heads."""
        cross, plain = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D"), ("DownBlock2D", "UpBlock2D")
        types = [cross if attended else plain for attended in self.attention]
        heads = self.attention_heads[0] if len(set(self.attention_heads)) == 1 else self.attention_heads
        depths = (*(depth or 1 for depth in self.attention[:-1]), self.middle_attention)
        config: dict[str, object] = {
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "block_out_channels": self.block_out_channels,
            "layers_per_block": self.layers_per_block,
            "cross_attention_dim": self.cross_attention_dim,
            "attention_head_dim": heads,
            "norm_num_groups": self.norm_num_groups,
            "use_linear_projection": self.use_linear_projection,
            "sample_size": self.sample_size,
            "down_block_types": tuple(down for down, _ in types),
            "up_block_types": tuple(up for _, up in reversed(types)),
        }
        if set(depths) != {1}:
            config["transformer_layers_per_block"] = depths
        if self.added_width:
            config |= {
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": SIZE_WAVES,
                "projection_class_embeddings_input_dim": self.added_width,
            }
        return config


@dataclass(frozen=True, slots=True, kw_only=True)
class VAEShape:
    """A VAE's dimensions."""

    in_channels: int = 3
    latent_channels: int = 4
    block_out_channels: tuple[int, ...]
    layers_per_block: int
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215

    def config(self) -> dict[str, object]:
        """Return the arguments of diffusers' AutoencoderKL."""
        levels = len(self.block_out_channels)
        return {
            "in_channels": self.in_channels,
            "out_channels": self.in_channels,
            "latent_channels": self.latent_channels,
            "block_out_channels": self.block_out_channels,
            "layers_per_block": self.layers_per_block,
            "norm_num_groups": self.norm_num_groups,
            "scaling_factor": self.scaling_factor,
            "down_block_types": ("DownEncoderBlock2D",) * levels,
            "up_block_types": ("UpDecoderBlock2D",) * levels,
        }


Shape = TextShape | UNetShape | VAEShape
