"""A1111's options: its whole list, kept as long as the server runs. An option that this server cannot honour is refused
on its own."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from clipskip.doors.http.a1111.option_table import ALSO_NEUTRAL, FIXED, KEPT, Value
from clipskip.doors.http.reasons import Reason
from clipskip.errors import ClipskipError, NotFound, SkipOutOfRange, SpecError
from clipskip.spec import REFINED_PASSES, ClipSkip, range_of, shown
from clipskip.sweep import Studio
from clipskip.weights import CheckpointFacts, FileKind

AUTOMATIC, NO_FILE = "Automatic", "None"
"""Values of the VAE option: the file beside the checkpoint, if there is one; and the checkpoint's own VAE."""
REFINED = "hires_fix_refiner_pass"
CLIP_SKIP, MODEL, MODEL_HASH = "CLIP_stop_at_last_layers", "sd_model_checkpoint", "sd_checkpoint_hash"
OBEYED: dict[str, Value] = {
    MODEL: "",
    MODEL_HASH: "",
    CLIP_SKIP: 1,
    "sd_vae": AUTOMATIC,
    "samples_format": "png",
    "jpeg_quality": 80,
    "webp_lossless": False,
    "eta_noise_seed_delta": 0,
    "randn_source": "GPU",
    "emphasis": "Original",
    "eta_ddim": 0.0,
    "eta_ancestral": 1.0,
    "s_churn": 0.0,
    "s_tmin": 0.0,
    "s_tmax": 0.0,
    "s_noise": 1.0,
    "sd_noise_schedule": "Default",
    "sdxl_clip_l_skip": False,
    "sdxl_crop_top": 0,
    "sdxl_crop_left": 0,
    "initial_noise_multiplier": 1.0,
    "inpainting_mask_weight": 1.0,
    REFINED: REFINED_PASSES[1],
}
"""Options that count here with A1111's own defaults, such as Clip Skip 1 and noise drawn on the GPU."""
DEFAULTS: Mapping[str, Value] = {**KEPT, **FIXED, **OBEYED}
CHOICES: dict[str, tuple[str, ...]] = {
    "randn_source": ("GPU", "CPU", "NV"),
    "emphasis": ("Original", "No norm", "Ignore", "None"),
    "sd_noise_schedule": ("Default", "Zero Terminal SNR"),
    "samples_format": ("png", "jpg", "jpeg", "webp"),
    REFINED: REFINED_PASSES,
}
RANGES: dict[str, tuple[float, float]] = {
    "eta_noise_seed_delta": (0, 2**32),
    "jpeg_quality": (1, 100),
    "eta_ddim": range_of("eta"),
    "eta_ancestral": range_of("eta"),
    "s_churn": range_of("s_churn"),
    "s_tmin": range_of("s_tmin"),
    "s_tmax": range_of("s_tmax"),
    "s_noise": range_of("s_noise"),
    "sdxl_crop_top": range_of("crop_top"),
    "sdxl_crop_left": range_of("crop_left"),
    "initial_noise_multiplier": range_of("noise_multiplier"),
    "inpainting_mask_weight": range_of("mask_weight"),
}
ALIAS = "clip_skip"
"""SD.Next's name of Clip Skip, which scripts also send among A1111's options."""
_PLAIN_SKIPS = ("clipskip", "clipstopatlastlayers")
MOST_TEXT, MOST_ITEMS = 2000, 300


def with_skip_named(sent: Mapping[str, Any]) -> Mapping[str, Any]:  # Any: whatever the client sent
    """What a client sent, with a Clip Skip in another spelling ("clipSkip", "Clip skip") under the name that is obeyed."""
    if sent.keys() & {CLIP_SKIP, ALIAS}:
        return sent
    other = next((name for name in sent if re.sub(r"[\W_]", "", name).lower() in _PLAIN_SKIPS), None)
    return sent if other is None else {(ALIAS if name == other else name): value for name, value in sent.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """The effect of the options that a client sends."""

    taken: Mapping[str, Value]
    reasons: tuple[Reason, ...] = ()
    """Why the others are refused."""
    ignored: tuple[str, ...] = ()
    """Names that A1111 does not have."""


@final
class Options:
    """The options in force."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._set: dict[str, Value] = {}

    @property
    def all(self) -> dict[str, Value]:
        """Every option. The model goes by its title, as it is listed, if its file is still there."""
        values = {**DEFAULTS, **self._set}
        try:
            facts = self._studio.models.facts(str(values[MODEL]) or None)
        except ClipskipError:
            return values
        path = facts.source.path
        listed = self._studio.library.files(FileKind.CHECKPOINT)
        name = next((file.name for file in listed if file.path == path), path.name)
        return values | {MODEL: f"{name} [{facts.ref.hash}]", MODEL_HASH: facts.source.sha256}

    def set(self, sent: Mapping[str, Any]) -> Changes:  # Any: whatever the client sent
        """Change the options for all later requests, except those that are refused."""
        changes = self.read(sent)
        self._set = {**self._set, **changes.taken}
        return changes

    @property
    def kept(self) -> Mapping[str, Value]:
        """The options that somebody has set."""
        return self._set

    def read(self, sent: Mapping[str, Any]) -> Changes:  # Any: as above
        """Sort options into those that are taken, refused and not known."""
        taken: dict[str, Value] = {}
        reasons, ignored = list[Reason](), list[str]()
        sent = with_skip_named(sent)
        if ALIAS in sent:
            sent = {CLIP_SKIP: sent[ALIAS]} | {name: value for name, value in sent.items() if name != ALIAS}
        for name, value in sent.items():
            if name == MODEL_HASH:
                continue  # what it follows from is the model
            if name not in DEFAULTS or (
                value is None and DEFAULTS[name] is not None and name not in (MODEL, CLIP_SKIP)
            ):
                ignored.append(name)
                continue
            try:
                taken[name] = self._checked(name, value, sent)
            except ClipskipError as error:
                reasons.append(Reason.of(error, field=name))
        return Changes(taken=taken, reasons=tuple(reasons), ignored=tuple(ignored))

    def check_model(self, name: str, *, field: str) -> None:
        """Raise NotFound if there is no checkpoint of this name."""
        try:
            self._studio.library.find(name, FileKind.CHECKPOINT)
        except NotFound as error:
            raise NotFound(str(error), field=field) from None

    def check_same_model(self, name: str, model: str | None) -> None:
        """Raise SpecError if a second pass is to be drawn by another checkpoint than the first."""
        first, second = self.facts(model), self.facts(name)
        if first is None or second is None or first.ref != second.ref:
            raise SpecError(
                f"both passes are drawn by one checkpoint here, and hr_checkpoint_name is {name[:80]!r}; send Use same checkpoint "
                "or leave it out",
                field="hr_checkpoint_name",
            )

    def facts(self, model: Any) -> CheckpointFacts | None:  # Any: whatever the client sent
        """Return what is known of this model, or None if there is no such model."""
        try:
            return self._studio.models.facts(str(model or "") or None)
        except ClipskipError:
            return None

    def depth(self, model: Any) -> int | None:  # Any: as above
        """Return how many layers this model's text encoder has, or None if there is no such model."""
        facts = self.facts(model)
        return facts.depth if facts else None

    def _checked(self, name: str, value: Any, sent: Mapping[str, Any]) -> Value:  # Any: as above
        if name == CLIP_SKIP:
            depth = self.depth(sent.get(MODEL) or self._set.get(MODEL))
            return skip_option(value, field=name, depth=depth).from_end
        if name == MODEL:
            if value:
                self._studio.library.find(as_kind(name, value, ""), FileKind.CHECKPOINT)
            return str(value or "")
        if name == "sd_vae" and value not in (AUTOMATIC, NO_FILE, ""):
            self._studio.library.find(as_kind(name, value, ""), FileKind.VAE)
        plain: Value = as_kind(name, value, DEFAULTS[name])
        if name in FIXED and plain != FIXED[name] and plain not in ALSO_NEUTRAL.get(name, ()):
            raise SpecError(
                f"the option {name} is {str(value)[:60]!r}, which this server cannot do; leave it at {FIXED[name]!r}"
            )
        if name in CHOICES and plain not in CHOICES[name]:
            choices = ", ".join(CHOICES[name])
            raise SpecError(f"the option {name} is {str(value)[:60]!r}; use one of {choices}")
        low, high = RANGES.get(name, (0, 0))
        if name in RANGES and not (isinstance(plain, int | float) and low <= plain <= high):
            raise SpecError(f"the option {name} is {str(value)[:60]}; use {low:g} to {high:g}")
        return plain


def as_kind(name: str, value: Any, like: Value) -> Any:  # Any: whatever the client sent; the kind of `like`
    """Return the value as the option's type, as 1.0 becomes 1 and "false" becomes false. Raises SpecError."""
    wanted = "text"
    if isinstance(like, bool):
        wanted = "true or false"
        switch = {"true": True, "false": False, "1": True, "0": False}.get(str(value).casefold())
        if switch is not None:
            return switch
    elif isinstance(like, int | float):
        wanted = "a whole number" if isinstance(like, int) else "a number"
        number = _option_number(value)
        if number is not None and not (isinstance(like, int) and number % 1):
            return int(number) if isinstance(like, int) else number
    elif isinstance(like, list):
        wanted = "a list of texts"
        if isinstance(value, list) and len(value) <= MOST_ITEMS and all(isinstance(item, str) for item in value):
            return value
    elif value is None and like is None:
        return None
    elif isinstance(value, str) and len(value) <= MOST_TEXT:
        return value
    raise SpecError(f"the option {name} is {str(value)[:60]!r}; give {wanted}")


def _option_number(value: Any) -> float | None:  # Any: as above
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < 1e15 else None


def skip_option(value: Any, *, field: str, depth: int | None) -> ClipSkip:  # Any: as above
    """Read a Clip Skip: a number, of which a fraction lies between two layers. Text is refused, as A1111 fails at it."""
    deepest = depth or "the depth of the model's encoder"
    usable = f"use a number from 1 to {deepest}, where 1 is the last layer"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SpecError(f"{field} is {str(value)[:40]!r}, which is not a number; {usable}", field=field)
    try:
        skip = ClipSkip(value)
        if depth is not None:
            skip.check(depth)
    except (SpecError, SkipOutOfRange, OverflowError):
        raise SpecError(
            f"{field} {shown(value)} is not one of this model's Clip Skips; {usable}", field=field
        ) from None
    return skip


def told(names: Sequence[str]) -> list[str]:
    """Return names that a client sent, shortened for an answer."""
    return [name[:80] for name in names[:100]]
