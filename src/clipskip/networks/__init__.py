"""The three networks of Stable Diffusion (text encoder, UNet and VAE), built from dimensions and weights.

Their parameters carry diffusers' and transformers' names, by which checkpoints and LoRAs find them.
"""

from clipskip.networks.attention import Memory, best_dtype
from clipskip.networks.autoencoder import VAE
from clipskip.networks.build import build_text_encoder, build_unet, build_vae, lacking, parameters_of, tensors_of
from clipskip.networks.clip import Injection, TextEncoder
from clipskip.networks.shapes import SIZE_WAVES, Shape, TextShape, UNetShape, VAEShape
from clipskip.networks.unet import UNet, waves

__all__ = [
    "SIZE_WAVES",
    "VAE",
    "Injection",
    "Memory",
    "Shape",
    "TextEncoder",
    "TextShape",
    "UNet",
    "UNetShape",
    "VAEShape",
    "best_dtype",
    "build_text_encoder",
    "build_unet",
    "build_vae",
    "lacking",
    "parameters_of",
    "tensors_of",
    "waves",
]
