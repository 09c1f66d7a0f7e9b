"""Brackets to weights: `(a:1.2)`, `((a))`, `[a]`, escapes and BREAK, as A1111 reads them.

A1111 1.8.0 modules/prompt_parser.py:352-458. Weights are float64 products in the order in which brackets close.
"""

import re
from itertools import groupby

from clipskip.errors import PromptError
from clipskip.prompt.limits import check_text

BREAK = ("BREAK", -1)
"""The segment that ends a chunk. A bracket around it multiplies its -1, and A1111 then reads it as a word."""
ROUND, SQUARE = 1.1, 1 / 1.1
MAX_PRODUCTS = 5_000_000
"""The most multiplications of weights: text at every level of deep nesting costs quadratic time."""

_PIECE = re.compile(
    r"""
    \\ (?P<escaped> [()\[\]\\]? )
    | : \s*+ (?P<weight> [+-]? [.\d]++ ) \s*+ \)
    | [()\[\]:]
    | [^\\()\[\]:]++
    """,
    re.VERBOSE,
)
_BREAK_WORD = re.compile(r"\bBREAK\b")


class _Segments:
    """Text and weights while brackets are still open."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.weights: list[float] = []
        self.products = 0

    def add(self, text: str, weight: float) -> None:
        self.texts.append(text)
        self.weights.append(weight)

    def multiply(self, start: int, factor: float) -> None:
        """Multiply the weights from segment `start` on."""
        if start == len(self.weights):
            return
        self.products += len(self.weights) - start
        if self.products > MAX_PRODUCTS:
            raise PromptError(
                f"the prompt nests brackets around too many pieces of text: weighting them takes more than "
                f"{MAX_PRODUCTS:,} products; nest fewer brackets",
                field="prompt",
            )
        self.weights[start:] = [weight * factor for weight in self.weights[start:]]

    def merged(self) -> list[tuple[str, float]]:
        """Join neighbours of equal weight."""
        pairs = zip(self.texts, self.weights, strict=True)
        merged = [
            ("".join(text for text, _ in run), weight) for weight, run in groupby(pairs, key=lambda pair: pair[1])
        ]
        return merged or [("", 1.0)]


def parse_attention(text: str) -> list[tuple[str, float]]:
    """Split the prompt into pieces of text with their weights; a BREAK is the entry ("BREAK", -1)."""
    check_text(text)
    segments = _Segments()
    opened: dict[str, list[int]] = {"(": [], "[": []}
    for piece in _PIECE.finditer(text):
        token = piece[0]
        if piece.lastgroup == "escaped":
            segments.add(piece["escaped"], 1.0)
        elif token in opened:
            opened[token].append(len(segments.texts))
        elif piece.lastgroup == "weight" and opened["("]:
            segments.multiply(opened["("].pop(), _weight(piece["weight"], token))
        elif token == ")" and opened["("]:
            segments.multiply(opened["("].pop(), ROUND)
        elif token == "]" and opened["["]:
            segments.multiply(opened["["].pop(), SQUARE)
        else:
            _add_words(segments, token)
    for start in opened["("]:
        segments.multiply(start, ROUND)
    for start in opened["["]:
        segments.multiply(start, SQUARE)
    return segments.merged()


def _add_words(segments: _Segments, text: str) -> None:
    """Add text, split at the word BREAK, without the spaces around that word."""
    parts = _BREAK_WORD.split(text)
    for index, part in enumerate(parts):
        if index > 0:
            segments.add(*BREAK)
            part = part.lstrip()
        segments.add(part.rstrip() if index < len(parts) - 1 else part, 1.0)


def _weight(number: str, written: str) -> float:
    try:
        return float(number)
    except ValueError:
        raise PromptError(
            f"the weight {number[:20]!r} of a bracket ending in {written[:30]!r} is not a number; "
            r"write it as (text:1.2), or \( and \) for brackets that are text",
            field="prompt",
        ) from None
