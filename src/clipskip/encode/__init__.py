"""A prompt's weighted token chunks in, the vectors that condition the picture out, at any Clip Skip."""

from clipskip.encode.clip import Injection, TextEncoder, build_text_encoder
from clipskip.encode.conditioning import Conditioning, Part, Schedule, vectors_at
from clipskip.encode.embeds import PromptEmbeds, encode_layers, prompt_embeds
from clipskip.encode.emphasis import emphasise
from clipskip.encode.layer import last_layer_needed, layers_read, read_layer
from clipskip.encode.texts import Run, TextReader, condition, condition_all

__all__ = [
    "Conditioning",
    "Injection",
    "Part",
    "PromptEmbeds",
    "Run",
    "Schedule",
    "TextEncoder",
    "TextReader",
    "build_text_encoder",
    "condition",
    "condition_all",
    "emphasise",
    "encode_layers",
    "last_layer_needed",
    "layers_read",
    "prompt_embeds",
    "read_layer",
    "vectors_at",
]
