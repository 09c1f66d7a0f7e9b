"""The tiny UNet that the samplers are tried with."""

from sample.conftest import tiny

__all__ = ["tiny"]
