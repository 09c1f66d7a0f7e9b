"""A reading of the layers in; lines of text, and a picture as SVG, out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from clipskip.advise import Heard, LayerReading, WordLayers
from clipskip.doors.advice_text import row

HEARD_SHOWN = 2
"""Words told of as heard by each."""
HEARD_FROM = 0.1
"""The least share, at any Clip Skip, that is told of."""


def layer_lines(layers: LayerReading, *, model: str, depth: int, notes: Sequence[str] = ()) -> Iterator[str]:
    """Tables over Clip Skip."""
    words = len(layers.words)
    yield f"{model}: {depth} layers; Clip Skip 1 reads layer {depth}. {layers.tokens} tokens, {words} words and ends."
    yield from (f"{note}." for note in notes)
    yield ""
    yield row("Clip Skip", [str(skip) for skip in layers.skips])
    yield row("reads layer", [str(depth + 1 - skip) for skip in layers.skips])
    yield row("like the next Clip Skip", [f"{value:.2f}" for value in _neighbours(layers)])
    yield row("  as the UNet is given it", [f"{value:.3f}" for value in layers.plain_likeness])
    yield row(f"like Clip Skip {layers.skips[0]}", [f"{value:.2f}" for value in layers.likeness[0]])
    yield row("the layer moves a word by", _percents(layers.written))
    yield ""
    yield "What the other words do to each word's vector, of its length (0%: it says what it says alone):"
    for told in _word_rows(layers):
        yield row(told.name, _percents(told.values))
    yield ""
    yield f"The nearest of {layers.compared} common words, each said alone, by Clip Skip:"
    for word in layers.words:
        yield f"  {word.text:<26}" + ", ".join(_spans(layers.skips, [near[0].word for near in word.nearest]))


def _neighbours(layers: LayerReading) -> list[float]:
    return [layers.likeness[i][i + 1] for i in range(len(layers.skips) - 1)]


def _percents(values: Sequence[float]) -> list[str]:
    return [f"{value:.0%}" for value in values]


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    values: Sequence[float]


def _word_rows(layers: LayerReading) -> Iterator[_Row]:
    for word in layers.words:
        yield _Row(f"  {word.text}", word.context)
        yield from (_Row(f"    from {heard.word}", heard.share) for heard in _told(word))


def _told(word: WordLayers) -> list[Heard]:
    return [heard for heard in word.heard[:HEARD_SHOWN] if max(heard.share) >= HEARD_FROM]


def _spans(skips: Sequence[int], names: Sequence[str]) -> Iterator[str]:
    """ "frog 1-4, owl 5": what stays the same is said once."""
    start = 0
    for i in range(1, len(names) + 1):
        if i == len(names) or names[i] != names[start]:
            first, last = skips[start], skips[i - 1]
            yield f"{names[start]} {first}" + (f"-{last}" if last > first else "")
            start = i


CELL, LINE, LABEL, PAD = 46, 22, 190, 24
"""Pixels: a cell's width, a row's height, room for names, margins."""
FULL = 0.6
"""Of the colour where a value is 1: text stays legible on it."""
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1b1f24}.t{font-weight:600}.n{font-size:11px;text-anchor:middle}"
    "rect.b{fill:#fff}"
)


def layer_picture(layers: LayerReading, *, model: str, text: str) -> str:
    """Return an SVG: how alike the Clip Skips are, and what the words do to each other at each."""
    columns = len(layers.skips)
    square = [(f"Clip Skip {skip}", values) for skip, values in zip(layers.skips, layers.likeness, strict=True)]
    words = [(told.name[2:], told.values) for told in _word_rows(layers)]
    width = LABEL + columns * CELL + 2 * PAD
    parts, y = [], PAD
    parts.append(f'<text class="t" x="{PAD}" y="{y + 12}">{escape(_cut_word(text, 90))}</text>')
    parts.append(f'<text x="{PAD}" y="{y + 30}">{escape(model)}</text>')
    y += 54
    for title, rows, percent in (
        ("How alike the words' vectors are at two Clip Skips (cosine)", square, False),
        ("What the other words do to each word's vector, of its length", words, True),
    ):
        parts.append(f'<text class="t" x="{PAD}" y="{y + 12}">{title}</text>')
        parts += [
            f'<text class="n" x="{PAD + LABEL + (i + 0.5) * CELL}" y="{y + 34}">{skip}</text>'
            for i, skip in enumerate(layers.skips)
        ]
        y += 40
        for name, values in rows:
            parts += _picture_row(name, values, y=y, percent=percent)
            y += LINE
        y += PAD
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" viewBox="0 0 {width} {y}" role="img" '
        f'aria-label="{escape(f"What each layer makes of: {text}", {chr(34): "&quot;"})}"><style>{STYLE}</style>'
        f'<rect class="b" width="{width}" height="{y}"/>{"".join(parts)}</svg>\n'
    )


def _picture_row(name: str, values: Sequence[float], *, y: int, percent: bool) -> Iterator[str]:
    yield f'<text x="{PAD}" y="{y + 15}" xml:space="preserve">{escape(_cut_word(name, 26))}</text>'
    for i, value in enumerate(values):
        x, strength = PAD + LABEL + i * CELL, min(max(value, 0.0), 1.0)
        said = f"{value:.0%}" if percent else f"{value:.2f}"
        yield (
            f'<rect x="{x}" y="{y}" width="{CELL - 2}" height="{LINE - 2}" fill="#1d6fd8" fill-opacity="{0.02 + FULL * strength:.2f}"/>'
            f'<text class="n" x="{x + CELL / 2 - 1}" y="{y + 14}">{said}</text>'
        )


def _cut_word(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
