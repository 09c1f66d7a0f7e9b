"""The faults that pydantic finds in a request, in plain words: what was sent, and what is valid."""

import reprlib
from collections.abc import Mapping
from typing import Any

MOST_SENT = 60
"""The most characters of what was sent that an error repeats."""
SHORT = reprlib.Repr()
"""Writes no more of a value than an error repeats, however large it is."""
SHORT.maxstring = SHORT.maxlong = SHORT.maxother = 2 * MOST_SENT
SHORT.maxlist = SHORT.maxdict = MOST_SENT // 3 + 1


def in_words(error: Mapping[str, Any]) -> str:  # Any: pydantic's own
    """Describe one fault."""
    if isinstance(error.get("input"), bytes):
        return "it did not come as JSON; send it with the header Content-Type: application/json"
    limits, sent = error.get("ctx") or {}, SHORT.repr(error.get("input"))
    sent = sent if len(sent) <= MOST_SENT else f"{sent[: MOST_SENT - 1]}…"
    sentences = {
        "missing": "it is missing; send it",
        "extra_forbidden": "there is no such field; leave it out",
        "less_than_equal": f"{sent} is too large; {limits.get('le')} is the most",
        "greater_than_equal": f"{sent} is too small; {limits.get('ge')} is the least",
        "int_type": f"{sent} is not a whole number; send one",
        "int_parsing": f"{sent} is not a whole number; send one",
        "int_from_float": f"{sent} is not a whole number; send one",
        "float_type": f"{sent} is not a number; send one",
        "float_parsing": f"{sent} is not a number; send one",
        "bool_type": f"{sent} is neither true nor false; send one of them",
        "string_type": f"{sent} is not text; send text",
        "list_type": f"{sent} is not a list; send one",
        "string_too_long": f"the text is too long; {limits.get('max_length')} characters are the most",
        "string_too_short": f"the text is too short; {limits.get('min_length')} characters are the least",
        "too_long": f"the list is too long; {limits.get('max_length')} are the most",
        "too_short": f"the list is too short; {limits.get('min_length')} are the least",
        "literal_error": f"{sent} is not known; use {limits.get('expected')}",
        "model_attributes_type": f"{sent} is not an object; send one",
        "model_type": f"{sent} is not an object; send one",
        "dict_type": f"{sent} is not an object; send one",
    }
    return sentences.get(error["type"], str(error["msg"]))
