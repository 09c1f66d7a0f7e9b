"""Weighted token chunks of a prompt to the vectors that condition the picture, at any Clip Skip."""

from clipskip.encode.conditioning import Conditioning, TextVectors, VectorSchedule, WeightedSchedule, splice, vectors_at
from clipskip.encode.embeds import PromptEmbeds, encode_layers, encode_text, one_text, prompt_embeds, text_tensors
from clipskip.encode.emphasis import emphasise
from clipskip.encode.encoder_run import EncoderRun
from clipskip.encode.layer import last_layer_needed, layer_indices, read_layer
from clipskip.encode.layer_summary import LayerSummary, summarize_layers
from clipskip.encode.live import EncoderSettings, read_encoders
from clipskip.encode.phrases import check_phrase
from clipskip.encode.reader import EncoderReading, TextReader, open_text_encoder
from clipskip.encode.texts import SecondPass, condition, condition_all

__all__ = [
    "Conditioning",
    "EncoderReading",
    "EncoderRun",
    "EncoderSettings",
    "LayerSummary",
    "PromptEmbeds",
    "SecondPass",
    "TextReader",
    "TextVectors",
    "VectorSchedule",
    "WeightedSchedule",
    "check_phrase",
    "condition",
    "condition_all",
    "emphasise",
    "encode_layers",
    "encode_text",
    "last_layer_needed",
    "layer_indices",
    "one_text",
    "open_text_encoder",
    "prompt_embeds",
    "read_encoders",
    "read_layer",
    "splice",
    "summarize_layers",
    "text_tensors",
    "vectors_at",
]
