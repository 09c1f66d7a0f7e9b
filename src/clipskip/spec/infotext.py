"""Settings as text: A1111's infotext, read and written, and the guide's own block.

Grammar and quoting are AUTOMATIC1111's (1.10, modules/infotext_utils.py and modules/processing.py create_infotext).
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from clipskip.errors import SpecError

NEGATIVE = "Negative prompt:"
LEAST_PAIRS = 3
"""A last line with fewer pairs is part of the prompt."""

_KEY = re.compile(r"\w[\w \-/]*+")
_VALUE = re.compile(r'\s*+("(?:\\.|[^\\"])++"(?=,|$)|[^,]*+)(?:,|$)')
_SIZE = re.compile(r"(\d+)x(\d+)")
_POSITIVE_LINE = re.compile(r"\s*positive prompt:", re.IGNORECASE)
_NEGATIVE_LINE = re.compile(r"\s*negative prompt:", re.IGNORECASE)
_STEPS_LINE = re.compile(r"\s*steps:\s*\S", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Infotext:
    """A settings text in its parts, values as written."""

    prompt: str
    negative_prompt: str = ""
    fields: Mapping[str, str]
    """In their order; "Size: 512x768" is "Size-1" and "Size-2", as A1111 reads it."""


def parse_infotext(text: str) -> Infotext:
    """The parts of an infotext, just as A1111 reads them; or of the guide's block, which starts "Positive Prompt:"."""
    if any(_POSITIVE_LINE.match(line) for line in text.split("\n")):
        return _parse_guide(text)
    *lines, last = text.strip().split("\n")
    pairs = list(_pairs(last))
    if len(pairs) < LEAST_PAIRS:
        lines, pairs = [*lines, last], []
    prompt: list[str] = []
    negative: list[str] = []
    in_negative = False
    for line in map(str.strip, lines):
        if line.startswith(NEGATIVE):
            in_negative, line = True, line.removeprefix(NEGATIVE).strip()
        (negative if in_negative else prompt).append(line)
    return Infotext(prompt=_joined(prompt), negative_prompt=_joined(negative), fields=_fields(pairs))


def _parse_guide(text: str) -> Infotext:
    """The guide's block: labelled prompts, blank lines between, one line of settings; what stands around it is prose."""
    prompt: list[str] = []
    negative: list[str] = []
    pairs: list[tuple[str, str]] = []
    into: list[str] | None = None
    for line in map(str.strip, text.split("\n")):
        if found := _POSITIVE_LINE.match(line):
            into, line = prompt, line[found.end() :].strip()
        elif found := _NEGATIVE_LINE.match(line):
            into, line = negative, line[found.end() :].strip()
        elif _STEPS_LINE.match(line) and into is not None:
            pairs, into = list(_pairs(line)), None
            break
        if into is not None and line:
            into.append(line)
    return Infotext(prompt=_joined(prompt), negative_prompt=_joined(negative), fields=_fields(pairs))


def _joined(lines: list[str]) -> str:
    """Lines below each other; leading empty ones vanish, as they do where A1111 adds each to what it has."""
    start = next((i for i, line in enumerate(lines) if line), len(lines))
    return "\n".join(lines[start:])


def _pairs(line: str) -> Iterator[tuple[str, str]]:
    """Key and raw value of each pair, in linear time: a run of key characters either ends in a colon or holds no key."""
    at = 0
    while found := _KEY.search(line, at):
        at = found.end()
        if len(found[0]) > 1 and line.startswith(":", at):
            value = _VALUE.match(line, at + 1)
            assert value is not None
            yield found[0], value[1]
            at = value.end()


def _fields(pairs: list[tuple[str, str]]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for key, raw in pairs:
        if not raw:
            continue
        value = unquote(raw) if raw[0] == raw[-1] == '"' else raw
        if size := _SIZE.fullmatch(value):
            fields[f"{key}-1"], fields[f"{key}-2"] = size[1], size[2]
        else:
            fields[key] = value
    return fields


def quote(value: object) -> object:
    """The value as a pair carries it: JSON where it holds a comma, a colon or a line break, else as it is."""
    text = str(value)
    if not any(mark in text for mark in ",\n:"):
        return value
    return json.dumps(text, ensure_ascii=False)


def unquote(text: str) -> str:
    """What a quoted value says; text that is not JSON after all stays as it is."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    return value if isinstance(value, str) else text


def format_infotext(infotext: Infotext) -> str:
    """The text of these parts: A1111 reads it back as the same."""
    for name, prompt in (("prompt", infotext.prompt), ("negative prompt", infotext.negative_prompt)):
        if any(line.strip().startswith(NEGATIVE) for line in prompt.split("\n")):
            raise SpecError(
                f"a line of the {name} starts with {NEGATIVE!r}, which settings texts cannot carry; put words before it",
                field="prompt",
            )
    negative = f"{NEGATIVE} {infotext.negative_prompt}" if infotext.negative_prompt else ""
    pairs = ", ".join(f"{key}: {_quoted(value)}" for key, value in _with_sizes(infotext.fields))
    return "\n".join(part for part in (infotext.prompt, negative, pairs) if part).strip()


def _quoted(value: str) -> object:
    """A1111's quoting, and also where reading would change the value: empty, quoted already, spaces at an end."""
    changed = not value or value != value.strip() or value[0] == value[-1] == '"'
    return json.dumps(value, ensure_ascii=False) if changed else quote(value)


def _with_sizes(fields: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The pairs with "Size-1", "Size-2" put together again."""
    done: set[str] = set()
    for key, value in fields.items():
        stem, end = key[:-2], key[-2:]
        other = f"{stem}-2" if end == "-1" else f"{stem}-1"
        if key in done:
            continue
        if end in ("-1", "-2") and other in fields and value.isdecimal() and fields[other].isdecimal():
            done |= {key, other}
            yield stem, f"{fields[f'{stem}-1']}x{fields[f'{stem}-2']}"
        else:
            yield key, value
