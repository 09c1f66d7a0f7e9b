"""A request with axes to the rows of its sweep: what needs other tokens is resolved again, the rest is
replaced."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from clipskip.errors import ClipskipError, LoraError, SpecError, WrongKind
from clipskip.prompt import read_prompt
from clipskip.spec import Axis, LoraRef, Render, Request, Value, combinations, parse_skip
from clipskip.sweep.drawn import Extras
from clipskip.sweep.picture_files import OWN_VAE
from clipskip.sweep.plan import LoraRow, Point, Sweep, with_and_without
from clipskip.sweep.resolve import Resolver

REQUESTED = ("model", "vae", "embedding", "sampler", "scheduler", "steps", "prompt")
"""Axes on which other files are needed, a prompt may be read in another way, or a sampler take other settings: the request is
resolved anew."""
WEIGHTS = ("lora-weight", "lora-text-encoder", "lora-unet")
IMPOSSIBLE = (SpecError, LoraError, WrongKind)
"""What a combination of values that are all right elsewhere may come to."""
NONE, EACH, ALL = "none", "each", "all"
OWN_VAES = (OWN_VAE, "own", "automatic")
Checker = Callable[[Render], None]


def varied(request: Request, axes: Sequence[Axis], resolve: Resolver, check: Checker) -> tuple[Sweep, Extras]:
    """Return the rows for every combination of the axes' values, without and with the LoRAs, and the files that they name.

    `resolve` gives a request's render and files; `check` raises for a render that cannot be drawn at the sweep's Clip Skips. Rows
    that come out alike are kept once. A combination that cannot be drawn is left out where each of its values can be with others.
    """
    base, extras = resolve(request)
    check(base)
    _check_axes(axes, base)
    axes = tuple(_expanded(axis, base.loras) for axis in axes)
    plans = _Plans(request, base, resolve, check)
    rows: dict[tuple[Render, LoraRow], Point] = {}
    works: set[tuple[Axis, Value]] = set()
    failed: dict[str, tuple[Point, ClipskipError, int]] = {}
    for combination in combinations(axes):
        try:
            asked = tuple(pair for pair in combination if pair[0].kind.name in REQUESTED)
            plan = plans.of(asked)
            render = _rendered(plan, tuple(pair for pair in combination if pair not in asked))
            if render.negative_clip_skip != plan.negative_clip_skip:
                check(render)
            for loras in _lora_rows(render.loras, combination):
                row = replace(render, loras=()), loras
                rows[row] = tuple(pair for pair in rows.get(row, combination) if pair in combination)
        except IMPOSSIBLE as error:
            first, why, count = failed.get(str(error), (combination, error, 0))
            failed[str(error)] = first, why, count + 1
        except ClipskipError as error:
            raise _by_axis(error) from None
        else:
            works |= set(combination)
    for first, why, _ in failed.values():
        if not set(first) <= works:
            raise _by_axis(why)
    sweep = Sweep(
        base=replace(base, loras=()),
        skips=(base.clip_skip,),
        rows=tuple(loras for _, loras in rows),
        variants=tuple(render for render, _ in rows) if axes else (),
        points=tuple(rows.values()) if axes else (),
        axes=axes,
        loras=base.loras,
        left_out=(*plans.left_out, *(_left_out_line(*failure) for failure in failed.values())),
    )
    return sweep, extras.with_more(plans.extras)


class _Plans:
    """Renders of the values that need other files or other tokens, each resolved once."""

    def __init__(self, request: Request, base: Render, resolve: Resolver, check: Checker) -> None:
        self._request, self._base, self._resolve, self._check = request, base, resolve, check
        self._known: dict[Point, Render | Exception] = {(): base}
        self.extras = Extras(loras={})
        self.left_out: list[str] = []

    def of(self, asked: Point) -> Render:
        """Return the render at these values; the error that they come to."""
        if asked not in self._known:
            try:
                self._known[asked] = self._resolved(asked)
            except IMPOSSIBLE as error:
                self._known[asked] = error
        plan = self._known[asked]
        if isinstance(plan, Exception):
            raise plan
        return plan

    def _resolved(self, asked: Point) -> Render:
        wanted = _requested(self._request, asked, base=self._base)
        try:
            render, more = self._resolve(wanted)
        except (LoraError, WrongKind) as error:  # another model may take none of the LoRAs
            if "model" not in [axis.kind.name for axis, _ in asked] or not self._base.loras:
                raise
            words = read_prompt(wanted.prompt, steps=wanted.steps).text
            render, more = self._resolve(replace(wanted, prompt=words, loras=()))
            self.left_out.append(f"{_point_name(asked)}, with LoRA: {error}")
        self._check(render)
        self.extras = self.extras.with_more(more)
        return render


def _check_axes(axes: Sequence[Axis], base: Render) -> None:
    """SpecError for an axis that would vary nothing of this picture."""
    names = [axis.kind.name for axis in axes]
    if not base.loras and {*WEIGHTS, "lora"}.intersection(names):
        raise SpecError("an axis of LoRAs or of their weights needs a LoRA; add one with --lora", field="axis")
    if "embedding" in names and not base.embeddings:
        raise SpecError("axis embedding needs a prompt that calls one by its file's name", field="axis")


def _expanded(axis: Axis, loras: LoraRow) -> Axis:
    """Return an axis of LoRAs with a name in the place of `each`."""
    if axis.kind.name != "lora":
        return axis
    values: dict[Value, None] = {}
    for value in axis.values:
        values |= dict.fromkeys((lora.name for lora in loras) if value == EACH else (value,))
    return replace(axis, values=tuple(values))


def _lora_rows(loras: LoraRow, combination: Point) -> tuple[LoraRow, ...]:
    """Return which LoRAs are on: those that an axis says, else none and then all."""
    said = next((str(value) for axis, value in combination if axis.kind.name == "lora"), None)
    if said is None:
        return with_and_without(loras)
    if said in (NONE, ALL):
        return (loras if said == ALL else (),)
    names = [name.strip() for name in said.split("+")]
    strange = next((name for name in names if name not in {lora.name for lora in loras}), None)
    if strange is not None:
        known = ", ".join((NONE, EACH, ALL, *(lora.name for lora in loras)))
        raise SpecError(
            f"axis lora: {strange[:60]!r} is not one of this picture's LoRAs; use {known}, or a+b", field="axis"
        )
    return (tuple(lora for lora in loras if lora.name in names),)


def _by_axis(error: ClipskipError) -> ClipskipError:
    """Return the error of an axis' value as that of the axis: the setting's own field has another value."""
    return type(error)(str(error), field="axis")


def _point_name(point: Point) -> str:
    return ", ".join(axis.name(value) or f"LoRA {value}" for axis, value in point)


def _left_out_line(first: Point, why: ClipskipError, count: int) -> str:
    more = f" and {count - 1} more" if count > 1 else ""
    return f"{_point_name(first)}{more}: {why}"


def _requested(request: Request, combination: Point, *, base: Render) -> Request:
    for axis, value in combination:
        match axis.kind.name:
            case "model":
                request = replace(request, model=str(value), model_hash=None)
            case "vae":
                request = replace(
                    request, vae=OWN_VAE if str(value).casefold() in OWN_VAES else str(value), vae_hash=None
                )
            case "embedding":
                request = _with_embeddings(request, str(value), base)
            case "prompt":
                request = _replaced(request, str(axis.values[0]), str(value))
            case "steps":
                request = replace(request, steps=int(value))
            case "sampler":
                request = replace(request, sampler=str(value))
            case _:
                request = replace(request, scheduler=str(value))
    return replace(request, seed=base.seed)


def _with_embeddings(request: Request, value: str, base: Render) -> Request:
    """Return the request with its embeddings, or with prompts that do not call them."""
    if value not in ("on", "off"):
        raise SpecError(f"axis embedding has {value[:40]!r}; use on||off", field="axis")
    if value == "on":
        return request
    names = "|".join(re.escape(file.name) for file in sorted(base.embeddings, key=lambda file: -len(file.name)))
    called = re.compile(rf"(?:<\s*embedding:)?(?:embedding:)?(?<!\w)(?:{names})(?!\w)>?", re.IGNORECASE)

    def without(text: str) -> str:
        left = re.sub(r"[(\[]+\s*(?::\s*[\d.]+)?\s*[)\]]+", "", called.sub("", text))
        return re.sub(r"\s*,(\s*,)+", ",", re.sub(r" {2,}", " ", left)).strip(" ,")

    return replace(request, prompt=without(request.prompt), negative_prompt=without(request.negative_prompt))


def _replaced(request: Request, search: str, value: str) -> Request:
    """Replace the axis' first value by this one in both prompts, as A1111's Prompt S/R does."""
    if search not in request.prompt and search not in request.negative_prompt:
        raise SpecError(
            f"axis prompt looks for {search[:60]!r}, which is in neither prompt; make the first value words of the prompt",
            field="axis",
        )
    return replace(
        request,
        prompt=request.prompt.replace(search, value),
        negative_prompt=request.negative_prompt.replace(search, value),
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
            case name if name in WEIGHTS:
                render = replace(render, loras=tuple(_weighted(lora, name, float(value)) for lora in render.loras))
    return render


def _weighted(lora: LoraRef, name: str, weight: float) -> LoraRef:
    """Return the LoRA at another strength, of both its parts or of one."""
    return replace(
        lora,
        text_encoder=lora.text_encoder if name == "lora-unet" else weight,
        unet=lora.unet if name == "lora-text-encoder" else weight,
    )
