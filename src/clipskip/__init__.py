"""Clip Skip for Stable Diffusion: see, measure and choose the layer that conditions your picture."""

__version__ = "0.1.0"
