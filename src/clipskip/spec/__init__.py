"""What is wanted: plain values in, plain values out, no tensors; their text form is the infotext."""

from clipskip.spec.axes import AXES, Axis, combinations
from clipskip.spec.changes import parse_size, values_of, with_values
from clipskip.spec.dialect import (
    Spelling,
    Translation,
    asked_skip,
    conversion_table,
    depths,
    from_dialect,
    layers_read,
    to_dialect,
    translate,
)
from clipskip.spec.encoder_skips import (
    EncoderSkips,
    PhraseSkip,
    Skip,
    check_depths,
    parse_column,
    parse_columns,
    parse_skip,
    skip_for,
)
from clipskip.spec.family import Family, FamilyRow, TextReading
from clipskip.spec.infotext import Infotext, format_infotext, parse_infotext, quote
from clipskip.spec.links import CivitaiLink, HubLink, Link, by_hash, parse_bare, parse_link
from clipskip.spec.lora import LoraRef
from clipskip.spec.numbering import Dialect
from clipskip.spec.passes import Hires, Mask, Start
from clipskip.spec.render import FileRef, Render, Request
from clipskip.spec.schedule import EncoderSkip, SkipSchedule, StepSkips
from clipskip.spec.settings import (
    check_request,
    render_infotext,
    request_from_infotext,
    request_from_text,
    request_from_texts,
    shared_infotext,
    with_defaults,
)
from clipskip.spec.skip import ClipSkip, parse_skips
from clipskip.spec.table import ZERO_TERMINAL_SNR

__all__ = [
    "AXES",
    "ZERO_TERMINAL_SNR",
    "Axis",
    "CivitaiLink",
    "ClipSkip",
    "Dialect",
    "EncoderSkip",
    "EncoderSkips",
    "Family",
    "FamilyRow",
    "FileRef",
    "Hires",
    "HubLink",
    "Infotext",
    "Link",
    "LoraRef",
    "Mask",
    "PhraseSkip",
    "Render",
    "Request",
    "Skip",
    "SkipSchedule",
    "Spelling",
    "Start",
    "StepSkips",
    "TextReading",
    "Translation",
    "asked_skip",
    "by_hash",
    "check_depths",
    "check_request",
    "combinations",
    "conversion_table",
    "depths",
    "format_infotext",
    "from_dialect",
    "layers_read",
    "parse_bare",
    "parse_column",
    "parse_columns",
    "parse_infotext",
    "parse_link",
    "parse_size",
    "parse_skip",
    "parse_skips",
    "quote",
    "render_infotext",
    "request_from_infotext",
    "request_from_text",
    "request_from_texts",
    "shared_infotext",
    "skip_for",
    "to_dialect",
    "translate",
    "values_of",
    "with_defaults",
    "with_values",
]
