"""A prompt's weighted token chunks in, the vectors that condition the picture out, at any Clip Skip."""

from clipskip.encode.clip import Injection, TextEncoder, build_text_encoder
from clipskip.encode.layer import last_layer_needed, read_layer

__all__ = ["Injection", "TextEncoder", "build_text_encoder", "last_layer_needed", "read_layer"]
