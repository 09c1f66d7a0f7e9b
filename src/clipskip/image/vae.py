"""Latents -> pixels, through the checkpoint's own VAE."""

from collections.abc import Mapping

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from clipskip.errors import DamagedFile
from clipskip.weights import VAEShape


def build_vae(state: Mapping[str, Tensor], shape: VAEShape) -> AutoencoderKL:
    """diffusers' VAE with these weights (not copied), in their own dtype and on their own device."""
    with torch.device("meta"):
        vae = AutoencoderKL(**shape.config())
    try:
        vae.load_state_dict(dict(state), strict=True, assign=True)
    except RuntimeError as error:
        raise DamagedFile(f"the VAE's weights do not fit its shape: {str(error).splitlines()[-1].strip()}") from None
    return vae.eval().requires_grad_(False)


@torch.inference_mode()
def decode(vae: AutoencoderKL, latent: Float[Tensor, "batch channels height width"]) -> NDArray[np.uint8]:
    """Pixels [batch, height, width, 3] of latents; A1111 truncates to whole values, where rounding would be nearer."""
    scaled = (latent / vae.config.scaling_factor).to(dtype=vae.dtype, device=vae.device)
    pixels = (vae.decode(scaled).sample.float() / 2 + 0.5).clamp(0, 1) * 255
    result: NDArray[np.uint8] = pixels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return result
