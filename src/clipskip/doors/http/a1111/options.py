"""A1111's options, as far as they change a picture here. They last as long as the server."""

from collections.abc import Mapping
from typing import Any, final

from clipskip.errors import ClipskipError, SpecError
from clipskip.spec import ClipSkip, Request
from clipskip.sweep import Studio
from clipskip.weights import FileKind

Value = int | float | str
CLIP_SKIP, MODEL, MODEL_HASH = "CLIP_stop_at_last_layers", "sd_model_checkpoint", "sd_checkpoint_hash"
DEFAULTS: dict[str, Value] = {
    MODEL: "",
    MODEL_HASH: "",
    CLIP_SKIP: 1,
    "sd_vae": "Automatic",
    "samples_format": "png",
    "eta_noise_seed_delta": 0,
    "randn_source": "GPU",
    "emphasis": "Original",
}
"""A1111's own defaults, its Clip Skip of 1 and its noise of a GPU among them."""
FIXED: dict[str, tuple[Value, ...]] = {"sd_vae": ("Automatic", "None", ""), "samples_format": ("png",)}
"""Options that have one meaning here, and how it is spelled."""
CHOICES = {
    "randn_source": ("GPU", "CPU", "NV"),
    "emphasis": ("Original", "No norm", "Ignore", "None"),
}
MOST_ENSD = 2**32


@final
class Options:
    """The options that are in force."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._set: dict[str, Value] = {}

    @property
    def all(self) -> dict[str, Value]:
        """Every option, the model by its title where its file is (still) there."""
        found = DEFAULTS | self._set
        try:
            facts = self._studio.models.facts(str(found[MODEL]) or None)
        except ClipskipError:
            return found
        return found | {MODEL: f"{facts.source.path.name} [{facts.ref.hash}]", MODEL_HASH: facts.source.sha256}

    def changed(self, changes: Mapping[str, Any]) -> dict[str, Value]:  # Any: whatever the client sent
        """The options with these changes, for one request; SpecError for what is not known or not valid."""
        known = DEFAULTS | self._set
        for name, value in changes.items():
            if name not in known:
                raise SpecError(f"the option {name!r} is not known here; these are: {', '.join(known)}", field=name)
            known[name] = self._checked(name, value)
        return known

    def set(self, changes: Mapping[str, Any]) -> None:  # Any: as above
        """Changes them for all requests to come; all of them or none."""
        self._set = self.changed({name: value for name, value in changes.items() if name != MODEL_HASH})

    def _checked(self, name: str, value: Any) -> Value:  # Any: as above
        if name == CLIP_SKIP:
            return read_skip(value, field=name).from_end
        if name == "eta_noise_seed_delta":
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_ENSD:
                raise SpecError(f"{name} is {str(value)[:40]!r}; give a whole number from 0 on", field=name)
            return value
        if not isinstance(value, str):
            raise SpecError(f"{name} is {str(value)[:40]!r}; give text", field=name)
        choices = FIXED.get(name) or CHOICES.get(name)
        if choices is not None and value not in choices:
            raise SpecError(f"{name} is {value[:80]!r}; here it is one of {', '.join(map(repr, choices))}", field=name)
        if name == MODEL and value:
            self._studio.library.find(value, FileKind.CHECKPOINT)
        return value


def read_skip(value: Any, *, field: str) -> ClipSkip:  # Any: as above
    """A Clip Skip as A1111's API has it, a number; fractions lie between two layers."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SpecError(f"{field} is {str(value)[:40]!r}; give a number from 1 on", field=field)
    try:
        return ClipSkip(value)
    except (SpecError, OverflowError):
        raise SpecError(f"{field} is {str(value)[:40]}; 1 is the last layer: use 1 or more", field=field) from None


def with_options(asked: Request, options: Mapping[str, Value]) -> dict[str, Any]:  # Any: a Request's fields
    """What the options say of a picture, by the Request's names."""
    skip = asked.clip_skip or ClipSkip(float(options[CLIP_SKIP]))
    return {
        "model": str(options[MODEL]) or None,
        "clip_skip": skip,
        "ensd": int(options["eta_noise_seed_delta"]),
        "rng": str(options["randn_source"]),
        "emphasis": str(options["emphasis"]),
    }
