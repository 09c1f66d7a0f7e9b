"""Weights of words as NovelAI and InvokeAI write them, converted to A1111's (words:1.1).

NovelAI: {words} multiplies by 1.05, [words] by 1 / 1.05, 1.5::words:: weighs by the number (from its model V4 on), and ::
closes brackets too; round brackets are text (its manual, "Strengthening and weakening", whose own example is
"1girl, 1.5::rain, night ::, 0.5::coat ::, black shoes"). InvokeAI: (words)1.2, (words)++ and word+ multiply by 1.1 per
plus and 0.9 per minus; brackets alone do nothing (compel's syntax).
"""

import re
from itertools import groupby

from clipskip.errors import SpecError
from clipskip.spec.invoke_prompt import Pieces, invoke_pieces

NOVELAI_STEP = 1.05
MOST_LEVELS = 60
"""The most levels of nested brackets; deeper ones are not weights."""

_SPECIAL = frozenset("()[]\\")
_OWN_WORDS = re.compile(r"\b(AND|BREAK)\b")
"""Words that A1111 treats specially; in lower case they mean the same to a tokenizer."""
_NUMBERED = re.compile(r"(-?(?:[0-9]{1,6}(?:\.[0-9]{0,20})?|\.[0-9]{1,20}))::")
_COMMA = re.compile(r"(?<=[\w)]) ,(?= |$|[:)])")
_TAIL = re.compile(r"(:\s*[-+]?[.0-9]{1,20}\s*)\Z")
"""What A1111 takes for the weight of a whole prompt at its end."""


def novelai_words(prompt: str) -> str:
    """NovelAI's prompt with its weights as A1111 writes them; SpecError for several prompts in one."""
    if "|" in prompt:
        raise SpecError(
            "this NovelAI prompt has parts with | between them, which it mixes or chooses from; give the prompt itself",
            field="prompt",
        )
    pieces: Pieces = []
    brackets, at = list[str](), 0
    number: float | None = None
    while at < len(prompt):
        sign = prompt[at]
        numbered = _NUMBERED.match(prompt, at) if sign in "-.0123456789" and not prompt[at - 1 : at].isalnum() else None
        if numbered:
            number, at = float(numbered[1]), numbered.end()
            continue
        if (number is not None or brackets) and prompt.startswith("::", at):
            number, at = None, at + 2
            brackets.clear()
            continue
        if sign in "{[":
            brackets.append(sign)
        elif brackets and sign == {"{": "}", "[": "]"}[brackets[-1]]:
            brackets.pop()
        else:
            steps = brackets.count("{") - brackets.count("[")
            pieces.append((sign, (1.0 if number is None else number) * NOVELAI_STEP**steps))
        if len(brackets) > MOST_LEVELS:
            raise SpecError(f"this NovelAI prompt nests more than {MOST_LEVELS} brackets; remove some", field="prompt")
        at += 1
    return _written(pieces, "")


def invoke_words(prompt: str) -> str:
    """Return InvokeAI's prompt with A1111's weights; SpecError for blends and swaps."""
    return _COMMA.sub(",", _written(invoke_pieces(prompt), " "))


def _written(pieces: Pieces, between: str) -> str:
    """A1111's prompt of words and weights; what A1111 would take for more than words is escaped."""
    told = []
    for weight, alike in groupby(pieces, key=lambda piece: round(piece[1], 12)):
        words = between.join(piece[0] if piece[0].startswith("<lora:") else _escaped(piece[0]) for piece in alike)
        bare = words.strip()
        told.append(words.replace(bare, f"({bare}:{weight:.6g})", 1) if bare and weight != 1 else words)
    text = _OWN_WORDS.sub(lambda word: word[0].lower(), between.join(told))
    return _TAIL.sub(r"(\1:1)", text)


def _escaped(words: str) -> str:
    return "".join(f"\\{sign}" if sign in _SPECIAL else sign for sign in words)
