"""A prompt's text to its parts, schedule and weighted chunks of tokens, as A1111 reads them."""

from clipskip.prompt.attention import BREAK, parse_attention
from clipskip.prompt.chunks import CHUNK, Chunk, Chunked, EmbeddingNames, Slot, chunk_segments, name_embeddings
from clipskip.prompt.comfy import missing_embeddings
from clipskip.prompt.composition import parse_composition
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
from clipskip.prompt.report import (
    ChunkReport,
    PartReport,
    PromptReport,
    TextReport,
    TokenReport,
    describe,
    report_lines,
)
from clipskip.prompt.schedule import parse_schedule, text_at
from clipskip.prompt.tags import LORA_KINDS, LoraTag, Tag, extract_tags, lora_refs
from clipskip.prompt.tokens import END, START, common_words, ends_word, readable, token_ids, token_pieces

__all__ = [
    "BREAK",
    "CHUNK",
    "DEFAULT_RULES",
    "END",
    "LORA_KINDS",
    "START",
    "Chunk",
    "ChunkReport",
    "Chunked",
    "EmbeddingNames",
    "Emphasis",
    "Entry",
    "LoraTag",
    "PartReport",
    "Prompt",
    "PromptPart",
    "PromptReport",
    "Rules",
    "Slot",
    "Tag",
    "TextReport",
    "TokenReport",
    "chunk_segments",
    "common_words",
    "describe",
    "ends_word",
    "extract_tags",
    "lora_refs",
    "missing_embeddings",
    "name_embeddings",
    "parse_attention",
    "parse_composition",
    "parse_schedule",
    "read_prompt",
    "readable",
    "report_lines",
    "strip_comments",
    "text_at",
    "token_ids",
    "token_pieces",
]
