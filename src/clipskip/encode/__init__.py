"""A prompt's weighted token chunks in, the vectors that condition the picture out, at any Clip Skip."""

from clipskip.encode.clip import Injection, TextEncoder, build_text_encoder

__all__ = ["Injection", "TextEncoder", "build_text_encoder"]
