"""Axes of A1111's X/Y/Z plot: their numbers in its menu and the values as typed (1.10 scripts/xyz_grid.py)."""

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import numpy as np

from clipskip.errors import SpecError
from clipskip.image import LATENT_MODES, UPSCALERS
from clipskip.sample import SAMPLERS, SCHEDULES
from clipskip.spec import ClipSkip, Hires, parse_column, parse_skip, range_of
from clipskip.spec import Request as Asked
from clipskip.sweep import fix_seed

Value = int | float | str | tuple[str, ...]
Apply = Callable[[Asked, Value, Sequence[Value]], Asked]
"""Return the request with one value of an axis put in, given that value and all values of the axis."""

MENU = (
    "Nothing", "Seed", "Var. seed", "Var. strength", "Steps", "Hires steps", "CFG Scale", "Prompt S/R", "Prompt order",
    "Sampler", "Hires sampler", "Checkpoint name", "Negative Guidance minimum sigma", "Sigma Churn", "Sigma min",
    "Sigma max", "Sigma noise", "Schedule type", "Schedule min sigma", "Schedule max sigma", "Schedule rho", "Eta",
    "Clip skip",
)  # fmt: skip
"""The menu of A1111 1.9 for txt2img up to Clip skip, counted from 0: the numbers that its clients send."""
CLIP_SKIP, ORDER = "Clip skip", "Prompt order"
MOST_VALUES = 64
MOST_WORDS = 4
"""Words whose orders are an axis."""
_, MOST_STEPS = range_of("steps")
SEEDS = ("Seed", "Var. seed")
"""Axes on which -1 stands for a random seed."""
_WHOLE, _FRACTION = r"[+-]?\d{1,18}", r"[+-]?\d{1,18}(?:\.\d{0,18})?"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlotAxisKind:
    """A kind of axis."""

    label: str
    kind: type[int] | type[float] | type[str]
    apply: Apply
    named: bool = True
    """Whether the axis' name stands before its values on the sheet."""
    choices: tuple[str, ...] = ()
    """The values that may be chosen, where A1111 offers a menu."""
    files: bool = False
    """Whether A1111's menu offers files, which may be typed here too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlotAxis:
    """One axis of a plot."""

    kind: PlotAxisKind
    values: tuple[Value, ...]
    typed: str
    """The values as the client sent them."""

    @property
    def names(self) -> tuple[str, ...]:
        """The label of each value on the sheet."""
        if self.kind.label == "Nothing":
            return ("",)
        start = f"{self.kind.label}: " if self.kind.named else ""
        return tuple(f"{start}{_plot_label(value)}" for value in self.values)


def _plot_label(value: Value) -> str:
    if isinstance(value, tuple):
        return ", ".join(value)
    return str(round(value, 8) if isinstance(value, float) else value)


def _nothing(asked: Asked, _: Value, __: Sequence[Value]) -> Asked:
    return asked


def _setter(name: str) -> Apply:
    """Return what sets a field of the request."""

    def apply(asked: Asked, value: Value, _: Sequence[Value]) -> Asked:
        changes: dict[str, Any] = {name: value}  # Any: a field of Request
        return replace(asked, **changes)

    return apply


def _set_clip_skip(asked: Asked, value: Value, _: Sequence[Value]) -> Asked:
    return replace(asked, clip_skip=parse_skip(str(value)), counted_by=None)


def _steps(asked: Asked, value: Value, _: Sequence[Value]) -> Asked:
    if not isinstance(value, int) or not 1 <= value <= MOST_STEPS:
        raise SpecError(f"Steps {value} is out of range; use 1 to {MOST_STEPS}", field="script_args")
    return replace(asked, steps=value)


def _replaced(asked: Asked, value: Value, values: Sequence[Value]) -> Asked:
    """Apply Prompt S/R: put this value in the place of the first one, wherever that stands in either prompt."""
    searched = str(values[0])
    if not searched or (searched not in asked.prompt and searched not in asked.negative_prompt):
        raise SpecError(
            f"Prompt S/R looks for {searched[:60]!r}, which is in neither prompt; begin its values with words of the prompt",
            field="script_args",
        )
    return replace(
        asked,
        prompt=asked.prompt.replace(searched, str(value)),
        negative_prompt=asked.negative_prompt.replace(searched, str(value)),
    )


def _reordered(asked: Asked, order: Value, _: Sequence[Value]) -> Asked:
    """Apply Prompt order: put its words, in this order, into the places where they stand in the prompt."""
    assert isinstance(order, tuple)
    missing = next((word for word in order if not word or word not in asked.prompt), None)
    if missing is not None:
        raise SpecError(f"Prompt order looks for {missing[:60]!r}, which is not in the prompt", field="script_args")
    places = sorted(order, key=asked.prompt.find)
    parts, rest = [], asked.prompt
    for word in places:
        before, _, rest = rest.partition(word)
        parts.append(before)
    return replace(asked, prompt="".join(part + word for part, word in zip(parts, order, strict=True)) + rest)


def _of_second_pass(label: str, field: str) -> Apply:
    """Return what sets a field of the second pass."""

    def apply(asked: Asked, value: Value, _: Sequence[Value]) -> Asked:
        if asked.hires is None:
            raise SpecError(f"{label} is of a second pass; send enable_hr true", field="script_args")
        changes: dict[str, Any] = {field: value}  # Any: a field of Hires
        if field == "upscaler":
            changes["upscaler_hash"] = Hires().upscaler_hash
        return replace(asked, hires=replace(asked.hires, **changes))

    return apply


def _checkpoint(asked: Asked, value: Value, _: Sequence[Value]) -> Asked:
    return replace(asked, model=str(value), model_hash=None)


def _vae(asked: Asked, value: Value, _: Sequence[Value]) -> Asked:
    """Return a file of /sdapi/v1/sd-vae; Automatic is the one beside the checkpoint, None the checkpoint's own."""
    name = str(value)
    return replace(asked, vae=None if name.casefold() == "automatic" else name, vae_hash=None)


KINDS = (
    PlotAxisKind(label="Nothing", kind=str, apply=_nothing),
    PlotAxisKind(label="Seed", kind=int, apply=_setter("seed")),
    PlotAxisKind(label="Var. seed", kind=int, apply=_setter("variation_seed")),
    PlotAxisKind(
        label="Var. strength",
        kind=float,
        apply=_setter("variation_strength"),
    ),
    PlotAxisKind(label="Steps", kind=int, apply=_steps),
    PlotAxisKind(label="CFG Scale", kind=float, apply=_setter("cfg_scale")),
    PlotAxisKind(label="Prompt S/R", kind=str, apply=_replaced, named=False),
    PlotAxisKind(
        label="Sampler",
        kind=str,
        apply=_setter("sampler"),
        named=False,
        choices=tuple(sampler.name for sampler in SAMPLERS),
    ),
    PlotAxisKind(
        label="Schedule type",
        kind=str,
        apply=_setter("scheduler"),
        choices=("Automatic", *SCHEDULES),
    ),
    PlotAxisKind(label="Sigma Churn", kind=float, apply=_setter("s_churn")),
    PlotAxisKind(label="Sigma min", kind=float, apply=_setter("s_tmin")),
    PlotAxisKind(label="Sigma max", kind=float, apply=_setter("s_tmax")),
    PlotAxisKind(label="Sigma noise", kind=float, apply=_setter("s_noise")),
    PlotAxisKind(label="Eta", kind=float, apply=_setter("eta")),
    PlotAxisKind(label=CLIP_SKIP, kind=int, apply=_set_clip_skip),
    PlotAxisKind(label="Prompt order", kind=str, apply=_reordered, named=False),
    PlotAxisKind(label="Checkpoint name", kind=str, apply=_checkpoint, named=False, files=True),
    PlotAxisKind(label="VAE", kind=str, apply=_vae, named=False, files=True),
    PlotAxisKind(label="Hires steps", kind=int, apply=_of_second_pass("Hires steps", "steps")),
    PlotAxisKind(
        label="Hires sampler",
        kind=str,
        apply=_of_second_pass("Hires sampler", "sampler"),
        choices=tuple(sampler.name for sampler in SAMPLERS),
    ),
    PlotAxisKind(
        label="Hires upscaler",
        kind=str,
        apply=_of_second_pass("Hires upscaler", "upscaler"),
        choices=(*LATENT_MODES, *UPSCALERS),
        files=True,
    ),
    PlotAxisKind(label="Denoising", kind=float, apply=_of_second_pass("Denoising", "strength")),
    PlotAxisKind(label="Refiner switch at", kind=float, apply=_setter("refiner_switch_at")),
    PlotAxisKind(label="RNG source", kind=str, apply=_setter("rng"), choices=("GPU", "CPU", "NV")),
)


def read_axis(
    sent: Sequence[Any], name: str, *, csv_mode: bool, fixed_seeds: bool
) -> PlotAxis:  # Any: whatever the client sent
    """Read an axis from its type, its typed values and its values from a menu. Raises SpecError."""
    kind = _axis_kind(sent[0], name)
    if kind.label == "Nothing":
        return PlotAxis(kind=kind, values=(0,), typed="")
    chosen = not csv_mode and (bool(sent[2]) if kind.files else bool(kind.choices))
    texts = _menu_values(sent[2], kind, name) if chosen else _typed_values(sent[1], name)
    values = _orders(texts) if kind.label == ORDER else [value for text in texts for value in _values(text, kind, name)]
    if not 1 <= len(values) <= MOST_VALUES:
        raise SpecError(f"{name} has {len(values)} values; give 1 to {MOST_VALUES}", field="script_args")
    if kind.label in SEEDS and fixed_seeds:
        values = [fix_seed(value) for value in values if isinstance(value, int)]
    return PlotAxis(kind=kind, values=tuple(values), typed=_join_values(texts))


def _axis_kind(sent: Any, name: str) -> PlotAxisKind:  # Any: as above
    label = sent
    if isinstance(sent, int) and not isinstance(sent, bool):
        label = MENU[sent] if 0 <= sent < len(MENU) else f"number {sent}"
    axis_kind = {kind.label.casefold(): kind for kind in KINDS}.get(str(label).casefold())
    if axis_kind is None or isinstance(sent, bool):
        ours = ", ".join(kind.label for kind in KINDS)
        raise SpecError(f"{name} axis {str(label)[:60]!r} is not here; use one of {ours}", field="script_args")
    return axis_kind


def _menu_values(sent: Any, kind: PlotAxisKind, name: str) -> list[str]:  # Any: as above
    if not isinstance(sent, list) or not sent or not all(isinstance(text, str) for text in sent):
        raise SpecError(
            f"{name} values of {kind.label} come as a list of names in the third place of the axis; send them there, "
            "or set csv_mode and send them as text",
            field="script_args",
        )
    return sent


def _typed_values(sent: Any, name: str) -> list[str]:  # Any: as above
    """Split comma-separated values; a value in quotes may hold commas."""
    if not isinstance(sent, str) or not sent.strip():
        raise SpecError(f"{name} values are empty; send text such as 1,2,3", field="script_args")
    try:
        return [value.strip() for row in csv.reader(io.StringIO(sent)) for value in row]
    except csv.Error as error:
        raise SpecError(
            f"{name} values are not comma-separated text ({error}); separate values by commas and quote those that hold one",
            field="script_args",
        ) from None


def _orders(texts: Sequence[str]) -> list[Value]:
    """Return every order of these words."""
    if len(texts) > MOST_WORDS:
        raise SpecError(
            f"Prompt order has {len(texts)} values; {MOST_WORDS} have 24 orders and are the most", field="script_args"
        )
    return [*permutations(texts)]


def _join_values(values: Sequence[str]) -> str:
    file = io.StringIO()
    csv.writer(file).writerow(values)
    return file.getvalue().strip()


def _values(text: str, kind: PlotAxisKind, name: str) -> list[Value]:
    """Return the values that one entry of a list stands for. Clip Skips are read as everywhere else in clipskip."""
    if kind.label != CLIP_SKIP:
        return _numbers(text, kind, name) if kind.kind is not str else [text]
    try:
        return [skip.from_end if isinstance(skip, ClipSkip) else str(skip) for skip in parse_column(text)]
    except SpecError as error:
        raise SpecError(
            f"{name} value {text[:40]!r} is not a {CLIP_SKIP}: {error}; give whole numbers, or a range: 1-5, 1-9 (+2), 1-10 [4]",
            field="script_args",
        ) from None


def _numbers(text: str, kind: PlotAxisKind, name: str) -> list[Value]:
    """Return a number, or the numbers of a range: 1-5, 1-9 (+2) with a distance, 1-10 [4] with a count."""
    number = _WHOLE if kind.kind is int else _FRACTION
    if re.fullmatch(number, text):
        return [kind.kind(text)]
    match = re.fullmatch(rf"({number})\s*-\s*({number})\s*(?:\(([+-]{number})\s*\)|\[(\d{{1,9}})\s*\])?", text)
    if match is None:
        wanted = "whole numbers" if kind.kind is int else "numbers"
        raise SpecError(
            f"{name} value {text[:40]!r} is not a value of {kind.label}; give {wanted}, or a range: 1-5, 1-9 (+2), 1-10 [4]",
            field="script_args",
        )
    low, high = float(match[1]), float(match[2])
    step, count = float(match[3] or 1), int(match[4] or 0)
    size = count if match[4] else 0 if step == 0 else max(0.0, (high - low) / step + 1)
    if not 1 <= size <= MOST_VALUES:
        raise SpecError(f"{name} range {text[:40]!r} has no values, or over {MOST_VALUES}", field="script_args")
    if match[4]:
        values = np.linspace(low, high, count).tolist()
    elif kind.kind is int:
        values = list(range(int(low), int(high) + (1 if step > 0 else -1), int(step)))
    else:
        values = np.arange(low, high + step / 2, step).tolist()
    return [kind.kind(value) for value in values]
