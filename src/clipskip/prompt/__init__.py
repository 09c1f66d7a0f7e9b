"""A prompt's text to its parts, schedule and weighted chunks of tokens, as A1111 reads them."""

from clipskip.prompt.brackets import BREAK
from clipskip.prompt.chunks import CHUNK, Chunk
from clipskip.prompt.comfy import missing_embeddings
from clipskip.prompt.prompt_report import PromptReport, describe, report_lines
from clipskip.prompt.reading import (
    DEFAULT_RULES,
    Emphasis,
    Entry,
    Prompt,
    PromptPart,
    Rules,
    read_prompt,
    strip_comments,
)
from clipskip.prompt.tags import LORA_KINDS, extract_tags
from clipskip.prompt.tokens import END, START, common_words, ends_word, readable, token_ids, token_pieces

__all__ = [
    "BREAK",
    "CHUNK",
    "DEFAULT_RULES",
    "END",
    "LORA_KINDS",
    "START",
    "Chunk",
    "Emphasis",
    "Entry",
    "Prompt",
    "PromptPart",
    "PromptReport",
    "Rules",
    "common_words",
    "describe",
    "ends_word",
    "extract_tags",
    "missing_embeddings",
    "read_prompt",
    "readable",
    "report_lines",
    "strip_comments",
    "token_ids",
    "token_pieces",
]
