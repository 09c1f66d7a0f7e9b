"""Reading records of settings key by key, by one table of spellings; keys that nobody takes are left over by name."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, final

from clipskip.errors import SpecError
from clipskip.spec.table import SETTINGS, ZERO_TERMINAL_SNR, Setting

Record = Mapping[str, Any]  # JSON, or the pairs of a settings line

OTHER_SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "prompt": ("prompt", "positiveprompt"),
    "negative_prompt": ("negativeprompt", "negative", "uc"),
    "steps": ("numinferencesteps", "samplingsteps"),
    "sampler": (
        "sampler", "samplername", "ksamplername", "samplerindex", "comfyuisampler", "autowebuisampler", "samplingmethod",
    ),
    "scheduler": ("noiseschedule", "schedule", "schedulername", "comfyuischeduler", "samplersigma"),
    "cfg_scale": ("guidancescale", "cfg", "scale"),
    "size": ("size", "resolution"),
    "rng": ("randdevice",),
    "ensd": ("etanoiseseeddelta",),
    "eta": ("etaddim",),
    "model": (
        "model", "basemodel", "basemodelname", "sdmodelcheckpoint", "stablediffusionmodel", "usestablediffusionmodel",
        "sdmodelname", "modelname", "checkpoint", "stablediffusioncheckpoint",
    ),
    "model_hash": ("modelhash", "basemodelhash", "sdmodelhash"),
    "vae": ("vae", "sdvae", "usevaemodel", "sdvaename"),
    "refiner": ("refiner", "refinercheckpoint", "refinermodel", "refinermodelname"),
    "refiner_switch_at": ("refinerstart",),
    "vae_hash": ("vaehash", "sdvaehash"),
    "clip_skip": ("clipskip", "clipstopatlastlayers", "clipstopatlayer"),
    "exact_clip_skip": ("fractionalclipskip", "clipskipschedule", "clipskipperencoder"),
    "dynamic_clip_skip": ("dynamicclipskipschedule", "dynamicclipskip"),
    "dynamic_clip_skip_start": ("dynamicclipskipstart",),
    "negative_clip_skip": ("negativeclipskip",),
    "phrase_skips": ("phraseclipskips",),
    "enable_hires": ("enablehr",),
    "hires_upscaler_hash": ("hiresupscalerhash",),
    "hires_model": ("hirescheckpoint", "hrcheckpointname"),
    "modules": ("forgeadditionalmodules",),
    "init_hash": ("initimagehash",),
    "mask_hash": ("maskimagehash",),
    "lora_hashes": ("lorahashes",),
    "embedding_hashes": ("tihashes",),
    "hashes": ("hashes",),
    "resources": ("resources", "civitairesources", "additionalresources", "models"),
    "loras": ("loras",),
    "comfy_loras": ("comfyuiloras",),
    "lora_names": ("uselora", "useloramodel", "loramodel"),
    "lora_strengths": ("loraalpha", "lorastrength", "loraweights"),
    "hypernet": ("hypernet", "usehypernetworkmodel"),
    "hypernet_strength": ("hypernetstrength", "hypernetworkstrength"),
    "lora_networks": ("loranetworks",),
    "embedding_names": ("useembeddingsmodel",),
}  # fmt: skip
"""Spellings besides those in the table of settings, and of settings that are no rows there."""
NEVER_TWO = frozenset({"model", "seed", "sampler", "size", "width", "height", "vae", "refiner"})
"""Settings where two values that disagree are an error, because each makes another picture."""
GIVE_WAY = frozenset({"samplerindex", "ksamplername"})
"""A1111's API uses `sampler_name` where a body has both (1.10 modules/api/api.py text2imgapi); the other is TensorArt's
second name of its sampler, in ComfyUI's words."""


def plain_key(key: str) -> str:
    """Return a key without what tools disagree on: case, spaces, hyphens, underscores."""
    return re.sub(r"[\W_]+", "", key).lower()


LISTS = frozenset(
    {"hashes", "resources", "loras", "lora_names", "lora_strengths", "modules", "lora_networks", "embedding_names"}
)
"""Settings that are lists, which may be empty."""


def _spelling_table() -> dict[str, tuple[str, ...]]:
    rows = {row.key: tuple(plain_key(name) for name in (row.label, row.key, row.a1111) if name) for row in SETTINGS}
    both = {field: (*rows.get(field, ()), *OTHER_SPELLINGS.get(field, ())) for field in (*rows, *OTHER_SPELLINGS)}
    return {field: tuple(dict.fromkeys(names)) for field, names in both.items()}


SPELLINGS: Mapping[str, tuple[str, ...]] = _spelling_table()
"""The spellings of each setting in any tool's texts and JSON, as `plain` writes them; the first in a record counts."""
SINGLE = frozenset(name for field in SPELLINGS.keys() - LISTS for name in SPELLINGS[field])
"""Spellings of settings that are single values, so that an empty list counts as none."""
BLANKS = "\0\ufeff \r\n\t"
"""What may stand around a record: blanks, and what files begin and comments end with."""
LONGEST_NAME = 1_000
MOST_SHOWN = 200
"""The most characters of a left-over value."""

_JSON = json.JSONEncoder(ensure_ascii=False, default=str)
_WHOLE = re.compile(r"[-+]?[0-9]{1,20}(?:\.0)?")
_NUMBER = re.compile(r"[-+]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][-+]?[0-9]{1,3})?")


@dataclass(frozen=True, slots=True)
class Said:
    """One key of a record with its value."""

    key: str
    value: Any  # JSON

    def text(self) -> str:
        """Return the value, which must be a text."""
        if not isinstance(self.value, str):
            self.nonsense("a text")
        return self.value

    def name(self) -> str:
        """Return the value as a name or a word: a text or a whole number."""
        name = self.value
        if isinstance(name, bool) or not isinstance(name, str | int) or len(str(name)) > LONGEST_NAME:
            self.nonsense("a name")
        return str(name)

    def whole(self) -> int:
        """Return the value as a whole number, which may be written as text."""
        value = self.value
        if isinstance(value, float) and math.isfinite(value) and value == int(value):
            return int(value)
        if isinstance(value, bool) or not isinstance(value, int | str) or not _WHOLE.fullmatch(str(value).strip()):
            self.nonsense("a whole number")
        return int(str(value).strip().removesuffix(".0"))

    def number(self) -> float:
        """Return the value as a finite number, which may be written as text."""
        value = self.value
        is_plain = not isinstance(value, bool) and isinstance(value, int | float | str)
        if not is_plain or not (isinstance(value, float) or _NUMBER.fullmatch(str(value).strip())):
            self.nonsense("a number")
        number = float(value)
        if not math.isfinite(number):
            self.nonsense("a number")
        return number

    def nonsense(self, wanted: str) -> NoReturn:
        """Raise the error that the value is not what it should be."""
        field = re.sub(r"\W", "_", self.key.lower())[:40]
        raise SpecError(f"settings: {self.key[:60]} {one_line(self.value)[:40]!r} is not {wanted}", field=field)


@final
class Reader:
    """A record whose settings are taken one by one; `left` is all that nobody took."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._keys: dict[str, list[str]] = {}
        for key in record:
            self._keys.setdefault(plain_key(key), []).append(key)
        self._waiting = {
            key: None
            for key, value in record.items()
            if says_something(value) or (value in ([], {}) and plain_key(key) in SINGLE)
        }
        self._more: list[tuple[str, str]] = []

    def all(self, field: str) -> list[Said]:
        """Take every key that spells the setting and has a value."""
        keys = [key for name in SPELLINGS[field] for key in self._keys.get(name, ()) if key in self._waiting]
        if field == "scheduler":  # NovelAI's noise_schedule is one, A1111's Noise Schedule is a setting of its own
            keys = [key for key in keys if self._record[key] != ZERO_TERMINAL_SNR]
        for key in keys:
            del self._waiting[key]
        return [Said(key, self._record[key]) for key in keys]

    def take(self, field: str) -> Said | None:
        """Take the first key that spells the setting, along with others of the same value.

        A different value is an error where each makes another picture; otherwise its key stays.
        """
        entries = self.all(field)
        for other in entries[1:]:
            if _mean_same(field, other.value, entries[0].value):
                continue
            if field in NEVER_TWO and plain_key(other.key) not in GIVE_WAY:
                raise disagree(entries[0], other, field=field)
            self._waiting[other.key] = None
        return entries[0] if entries else None

    def key(self, name: str) -> Said | None:
        """Take a key by its own name."""
        if name not in self._waiting:
            return None
        del self._waiting[name]
        return Said(name, self._record[name])

    def matching(self, pattern: re.Pattern[str]) -> list[tuple[re.Match[str], Said]]:
        """Take the keys that match a pattern."""
        fits = [(match, key) for key in self._waiting if (match := pattern.fullmatch(key))]
        for _, key in fits:
            del self._waiting[key]
        return [(match, Said(key, self._record[key])) for match, key in fits]

    def leave(self, name: str, value: object) -> None:
        """Record something inside a taken key that nothing here uses."""
        if says_something(value):
            self._more.append((name, one_line(value)))

    def left(self) -> Iterator[tuple[str, str]]:
        """Yield what nobody took."""
        yield from ((key, one_line(self._record[key])) for key in self._waiting)
        yield from self._more

    def has(self, field: str) -> bool:
        """Return whether a key that nobody took spells the setting and has a value."""
        return any(key in self._waiting for name in SPELLINGS[field] for key in self._keys.get(name, ()))

    def rows(self, rows: Iterable[Setting]) -> dict[str, Any]:  # Any: fields of a dataclass
        """Take the settings of these table rows, by field name."""
        values: dict[str, Any] = {}
        for row in rows:
            if said := self.take(row.key):
                read = {int: said.whole, float: said.number, str: said.text}[row.kind]
                values[row.name] = read()
        return values

    def text(self, field: str, default: str = "") -> str:
        """Take a setting that is a text."""
        said = self.take(field)
        return said.text() if said else default

    def name(self, field: str) -> str | None:
        """Take a setting that is a name or a word."""
        said = self.take(field)
        return said.name() if said else None

    def whole(self, field: str, default: int) -> int:
        """Take a setting that is a whole number."""
        said = self.take(field)
        return said.whole() if said else default

    def number(self, field: str, default: float) -> float:
        """Take a setting that is a number."""
        said = self.take(field)
        return said.number() if said else default


def disagree(first: Said, second: Said, *, field: str) -> SpecError:
    """Return the error for two keys that contradict each other."""
    told = " and ".join(f"{said.key[:60]} {one_line(said.value)[:40]}" for said in (first, second))
    return SpecError(f"settings: {told} disagree; leave one of them", field=field)


def _mean_same(field: str, first: object, second: object) -> bool:
    """Return whether two values mean the same; models' names are compared as they are looked up."""
    texts = [one_line(value).strip() for value in (first, second)]
    if field == "model":
        texts = [re.sub(r"\s*\[[0-9a-fA-F]{8,64}\]$", "", text).replace("\\", "/").rpartition("/")[2] for text in texts]
        texts = [re.sub(r"\.(safetensors|ckpt)$", "", text, flags=re.IGNORECASE) for text in texts]
    return texts[0] == texts[1]


def says_something(value: object) -> bool:
    """Return whether a value is given: null, an empty text and an empty list are not."""
    return value is not None and value != "" and value != [] and value != {}


def one_line(value: object) -> str:
    """Return a value on one line, as in its record, shortened."""
    try:
        text = value if isinstance(value, str) else _JSON.encode(value)
    except RecursionError:
        text = "lists nested too deeply to show"
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 3]}..."
