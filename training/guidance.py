"""Makes a UNet want a guidance of 7: damps what a prompt adds to the empty one, without training.

    python training/guidance.py --model FILE --latents DIR --out FILE [--share 0.65]
    python training/guidance.py --model FILE --loras FILE... --out DIR [--strength 1]

A UNet that has learned from few scenes draws best at a guidance of 3 to 4, and too hard at the 7 that people type. Guidance
g draws `empty + g (prompt - empty)`, so a UNet that answers a prompt with `empty + share (prompt - empty)` draws at 7 what
the one before draws at `7 * share`. Here the values of cross-attention are scaled by the share about what they give for
the empty prompt; nothing else changes. `--loras` scales what LoRAs add to the same values, so that they fit the result,
which `--model` then is; `--strength` scales all that they change in the UNet, for a style that hides its objects.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from lora import body_hash
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from unet import ALPHAS, Pairs, new_unet, timesteps

from clipskip.weights import hash_file, load_checkpoint, save_single_file

MEASURED = 64
"""Latents that the answers to the empty prompt are averaged over."""


@torch.no_grad()
def damp(unet: UNet2DConditionModel, pairs: Pairs, share: float) -> None:
    """Scales the values of cross-attention, keeping what the empty prompt gives on average."""
    generator, means = torch.Generator().manual_seed(0), dict[str, Tensor]()
    layers = {name: module for name, module in unet.named_modules() if name.endswith("attn2")}
    hooks = [
        layer.register_forward_hook(lambda _, __, out, name=name: means.update({name: out.mean((0, 1))}))
        for name, layer in layers.items()
    ]
    latent, t = pairs.batch(MEASURED, generator)[0], timesteps(MEASURED, generator)
    alphas = ALPHAS[t][:, None, None, None]
    noisy = alphas.sqrt() * latent + (1 - alphas).sqrt() * torch.randn(latent.shape, generator=generator)
    unet(noisy, t, pairs.empty.expand(MEASURED, -1, -1))
    for hook in hooks:
        hook.remove()
    for name, layer in layers.items():
        layer.to_v.weight.mul_(share)
        layer.to_out[0].bias.mul_(share).add_(means[name], alpha=1 - share)


def damp_lora(path: Path, out: Path, *, model: Path, share: float, strength: float = 1.0) -> None:
    """Writes a LoRA whose changes of the UNet are scaled by `strength`, and those of cross-attention's values by `share` too; it
    names the model."""
    with safe_open(path, "pt") as file:
        said, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    for key, value in tensors.items():
        if key.startswith("lora_unet") and key.endswith("lora_up.weight"):
            scale = strength * (share if "attn2_to_v" in key else 1)
            tensors[key] = (value.float() * scale).to(value.dtype)
    hashes = hash_file(model)
    said |= {"ss_sd_model_name": model.name, "ss_sd_model_hash": hashes.autov1, "ss_new_sd_model_hash": hashes.sha256}
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / path.name, metadata=said | {"sshs_model_hash": body_hash(tensors)})
    (out / path.name).chmod(0o644)


def main() -> None:
    """Writes the damped file, or LoRAs that fit it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--latents", type=Path)
    parser.add_argument("--loras", type=Path, nargs="*")
    parser.add_argument("--share", type=float, default=0.65)
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.loras:
        for path in options.loras:
            damp_lora(path, options.out, model=options.model, share=options.share, strength=options.strength)
        return
    whole, unet = load_checkpoint(options.model, dtype=torch.float16), new_unet()
    unet.load_state_dict({name: value.float() for name, value in whole.unet.items()})
    damp(unet.eval(), Pairs(options.latents), options.share)
    halves = {name: value.half() for name, value in unet.state_dict().items()}
    save_single_file(replace(whole, unet=halves), options.out)


if __name__ == "__main__":
    main()
