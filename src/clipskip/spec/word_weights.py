"""Weights of words as NovelAI and InvokeAI write them -> A1111's (words:1.1).

NovelAI: {words} is 1.05 times, [words] 1 / 1.05 (its manual, "Strengthening and weakening"); round brackets are text.
InvokeAI: (words)1.2, (words)++ and word+ with 1.1 a plus and 0.9 a minus; brackets alone say nothing (compel's syntax).
"""

import re

from clipskip.errors import SpecError

NOVELAI_STEP = 1.05
PLUS, MINUS = 1.1, 0.9
MOST_LEVELS = 60
"""Brackets in brackets; more are no weights."""

_SPECIAL = frozenset("()[]\\")
_OWN_WORDS = re.compile(r"\b(AND|BREAK)\b")
"""What A1111 takes for more than words; a tokenizer makes no difference between these and small letters."""
_NUMBERED = re.compile(r"(?<![0-9.])-?[0-9.]{1,20}::")
_CALLS = re.compile(r"\)\s*\.(blend|swap|and)\s*\(")
_WEIGHT = re.compile(r"(\+{1,20}|-{1,20}|[0-9]{1,6}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})(?![\w+-])")
_WORD = re.compile(r"((?:\\.|[^\s,()\\])*?[^\s,()\\+-])(\+{1,20}|-{1,20})(?=[\s,()]|$)")


def _weighed(words: str, weight: float) -> str:
    return f"({words}:{weight:.6g})" if words and weight != 1 else words


def _escaped(sign: str) -> str:
    return f"\\{sign}" if sign in _SPECIAL else sign


def novelai_words(prompt: str) -> str:
    """NovelAI's prompt with its weights as A1111 writes them. SpecError for weights in numbers, which its models of 2025 have."""
    if numbered := _NUMBERED.search(prompt):
        raise SpecError(
            f"this NovelAI prompt has a weight in numbers, {numbered[0]}, which is not known here; write (words:1.2)",
            field="prompt",
        )
    levels, opened = [list[str]()], list[str]()
    for sign in prompt:
        if sign in "{[":
            opened.append(sign)
            levels.append([])
        elif opened and sign == {"{": "}", "[": "]"}[opened[-1]]:
            _close(levels, opened)
        else:
            levels[-1].append(_escaped(sign))
        if len(opened) > MOST_LEVELS:
            raise SpecError(f"this NovelAI prompt has over {MOST_LEVELS} brackets in brackets", field="prompt")
    while opened:
        _close(levels, opened)
    return _OWN_WORDS.sub(lambda word: word[0].lower(), "".join(levels[0]))


def _close(levels: list[list[str]], opened: list[str]) -> None:
    weight = NOVELAI_STEP if opened.pop() == "{" else 1 / NOVELAI_STEP
    words = "".join(levels.pop())
    levels[-1].append(_weighed(words, weight))


def invoke_words(prompt: str) -> str:
    """InvokeAI's prompt with its weights as A1111 writes them. SpecError for blends and swaps."""
    if call := _CALLS.search(prompt):
        raise SpecError(
            f"this InvokeAI prompt calls .{call[1]}(), which cannot be repeated; give the prompt itself", field="prompt"
        )
    levels, at = [list[str]()], 0
    while at < len(prompt):
        sign = prompt[at]
        if sign == "\\" and at + 1 < len(prompt):
            levels[-1].append(prompt[at : at + 2])
            at += 2
        elif sign == "(" and len(levels) <= MOST_LEVELS:
            levels.append([])
            at += 1
        elif sign == ")" and len(levels) > 1:
            weight = _WEIGHT.match(prompt, at + 1)
            words = "".join(levels.pop())
            levels[-1].append(_weighed(words, _value(weight[1])) if weight else words)
            at = weight.end() if weight else at + 1
        elif (at == 0 or prompt[at - 1] in " \t\n,()") and (word := _WORD.match(prompt, at)):
            levels[-1].append(_weighed(re.sub(r"[\[\]]", r"\\\g<0>", word[1]), _value(word[2])))
            at = word.end()
        else:
            levels[-1].append(_escaped(sign))
            at += 1
    return _OWN_WORDS.sub(lambda word: word[0].lower(), r"\(".join("".join(level) for level in levels))


def _value(written: str) -> float:
    """The weight: a number, or 1.1 for each plus and 0.9 for each minus."""
    if written[0] in "+-":
        return float((PLUS if written[0] == "+" else MINUS) ** len(written))
    return float(written)
