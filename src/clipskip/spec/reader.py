"""Records of settings, read key by key: one table of spellings, and whatever nobody took is left over by name."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, final

from clipskip.errors import SpecError
from clipskip.spec.table import SETTINGS, Setting

Record = Mapping[str, Any]  # JSON, or the pairs of a settings line

OTHER_SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "prompt": ("prompt", "positiveprompt"),
    "negative_prompt": ("negativeprompt", "negative", "uc"),
    "steps": ("numinferencesteps",),
    "sampler": ("sampler", "samplername", "ksamplername", "samplerindex", "comfyuisampler", "autowebuisampler"),
    "scheduler": ("noiseschedule", "schedulername", "comfyuischeduler", "samplersigma"),
    "cfg_scale": ("guidancescale", "cfg", "scale"),
    "size": ("size", "resolution"),
    "rng": ("randdevice",),
    "ensd": ("etanoiseseeddelta",),
    "eta": ("etaddim",),
    "model": (
        "model", "basemodel", "basemodelname", "sdmodelcheckpoint", "stablediffusionmodel", "usestablediffusionmodel",
        "sdmodelname", "modelname",
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
    "hypernet": ("hypernet",),
    "hypernet_strength": ("hypernetstrength",),
}  # fmt: skip
"""Names that the table of settings does not have, of settings that it has and of those that are no rows there."""
NEVER_TWO = frozenset({"model", "seed", "sampler", "size", "width", "height"})
"""Settings of which two that disagree are an error: each makes another picture."""
GIVE_WAY = frozenset({"samplerindex", "ksamplername"})
"""A1111's API draws with `sampler_name` where a body has both (1.10 modules/api/api.py text2imgapi); the other is TensorArt's
second name of its sampler, in ComfyUI's words."""


def plain(key: str) -> str:
    """A key without what tools disagree on: case, spaces, hyphens, underscores."""
    return re.sub(r"[\W_]+", "", key).lower()


LISTS = frozenset({"hashes", "resources", "loras", "lora_names", "lora_strengths", "modules"})
"""Settings that are lists, which may be empty."""


def _spellings() -> dict[str, tuple[str, ...]]:
    rows = {row.key: tuple(plain(name) for name in (row.label, row.key, row.a1111) if name) for row in SETTINGS}
    both = {field: (*rows.get(field, ()), *OTHER_SPELLINGS.get(field, ())) for field in (*rows, *OTHER_SPELLINGS)}
    return {field: tuple(dict.fromkeys(names)) for field, names in both.items()}


SPELLINGS: Mapping[str, tuple[str, ...]] = _spellings()
"""Each setting's names in any tool's texts and JSON, as `plain` spells them; the first that a record has counts."""
SINGLE = frozenset(name for field in SPELLINGS.keys() - LISTS for name in SPELLINGS[field])
"""Names of settings that are one value, so that an empty list is none."""
LONGEST_NAME = 1_000
MOST_SHOWN = 200
"""Characters of a value that was left over."""

_JSON = json.JSONEncoder(ensure_ascii=False, default=str)
_WHOLE = re.compile(r"[-+]?[0-9]{1,20}(?:\.0)?")
_NUMBER = re.compile(r"[-+]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][-+]?[0-9]{1,3})?")


@dataclass(frozen=True, slots=True)
class Said:
    """One key of a record, and what it says."""

    key: str
    value: Any  # JSON

    def text(self) -> str:
        """The value, which is a text."""
        if not isinstance(self.value, str):
            self.nonsense("a text")
        return self.value

    def name(self) -> str:
        """The value as a name or a word: a text or a whole number."""
        name = self.value
        if isinstance(name, bool) or not isinstance(name, str | int) or len(str(name)) > LONGEST_NAME:
            self.nonsense("a name")
        return str(name)

    def whole(self) -> int:
        """The value as a whole number, which a text may spell."""
        value = self.value
        if isinstance(value, float) and math.isfinite(value) and value == int(value):
            return int(value)
        if isinstance(value, bool) or not isinstance(value, int | str) or not _WHOLE.fullmatch(str(value).strip()):
            self.nonsense("a whole number")
        return int(str(value).strip().removesuffix(".0"))

    def number(self) -> float:
        """The value as a finite number, which a text may spell."""
        value = self.value
        plain = not isinstance(value, bool) and isinstance(value, int | float | str)
        if not plain or not (isinstance(value, float) or _NUMBER.fullmatch(str(value).strip())):
            self.nonsense("a number")
        number = float(value)
        if not math.isfinite(number):
            self.nonsense("a number")
        return number

    def nonsense(self, wanted: str) -> NoReturn:
        """Raise the error that the value is not what it should be."""
        field = re.sub(r"\W", "_", self.key.lower())[:40]
        raise SpecError(f"settings: {self.key[:60]} {shown(self.value)[:40]!r} is not {wanted}", field=field)


@final
class Reader:
    """A record whose settings are taken one by one; `left` is all that nobody took."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._keys: dict[str, list[str]] = {}
        for key in record:
            self._keys.setdefault(plain(key), []).append(key)
        self._waiting = {
            key: None
            for key, value in record.items()
            if says_something(value) or (value in ([], {}) and plain(key) in SINGLE)
        }
        self._more: list[tuple[str, str]] = []

    def all(self, field: str) -> list[Said]:
        """Every key that spells the setting and says something, taken."""
        keys = [key for name in SPELLINGS[field] for key in self._keys.get(name, ()) if key in self._waiting]
        for key in keys:
            del self._waiting[key]
        return [Said(key, self._record[key]) for key in keys]

    def take(self, field: str) -> Said | None:
        """The first key that spells the setting; others that say the same are taken with it.

        Of those that do not, the ones that make another picture are an error, and others stay.
        """
        found = self.all(field)
        for other in found[1:]:
            if _alike(field, other.value, found[0].value):
                continue
            if field in NEVER_TWO and plain(other.key) not in GIVE_WAY:
                raise disagree(found[0], other, field=field)
            self._waiting[other.key] = None
        return found[0] if found else None

    def key(self, name: str) -> Said | None:
        """A key by its own name, taken."""
        if name not in self._waiting:
            return None
        del self._waiting[name]
        return Said(name, self._record[name])

    def matching(self, pattern: re.Pattern[str]) -> list[tuple[re.Match[str], Said]]:
        """The keys that fit a pattern, taken."""
        fits = [(match, key) for key in self._waiting if (match := pattern.fullmatch(key))]
        for _, key in fits:
            del self._waiting[key]
        return [(match, Said(key, self._record[key])) for match, key in fits]

    def leave(self, name: str, value: object) -> None:
        """Something inside a key that was taken, and that nothing here uses."""
        if says_something(value):
            self._more.append((name, shown(value)))

    def left(self) -> Iterator[tuple[str, str]]:
        """What nobody took."""
        yield from ((key, shown(self._record[key])) for key in self._waiting)
        yield from self._more

    def has(self, field: str) -> bool:
        """Whether a key that nobody took spells the setting and says something."""
        return any(key in self._waiting for name in SPELLINGS[field] for key in self._keys.get(name, ()))

    def rows(self, rows: Iterable[Setting]) -> dict[str, Any]:  # Any: fields of a dataclass
        """What the record says of settings of the table, by the fields' names."""
        found: dict[str, Any] = {}
        for row in rows:
            if said := self.take(row.key):
                read = {int: said.whole, float: said.number, str: said.text}[row.kind]
                found[row.name] = read()
        return found

    def text(self, field: str, default: str = "") -> str:
        """The setting, which is a text."""
        said = self.take(field)
        return said.text() if said else default

    def name(self, field: str) -> str | None:
        """The setting, which is a name or a word."""
        said = self.take(field)
        return said.name() if said else None

    def whole(self, field: str, default: int) -> int:
        """The setting, which is a whole number."""
        said = self.take(field)
        return said.whole() if said else default

    def number(self, field: str, default: float) -> float:
        """The setting, which is a number."""
        said = self.take(field)
        return said.number() if said else default


def disagree(first: Said, second: Said, *, field: str) -> SpecError:
    """The error for two keys of which only one can be true."""
    told = " and ".join(f"{said.key[:60]} {shown(said.value)[:40]}" for said in (first, second))
    return SpecError(f"settings: {told} disagree; leave one of them", field=field)


def _alike(field: str, one: object, other: object) -> bool:
    """Whether two values say the same; names of models as they are looked up."""
    texts = [shown(value).strip() for value in (one, other)]
    if field == "model":
        texts = [re.sub(r"\s*\[[0-9a-fA-F]{8,64}\]$", "", text).replace("\\", "/").rpartition("/")[2] for text in texts]
        texts = [re.sub(r"\.(safetensors|ckpt)$", "", text, flags=re.IGNORECASE) for text in texts]
    return texts[0] == texts[1]


def says_something(value: object) -> bool:
    """Whether a value is there: null, an empty text and an empty list say nothing."""
    return value is not None and value != "" and value != [] and value != {}


def shown(value: object) -> str:
    """A value on one line, as its record has it, shortened."""
    try:
        text = value if isinstance(value, str) else _JSON.encode(value)
    except RecursionError:
        text = "lists in lists too deep to show"
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 3]}..."
