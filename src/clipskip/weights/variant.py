"""Checkpoints of known families that do not draw a picture from text alone, told by their headers."""

import re
from collections import defaultdict
from collections.abc import Mapping

from clipskip.weights.container import Header
from clipskip.weights.keys import TensorSource

PLAYGROUND, COSXL, REFINER = "Playground v2.5 (EDM)", "CosXL (EDM)", "refiner"
UNCLIP, DISTILLED = "unCLIP", "distilled SDXL"
CHANNELS = {9: "inpainting", 8: "instruct-pix2pix", 5: "depth-guided", 7: "upscaling"}
"""The kind of UNet by its number of input channels."""
REFINER_CROSS = 1280
"""Width of the text that SDXL's refiner takes: OpenCLIP bigG's alone."""
UNDRAWN = {
    PLAYGROUND: "is Playground v2.5, trained at EDM's noise levels on latents of its own scale, which are not supported; "
    "give an SDXL checkpoint without edm_mean and edm_std",
    COSXL: "is a CosXL checkpoint, trained at EDM's noise levels, which are not supported; give an SDXL checkpoint "
    "without edm_vpred.sigma_max",
    REFINER: "is SDXL's refiner, which finishes pictures that a base model began; give it with --refiner, and a base model with "
    "--model",
    UNCLIP: "is an unCLIP checkpoint of SD 2.1, which draws variations of a picture from its CLIP vector and is not supported; "
    "give an SD 2.x checkpoint that draws from text",
    DISTILLED: "has fewer UNet blocks than SDXL: it is distilled (SSD-1B, Segmind Vega, KOALA), which is not supported, or "
    "incomplete; give an SDXL checkpoint with all blocks",
}
"""Why checkpoints of a known family do not draw a picture from text alone."""
UNCLIP_NAMES = ("embedder.model.visual.", "noise_augmentor.")
"""Parts of an unCLIP checkpoint: the encoder of pictures, and the noise on its vector."""
BLOCK = re.compile(r"((?:down|up)_blocks\.\d+)\.attentions\.(\d+)\.transformer_blocks\.(\d+)\.")
LEVEL = re.compile(r"down_blocks\.(\d+)\.")


def variant_of(header: Header, parts: Mapping[str, Mapping[str, TensorSource]]) -> str:
    """Return why a checkpoint does not draw from text alone; empty where it does."""
    names = {name.removeprefix("state_dict.") for name in header.tensors}
    if "edm_mean" in names and "edm_std" in names:
        return PLAYGROUND
    if "edm_vpred.sigma_max" in names:
        return COSXL
    scheduler = str(header.configs.get("scheduler", {}).get("_class_name", ""))
    if scheduler.startswith("EDM"):
        return PLAYGROUND if header.configs.get("vae", {}).get("latents_mean") else COSXL
    pipeline = str(header.configs.get("model_index", {}).get("_class_name", ""))
    if pipeline.startswith("StableUnCLIP") or any(name.startswith(UNCLIP_NAMES) for name in names):
        return UNCLIP
    unet = parts.get("unet", {})
    channels = axis_length(unet, "conv_in.weight", 1)
    second = axis_length(parts.get("text_encoder_2", {}), "embeddings.token_embedding.weight", 1)
    if "add_embedding.linear_1.weight" in unet and cross_width(unet) in (REFINER_CROSS, second):
        return REFINER
    if "add_embedding.linear_1.weight" in unet and _is_distilled(unet):
        return DISTILLED
    return CHANNELS.get(channels, f"unusual ({channels} input channels)" if channels > 4 else "")


def _is_distilled(unet: Mapping[str, TensorSource]) -> bool:
    """Return whether a UNet lacks transformer blocks that SDXL has: its way up is its way down again, and its middle has some."""
    blocks: defaultdict[tuple[str, int], set[int]] = defaultdict(set)
    for name in unet:
        if block := BLOCK.match(name):
            blocks[block[1], int(block[2])].add(int(block[3]))
    numbers = [int(block[1]) for name in unet if (block := LEVEL.match(name))]
    if not blocks or not numbers:
        return False
    depths: defaultdict[int, set[int]] = defaultdict(set)
    for (level, _), found_blocks in blocks.items():
        way, _, number = level.partition("_blocks.")
        depths[int(number) if way == "down" else max(numbers) - int(number)].add(len(found_blocks))
    has_middle = any(name.startswith("mid_block.attentions.0.transformer_blocks.0.") for name in unet)
    return not has_middle or any(len(counts) > 1 for counts in depths.values())


def cross_width(unet: Mapping[str, TensorSource]) -> int:
    """Return the width of the text that a UNet takes; 0 where the tensors do not tell."""
    keys = (s.shape for name, s in unet.items() if name.endswith("attn2.to_k.weight"))
    return next((shape[1] for shape in keys if len(shape) == 2), 0)


def axis_length(sources: Mapping[str, TensorSource], name: str, axis: int) -> int:
    """Return the length of a tensor's axis; 0 where it is missing."""
    shape = sources[name].shape if name in sources else ()
    return shape[axis] if len(shape) > axis else 0
