"""What is wanted: plain values in, plain values out, no tensors; their text form is the infotext."""

from clipskip.spec.render import FileRef, LoraRef, Render, Request
from clipskip.spec.skip import ClipSkip, parse_skips

__all__ = ["ClipSkip", "FileRef", "LoraRef", "Render", "Request", "parse_skips"]
