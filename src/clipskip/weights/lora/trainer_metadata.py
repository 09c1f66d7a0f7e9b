"""The metadata that a LoRA's trainer wrote: strangers' text, cut down to short plain text and numbers.

Names are kohya's (`ss_...`, sd-scripts train_util.py) and the Stability ModelSpec's (`modelspec...`).
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from clipskip.spec import Family

LIMIT = 200
"""The most characters of one text."""
JSON_LIMIT = 20_000_000
MOST_TAGS, MOST_FOLDERS = 20_000, 100
"""The most distinct tags that are counted, most frequent first, of which a report shows a hundred; and the most
folders."""
SKIPS = ("ss_clip_skip", "modelspec.encoder_layer")
DEEPEST_SKIP = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedSkip:
    """The Clip Skip that a LoRA was trained at."""

    clip_skip: int | None
    """None when the file does not tell."""
    source: str
    """The metadata that tells it, or why none does."""


def plain_line(text: object, *, limit: int = LIMIT) -> str:
    """Return one line of printable text, at most `limit` long and without control characters. Markup stays text."""
    line = "".join(c if c.isprintable() else " " for c in str(text)[: 4 * limit])
    line = " ".join(line.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def trained_skip(metadata: Mapping[str, str], family: Family | None = None) -> TrainedSkip:
    """Return the Clip Skip of training: kohya writes the number as text, or "None" for the last layer.

    SDXL's trainers read one fixed layer of each encoder and ignore the number (sd-scripts, sdxl_train_network.py). SD
    2.x files hold 23 of its 24 layers, so kohya's 1 is the layer before the last there.
    """
    if family is Family.SDXL:
        return TrainedSkip(clip_skip=2, source="; ".join(["SDXL is always trained at 2", *unused_skips(metadata)]))
    if family is not None and not family.usable:
        return TrainedSkip(clip_skip=None, source=f"Clip Skip means nothing for {family.label}: {family.why_not}")
    if family is Family.SD2:
        return _trained_sd2(metadata)
    for name in SKIPS:
        text = metadata.get(name, "").strip()
        if text == "None":
            return TrainedSkip(clip_skip=1, source=f'{name} = "None", which is the last layer')
        if text.isascii() and text.isdecimal() and 1 <= int(text[:4]) <= DEEPEST_SKIP:
            return TrainedSkip(clip_skip=int(text), source=f'{name} = "{text}"')
    return TrainedSkip(clip_skip=None, source="the file does not tell")


def unused_skips(metadata: Mapping[str, str]) -> list[str]:
    """Return what SDXL's metadata says of Clip Skip, which its trainers ignore."""
    return [f"{name} = {plain_line(metadata[name], limit=20)!r} is not used" for name in SKIPS if metadata.get(name)]


def _trained_sd2(metadata: Mapping[str, str]) -> TrainedSkip:
    text = metadata.get("ss_clip_skip", "").strip()
    number = 1 if text in ("", "None") else int(text[:4]) if text.isascii() and text.isdecimal() else 0
    if not 1 <= number < DEEPEST_SKIP:
        return TrainedSkip(clip_skip=None, source=f"ss_clip_skip = {plain_line(text, limit=20)!r} is not a Clip Skip")
    if not text:
        return TrainedSkip(clip_skip=2, source="SD 2.x is trained at 2 unless its trainer says otherwise")
    return TrainedSkip(
        clip_skip=number + 1, source=f'ss_clip_skip = "{text}", which kohya counts without the last layer of SD 2.x'
    )


def skip_warnings(metadata: Mapping[str, str], family: Family | None = None) -> Iterator[str]:
    """Yield what is wrong with its metadata on Clip Skip; nothing where the number has no meaning."""
    if family not in (None, Family.SD1):
        return
    stated = {name: metadata[name].strip() for name in SKIPS if metadata.get(name, "").strip()}
    for name, text in stated.items():
        if text != "None" and not (text.isascii() and text.isdecimal() and 1 <= int(text[:4]) <= DEEPEST_SKIP):
            yield f"{name} is {plain_line(text, limit=40)!r}, which is not a Clip Skip of 1 to {DEEPEST_SKIP}"
    numbers = {name: "1" if text == "None" else text for name, text in stated.items()}
    if len(set(numbers.values())) > 1:
        yield f"the metadata states two Clip Skips: {' and '.join(f'{n} {plain_line(t, limit=40)!r}' for n, t in stated.items())}"


def tag_counts(metadata: Mapping[str, str]) -> Counter[str] | None:
    """Count each tag in the training captions over all folders; None when the metadata lacks it or cannot be read."""
    table = _json(metadata, "ss_tag_frequency")
    if table is None:
        return None
    raw: Counter[str] = Counter()
    for tags in table.values():
        for tag, count in tags.items() if isinstance(tags, dict) else ():
            if type(count) is int and 0 < count < 10**9:
                raw[tag] += count
    counts: Counter[str] = Counter()
    for tag, count in raw.most_common(MOST_TAGS):
        counts[plain_line(tag)] += count
    return counts


def folders(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Return the training folders, which kohya's users name `repeats_trigger words`."""
    return tuple(plain_line(name) for name in islice(_json(metadata, "ss_tag_frequency") or (), MOST_FOLDERS))


def trigger_words(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Return the trigger words that its author states."""
    text = plain_line(metadata.get("modelspec.trigger_phrase", ""))
    return tuple(word for part in text.split(",") if (word := part.strip()))


def base_model(metadata: Mapping[str, str]) -> str | None:
    """Return the base model in its trainer's words."""
    parts = [plain_line(metadata[n]) for n in ("ss_base_model_version", "modelspec.architecture") if metadata.get(n)][
        :1
    ]
    name = metadata.get("ss_sd_model_name")
    digits = metadata.get("ss_new_sd_model_hash", "")[:10] or metadata.get("ss_sd_model_hash", "")
    if name:
        parts.append(plain_line(name) + (f" [{plain_line(digits, limit=16)}]" if digits else ""))
    return ", ".join(parts) or None


def network_args(metadata: Mapping[str, str]) -> Mapping[str, object]:
    """Return the trainer's settings of the network: `algo`, `conv_dim`, ..."""
    return _json(metadata, "ss_network_args") or {}


def _json(metadata: Mapping[str, str], name: str) -> dict[str, object] | None:
    text = metadata.get(name, "")
    if not text or len(text) > JSON_LIMIT:
        return None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
