"""A comparison of epochs in; plain values for JSON, lines of text, and a plot as SVG, out."""

import dataclasses
from collections.abc import Iterator
from xml.sax.saxutils import escape

from clipskip.advise import KNOWN, MOST_SURE, Answer, Comparison, Table, to_write, training_lines
from clipskip.doors.advice_text import number_in, row
from clipskip.spec import Dialect, Family

WIDE, TALL, LEFT, GAP, TOP = 240, 170, 56, 44, 74
"""Pixels: a panel's width and height, room for its numbers, between two panels, and above them."""
FIRST, LAST = (176, 206, 240), (16, 60, 130)
"""Colours of the first epoch's line and of the last one's."""
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1b1f24}.t{font-weight:600}.n{font-size:11px}.f{fill:none;stroke-width:2}"
)


def plain_epochs(comparison: Comparison, *, family: Family) -> dict[str, object]:
    """Return everything as JSON's values, with what to write into a trainer's config."""
    values = dataclasses.asdict(comparison)
    for epoch in values["epochs"]:
        epoch["path"] = str(epoch["path"])
    values["configs"] = [
        {
            "path": str(config.path),
            "trainer": config.tool.value,
            "says": config.said,
            "clip_skip": config.trained_at(family)[0],
        }
        for config in comparison.configs
    ]
    return values | {"to_write": [dataclasses.asdict(write) for write in to_write(comparison.model_skip, family)]}


def epoch_lines(comparison: Comparison, *, family: Family, tool: Dialect) -> Iterator[str]:
    """Yield the choice first, then what it rests on."""
    choice, chosen = comparison.choice, comparison.epochs[comparison.choice.epoch]
    number = number_in(tool, choice.skip, family=family)
    which = f"{chosen.name} ({chosen.label}) at Clip Skip {number}"
    yield {
        Answer.VALUE: f"Use {which}, {min(choice.sure, MOST_SURE):.0%} sure",
        Answer.NO_DIFFERENCE: f"No difference that matters; use {which}",
        Answer.NOT_KNOWN: f"Not known; begin with {which}",
    }[choice.answer]
    yield f"{choice.text}."
    yield ""
    yield f"{len(comparison.epochs)} epochs of one LoRA on {comparison.model}, {comparison.family}, strength as given"
    yield f"Prompt: {comparison.prompt} ({comparison.prompt_source})"
    for item in comparison.evidence:
        yield f"  {item.about}: Clip Skip {item.skip}, {item.weight:.0%}: {item.source}. Doubt: {item.doubt}."
    for title, table, form in _tables(comparison):
        yield ""
        yield row(title, [str(skip) for skip in comparison.skips])
        for epoch, cells in zip(comparison.epochs, table, strict=True):
            yield row(f"  {epoch.label}", [format(cell, form) for cell in cells])
    yield ""
    yield "added: along what the epochs have in common, of the guidance. besides: everyday prompts that do not call it, of theirs."
    if comparison.error is not None:
        yield f"error: of denoising {comparison.pictures} pictures, over that without the LoRA at Clip Skip {comparison.model_skip}."
    yield from training_lines(comparison.model_skip, comparison.model_sure >= KNOWN, family, comparison.configs)
    yield ""
    yield f"Measured with {comparison.rows} UNet evaluations (a guided step is two) in {comparison.seconds:.0f} s."


def _tables(comparison: Comparison) -> Iterator[tuple[str, Table, str]]:
    yield f"taken up (1: most at {comparison.lora_skip})", comparison.uptake, ".0%"
    yield "added", comparison.effect, ".0%"
    yield "changed besides", comparison.besides, ".0%"
    if comparison.error is not None:
        small = all(abs(cell) < 1 for cells in comparison.error for cell in cells)
        yield "error on pictures", comparison.error, "+.1%" if small else "+.0%"
    yield "chance to be the best", comparison.chance, ".0%"


def epoch_picture(comparison: Comparison) -> str:
    """Return an SVG: a panel for each measure, Clip Skip across, a line for each epoch, the later the darker; a ring is the choice."""
    panels = [panel for panel in _tables(comparison) if panel[0] != "added"]
    width = LEFT + len(panels) * (WIDE + LEFT) + GAP
    height = TOP + TALL + 58 + 18 * -(-len(comparison.epochs) // 3)
    parts = [
        f'<text class="t" x="{GAP // 2}" y="24">{escape(_cut(f"{len(comparison.epochs)} epochs: {comparison.prompt}"))}</text>',
        f'<text x="{GAP // 2}" y="44">{escape(_cut(f"{comparison.choice.text}."))}</text>',
    ]
    for number, (title, table, form) in enumerate(panels):
        parts += _panel(comparison, title, table, form=form, x=LEFT + number * (WIDE + LEFT))
    for number, epoch in enumerate(comparison.epochs):
        x, y = GAP // 2 + number % 3 * 300, TOP + TALL + 56 + 18 * (number // 3)
        text, colour = escape(_cut(f"{epoch.label} ({epoch.name})", 42)), _colour(comparison, number)
        parts.append(
            f'<path class="f" d="M{x} {y - 4}h18" stroke="{colour}"/><text class="n" x="{x + 24}" y="{y}">{text}</text>'
        )
    label = escape(f"Epochs of a LoRA at each Clip Skip: {comparison.choice.text}", {'"': "&quot;"})
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{label}"><style>{STYLE}</style><rect width="{width}" height="{height}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _panel(comparison: Comparison, title: str, table: Table, *, form: str, x: int) -> Iterator[str]:
    """One measure: its axes, its lines and the choice."""
    cells = [cell for cells in table for cell in cells]
    low, high = min(0.0, *cells), max(0.0, *cells) or 1.0
    step = WIDE / max(1, len(comparison.skips) - 1)

    def place(column: int, value: float) -> str:
        return f"{x + column * step:.1f} {TOP + TALL * (1 - (value - low) / (high - low)):.1f}"

    yield f'<text class="t" x="{x}" y="{TOP - 10}">{escape(title)}</text>'
    for value in sorted({low, 0.0, high}):
        at = place(0, value).split()[1]
        yield f'<path d="M{x} {at}h{WIDE}" stroke="#d5d9de"/><text class="n" x="{x - 6}" y="{at}" text-anchor="end">{value:{form}}</text>'
    for column, skip in enumerate(comparison.skips):
        yield f'<text class="n" x="{x + column * step:.1f}" y="{TOP + TALL + 18}" text-anchor="middle">{skip}</text>'
    for number, values in enumerate(table):
        path = "L".join(place(column, value) for column, value in enumerate(values))
        dots = "".join(f"M{place(column, value)}h0" for column, value in enumerate(values))
        colour = f'stroke="{_colour(comparison, number)}"'
        yield f'<path class="f" d="M{path}" {colour}/><path d="{dots}" {colour} stroke-width="6" stroke-linecap="round"/>'
    choice = comparison.choice
    ring = place(comparison.skips.index(choice.skip), table[choice.epoch][comparison.skips.index(choice.skip)]).split()
    yield f'<circle cx="{ring[0]}" cy="{ring[1]}" r="7" fill="none" stroke="#c0392b" stroke-width="2"/>'


def _colour(comparison: Comparison, number: int) -> str:
    share = number / max(1, len(comparison.epochs) - 1)
    return "#" + "".join(
        f"{round(first + (last - first) * share):02x}" for first, last in zip(FIRST, LAST, strict=True)
    )


def _cut(text: str, most: int = 110) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
