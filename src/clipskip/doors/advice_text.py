"""An advice in; the same as plain values for JSON, and as lines of text, out."""

import dataclasses
from collections.abc import Iterator, Sequence

from clipskip.advise import MOST_SURE, Advice, Answer, LoraUptake, Prompted, Trained
from clipskip.errors import SpecError
from clipskip.spec import ClipSkip, Dialect, Family, conversion_table, to_dialect

BAR, NAME = 20, 28
"""Characters of a full bar, and of a name before it is cut."""
AGAINST = -0.2
"""A cosine with a phrase that is worth a line."""


def advice_json(advice: Advice, *, family: Family) -> dict[str, object]:
    """Return everything, and the verdict's number in every tool that has one."""
    tools = [
        {"tool": row.dialect.value, "number": row.number, "note": row.note}
        for row in conversion_table(ClipSkip(advice.verdict.skip), family=family)
    ]
    return dataclasses.asdict(advice) | {"tools": tools}


def lines(advice: Advice, *, family: Family, tool: Dialect) -> Iterator[str]:
    """Yield the verdict first, then what it rests on."""
    yield from _verdict(advice, family=family, tool=tool)
    yield ""
    yield f"{advice.model}{f' [{advice.hash}]' if advice.hash else ''}, {advice.family}, {advice.depth} layers"
    for item in advice.evidence:
        yield f"  {item.about}: Clip Skip {item.skip}, {item.weight:.0%}: {item.source}. Doubt: {item.doubt}."
    yield from (f"  Contradiction: {item}" for item in advice.contradictions)
    yield from (f"  {note}." for note in advice.notes)
    for name, trained in advice.measured:
        yield from _measured(name, trained)
    if advice.prompted is not None:
        yield from _prompted(advice.prompted)
    if advice.clip is not None:
        yield f"CLIP score of one picture at each, by {advice.clip.model} (100 x cosine):"
        yield row("  the prompt", [f"{score:.1f}" for score in advice.clip.prompt])
        yield from (row(f"  {phrase}", [f"{score:.1f}" for score in scores]) for phrase, scores in advice.clip.phrases)
    yield from advice.training
    yield ""
    yield f"Measured with {advice.rows} UNet evaluations (a guided step is two) in {advice.seconds:.0f} s."


def number_in(tool: Dialect, skip: int, *, family: Family) -> str:
    """Return a Clip Skip as a tool counts it: "2 in A1111"; our own number and the reason where the tool has none."""
    try:
        return f"{to_dialect(ClipSkip(skip), tool, family=family)} in {tool.label}"
    except SpecError as error:
        return f"{skip}, which {tool.label} cannot say ({error})"


def _verdict(advice: Advice, *, family: Family, tool: Dialect) -> Iterator[str]:
    verdict = advice.verdict
    number = number_in(tool, verdict.skip, family=family)
    yield {
        Answer.VALUE: f"Clip Skip {number}, {min(verdict.sure, MOST_SURE):.0%} sure",
        Answer.NO_DIFFERENCE: f"No difference that matters; stay at Clip Skip {number}",
        Answer.NOT_KNOWN: f"Not known; begin at Clip Skip {number}",
    }[verdict.answer]
    yield f"{verdict.text}."


def _measured(name: str, trained: Trained) -> Iterator[str]:
    yield ""
    yield f"{name}: trained at which Clip Skip? On {trained.way}, {trained.looks} looks; longer is worse"
    worst = max((score for _, score in trained.scores), default=0.0) or 1.0
    for (skip, score), (_, chance) in zip(trained.scores, trained.chances, strict=True):
        yield f"  {skip:>3}  {bar(score / worst):<{BAR}}  {score:+.4f}  chance {chance:.1%}"


def _prompted(prompted: Prompted) -> Iterator[str]:
    yield ""
    yield row("Clip Skip", [str(skip) for skip in prompted.skips])
    yield row("guidance kept", [f"{share:.0%}" for share in prompted.guidance_kept])
    yield row("guidance length", [f"{share:.0%}" for share in prompted.guidance_size])
    yield row("conditioning moved", [f"{share:.0%}" for share in prompted.conditioning_distance])
    yield row("guessed picture: changed", [f"{share:.0%}" for share in prompted.change])
    yield row("  its contrast", [f"{share:.0%}" for share in prompted.contrast])
    yield row("  its detail", [f"{share:.0%}" for share in prompted.detail])
    if prompted.broken_from is not None:
        yield f"The picture is likely to fall apart from Clip Skip {prompted.broken_from} on."
    for lora in prompted.loras:
        yield from _lora_lines(lora)
    yield "Reaction to each phrase, of the whole guidance; the bar is the largest:"
    for phrase in prompted.phrases:
        mark = "ignored at every Clip Skip" if phrase.ignored else bar(max(phrase.reaction))
        yield row(f"  {phrase.phrase}", [f"{share:.0%}" for share in phrase.reaction]) + f"  {mark}"
    loras = {f"LoRA {lora.name}" for lora in prompted.loras}
    shown = [pull for pull in prompted.pulls if {pull.one, pull.other} <= loras or min(pull.cosine) < AGAINST]
    if shown:
        yield "Pull together (1), apart (0), against each other (-1):"
        for pull in shown:
            yield row(f"  {pull.one} / {pull.other}", [f"{cosine:+.2f}" for cosine in pull.cosine])
            if pull.in_conditioning is not None:
                yield row("    in the conditioning", [f"{cosine:+.2f}" for cosine in pull.in_conditioning])


def _lora_lines(lora: LoraUptake) -> Iterator[str]:
    yield row(f"{lora.name}: taken up", [f"{share:.0%}" for share in lora.uptake])
    yield row("  its effect, of the guidance", [f"{share:.0%}" for share in lora.whole])
    yield row("  by the text encoder", [f"{share:.0%}" for share in lora.by_text])
    yield row("  by the UNet", [f"{share:.0%}" for share in lora.by_unet])
    if lora.text_dead_from is not None:
        layers = ", ".join(map(str, lora.text_layers))
        yield f"  Its text part changes layer {layers} alone and cannot act from Clip Skip {lora.text_dead_from} on."


def bar(share: float) -> str:
    """Return a share as a bar, full at 1."""
    return "█" * round(BAR * min(max(share, 0.0), 1.0))


def row(name: str, cells: Sequence[str]) -> str:
    """One line of a table over Clip Skip."""
    short = name if len(name) <= NAME else f"{name[: NAME - 1]}…"
    return f"{short:<{NAME}}" + "".join(f"{cell:>7}" for cell in cells)
