"""A random SD 1.x checkpoint of a few hundred kilobytes, whole in every part."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from clipskip.networks import TextShape, UNetShape, VAEShape, tensors_of
from clipskip.spec.family import Family
from clipskip.weights.checkpoint import Checkpoint
from clipskip.weights.facts import CheckpointFacts, EncoderFacts, SourceFile
from clipskip.weights.keys import ldm_names
from clipskip.weights.save import facts

WIDTH = 64


def random_state(
    tensors: dict[str, tuple[int, ...]], dtype: torch.dtype = torch.float32, *, seed: int
) -> dict[str, Tensor]:
    """Weights that keep activations near 1, with norms and biases that are far from trivial: each layer of the text and
    each step then changes a picture by many grey levels, in any dtype."""
    numbers, state = torch.Generator().manual_seed(seed), dict[str, Tensor]()
    for name, size in tensors.items():
        noise = torch.randn(size, generator=numbers)
        if "norm" in name:
            noise = noise * 0.1 + (1.0 if name.endswith("weight") else 0.0)
        elif name.endswith("bias") or "embedding.weight" in name:
            noise *= 0.1
        else:
            noise *= noise[0].numel() ** -0.5
        state[name] = noise.to(dtype)
    return state


def tiny_checkpoint(*, vocabulary: int = 100, dtype: torch.dtype = torch.float16, layers: int = 3) -> Checkpoint:
    text = TextShape(depth=layers, width=WIDTH, heads=2, mlp_width=4 * WIDTH, vocabulary=vocabulary)
    unet = UNetShape(
        block_out_channels=(32, 64),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention=(True, False),
        attention_heads=(4, 4),
        norm_num_groups=16,
        sample_size=16,
    )
    vae = VAEShape(block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, scaling_factor=0.25)
    facts = CheckpointFacts(
        source=SourceFile(name="tiny", path=Path("tiny.safetensors"), sha256=""),
        family=Family.SD1,
        encoders=(EncoderFacts(part="text_encoder", shape=text, rule=Family.SD1.value.encoders[0]),),
        unet=unet,
        vae=vae,
        prediction="v",
        trained_clip_skip=2,
        native_px=128,
        metadata={},
    )
    vae_state = random_state(tensors_of(vae), dtype, seed=2)
    vae_state["decoder.conv_out.weight"] *= 0.1  # few pixels are cut off at black or white
    vae_state["quant_conv.bias"][4:] -= 4  # a picture's latent is nearly the same at every encoding, as in trained VAEs
    return Checkpoint(
        facts=facts,
        text=(random_state(tensors_of(text), dtype, seed=0),),
        unet=random_state(tensors_of(unet), dtype, seed=1),
        vae=vae_state,
    )


def single_file(checkpoint: Checkpoint) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors under LDM's names, and the metadata, of a single file that one may then spoil."""
    state: dict[str, Tensor] = {}
    for part, tensors in (("text_encoder", checkpoint.text[0]), ("unet", checkpoint.unet), ("vae", checkpoint.vae)):
        names = ldm_names(part, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
        state |= {names[name]: tensor for name, tensor in tensors.items()}
    return state, facts(checkpoint)


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def write_sdxl(path: Path) -> None:
    """As much of an SDXL checkpoint as tells its kind."""
    xl = {f"conditioner.embedders.1.model.ln_final.{end}": torch.zeros(1280) for end in ("weight", "bias")}
    for i in (0, 2):
        xl |= {f"model.diffusion_model.time_embed.{i}.{end}": torch.zeros(1280) for end in ("weight", "bias")}
    xl["model.diffusion_model.label_emb.0.0.weight"] = torch.zeros(1280, 2816)
    for name in ("conv_in", "conv_out"):
        xl |= {f"first_stage_model.encoder.{name}.{end}": torch.zeros(8) for end in ("weight", "bias")}
    save_file(xl, path)
