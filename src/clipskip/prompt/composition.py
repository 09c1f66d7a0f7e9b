"""`a AND b :0.5`: several prompts whose guidance is added up.

A1111 1.8.0 modules/prompt_parser.py:205-237. The weight is read even without an AND: "a cat :2" doubles the guidance.
"""

import re

from clipskip.prompt.limits import check_text

_AND = re.compile(r"\bAND\b")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?|\d*\.\d+)")


def parse_composition(text: str) -> list[tuple[str, float]]:
    """Return the parts around AND, each with the weight of its trailing `: number`, or 1."""
    check_text(text)
    return [_part(part) for part in _AND.split(text)]


def _part(text: str) -> tuple[str, float]:
    """Return a part's text, with the space before it but not behind it, and its weight."""
    words, colon, number = text.rpartition(":")
    number = number.strip()
    if colon and _NUMBER.fullmatch(number):
        return words.rstrip(), float(number)
    return text.rstrip(), 1.0
