"""How every tool numbers Clip Skip, one row per tool and family. Numbers only; `ClipSkip` and `dialect` speak them.

Read in the tools' sources of 2024-2026 (A1111 1.8.0 and 1.10, Forge, ComfyUI, SD.Next, diffusers 0.42,
InvokeAI, stable-diffusion.cpp, kohya sd-scripts, compel, OneTrainer); Easy Diffusion's and Fooocus's from their
documents. SD 2.x counts on all 24 layers of OpenCLIP-H; files of the Hugging Face layout hold 23.
"""

import re
from dataclasses import dataclass
from enum import Enum

from clipskip.errors import SkipOutOfRange, SpecError
from clipskip.spec.family import Family

Value = int | float | str
"""What a tool is given: a number, or a word where it has words."""


class Dialect(Enum):
    """A tool with its own way of counting."""

    A1111 = "a1111"
    FORGE = "forge"
    COMFYUI = "comfyui"
    SDNEXT = "sdnext"
    DIFFUSERS = "diffusers"
    INVOKEAI = "invokeai"
    SDCPP = "stable-diffusion.cpp"
    KOHYA = "kohya"
    COMPEL = "compel"
    EASYDIFFUSION = "easydiffusion"
    ONETRAINER = "onetrainer"
    FOOOCUS = "fooocus"

    @property
    def label(self) -> str:
        """The tool's name as its users write it."""
        return LABELS[self]

    @property
    def note(self) -> str:
        """What to know of the tool, in one line; often nothing."""
        return NOTES.get(self, "")

    @classmethod
    def parse(cls, name: str) -> "Dialect":
        """The tool that a user named: a1111, ComfyUI, "SD.Next", sd.cpp."""
        plain = re.sub(r"[\W_]", "", name).lower()
        for dialect in cls:
            if plain in (
                re.sub(r"[\W_]", "", dialect.value),
                re.sub(r"[\W_]", "", dialect.label).lower(),
                *OTHER_NAMES.get(dialect, ()),
            ):
                return dialect
        known = ", ".join(dialect.value for dialect in cls)
        raise SpecError(f"tool {name!r} is not known; use one of {known}", field="dialect")


LABELS = {
    Dialect.A1111: "AUTOMATIC1111",
    Dialect.FORGE: "Forge",
    Dialect.COMFYUI: "ComfyUI",
    Dialect.SDNEXT: "SD.Next",
    Dialect.DIFFUSERS: "diffusers",
    Dialect.INVOKEAI: "InvokeAI",
    Dialect.SDCPP: "stable-diffusion.cpp",
    Dialect.KOHYA: "kohya sd-scripts",
    Dialect.COMPEL: "compel",
    Dialect.EASYDIFFUSION: "Easy Diffusion",
    Dialect.ONETRAINER: "OneTrainer",
    Dialect.FOOOCUS: "Fooocus",
}

OTHER_NAMES = {
    # without spaces and punctuation
    Dialect.A1111: ("auto1111", "webui", "civitai", "clipskip"),
    Dialect.COMFYUI: ("comfy",),
    Dialect.INVOKEAI: ("invoke",),
    Dialect.SDCPP: ("sdcpp",),
    Dialect.KOHYA: ("kohyass", "sdscripts"),
}

NOTES = {
    Dialect.A1111: "Setting Clip skip (CLIP_stop_at_last_layers); the negative prompt follows it",
    Dialect.FORGE: "The slider is hidden and reset to 1 by the presets xl and flux",
    Dialect.COMFYUI: "stop_at_clip_layer of CLIPSetLastLayer; the last such node before an encoder counts",
    Dialect.SDNEXT: "Locked until it is enabled in the settings; takes fractions",
    Dialect.DIFFUSERS: "The negative prompt ignores it: hand over negative_prompt_embeds for A1111's picture",
    Dialect.INVOKEAI: "Counts the layers that are skipped",
    Dialect.SDCPP: "--clip-skip; 0 and below mean the family's default",
    Dialect.KOHYA: "--clip_skip; written to LoRAs as ss_clip_skip",
    Dialect.COMPEL: "ReturnedEmbeddingsType; it has no deeper layers",
    Dialect.EASYDIFFUSION: "A switch",
    Dialect.ONETRAINER: "Counts the layers that are skipped",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbering:
    """One tool's numbers on one family: value = sign * n + shift, where n counts from the end and 1 is the last."""

    sign: int = 1
    shift: int = 0
    first: int = 1
    """The smallest n that can be said."""
    last: int
    """The largest n that can be said."""
    fractions: bool = False
    unset: int | None = None
    """The n of a value that is left out (None)."""
    unset_to: float | None = None
    """Values up to this one count as left out."""
    words: tuple[tuple[int, str], ...] = ()
    """n and the word for it, where the tool has words for numbers."""
    limits: str = ""
    """Why not less or more than `first` and `last`, or what the tool does there instead."""
    note: str = ""
    """What is particular to this family."""

    @property
    def rule(self) -> str:
        """The value as a formula in n, or in words."""
        if self.words:
            return "a word"
        if self.first == self.last:
            return f"always {self.first}"
        letter = "n" if self.sign == 1 else "-n"
        return f"{letter} {'+' if self.shift > 0 else '-'} {abs(self.shift)}" if self.shift else letter

    @property
    def range(self) -> str:
        """The values that mean something here."""
        if self.words:
            return " or ".join(word for _, word in self.words)
        low, high = self.spell(self.first), self.spell(self.last)
        return str(low) if low == high else f"{low} to {high}"

    def spell(self, n: float) -> Value:
        """The tool's value for the n-th layer from the end; the caller has checked that there is one."""
        for number, word in self.words:
            if n == number:
                return word
        value = self.sign * n + self.shift
        return int(value) if float(value).is_integer() else round(value, 12)


COMPEL_LAST, COMPEL_NEXT = "LAST_HIDDEN_STATES_NORMALIZED", "PENULTIMATE_HIDDEN_STATES_NORMALIZED"
COMPEL_SDXL = "PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED"
ONE_LAYER_SHORT = "its encoder of 23 layers has no last one"
BARE = "13 there is the bare token embeddings, 14 fails"

ROWS: dict[Family, dict[Dialect, Numbering]] = {
    Family.SD1: {
        Dialect.A1111: Numbering(last=12, limits=BARE),
        Dialect.FORGE: Numbering(last=12, limits=BARE),
        Dialect.COMFYUI: Numbering(sign=-1, last=12, limits="-13 to -24 silently mean the last layer there"),
        Dialect.SDNEXT: Numbering(last=12, fractions=True, limits="0 there is the bare token embeddings, not normed"),
        Dialect.DIFFUSERS: Numbering(
            shift=-1, last=12, unset=1, limits="12 there is the bare token embeddings, -1 as well, 13 fails"
        ),
        Dialect.INVOKEAI: Numbering(shift=-1, last=12, limits="12 there is the bare token embeddings"),
        Dialect.SDCPP: Numbering(
            last=12, unset=1, unset_to=0, limits="13 there is the bare token embeddings, from 14 on all layers run"
        ),
        Dialect.KOHYA: Numbering(last=12, unset=1, limits=BARE),
        Dialect.COMPEL: Numbering(last=2, words=((1, COMPEL_LAST), (2, COMPEL_NEXT)), limits="it has these two alone"),
        Dialect.EASYDIFFUSION: Numbering(last=2, words=((1, "off"), (2, "on")), limits="it is a switch"),
        Dialect.ONETRAINER: Numbering(shift=-1, last=12),
    },
    Family.SD2: {
        Dialect.A1111: Numbering(
            first=2, last=2, limits="it ignores the setting on SD 2.x and always reads layer 23 of 24 (Clip Skip 2)"
        ),
        Dialect.FORGE: Numbering(shift=-1, first=2, last=13, limits=f"{ONE_LAYER_SHORT}, and its slider ends at 12"),
        Dialect.COMFYUI: Numbering(sign=-1, last=24),
        Dialect.SDNEXT: Numbering(
            shift=-1, first=2, last=13, fractions=True, limits=f"{ONE_LAYER_SHORT}, and its slider ends at 12"
        ),
        Dialect.DIFFUSERS: Numbering(shift=-2, first=2, last=24, unset=2, limits=ONE_LAYER_SHORT),
        Dialect.INVOKEAI: Numbering(shift=-2, first=2, last=24, limits=ONE_LAYER_SHORT),
        Dialect.SDCPP: Numbering(last=24, unset=2, unset_to=0),
        Dialect.KOHYA: Numbering(shift=-1, first=2, last=24, unset=2, limits=ONE_LAYER_SHORT, note="Training"),
        Dialect.COMPEL: Numbering(
            first=2, last=3, words=((2, COMPEL_LAST), (3, COMPEL_NEXT)), limits="it has these two alone"
        ),
    },
    Family.SDXL: {
        Dialect.A1111: Numbering(
            first=2,
            last=2,
            limits="it ignores Clip Skip on SDXL and always draws at 2; "
            'from 1.10 its option "Clip skip SDXL" moves CLIP-L alone',
            note="Ignored: every number draws at 2",
        ),
        Dialect.FORGE: Numbering(first=2, last=12, limits="it silently reads 1 as 2 on SDXL"),
        Dialect.COMFYUI: Numbering(
            sign=-1,
            last=12,
            limits="beyond -12 its two encoders part company",
            note="The node starts at -1, the model's own is -2",
        ),
        Dialect.SDNEXT: Numbering(shift=-1, last=12, fractions=True, note="Its 1 is the family's default"),
        Dialect.DIFFUSERS: Numbering(
            shift=-2, first=2, last=12, unset=2, limits="0 there is the layer before the last"
        ),
        Dialect.INVOKEAI: Numbering(
            shift=-2,
            first=2,
            last=12,
            limits="0 there is the layer before the last",
            note="In workflows alone, and it moves the pooled vector too",
        ),
        Dialect.SDCPP: Numbering(last=12, unset=2, unset_to=0, limits="from 14 on CLIP-L runs all its layers"),
        Dialect.KOHYA: Numbering(last=12, unset=2, note="gen_img.py; training ignores it"),
        Dialect.COMPEL: Numbering(first=2, last=2, words=((2, COMPEL_SDXL),), limits="it has this one alone on SDXL"),
        Dialect.EASYDIFFUSION: Numbering(
            first=2, last=2, words=((2, "off"),), limits="its switch changes nothing on SDXL, which it draws at 2"
        ),
        Dialect.ONETRAINER: Numbering(shift=-2, first=2, last=12, limits="0 there is the layer before the last"),
        Dialect.FOOOCUS: Numbering(last=12, note="Its default is 2"),
    },
}


def numbering(dialect: Dialect, family: Family) -> Numbering:
    """The row; SpecError where Clip Skip means nothing or the tool's way is not known."""
    if not family.usable:
        raise SpecError(f"Clip Skip means nothing on {family.label}: {family.why_not}", field="family")
    found = ROWS[family].get(dialect)
    if found is None:
        raise SpecError(f"{dialect.label} has no Clip Skip on {family.label} that we know of", field="dialect")
    return found


def layer_of(value: Value | None, dialect: Dialect, family: Family) -> float:
    """The layer from the end, 1 to the family's depth, that a tool's value names; it may be a fraction."""
    row = numbering(dialect, family)
    number = _as_number(value)
    left_out = value is None or str(value).strip().lower() in ("none", "")
    if row.unset is not None and (left_out or _at_most(number, row.unset_to)):
        return row.unset
    if row.words:
        return _of_word(value, dialect, family)
    said = f"{dialect.label} {value} on {family.label}"
    if number is None or number != number or abs(number) == float("inf"):
        raise SkipOutOfRange(f"{said} is not a number; use {row.range}", field="clip_skip")
    if not number.is_integer() and not row.fractions:
        raise SpecError(f"{said} is a fraction and {dialect.label} has none; use {row.range}", field="clip_skip")
    n = row.sign * (number - row.shift)
    if not 1 <= n <= family.depth:
        why = f" ({row.limits})" if row.limits else ""
        raise SkipOutOfRange(f"{said} is not one of the {family.depth} layers{why}; use {row.range}", field="clip_skip")
    if not row.first <= n <= row.last:
        raise SpecError(f"{said} cannot be had: {row.limits}; use {row.range}", field="clip_skip")
    return int(n) if n.is_integer() else round(n, 12)


def value_of(n: float, dialect: Dialect, family: Family) -> Value:
    """What to give the tool for the n-th layer from the end."""
    row = numbering(dialect, family)
    said = f"{dialect.label} cannot say Clip Skip {n:g} on {family.label}"
    if n > family.depth:
        raise SkipOutOfRange(
            f"clip skip {n:g} is deeper than the {family.depth} layers of {family.label}; use 1 to {family.depth}",
            field="clip_skip",
        )
    if not float(n).is_integer() and not row.fractions:
        near = [str(row.spell(k)) for k in (int(n), int(n) + 1) if row.first <= k <= row.last]
        raise SpecError(
            f"{said}: it has no fractions; near it are {' and '.join(near) or row.range}", field="clip_skip"
        )
    if not row.first <= n <= row.last:
        raise SpecError(f"{said}: {row.limits or 'its numbers end'}; it has {row.range}", field="clip_skip")
    return row.spell(n)


def _at_most(number: float | None, limit: float | None) -> bool:
    return number is not None and limit is not None and number <= limit


def _as_number(value: Value | None) -> float | None:
    if value is None or isinstance(value, bool):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _of_word(value: Value | None, dialect: Dialect, family: Family) -> int:
    row = numbering(dialect, family)
    word = str(value).strip().casefold()
    word = {"true": "on", "yes": "on", "1": "on", "false": "off", "no": "off", "0": "off"}.get(word, word)
    for number, name in row.words:
        if word == name.casefold():
            return number
    raise SpecError(
        f"{dialect.label} {value} on {family.label} is not one of its values; use {row.range}"
        + (f" ({row.limits})" if row.limits else ""),
        field="clip_skip",
    )
