"""What a user asks, and what it resolves to: every setting of one picture."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
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
"""What a render's key always held; later fields are in it where they are not at their defaults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRef:
    """A file by name and content."""

    name: str
    """Stem of the file, free of commas, colons and quotes: it goes into infotexts."""
    hash: str = ""
    """Leading hex digits of the sha256 that the field knows it by: 10 for checkpoints, 12 for embeddings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a user asks of one picture; None where they left it to us. Files are names."""

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
    """Clip Skip of the negative prompt; None is the prompt's."""
    phrase_skips: tuple[PhraseSkip, ...] = ()
    """Phrases of the prompt that are read at Clip Skips of their own; where two overlap, the later one counts."""
    steps: int = 20
    sampler: str = "Euler a"
    scheduler: str = "Automatic"
    cfg_scale: float = 7.0
    seed: int = -1
    """-1 is any seed."""
    width: int | None = None
    height: int | None = None
    emphasis: str = "Original"
    rng: str = "CPU"
    ensd: int = 0
    variation_seed: int = 0
    """-1 is any seed."""
    variation_strength: float = 0.0
    prediction: str | None = None
    """epsilon or v; None is what the model's file says."""
    eta: float | None = None
    """None is the sampler's own."""
    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = 0.0
    s_noise: float = 1.0
    vae: str | None = None
    """Name, path or hash of a VAE file; None is the checkpoint's own, or the file of its name beside it."""
    vae_hash: str | None = None
    start: Start | None = None
    """None is noise alone."""
    hires: Hires | None = None
    """A second, larger pass; its prompts still hold their tags."""
    crop_top: int = 0
    crop_left: int = 0
    refiner: str | None = None
    """Name, path or hash of a checkpoint that finishes the picture."""
    refiner_hash: str | None = None
    refiner_switch_at: float = 0.8
    noise_schedule: str = "Default"
    """Default is the model's own."""
    empty_negative: str = "Zeros"
    lora_hashes: tuple[tuple[str, str], ...] = ()
    """Name and hash of LoRAs, as settings texts note them: they find a file that has another name here."""
    embedding_hashes: tuple[tuple[str, str], ...] = ()
    """Name and hash of the embeddings that a settings text notes: its picture was made with them."""
    unused: tuple[tuple[str, str], ...] = ()
    """Fields of a settings text that this program has no use for, as they were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Render:
    """Every setting that made one picture's pixels: cache key, PNG text, file name and sweep axis."""

    prompt: str
    """Without its LoRA tags: those are `loras`."""
    negative_prompt: str = ""
    model: FileRef
    loras: tuple[LoraRef, ...] = ()
    embeddings: tuple[FileRef, ...] = ()
    clip_skip: Skip = LAST_LAYER
    negative_clip_skip: Skip | None = None
    """None is the prompt's."""
    phrase_skips: tuple[PhraseSkip, ...] = ()
    steps: int = 20
    sampler: str = "Euler a"
    scheduler: str = "Automatic"
    cfg_scale: float = 7.0
    seed: int = 0
    width: int = 512
    """Pixels, a multiple of 8."""
    height: int = 512
    emphasis: str = "Original"
    """Original, No norm, Ignore or None (A1111's names)."""
    rng: str = "CPU"
    """Noise source: CPU, GPU or NV (CUDA's Philox numbers on any device; GPU is the same)."""
    ensd: int = 0
    """A1111's eta noise seed delta."""
    variation_seed: int = 0
    variation_strength: float = 0.0
    start: Start | None = None
    """None is noise alone."""
    prediction: str | None = None
    """epsilon or v; None is what the model's file says."""
    eta: float | None = None
    """None is the sampler's own: 1 for ancestral and SDE samplers, 0 for DDIM."""
    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = 0.0
    """0 is no end."""
    s_noise: float = 1.0
    vae: FileRef | None = None
    """None is the checkpoint's own."""
    hires: Hires | None = None
    """None is one pass."""
    crop_top: int = 0
    """What SDXL is told its picture was cut at, in pixels, and so the next."""
    crop_left: int = 0
    refiner: FileRef | None = None
    """A second checkpoint that finishes the picture; None is none."""
    refiner_switch_at: float = 0.8
    noise_schedule: str = "Default"
    """Default, or Zero Terminal SNR: the noise levels that the model was trained at, whatever the schedule type."""
    empty_negative: str = "Zeros"
    """What an empty negative prompt is to SDXL: all zeros, as in A1111, or read as other texts are."""
    version: str = ""
    """Of the code that drew it."""

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
                    "a picture that begins at another has no hires pass; give --init or a hires scale, not both",
                    field="hires_scale",
                )
            self.hires.check_size(self.width, self.height)
        _check_phrases(self.phrase_skips)

    @property
    def key(self) -> str:
        """12 hex digits that differ when any setting differs. Settings that came later count where they are not at their
        defaults, so that folders of older sweeps are still known."""
        told = (f"{name}={text}" for name, text in _told(self) if name != "version")
        return hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]

    def at(self, clip_skip: Skip) -> "Render":
        """The same picture at another Clip Skip."""
        return replace(self, clip_skip=clip_skip)


def _told(value: object) -> Iterator[tuple[str, str]]:
    """Name and text of each field of a dataclass that counts in a key."""
    assert is_dataclass(value)
    for setting in fields(value):
        own = getattr(value, setting.name)
        if setting.name in FIRST_FIELDS or own != _default(setting):
            nested = isinstance(own, Start | Hires | Mask)
            inner = ", ".join(f"{name}={text}" for name, text in _told(own)) if nested else ""
            yield setting.name, f"{type(own).__name__}({inner})" if nested else repr(own)


def _default(field: Field[Any]) -> object:  # Any: whatever the field holds
    return None if field.default is MISSING else field.default


def _check_phrases(phrases: tuple[PhraseSkip, ...]) -> None:
    if len(phrases) > MAX_PHRASES:
        raise SpecError(
            f"{len(phrases)} phrases have clip skips of their own, and {MAX_PHRASES} is the most; remove some",
            field="phrase_skip",
        )
    for phrase, count in Counter(one.phrase for one in phrases).items():
        if count > 1:
            raise SpecError(f"the phrase {phrase!r} has {count} clip skips; leave one of them", field="phrase_skip")
