"""A file's keys -> which part of which module each one is."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from clipskip.weights.lora.names import NameTable

DIFFUSERS = r"(?:\.lora|_lora|\.lora_linear_layer)"
ADAPTER = r"(?:\.[\w-]+)?"
"""peft's adapter name, when it was left in: `.lora_A.default.weight`."""
ENDS = tuple(
    (re.compile(rf"(?P<head>.+?)(?:{pattern})"), part)
    for pattern, part in (
        (rf"\.lora_down\.weight|{DIFFUSERS}\.down\.weight|\.lora_A(?:{ADAPTER}\.weight)?", "down"),
        (rf"\.lora_up\.weight|{DIFFUSERS}\.up\.weight|\.lora_B(?:{ADAPTER}\.weight)?", "up"),
        (r"\.lora_mid\.weight", "mid"),
        (rf"\.lora_up\.bias|\.lora_B{ADAPTER}\.bias", "up_bias"),
        (rf"\.lora_magnitude_vector{ADAPTER}(?:\.weight)?", "magnitude"),
        (rf"{DIFFUSERS}?\.alpha", "alpha"),
    )
)
"""How the keys of a plain LoRA end, in kohya's, diffusers' and peft's way, and which part they are."""
USUAL = ((".lora_down.weight", "down"), (".lora_up.weight", "up"), (".alpha", "alpha"))
"""The same for most files: these ends need no pattern, which is ten times as fast."""
NAMED = (
    *("scale", "dora_scale", "bias", "bias_indices", "bias_values", "bias_size"),
    *("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
    *("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
    *("a1.weight", "a2.weight", "b1.weight", "b2.weight"),
    *("oft_blocks", "oft_diag", "rescale", "diff", "diff_b", "set_weight", "w_norm", "b_norm", "on_input", "weight"),
)
"""Parts that all files call the same. `weight` alone is IA3's, so it comes after all others that end so."""
WHOLE = {"weight", "bias"}
"""What a checkpoint has of a module: without `on_input`, which IA3 has beside `weight`, these are not a LoRA's."""
DOUBLE = ("clip_l", "clip_g")
"""What the two sides of an SDXL embedding are called."""
BUNDLED = re.compile(
    r"bundle_emb\.(?P<name>.+?)\.(?:string_to_param\..+|emb_params|(?P<side>clip_l|clip_g)(?:\..+)?)", re.DOTALL
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyMap:
    """What each key of a file is."""

    modules: Mapping[str, Mapping[str, str]]
    """Canonical module -> part -> key."""
    embeddings: Mapping[str, Mapping[str, str]]
    """Name of a bundled embedding -> side, which is empty where it has one alone -> key."""
    unknown: tuple[str, ...]
    twice: tuple[str, ...]
    """Keys that say again what another one says."""


def read_keys(keys: Iterable[str], table: NameTable) -> KeyMap:
    """What each key is, by the names of one model."""
    modules: dict[str, dict[str, str]] = {}
    embeddings: dict[str, dict[str, str]] = {}
    unknown, twice = [], []
    for key in keys:
        bundled = BUNDLED.fullmatch(key)
        place = None if bundled else _place(key, table)
        if bundled:
            if embeddings.setdefault(bundled["name"], {}).setdefault(bundled["side"] or "", key) != key:
                twice.append(key)
        elif place is None:
            unknown.append(key)
        elif modules.setdefault(place[0], {}).setdefault(place[1], key) != key:
            twice.append(key)
    for name in [name for name, parts in modules.items() if parts.keys() <= WHOLE]:
        unknown += modules.pop(name).values()
    return KeyMap(modules=modules, embeddings=embeddings, unknown=tuple(unknown), twice=tuple(twice))


def _place(key: str, table: NameTable) -> tuple[str, str] | None:
    """The module and part that a key names, or None."""
    for end, part in USUAL:
        module = table.resolve(key[: -len(end)]) if key.endswith(end) else None
        if module is not None:
            return module, part
    for pattern, part in ENDS:
        found = pattern.fullmatch(key)
        module = table.resolve(found["head"]) if found else None
        if module is not None:
            return module, part
    for part in NAMED:
        if key.endswith(f".{part}"):
            module = table.resolve(key[: -len(part) - 1])
            return None if module is None else (module, part)
    return None
