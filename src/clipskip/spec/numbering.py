"""A tool's value to the layers that it selects, and back, as plain numbers; `ClipSkip` and `dialect` use this.

`rules` has the table of tools and families.
"""

from dataclasses import dataclass
from math import isfinite

from clipskip.errors import SkipOutOfRange, SpecError
from clipskip.spec.family import OPENCLIP_G, Family
from clipskip.spec.rules import ROWS, Numbering, Value
from clipskip.spec.tools import Dialect

__all__ = ["ROWS", "Dialect", "Layers", "Numbering", "Value", "layers_of", "numbering", "value_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """The layers that a tool's value selects, each counted from the end; equal where there is one encoder."""

    l_from_end: float
    g_from_end: float
    remark: str = ""
    """One line on why that is another layer than the number, or one that the model was not trained on."""


def numbering(dialect: Dialect, family: Family) -> Numbering:
    """Return the row; SpecError where Clip Skip has no meaning or the tool's rule is unknown."""
    if not family.usable:
        raise SpecError(family.means_nothing, field="family")
    row = ROWS[family].get(dialect)
    if row is None:
        raise SpecError(
            f"{dialect.label} has no known Clip Skip on {family.label}; choose another tool or family", field="dialect"
        )
    return row


def layers_of(value: Value | None, dialect: Dialect, family: Family, *, encoder: int | None = None) -> Layers:
    """Return the layers from the end that a tool's value selects; they may be fractions.

    `encoder` is set where the value is for one encoder only: 0 for CLIP-L, 1 for OpenCLIP-bigG.
    """
    row = numbering(dialect, family)
    number = _as_number(value)
    left_out = value is None or str(value)[:60].strip().lower() in ("none", "")
    if left_out or (row.unset_to is not None and number is not None and number <= row.unset_to):
        n: float = row.unset
    elif row.words:
        n = _of_word(value, dialect, family)
    else:
        n = _of_number(value, number, dialect, family, last=OPENCLIP_G.depth if encoder == 1 else row.last)
    l_from_end, g_from_end = row.read(n)
    remark = "" if left_out else _remark(value, n, dialect, family)
    return Layers(l_from_end=_tidy(l_from_end), g_from_end=_tidy(g_from_end), remark=remark)


def value_of(l_from_end: float, g_from_end: float, dialect: Dialect, family: Family) -> Value:
    """Return the value with which the tool selects these layers; "L/G" where they differ and it takes both."""
    row = numbering(dialect, family)
    both = {l_from_end, g_from_end}
    spelled = f"{l_from_end:g}" if len(both) == 1 else f"{l_from_end:g}/{g_from_end:g}"
    refusal = f"{dialect.label} cannot select Clip Skip {spelled} on {family.label}"
    if len(both) == 1 and l_from_end > family.depth:
        raise SkipOutOfRange(
            f"clip skip {spelled} is deeper than the {family.depth} layers of {family.label}; use 1 to {family.depth}",
            field="clip_skip",
        )
    if not row.fractions and (between := [n for n in both if not float(n).is_integer()]):
        near = [str(row.spell(k)) for k in (int(between[0]), int(between[0]) + 1) if row.first <= k <= row.last]
        near = near if len(both) == 1 else []
        raise SpecError(
            f"{refusal}: it has no fractions; near it are {' and '.join(near) or row.range}", field="clip_skip"
        )
    if len(both) == 2 and row.each and row.first <= min(both) and l_from_end <= row.last:
        return f"{row.spell(l_from_end)}/{row.spell(g_from_end)}"
    for n in (l_from_end, g_from_end):
        if row.reaches(n) and row.read(n) == (l_from_end, g_from_end):
            return row.spell(n)
    reason = row.why or row.limits or "its numbers end"
    parts = any(a != b for a, b in map(row.read, range(row.first, row.last + 1)))
    if len(both) == 2 and not (row.each or row.fixed or row.words or parts):
        reason = "it has one number for both encoders"
    raise SpecError(f"{refusal}: {reason}; it has {row.range}", field="clip_skip")


def _of_number(value: Value | None, number: float | None, dialect: Dialect, family: Family, *, last: int) -> float:
    """Return the n of a number, checked."""
    row = numbering(dialect, family)
    subject = f"{dialect.label} {_short_value(value)} on {family.label}"
    if number is None or not isfinite(number):
        raise SkipOutOfRange(f"{subject} is not a number; use {row.range}", field="clip_skip")
    if not number.is_integer() and not row.fractions:
        raise SpecError(f"{subject} is a fraction and {dialect.label} has none; use {row.range}", field="clip_skip")
    n = row.number_of(number)
    if not row.reaches(n, last=last) and not row.fixed:
        what = ". ".join(filter(None, (row.limits, row.why if row.first > 1 else "")))
        raise SkipOutOfRange(
            f"{subject} is not one of the {family.depth} layers{f' ({what})' if what else ''}; use {row.range}",
            field="clip_skip",
        )
    return n


def _remark(value: Value | None, n: float, dialect: Dialect, family: Family) -> str:
    """Return a remark on what the user may not expect of this value."""
    row = numbering(dialect, family)
    l_from_end, g_from_end = row.read(n)
    subject, remarks = f"{dialect.label} {_short_value(value)} on {family.label}", list[str]()
    if l_from_end != g_from_end:
        remarks.append(f"{subject} reads CLIP-L at {l_from_end:g} and OpenCLIP-bigG at {g_from_end:g}: {row.why}")
    elif l_from_end != n or row.fixed:
        remarks.append(f"{subject} reads Clip Skip {l_from_end:g}: {row.why}")
    elif not row.words and abs(_as_number(value) or 0) != n:
        remarks.append(f"{subject} reads Clip Skip {n:g}")
    if not family.value.final_norm and l_from_end < 2:
        remarks.append(
            "Below 2 it is the last layer without its final norm, which the model was not trained on: often noise or black"
        )
    return ". ".join(remarks)


def _tidy(n: float) -> float:
    return int(n) if float(n).is_integer() else round(n, 12)


def _short_value(value: Value | None) -> str:
    text = f"{value:.12g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _as_number(value: Value | None) -> float | None:
    if value is None or isinstance(value, bool):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _of_word(value: Value | None, dialect: Dialect, family: Family) -> int:
    row = numbering(dialect, family)
    word = str(value).strip().casefold()
    word = {"true": "on", "yes": "on", "1": "on", "false": "off", "no": "off", "0": "off"}.get(word, word)
    for number, name in row.words:
        if word == name.casefold():
            return number
    raise SpecError(
        f"{dialect.label} {_short_value(value)} on {family.label} is not one of its values; use {row.range}"
        + (f" ({row.limits})" if row.limits else ""),
        field="clip_skip",
    )
