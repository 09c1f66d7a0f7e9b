"""Clip Skip for Stable Diffusion: see, measure and choose the layer that conditions your picture."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clipskip.encode import EncoderSettings as EncoderSettings
    from clipskip.encode import TextReader as TextReader
    from clipskip.encode import encode_layers as encode_layers
    from clipskip.encode import open_text_encoder as open_text_encoder
    from clipskip.encode import prompt_embeds as prompt_embeds
    from clipskip.encode import read_encoders as read_encoders
    from clipskip.spec import ClipSkip as ClipSkip
    from clipskip.spec import EncoderSkips as EncoderSkips
    from clipskip.spec import Family as Family
    from clipskip.spec import Hires as Hires
    from clipskip.spec import LoraRef as LoraRef
    from clipskip.spec import Mask as Mask
    from clipskip.spec import Request as Request
    from clipskip.spec import Start as Start
    from clipskip.spec import parse_skip as parse_skip
    from clipskip.spec import parse_skips as parse_skips
    from clipskip.sweep import draw_one as draw_one
    from clipskip.sweep import draw_sweep as draw_sweep
    from clipskip.sweep import open_model as open_model

__version__ = "0.1.0"

_HOMES = {
    "ClipSkip": "spec",
    "Hires": "spec",
    "EncoderSkips": "spec",
    "Family": "spec",
    "LoraRef": "spec",
    "Mask": "spec",
    "Request": "spec",
    "Start": "spec",
    "parse_skip": "spec",
    "parse_skips": "spec",
    "EncoderSettings": "encode",
    "TextReader": "encode",
    "encode_layers": "encode",
    "open_text_encoder": "encode",
    "prompt_embeds": "encode",
    "read_encoders": "encode",
    "draw_one": "sweep",
    "draw_sweep": "sweep",
    "open_model": "sweep",
}
"""Public names and the rooms they come from; a room is imported when its name is first used, because torch takes
time."""

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f"clipskip.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'clipskip' has no attribute {name!r}")
