"""A request, and the render that it resolves to: every setting of one picture."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from functools import cache, cached_property
from typing import Any

from clipskip.errors import SpecError
from clipskip.spec.encoder_skips import PhraseSkip, Skip
from clipskip.spec.lora import LoraRef
from clipskip.spec.numbering import Dialect
from clipskip.spec.passes import LATENT_PX, Hires, Mask, Start
from clipskip.spec.skip import ClipSkip
from clipskip.spec.table import PICTURE, check

LAST_LAYER = ClipSkip(1)
MAX_PHRASES = 32
FIRST_FIELDS = frozenset(
    {
        "prompt", "negative_prompt", "model", "loras", "embeddings", "clip_skip", "negative_clip_skip", "phrase_skips", "steps",
        "sampler", "scheduler", "cfg_scale", "seed", "width", "height", "emphasis", "rng", "ensd", "variation_seed",
        "variation_strength", "hash", "strength",
    }
)  # fmt: skip
"""The fields that a render's key always contained; later fields are in it only where they differ from their
defaults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRef:
    """A file, by name and content."""

    name: str
    """The file's stem without commas, colons and quotes, because infotexts contain it."""
    hash: str = ""
    """First hex digits of its sha256, as the field uses them: 10 for checkpoints, 12 for embeddings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A user's request for one picture; None for what is left to the program. Files are given by name."""

    prompt: str
    negative_prompt: str = ""
    model: str | None = None
    """Name, stem, path or hash of the checkpoint."""
    model_hash: str | None = None
    loras: tuple[LoraRef, ...] = ()
    clip_skip: Skip | None = None
    counted_by: Dialect | None = field(default=None, compare=False)
    """The tool in whose numbers a settings text has `clip_skip`, which may mean another layer on another family; None: ours.
    ComfyUI: its record leaves it out, which is 1 on SD 1.x and 2 elsewhere."""
    negative_clip_skip: Skip | None = None
    """Clip Skip of the negative prompt; None means the prompt's."""
    negative_counted_by: Dialect | None = field(default=None, compare=False)
    """The same as `counted_by`, of `negative_clip_skip`."""
    phrase_skips: tuple[PhraseSkip, ...] = ()
    """Phrases of the prompt with Clip Skips of their own; where two overlap, the later one counts."""
    steps: int = 20
    sampler: str = "Euler a"
    scheduler: str = "Automatic"
    cfg_scale: float = 7.0
    seed: int = -1
    """-1 draws a seed."""
    width: int | None = None
    height: int | None = None
    emphasis: str = "Original"
    rng: str = "CPU"
    ensd: int = 0
    variation_seed: int = 0
    """-1 draws a seed."""
    variation_strength: float = 0.0
    prediction: str | None = None
    """epsilon or v; None means what the model's file says."""
    eta: float | None = None
    """None means the sampler's own."""
    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = 0.0
    s_noise: float = 1.0
    vae: str | None = None
    """Name, path or hash of a VAE file; None means the checkpoint's own, or the file named after it beside it."""
    vae_hash: str | None = None
    start: Start | None = None
    """None begins at noise alone."""
    hires: Hires | None = None
    """A second, larger pass, with tags still in its prompts."""
    crop_top: int = 0
    crop_left: int = 0
    refiner: str | None = None
    """Name, path or hash of a checkpoint that finishes the picture."""
    refiner_hash: str | None = None
    refiner_switch_at: float = 0.8
    noise_schedule: str = "Default"
    """Default means the model's own."""
    empty_negative: str = "Zeros"
    lora_hashes: tuple[tuple[str, str], ...] = ()
    """Name and hash of LoRAs in a settings text: they find a file that has another name here."""
    embedding_hashes: tuple[tuple[str, str], ...] = ()
    """Name and hash of the embeddings in a settings text, with which its picture was made."""
    unused: tuple[tuple[str, str], ...] = ()
    """Fields of a settings text that this program does not use, as written."""
    left_out: tuple[str, ...] = field(default=(), compare=False)
    """What a settings text does not say, of the settings that every picture has."""

    @property
    def defaulted(self) -> tuple[str, ...]:
        """Return the settings that a settings text leaves out and nobody gave since, with the values used instead."""
        used = {
            "model": "" if self.model else "the one for prompts without a model",
            "seed": "a new one" if self.seed == -1 else "",
            "size": "" if self.width and self.height else "the model's own",
            "sampler": self.sampler,
            "steps": str(self.steps),
            "CFG scale": f"{self.cfg_scale:g}",
        }
        return tuple(f"{name} ({used[name]} is used)" for name in self.left_out if used[name])


@dataclass(frozen=True, kw_only=True)
class Render:
    """Every setting that determined one picture's pixels: cache key, PNG text, file name and sweep axis.

    It has no slots, because it keeps its key.
    """

    prompt: str
    """The text without its LoRA tags, which are in `loras`."""
    negative_prompt: str = ""
    model: FileRef
    loras: tuple[LoraRef, ...] = ()
    embeddings: tuple[FileRef, ...] = ()
    clip_skip: Skip = LAST_LAYER
    negative_clip_skip: Skip | None = None
    """None means the prompt's."""
    phrase_skips: tuple[PhraseSkip, ...] = ()
    steps: int = 20
    sampler: str = "Euler a"
    scheduler: str = "Automatic"
    cfg_scale: float = 7.0
    seed: int = 0
    width: int = 512
    """In pixels, a multiple of 8."""
    height: int = 512
    emphasis: str = "Original"
    """Original, No norm, Ignore, None (A1111's names) or ComfyUI."""
    rng: str = "CPU"
    """Noise source: CPU, GPU or NV (CUDA's Philox numbers on any device; GPU is the same)."""
    ensd: int = 0
    """A1111's eta noise seed delta."""
    variation_seed: int = 0
    variation_strength: float = 0.0
    start: Start | None = None
    """None begins at noise alone."""
    prediction: str | None = None
    """epsilon or v; None means what the model's file says."""
    eta: float | None = None
    """None means the sampler's own: 1 for ancestral and SDE samplers, 0 for DDIM."""
    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = 0.0
    """0 means no limit."""
    s_noise: float = 1.0
    vae: FileRef | None = None
    """None means the checkpoint's own."""
    hires: Hires | None = None
    """None means one pass."""
    crop_top: int = 0
    """The crop, in pixels, that SDXL is told of, as is the next."""
    crop_left: int = 0
    refiner: FileRef | None = None
    """A second checkpoint that finishes the picture; None means none."""
    refiner_switch_at: float = 0.8
    noise_schedule: str = "Default"
    """Default, or Zero Terminal SNR: the noise levels that the model was trained at, whatever the schedule type."""
    empty_negative: str = "Zeros"
    """How SDXL reads an empty negative prompt: as zeros, as in A1111, or like any text."""
    version: str = ""
    """Version of the code that drew it."""

    def __post_init__(self) -> None:
        check(self, PICTURE)
        for name, pixels in (("width", self.width), ("height", self.height)):
            if pixels % LATENT_PX:
                near = pixels // LATENT_PX * LATENT_PX
                raise SpecError(
                    f"{name} {pixels} is not a multiple of {LATENT_PX}; use {near} or {near + LATENT_PX}", field="size"
                )
        if self.hires is not None:
            if self.start is not None:
                raise SpecError(
                    "a picture that begins at another one cannot have a hires pass; give --init or a hires scale, not both",
                    field="hires_scale",
                )
            self.hires.check_size(self.width, self.height)
        _check_phrases(self.phrase_skips)

    @cached_property
    def key(self) -> str:
        """12 hex digits that differ when any setting differs. Later settings count only where they differ from their
        defaults, so that folders of older sweeps stay valid."""
        settings = (f"{name}={text}" for name, text in _keyed_fields(self) if name != "version")
        return hashlib.sha256("\n".join(settings).encode()).hexdigest()[:12]

    def at(self, clip_skip: Skip) -> "Render":
        """Return the same picture at another Clip Skip."""
        return replace(self, clip_skip=clip_skip)


def _keyed_fields(value: object) -> Iterator[tuple[str, str]]:
    """Yield name and text of each field of a dataclass that counts in a key."""
    kind: Any = type(value)  # mypy does not see that classes are hashable
    for name, default in _defaults(kind):
        own = getattr(value, name)
        if name in FIRST_FIELDS or own != default:
            nested = isinstance(own, Start | Hires | Mask)
            inner = ", ".join(f"{name}={text}" for name, text in _keyed_fields(own)) if nested else ""
            yield name, f"{type(own).__name__}({inner})" if nested else repr(own)


@cache
def _defaults(kind: Any) -> tuple[tuple[str, object], ...]:  # Any: a dataclass
    """Return the name and the default of each of its fields."""
    return tuple((field.name, _default(field)) for field in fields(kind))


def _default(field: Field[Any]) -> object:  # Any: whatever the field holds
    return None if field.default is MISSING else field.default


def _check_phrases(phrases: tuple[PhraseSkip, ...]) -> None:
    if len(phrases) > MAX_PHRASES:
        raise SpecError(
            f"{len(phrases)} phrases have clip skips of their own; use at most {MAX_PHRASES}",
            field="phrase_skip",
        )
    for phrase, count in Counter(phrase_skip.phrase for phrase_skip in phrases).items():
        if count > 1:
            raise SpecError(f"the phrase {phrase!r} has {count} clip skips; leave one of them", field="phrase_skip")
