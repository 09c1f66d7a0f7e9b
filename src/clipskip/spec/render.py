"""What a user asks, and what it resolves to: every setting of one picture."""

import hashlib
import math
import re
from collections import Counter
from dataclasses import dataclass, fields, replace

from clipskip.errors import SpecError
from clipskip.spec.encoder_skips import PhraseSkip, Skip
from clipskip.spec.skip import ClipSkip

LAST_LAYER = ClipSkip(1)
MAX_SEED = 2**64 - 1
LATENT_PX = 8
"""Pixels per latent cell, each way."""
MAX_PHRASES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraRef:
    """One LoRA at its strengths, as `<lora:name:text_encoder:unet>` says it."""

    name: str
    """File stem, alias or path, as the user wrote it."""
    text_encoder: float = 1.0
    unet: float = 1.0
    hash: str = ""
    """AutoV3, 12 hex digits (sha256 of everything after the safetensors header); empty until resolved."""

    def __post_init__(self) -> None:
        for value in (self.text_encoder, self.unet):
            if not math.isfinite(value):
                raise SpecError(
                    f"LoRA {self.name!r} has strength {value}; give a finite number such as 0.8", field="lora"
                )

    @classmethod
    def parse(cls, text: str) -> "LoraRef":
        """The LoRA that a user typed: name, name:0.8 or name:text_encoder:unet."""
        found = re.fullmatch(r"(.+?)((?::[^:/\\]*){0,2})", text.strip())
        if found is None:
            raise SpecError("a LoRA needs a name: --lora name, or name:0.8", field="lora")
        try:
            strengths = [float(part) for part in found[2].split(":")[1:]]
        except ValueError:
            raise SpecError(f"LoRA {text!r}: a strength is a number, as in {found[1]}:0.8", field="lora") from None
        te = strengths[0] if strengths else 1.0
        return cls(name=found[1], text_encoder=te, unet=strengths[1] if len(strengths) > 1 else te)

    @property
    def tag(self) -> str:
        """The LoRA as A1111's prompts write it."""
        te, unet = f"{self.text_encoder:g}", f"{self.unet:g}"
        return f"<lora:{self.name}:{te}>" if te == unet else f"<lora:{self.name}:{te}:{unet}>"


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
    lora_hashes: tuple[tuple[str, str], ...] = ()
    """Name and hash of LoRAs, as settings texts note them: they find a file that has another name here."""
    unused: tuple[tuple[str, str], ...] = ()
    """Fields of a settings text that this program has no use for, as they were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A picture that drawing begins at, in the place of noise alone."""

    hash: str
    """32 hex digits of its pixels."""
    strength: float
    """A1111's denoising strength, 0 to 1: how much of the way down is drawn anew."""

    def __post_init__(self) -> None:
        _in_range("denoising_strength", self.strength, 0, 1)


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
    """1 to 150."""
    sampler: str = "Euler a"
    scheduler: str = "Automatic"
    cfg_scale: float = 7.0
    """1 to 30."""
    seed: int = 0
    """0 to 2**64 - 1."""
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
    """0 to 1."""
    start: Start | None = None
    """None is noise alone."""
    version: str = ""
    """Of the code that drew it."""

    def __post_init__(self) -> None:
        _in_range("steps", self.steps, 1, 150)
        _in_range("cfg_scale", self.cfg_scale, 1, 30)
        _in_range("seed", self.seed, 0, MAX_SEED)
        _in_range("variation_seed", self.variation_seed, 0, MAX_SEED)
        _in_range("variation_strength", self.variation_strength, 0, 1)
        for name, pixels in (("width", self.width), ("height", self.height)):
            _in_range(name, pixels, 64, 2048)
            if pixels % LATENT_PX:
                near = pixels // LATENT_PX * LATENT_PX
                raise SpecError(
                    f"{name} {pixels} is not a multiple of {LATENT_PX}; use {near} or {near + LATENT_PX}", field="size"
                )
        _one_of("emphasis", self.emphasis, ("Original", "No norm", "Ignore", "None"))
        _one_of("rng", self.rng, ("CPU", "GPU", "NV"))
        _check_phrases(self.phrase_skips)

    @property
    def key(self) -> str:
        """12 hex digits that differ when any setting differs. Without a start they are what they were before there were
        any, by which folders of older sweeps are known."""
        left_out = {"version"} if self.start else {"version", "start"}
        text = "\n".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if f.name not in left_out)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def at(self, clip_skip: Skip) -> "Render":
        """The same picture at another Clip Skip."""
        return replace(self, clip_skip=clip_skip)


def _in_range(name: str, value: float, low: float, high: float) -> None:
    if isinstance(value, bool) or not math.isfinite(value) or not low <= value <= high:
        raise SpecError(f"{name.replace('_', ' ')} {value} is out of range; use {low} to {high}", field=name)


def _check_phrases(phrases: tuple[PhraseSkip, ...]) -> None:
    if len(phrases) > MAX_PHRASES:
        raise SpecError(
            f"{len(phrases)} phrases have clip skips of their own, and {MAX_PHRASES} is the most; remove some",
            field="phrase_skip",
        )
    for phrase, count in Counter(one.phrase for one in phrases).items():
        if count > 1:
            raise SpecError(f"the phrase {phrase!r} has {count} clip skips; leave one of them", field="phrase_skip")


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SpecError(f"{name} {value!r} is not known; use one of {', '.join(choices)}", field=name)
