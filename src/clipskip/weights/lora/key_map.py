"""A file's keys to the module and part that each one names."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from clipskip.weights.lora.names import IDLE, NameTable

DIFFUSERS = r"(?:\.lora|_lora|\.lora_linear_layer)"
ADAPTER = r"(?:\.[\w-]+)?"
"""peft's adapter name, where it was left in: `.lora_A.default.weight`."""
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
"""Endings of a plain LoRA's keys, as kohya, diffusers and peft write them, and the part that each names."""
USUAL = ((".lora_down.weight", "down"), (".lora_up.weight", "up"), (".alpha", "alpha"))
"""The endings of most files, which need no pattern and are ten times as fast."""
NAMED = (
    *("scale", "dora_scale", "bias", "bias_indices", "bias_values", "bias_size"),
    *("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
    *("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
    *("a1.weight", "a2.weight", "b1.weight", "b2.weight"),
    *("oft_blocks", "oft_diag", "rescale", "diff", "diff_b", "set_weight", "w_norm", "b_norm", "on_input", "weight"),
)
"""Parts that all files name alike. `weight` alone is IA3's, so it comes after all others with that ending."""
WHOLE = {"weight", "bias"}
"""A checkpoint's own parts: without `on_input`, which IA3 has beside `weight`, these are not a LoRA's."""
DOUBLE = ("clip_l", "clip_g")
"""The names of the two sets of vectors in an SDXL embedding."""
BUNDLED = re.compile(
    r"bundle_emb\.(?P<name>.+?)\.(?:string_to_param\..+|emb_params|(?P<side>clip_l|clip_g)(?:\..+)?)", re.DOTALL
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyMap:
    """The meaning of each key of a file."""

    modules: Mapping[str, Mapping[str, str]]
    """Keys by canonical module and part."""
    embeddings: Mapping[str, Mapping[str, str]]
    """Keys by the name of a bundled embedding and its side, which is empty where it has one only."""
    unknown: tuple[str, ...]
    twice: tuple[str, ...]
    """Keys that name the same as another one."""
    idle: tuple[str, ...] = ()
    """Keys of weights that nothing in these models reads."""


def read_keys(keys: Iterable[str], table: NameTable) -> KeyMap:
    """Return the meaning of each key, by the names of one model."""
    modules: dict[str, dict[str, str]] = {}
    embeddings: dict[str, dict[str, str]] = {}
    unknown, twice, idle = [], [], []
    for key in keys:
        bundled = BUNDLED.fullmatch(key)
        place = None if bundled else _place(key, table)
        if bundled:
            if embeddings.setdefault(bundled["name"], {}).setdefault(bundled["side"] or "", key) != key:
                twice.append(key)
        elif place is None:
            unknown.append(key)
        elif place[0] == IDLE:
            idle.append(key)
        elif modules.setdefault(place[0], {}).setdefault(place[1], key) != key:
            twice.append(key)
    for name in [name for name, parts in modules.items() if parts.keys() <= WHOLE]:
        unknown += modules.pop(name).values()
    return KeyMap(modules=modules, embeddings=embeddings, unknown=tuple(unknown), twice=tuple(twice), idle=tuple(idle))


def _place(key: str, table: NameTable) -> tuple[str, str] | None:
    """Return the module and part that a key names, or None."""
    for end, part in USUAL:
        module = table.resolve(key[: -len(end)]) if key.endswith(end) else None
        if module is not None:
            return module, part
    for pattern, part in ENDS:
        match = pattern.fullmatch(key)
        module = table.resolve(match["head"]) if match else None
        if module is not None:
            return module, part
    for part in NAMED:
        if key.endswith(f".{part}"):
            module = table.resolve(key[: -len(part) - 1])
            return None if module is None else (module, part)
    return None
