"""Settings as text: A1111's infotext, read and written, and the guide's own block.

Grammar and quoting are AUTOMATIC1111's (1.10, modules/infotext_utils.py and modules/processing.py create_infotext).
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice

from clipskip.errors import SpecError
from clipskip.spec.record_reader import BLANKS, SPELLINGS, plain_key

NEGATIVE = "Negative prompt:"
LONGEST_NAME = 40
"""The most characters before the colon of a line behind the settings that is reported under its name."""
KNOWN = frozenset(name for names in SPELLINGS.values() for name in names) - {"prompt", "negativeprompt", "negative"}
LEAST_PAIRS = 3
"""A last line with fewer pairs is part of the prompt."""

_KEY = re.compile(r"\w[\w \-/]*+")
_VALUE = re.compile(r'\s*+("(?:\\.|[^\\"])++"(?=,|$)|[^,]*+)(?:,|$)')
_SIZE = re.compile(r"(\d+)x(\d+)")
_GUIDE_LINE = re.compile(r"\s*Positive [Pp]rompt:")
_POSITIVE = r"(?:Positive(?: [Pp]rompt)?|Prompt):"
_POSITIVE_LINE = re.compile(rf"\s*{_POSITIVE}")
_NEGATIVE_LINE = re.compile(r"\s*negative(?: prompt)?:", re.IGNORECASE)
_JSON = re.compile(r"(?:^|,)\s*(Hashes|Civitai resources|Civitai metadata):\s*(?=[\[{])")
"""Fields whose value is JSON without quotes around it."""
_PIPED = re.compile(r"\s*steps:[^|,]*\|", re.IGNORECASE)
"""Old versions of SD.Next put bars between pairs."""
_SETTINGS_LINE = re.compile(r"\s*Steps:\s*[0-9]")
_SETTINGS_LABEL = re.compile(r"\s*(?:settings|parameters):", re.IGNORECASE)
_STEPS_LINE = re.compile(r"\s*steps:\s*\S", re.IGNORECASE)
_LOOKS = re.compile(
    r"^[\W_]{0,9}(?:(?:positive )?prompt|clip[\s_-]?skip|steps|sampler|schedule type|seed|size|cfg[\s_-]?scale|"
    r"model(?:[\s_-]?hash)?|vae)[\W_]{0,5}[:：=]\s*\S"
    r"|\bclip[\s_-]?skip\W{0,5}[0-9]",
    re.IGNORECASE,
)
"""What looks like a setting where it stands in a prompt: at the start of a line, and a Clip Skip anywhere."""
_LABELS = re.compile(rf"Negative prompt:|^[^\S\n]*(?:Steps:|{_POSITIVE})", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Infotext:
    """A settings text in its parts, with values as written."""

    prompt: str
    negative_prompt: str = ""
    fields: Mapping[str, str]
    """In order; "Size: 512x768" becomes "Size-1" and "Size-2", as in A1111."""
    hashes: Mapping[str, str] = field(default_factory=dict)
    """"Hashes: {json}", which A1111 and Civitai's tools add: hashes by "model" and "lora:name". A1111's own grammar
    splits it at its commas, so `fields` contains its pieces as well."""
    lists: Mapping[str, object] = field(default_factory=dict)
    """The JSON of "Hashes" and of Civitai's fields."""
    bare: Mapping[str, str] = field(default_factory=dict)
    """The fields without that JSON and its pieces."""
    twice: tuple[tuple[str, str, str], ...] = ()
    """Each key that stands twice with different values: the key, and both values. A1111 takes the later one."""
    rest: tuple[tuple[str, str], ...] = ()
    """Lines that are neither prompt nor settings: those behind the settings, and settings inside the prompt."""


def parse_infotext(text: str) -> Infotext:
    """Parse an infotext as A1111 does, or a block whose prompts both have labels, as in the guide.

    A1111 takes the last line with three or more pairs as the settings. Here an earlier line that starts with "Steps:"
    counts too; lines behind it continue the settings where they start with a known setting, and else are `rest`.
    """
    lines = text.strip(BLANKS).split("\n")
    if _is_labelled(lines):
        return _parse_guide(lines)
    at = _settings_at(lines)
    settings, rest = _settings_from(lines[at:])
    prompt: list[str] = []
    negative: list[str] = []
    inside: list[tuple[str, str]] = []
    in_negative = False
    for line in map(str.strip, lines[:at]):
        if line.startswith(NEGATIVE):
            in_negative, line = True, line.removeprefix(NEGATIVE).strip()
        elif _is_settings(line):
            inside.append(("a settings line inside the prompt", line))
        (negative if in_negative else prompt).append(line)
    return _infotext(prompt, negative, settings, (*inside, *rest))


def _is_labelled(lines: list[str]) -> bool:
    """Return whether the prompt has the guide's label, or another at its start with a negative one that A1111 never writes."""
    if any(_GUIDE_LINE.match(line) for line in lines):
        return True
    below = any(_NEGATIVE_LINE.match(line) and not line.strip().startswith(NEGATIVE) for line in lines)
    return below and bool(_POSITIVE_LINE.match(lines[0]))


def _settings_at(lines: list[str]) -> int:
    """Return the index of the line where the settings start; without settings, that after the last line."""
    last = next((at for at in reversed(range(len(lines))) if _is_settings(lines[at])), None)
    if last is not None:
        return last
    start = next((at for at in reversed(range(len(lines))) if _SETTINGS_LINE.match(lines[at])), None)
    if (
        start is not None
        and all(_goes_on(line) for line in lines[start + 1 :])
        and _count(lines[start:]) >= LEAST_PAIRS
    ):
        return start
    return len(lines) - 1 if _count(lines[-1:]) >= LEAST_PAIRS else len(lines)


def _begins(line: str) -> bool:
    """Return whether a line begins the settings of a block with labels."""
    return bool(_STEPS_LINE.match(line)) or (_goes_on(line) and _count([line]) >= LEAST_PAIRS)


def _is_settings(line: str) -> bool:
    """Return whether a line is a settings line wherever it stands."""
    return bool(_SETTINGS_LINE.match(line)) and _count([line]) >= LEAST_PAIRS


def _count(lines: list[str]) -> int:
    return sum(1 for line in lines for _ in islice(_pairs(_commas(line)), LEAST_PAIRS))


def _goes_on(line: str) -> bool:
    """Return whether a line behind the settings continues them, which it does when it starts with a known setting."""
    first = next(_pairs(line.strip()), None)
    return first is not None and line.strip().startswith(first[0]) and plain_key(first[0]) in KNOWN


def _settings_from(lines: list[str]) -> tuple[str, list[tuple[str, str]]]:
    """Join the first line and those that continue it to one settings line, and return the other lines by name."""
    settings, rest = [line for line in lines[:1] if line.strip()], list[tuple[str, str]]()
    for line in lines[1:]:
        if _goes_on(line):
            settings.append(line)
        elif stripped := line.strip():
            name, colon, value = stripped.partition(":")
            labelled = colon and len(name) <= LONGEST_NAME and value.strip()
            rest.append((name.strip(), value.strip()) if labelled else ("text after the settings", stripped))
    return ", ".join(_commas(line).strip().rstrip(",") for line in settings), rest


def _commas(line: str) -> str:
    """Return the line with SD.Next's bars replaced by commas."""
    return ", ".join(part.strip() for part in line.split("|")) if _PIPED.match(line) else line


def _parse_guide(lines: list[str]) -> Infotext:
    """Parse the guide's block: labelled prompts, blank lines between them, lines of settings, and prose around
    it."""
    prompt: list[str] = []
    negative: list[str] = []
    settings: list[str] = []
    prose: list[str] = []
    into: list[str] = prose
    for at, line in enumerate(map(str.strip, lines)):
        if not settings and (match := _SETTINGS_LABEL.match(line)):
            into, line = settings, line[match.end() :].strip()
        if match := _POSITIVE_LINE.match(line):
            if prompt:
                prose += lines[at:]  # a second block
                break
            into, line = prompt, line[match.end() :].strip()
        elif match := _NEGATIVE_LINE.match(line):
            into, line = negative, line[match.end() :].strip()
        elif _goes_on(line) if into is settings else not settings and _begins(line):
            into = settings
        elif into is settings and line:
            into = prose
        if line:
            into.append(line)
    rest = (("text around the settings", "\n".join(prose)),) if prose else ()
    return _infotext(prompt, negative, _settings_from(settings)[0], rest)


def _infotext(prompt: list[str], negative: list[str], settings: str, rest: tuple[tuple[str, str], ...]) -> Infotext:
    lists, bare = _json_fields(settings)
    hashes = lists.get("Hashes")
    fields = _fields(_pairs(settings))
    told = {value for _, value in rest}
    if not fields.get("Version", "").startswith("clipskip"):
        for line in (*prompt, *negative):
            rest += (("left in the prompt", line),) if _LOOKS.search(line) and line not in told else ()
    return Infotext(
        prompt=_join_lines(prompt),
        negative_prompt=_join_lines(negative),
        fields=fields,
        hashes={k: v for k, v in hashes.items() if isinstance(v, str)} if isinstance(hashes, dict) else {},
        lists=lists,
        bare=_fields(_pairs(bare)),
        twice=tuple(_twice(_pairs(bare))),
        rest=rest,
    )


def _json_fields(settings: str) -> tuple[dict[str, object], str]:
    """Return the JSON fields and the line without them; invalid JSON stays in the line."""
    lists: dict[str, object] = {}
    kept: list[str] = []
    at = 0
    for match in _JSON.finditer(settings):
        if match.start() < at:
            continue
        try:
            value, end = json.JSONDecoder().raw_decode(settings, match.end())
        except (ValueError, RecursionError):
            continue
        if match[1] not in lists:
            lists[match[1]] = value
            kept.append(settings[at : match.start()])
            at = end
    return lists, "".join([*kept, settings[at:]])


def _join_lines(lines: list[str]) -> str:
    """Join lines; leading empty ones vanish, as in A1111."""
    start = next((i for i, line in enumerate(lines) if line), len(lines))
    return "\n".join(lines[start:])


def _pairs(line: str) -> Iterator[tuple[str, str]]:
    """Yield key and raw value of each pair in linear time: a run of key characters either ends in a colon or holds no
    key."""
    at = 0
    while match := _KEY.search(line, at):
        at = match.end()
        if len(match[0]) > 1 and line.startswith(":", at):
            value = _VALUE.match(line, at + 1)
            assert value is not None
            yield match[0], value[1]
            at = value.end()


def _fields(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
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


def _twice(pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Yield each key that comes again with another value, with both."""
    seen: dict[str, str] = {}
    for key, raw in pairs:
        if raw and seen.get(key, raw) != raw:
            yield key, seen[key], raw
        if raw:
            seen[key] = raw


def quote(value: object) -> object:
    """Return the value as a pair contains it: as JSON where it has a comma, a colon or a line break."""
    text = str(value)
    if not any(mark in text for mark in ",\n:"):
        return value
    return json.dumps(text, ensure_ascii=False)


def unquote(text: str) -> str:
    """Return the content of a quoted value; text that is not JSON stays as it is."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    return value if isinstance(value, str) else text


def format_infotext(infotext: Infotext) -> str:
    """Return the text of these parts; SpecError unless A1111 would read the same parts from it."""
    text = compose(infotext).strip()
    read = parse_infotext(text)
    same = {
        "prompt": _stripped(read.prompt) == _stripped(infotext.prompt),
        "negative_prompt": _stripped(read.negative_prompt) == _stripped(infotext.negative_prompt),
        "settings": _whole_fields(read) == _whole_fields(infotext) and read.hashes == infotext.hashes,
    }
    for name, kept in same.items():
        if not kept:
            raise SpecError(
                f"this {name.replace('_', ' ')} cannot be written as settings text, because it would be read differently: "
                f"give {LEAST_PAIRS} settings or more, and no line of a prompt that looks like settings or starts with {NEGATIVE!r}",
                field=name,
            )
    return text


def compose(infotext: Infotext) -> str:
    """Return prompt, negative prompt and settings on lines of their own.

    An empty prompt keeps its line, because sd-prompt-reader looks for line breaks before its labels.
    """
    negative = f"\n{NEGATIVE} {infotext.negative_prompt}" if infotext.negative_prompt else ""
    pairs = [f"{key}: {_quoted(value)}" for key, value in with_sizes(_whole_fields(infotext))]
    if infotext.hashes:
        pairs.append(_hashes_pair(infotext.hashes))
    return f"{infotext.prompt}{negative}" + (f"\n{', '.join(pairs)}" if pairs else "")


def hide_labels(prompt: str) -> str:
    """Return the prompt with the labels of infotexts in lower case, so that no reader takes them for labels.

    The tokenizer lowercases all text, so the picture stays the same.
    """
    return _LABELS.sub(lambda match: match[0].lower(), prompt)


def _whole_fields(infotext: Infotext) -> dict[str, str]:
    """Return the fields without the pieces that A1111's grammar makes of the hashes."""
    pieces = _hash_pieces(_hashes_pair(infotext.hashes))
    return {key: value for key, value in infotext.fields.items() if pieces.get(key) != value}


@lru_cache(maxsize=256)
def _hash_pieces(hashes: str) -> Mapping[str, str]:
    """Return what A1111's grammar makes of the hashes, which are the same in all cells of a sweep's row."""
    return _fields(_pairs(hashes))


def _hashes_pair(hashes: Mapping[str, str]) -> str:
    return f"Hashes: {json.dumps(hashes, ensure_ascii=False)}" if hashes else ""


def _stripped(text: str) -> str:
    return "\n".join(line.strip() for line in text.split("\n")).strip()


def _quoted(value: str) -> object:
    """Quote as A1111 does, and also where reading would change the value: empty, already quoted, spaces at an end."""
    changed = not value or value != value.strip() or value[0] == value[-1] == '"'
    return json.dumps(value, ensure_ascii=False) if changed else quote(value)


def with_sizes(fields: Mapping[str, str]) -> Sequence[tuple[str, str]]:
    """Return the pairs with "Size-1" and "Size-2" joined again, unless too few pairs would be left."""
    pairs: list[tuple[str, str]] = []
    done: set[str] = set()
    for key, value in fields.items():
        stem, end = key[:-2], key[-2:]
        both = [fields.get(f"{stem}-{i}", "") for i in (1, 2)]
        if end not in ("-1", "-2") or len(stem) < 2 or not all(part.isdecimal() for part in both):
            pairs.append((key, value))
        elif stem not in done:
            done.add(stem)
            pairs.append((stem, "x".join(both)))
    return pairs if len(pairs) >= LEAST_PAIRS else list(fields.items())
