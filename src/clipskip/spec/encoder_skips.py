"""A Clip Skip for each of SDXL's text encoders, the syntax of all Clip Skips, and a phrase's own Clip Skip."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from clipskip.errors import SkipOutOfRange, SpecError
from clipskip.spec.skip import MOST_COLUMNS, ClipSkip, parse_list, parse_span, shown
from clipskip.spec.skip_schedule import EncoderSkip, parse_encoder_skip

ENCODERS = ("CLIP-L", "OpenCLIP-bigG")
"""SDXL's encoders, in the order in which their vectors are joined."""
_LETTERS = {"l": "L", "clip_l": "L", "g": "G", "clip_g": "G"}
_WRITTEN = "write both encoders' numbers as 2/5 or L=2,G=5, or one number for both"


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSkips:
    """Two different Clip Skips for SDXL's two text encoders; where they are equal it is one Clip Skip instead."""

    l: EncoderSkip  # noqa: E741  # the field's name for the encoder
    """CLIP-L's, 1 to 12."""
    g: EncoderSkip
    """OpenCLIP-bigG's, 1 to 32."""

    def __post_init__(self) -> None:
        if self.l == self.g:
            raise SpecError(f"both encoders have Clip Skip {self.l}; give that number once", field="clip_skip")

    @classmethod
    def of(cls, l: EncoderSkip, g: EncoderSkip) -> "Skip":  # noqa: E741
        """Return the two as one value: the Clip Skip itself where they are equal."""
        return l if l == g else cls(l=l, g=g)

    def __str__(self) -> str:
        return f"{self.l}/{self.g}"

    @property
    def first(self) -> ClipSkip:
        """CLIP-L's first Clip Skip, for tools that know a single whole number."""
        return self.l.first

    @property
    def parts(self) -> tuple[ClipSkip, ...]:
        """Every Clip Skip in it, of either encoder."""
        return tuple(dict.fromkeys((*self.l.parts, *self.g.parts)))

    def over(self, calls: int) -> tuple[tuple[int, "Skip"], ...]:
        """Return (until_step, Clip Skips), each for the calls up to and including its step, counted from 0."""
        l_over, g_over = self.l.over(calls), self.g.over(calls)
        ends = sorted({until for until, _ in (*l_over, *g_over)})
        return tuple((end, EncoderSkips.of(_read_at(l_over, end), _read_at(g_over, end))) for end in ends)


def _read_at(over: Sequence[tuple[int, ClipSkip]], end: int) -> ClipSkip:
    return next(skip for until, skip in over if end <= until)


Skip = EncoderSkip | EncoderSkips
"""The Clip Skip of a picture. `skip_for` returns one encoder's."""


def skip_for(skip: Skip, encoder_index: int) -> EncoderSkip:
    """Return the Clip Skip of one encoder: 0 is CLIP-L (on SD 1.x and 2.x the only one), 1 is OpenCLIP-bigG."""
    if isinstance(skip, EncoderSkips):
        return (skip.l, skip.g)[encoder_index]
    return skip


def check_depths(skip: Skip, depths: Sequence[int]) -> Skip:
    """Return this Clip Skip; SkipOutOfRange when a model whose encoders have these depths lacks one of its layers."""
    if len(depths) == 1:
        if isinstance(skip, EncoderSkips):
            raise SkipOutOfRange(
                f"clip skip {skip} is for two text encoders, and this model has one; use one number, 1 to {depths[0]}",
                field="clip_skip",
            )
        skip.check(depths[0])
        return skip
    for number, (name, depth) in enumerate(zip(ENCODERS, depths, strict=True)):
        deepest = max(skip_for(skip, number).parts)
        if deepest.from_end <= depth:
            continue
        written, both = shown(deepest.from_end), ""
        if not isinstance(skip, EncoderSkips):
            both = f" for both encoders, or give each its own: L=2,G=5 (G from 1 to {depths[1]})"
        raise SkipOutOfRange(
            f"clip skip {written} is deeper than the {depth} layers of {name}; use 1 to {depth}{both}",
            field="clip_skip",
        )
    return skip


def parse_skip(text: str) -> Skip:
    """Parse the Clip Skip that a user typed: "2", "1.5", "[1:2:0.5]", "[1|2]"; for two encoders "2/5" or "L=2,G=5"."""
    return (
        EncoderSkips.of(*map(parse_encoder_skip, sides))
        if (sides := split_encoders(text))
        else parse_encoder_skip(text)
    )


def parse_columns(text: str) -> tuple[Skip, ...]:
    """Parse the Clip Skips of a sweep as users type them: "1-5", "1,[1:2:0.5],2", "1-11 (+2)", "2/5,2/1-32", "1..5"."""
    return parse_list(text, parse_column)


def parse_column(text: str) -> Sequence[Skip]:
    """Parse one part of a list, 3 or 1-5 or 2/1-32: either encoder may have a range."""
    if (sides := split_encoders(text)) is None:
        return _skip_span(text)
    l_skips, g_skips = map(_skip_span, sides)
    if len(l_skips) * len(g_skips) > MOST_COLUMNS:
        raise SpecError(f"clip skips {shown(text.strip())} are more than {MOST_COLUMNS}; use fewer", field="clip_skip")
    return [EncoderSkips.of(l_skip, g_skip) for l_skip, g_skip in product(l_skips, g_skips)]


def _skip_span(text: str) -> Sequence[EncoderSkip]:
    return parse_span(text) or (parse_encoder_skip(text),)


def split_encoders(text: str) -> tuple[str, str] | None:
    """Return the texts for CLIP-L and for bigG; None where one Clip Skip is for both."""
    if "/" not in text and "=" not in text:
        return None
    sides = re.split("[,/]", text) if "=" in text else text.split("/")
    if len(sides) == 2 and "=" in text:
        named = [side.partition("=") for side in sides]
        by_letter = {_LETTERS.get(name.strip().lower(), ""): side for name, _, side in named}
        sides = [by_letter[letter] for letter in "LG" if letter in by_letter]
    if len(sides) != 2:
        raise SkipOutOfRange(f"clip skip {shown(text)} cannot be read; {_WRITTEN}", field="clip_skip")
    return sides[0], sides[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhraseSkip:
    """The Clip Skip of a phrase, wherever the prompt contains it."""

    phrase: str
    """The words as in the prompt, without brackets and weights; kept in lower case with single spaces."""
    skip: Skip

    def __post_init__(self) -> None:
        phrase = " ".join(self.phrase.lower().split())
        if not phrase:
            raise SpecError(
                f"clip skip {self.skip} is for a phrase without words; give words of the prompt, as in 'red frog=4'",
                field="phrase_skip",
            )
        object.__setattr__(self, "phrase", phrase)

    @classmethod
    def parse(cls, text: str) -> "PhraseSkip":
        """Parse a phrase and its Clip Skip: red frog=4, red frog=2/5."""
        phrase, equals, skip = _split_phrase(text)
        if not equals:
            raise SpecError(
                f"the phrase {text[:60]!r} has no clip skip; write both, as in 'red frog=4'", field="phrase_skip"
            )
        return cls(phrase=phrase, skip=parse_skip(skip))

    def __str__(self) -> str:
        return f"{self.phrase}={self.skip}"


def _split_phrase(text: str) -> tuple[str, str, str]:
    """Split a text into the phrase, "=" and its Clip Skip, which may be L=2,G=5."""
    pieces = text.rsplit("=", 3)
    if len(pieces) == 4 and pieces[1].strip().lower() in _LETTERS:
        return pieces[0], "=", "=".join(pieces[1:])
    return text.rpartition("=")
