"""`<lora:name:te:unet>`: what a prompt asks for besides its words.

A1111 1.8.0 modules/extra_networks.py:31-42, 175-191 and extensions-builtin/Lora/extra_networks_lora.py:25-41.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from clipskip.errors import PromptError
from clipskip.prompt.limits import check_text
from clipskip.spec import LoraRef

LORA_KINDS = ("lora", "lyco")
MAX_LORAS = 100

_OPEN = re.compile(r"<(\w++):")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraTag:
    """The content of a LoRA's tag."""

    name: str
    text_encoder: float
    unet: float
    dyn: int | None = None
    """The rank to cut the LoRA to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """One `<kind:item:item>` of a prompt."""

    kind: str
    items: tuple[str, ...]

    def __str__(self) -> str:
        """Return the tag as written, cut to one short line."""
        written = f"<{self.kind}:{':'.join(self.items)}>"
        return " ".join((written if len(written) <= 80 else f"{written[:76]}...>").split())

    @property
    def positional(self) -> tuple[str, ...]:
        """The items whose place gives their meaning: those without exactly one "="."""
        return tuple(item for item in self.items if item.count("=") != 1)

    @property
    def named(self) -> dict[str, str]:
        """The items with a name of their own: te=0.5."""
        pairs = (item.partition("=") for item in self.items if item.count("=") == 1)
        return {key: value for key, _, value in pairs}

    def read_lora(self) -> LoraTag:
        """Read name and strengths, in order (name, te, unet, dyn) or as te=, unet=, dyn=; the U-Net's strength defaults
        to te."""
        places, named = self.positional, self.named
        if not places or not places[0].strip():
            raise self._error("names no LoRA; write it as <lora:name:0.8>")
        te = self._strength(named.get("te", places[1] if len(places) > 1 else "1"))
        unet = self._strength(named["unet"] if "unet" in named else places[2]) if self._has_unet else te
        dyn = named.get("dyn", places[3] if len(places) > 3 else None)
        return LoraTag(name=places[0], text_encoder=te, unet=unet, dyn=None if dyn is None else self._rank(dyn))

    @property
    def _has_unet(self) -> bool:
        return "unet" in self.named or len(self.positional) > 2

    def _strength(self, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise self._error(
                f"gives the strength {text[:20]!r}, which is not a number; write 0.8 or the like"
            ) from None
        if not math.isfinite(value):
            raise self._error(f"gives the strength {text[:20]!r}, which is not finite; write 0.8 or the like")
        return value

    def _rank(self, text: str) -> int:
        try:
            return int(text)
        except ValueError:
            raise self._error(f"gives the rank {text[:20]!r}, which is not a whole number; remove it") from None

    def _error(self, what: str) -> PromptError:
        return PromptError(f"the tag {self} {what}", field="prompt")


def extract_tags(text: str) -> tuple[str, tuple[Tag, ...]]:
    """Return the prompt without its tags, of whatever kind, and the tags in order."""
    check_text(text)
    kept: list[str] = []
    tags: list[Tag] = []
    at = search = 0
    while opening := _OPEN.search(text, search):
        close = text.find(">", opening.end())
        if close < 0:
            break
        if close == opening.end():
            search = opening.start() + 1
            continue
        kept.append(text[at : opening.start()])
        tags.append(Tag(kind=opening[1], items=tuple(text[opening.end() : close].split(":"))))
        at = search = close + 1
    return "".join((*kept, text[at:])), tuple(tags)


def check_lora_tag(tag: Tag) -> LoraTag:
    """Return the content of a tag; PromptError for a tag that cannot be applied as written."""
    if tag.kind not in LORA_KINDS:
        raise PromptError(
            f"the tag {tag} is of an unknown kind; use <lora:name:0.8> (or <lyco:...>), or remove it",
            field="prompt",
        )
    lora = tag.read_lora()
    unknown = sorted(tag.named.keys() - {"te", "unet", "dyn"})
    if unknown:
        raise PromptError(
            f"the tag {tag} sets {unknown[0][:20]!r}, which is unknown; use te= and unet=, or remove it",
            field="prompt",
        )
    if lora.dyn is not None:
        raise PromptError(
            f"the tag {tag} cuts the LoRA to rank {lora.dyn}, which is not supported; remove that number",
            field="prompt",
        )
    return lora


def lora_refs(tags: Sequence[Tag]) -> tuple[LoraRef, ...]:
    """Return the LoRAs to apply, in A1111's order; PromptError for a tag that cannot be applied.

    A LoRA named twice is applied twice with the strengths of its last tag (A1111 1.8.0 Lora/networks.py:271-300: one
    shared object). Kinds follow one another in order of first appearance.
    """
    if len(tags) > MAX_LORAS:
        raise PromptError(f"the prompt has {len(tags):,} tags; use at most {MAX_LORAS}", field="prompt")
    kinds = list(dict.fromkeys(tag.kind for tag in tags))
    loras = [check_lora_tag(tag) for tag in sorted(tags, key=lambda tag: kinds.index(tag.kind))]
    last = {lora.name: lora for lora in loras}
    used = [last[lora.name] for lora in loras]
    return tuple(LoraRef(name=lora.name, text_encoder=lora.text_encoder, unet=lora.unet) for lora in used)
