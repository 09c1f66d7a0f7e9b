"""InvokeAI's prompts -> A1111's: "a fox+ (in snow)1.2" is "a (fox:1.1) (in snow:1.2)".

The grammar is compel's (2.1, src/compel/prompt_parser.py): what can be read as a weight is one, and a stretch without blanks
that cannot is words as it stands. Pieces are separate words, as there.
"""

import re
from collections.abc import Callable
from typing import NoReturn

from clipskip.errors import SpecError

Pieces = list[tuple[str, float]]
"""Words and their weight."""
Parsed = tuple[Pieces, int] | None
"""What is read from a place on, and where that ends; None where the rule does not fit."""

PLUS, MINUS = 1.1, 0.9
MOST_LEVELS = 60
"""Brackets in brackets; more are no weights."""
MOST_SIGNS, MOST_WEIGHT = 40, 1000

_COMMA = re.compile(r",(\S)")
_BLANK = re.compile(r"\s*")
_OPERATOR = re.compile(r"\++|-+")
_NUMBER = re.compile(r"[0-9]{1,6}\.[0-9]{0,20}|\.[0-9]{1,20}|[0-9]{1,6}")
_WORD = re.compile(r"""(?:\\[()",.+\-=]|[+-](?![\s()",.+\-=]|$)|[^\s()",.+\-=])+""")
_FREE = re.compile(r"\S+")
_QUOTED = re.compile(r'"((?:\\"|[^"\n])*)"')
_ESCAPED = re.compile(r'\\([()"])')
_LORA = re.compile(r"(?:useLora|withLora)\(\s*([A-Za-z0-9_-]+)\s*(?:,\s*(-?[0-9.]{1,20})\s*)?\)")
_ATTEND = re.compile(r"\s*\.attend\s*\(\s*(\++|-+|[0-9]{1,6}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})\s*\)")
_CALLS = re.compile(r'[)"\w]\s*\.(blend|swap|and|add)\s*\(')


def invoke_pieces(prompt: str) -> Pieces:
    """Return the prompt's words with their weights. SpecError for what cannot be said in one text: blends, swaps, conjunctions."""
    if call := _CALLS.search(prompt):
        raise SpecError(
            f"this InvokeAI prompt calls .{call[1]}(), which cannot be repeated; give the prompt itself", field="prompt"
        )
    pieces: Pieces = []
    prompt = _COMMA.sub(r", \1", prompt)
    reading, at = _Reading(prompt), 0
    while (at := _BLANK.match(prompt, at).end()) < len(prompt):  # type: ignore[union-attr]  # it matches nothing too
        piece = reading.first(at, reading.lora, reading.attention, reading.quoted, reading.bracketed, reading.free)
        assert piece is not None
        pieces += piece[0]
        at = piece[1]
    return pieces


class _Reading:
    """One text and the rules that read it; what was read at a place is kept, so that no place is read twice by a rule."""

    def __init__(self, text: str, level: int = 0) -> None:
        self.text, self.level = text, level
        self._known: dict[tuple[str, int], Parsed] = {}

    def first(self, at: int, *rules: Callable[[int], Parsed]) -> Parsed:
        """Return the result of the first rule that fits."""
        return next((piece for rule in rules if (piece := rule(at)) is not None), None)

    def _once(self, name: str, at: int, rule: Callable[[int], Parsed]) -> Parsed:
        if (name, at) not in self._known:
            self._known[name, at] = rule(at)
        return self._known[name, at]

    def free(self, at: int) -> Parsed:
        match = _FREE.match(self.text, at)
        return ([(_unescaped(match[0]), 1.0)], match.end()) if match else None

    def word(self, at: int) -> Parsed:
        match = _WORD.match(self.text, at)
        return ([(_unescaped(match[0]), 1.0)], match.end()) if match else None

    def lora(self, at: int) -> Parsed:
        match = _LORA.match(self.text, at)
        return ([(f"<lora:{match[1]}:{match[2] or 1}>", 1.0)], match.end()) if match else None

    def quoted(self, at: int) -> Parsed:
        return self._once("quoted", at, self._quoted)

    def _quoted(self, at: int) -> Parsed:
        match = _QUOTED.match(self.text, at)
        if match is None:
            return None
        inner = _Reading(match[1].replace('\\"', '"').replace('"', '\\"'), self._deeper())
        parsed = inner.fragment(0)
        return (parsed[0], match.end()) if parsed[1] == len(inner.text) else None

    def bracketed(self, at: int) -> Parsed:
        return self._once("bracketed", at, self._bracketed)

    def _bracketed(self, at: int) -> Parsed:
        if not self.text.startswith("(", at):
            return None
        self.level = self._deeper()
        pieces, end = self.fragment(at + 1)
        self.level -= 1
        return (pieces, end + 1) if self.text.startswith(")", end) else None

    def _deeper(self) -> int:
        if self.level >= MOST_LEVELS:
            _too_deep()
        return self.level + 1

    def attention(self, at: int) -> Parsed:
        """Words with a weight behind them."""
        targets = ((self.quoted, True), (self.bracketed, True), (self.word, False))
        for target, numbers in targets:
            piece = target(at)
            if piece is None:
                continue
            pieces, end = piece
            if match := _ATTEND.match(self.text, end):
                return _weighed(pieces, match[1]), match.end()
            match = _OPERATOR.match(self.text, end) or (_NUMBER.match(self.text, end) if numbers else None)
            return (_weighed(pieces, match[0]), match.end()) if match else None
        return None

    def fragment(self, at: int) -> tuple[Pieces, int]:
        """Return all that is read from here on inside of brackets or quotes."""
        pieces: Pieces = []
        while True:
            at = _BLANK.match(self.text, at).end()  # type: ignore[union-attr]  # it matches nothing too
            piece = self.first(at, self.lora, self.attention, self.bracketed, self.quoted, self.word)
            if piece is None and self.text[at : at + 1] in tuple(",."):
                piece = [(self.text[at], 1.0)], at + 1
            if piece is None:
                return pieces, at
            pieces += piece[0]
            at = piece[1]


def _weighed(pieces: Pieces, written: str) -> Pieces:
    """Return the pieces times a weight: a number, or 1.1 for each plus and 0.9 for each minus."""
    signs = "+-".find(written[0])
    weight = float(written) if signs < 0 else float((PLUS, MINUS)[signs] ** min(len(written), MOST_SIGNS))
    weighed = [(words, value * weight) for words, value in pieces]
    if len(written) > MOST_SIGNS or any(abs(value) > MOST_WEIGHT for _, value in weighed):
        raise SpecError(
            f"this InvokeAI prompt weighs words {MOST_WEIGHT} times and more; give lower weights", field="prompt"
        )
    return weighed


def _unescaped(words: str) -> str:
    return _ESCAPED.sub(r"\1", words)


def _too_deep() -> NoReturn:
    raise SpecError(f"this InvokeAI prompt has over {MOST_LEVELS} brackets in brackets", field="prompt")
