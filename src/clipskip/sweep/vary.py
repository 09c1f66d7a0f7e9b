"""A request with axes -> the rows of its sweep: what needs other tokens is resolved anew, the rest is changed in place."""

from collections.abc import Sequence
from dataclasses import replace

from clipskip.errors import SpecError
from clipskip.spec import Axis, LoraRef, Render, Request, combinations, parse_skip
from clipskip.sweep.model import Extras
from clipskip.sweep.plan import LoraRow, Point, Sweep, with_and_without
from clipskip.sweep.resolve import Resolver

REQUESTED = ("sampler", "scheduler", "steps", "prompt")
"""Axes on which a prompt may be read in another way, or a sampler take other settings: the request is resolved anew."""


def varied(request: Request, axes: Sequence[Axis], resolve: Resolver) -> tuple[Sweep, Extras]:
    """The rows for every combination of the axes' values, without and with the LoRAs, and the files that they name.

    `resolve` gives a request's render and files. Rows that come out alike are kept once.
    """
    base, extras = resolve(request)
    rows: dict[tuple[Render, LoraRow], Point] = {}
    resolved: dict[Point, Render] = {(): base}
    for combination in combinations(axes):
        asked = tuple(pair for pair in combination if pair[0].kind.name in REQUESTED)
        if asked not in resolved:
            resolved[asked], more = resolve(_requested(request, asked, seed=base.seed))
            extras = extras.with_more(more)
        render = _rendered(resolved[asked], tuple(pair for pair in combination if pair not in asked))
        for loras in with_and_without(render.loras):
            row = replace(render, loras=()), loras
            rows[row] = tuple(pair for pair in rows.get(row, combination) if pair in combination)
    sweep = Sweep(
        base=replace(base, loras=()),
        skips=(base.clip_skip,),
        rows=tuple(loras for _, loras in rows),
        variants=tuple(render for render, _ in rows) if axes else (),
        points=tuple(rows.values()) if axes else (),
        axes=tuple(axes),
        loras=base.loras,
    )
    return sweep, extras


def _requested(request: Request, combination: Point, *, seed: int) -> Request:
    for axis, value in combination:
        match axis.kind.name:
            case "prompt":
                request = _replaced(request, str(axis.values[0]), str(value))
            case "steps":
                request = replace(request, steps=int(value))
            case "sampler":
                request = replace(request, sampler=str(value))
            case _:
                request = replace(request, scheduler=str(value))
    return replace(request, seed=seed)


def _replaced(request: Request, wanted: str, value: str) -> Request:
    """A1111's Prompt S/R: the first value, wherever it stands in either prompt, gives way to this one."""
    if wanted not in request.prompt and wanted not in request.negative_prompt:
        raise SpecError(
            f"axis prompt looks for {wanted[:60]!r}, which is in neither prompt; begin its values with words of the prompt",
            field="axis",
        )
    return replace(
        request,
        prompt=request.prompt.replace(wanted, value),
        negative_prompt=request.negative_prompt.replace(wanted, value),
    )


def _rendered(render: Render, combination: Point) -> Render:
    for axis, value in combination:
        match axis.kind.name:
            case "seed":
                render = replace(render, seed=int(value))
            case "cfg":
                render = replace(render, cfg_scale=float(value))
            case "negative-clip-skip":
                render = replace(render, negative_clip_skip=parse_skip(str(value)))
            case name:
                render = replace(
                    render, loras=tuple(_weighted(lora, name, float(value)) for lora in _some(render.loras))
                )
    return render


def _some(loras: LoraRow) -> LoraRow:
    if not loras:
        raise SpecError("an axis of LoRA weights needs a LoRA; add one with --lora", field="axis")
    return loras


def _weighted(lora: LoraRef, name: str, weight: float) -> LoraRef:
    """The LoRA at another strength, of both its parts or of one."""
    return replace(
        lora,
        text_encoder=lora.text_encoder if name == "lora-unet" else weight,
        unet=lora.unet if name == "lora-text-encoder" else weight,
    )
