"""A report on a LoRA, as `inspect` shows it: what it changes and how, its training, and what does not add up."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from clipskip.spec import Family
from clipskip.weights.container import Header
from clipskip.weights.lora import trainer_metadata as notes
from clipskip.weights.lora.detect import LoraFamily, lora_family, stated_family, text_width
from clipskip.weights.lora.file import Lora, few, load_lora
from clipskip.weights.lora.key_map import read_keys
from clipskip.weights.lora.names import NameTable, table_of

TAGS = 100
"""The number of tags in a report, most frequent first."""
ALGORITHMS: Mapping[str, tuple[str, ...]] = {
    "networks.lora": ("LoRA",),
    "networks.lora_fa": ("LoRA",),
    "networks.dylora": ("LoRA",),
    "networks.oft": ("OFT",),
    "networks.loha": ("LoHa",),
    "networks.lokr": ("LoKr",),
    "lora": ("LoRA",),
    "locon": ("LoRA",),
    "loha": ("LoHa",),
    "lokr": ("LoKr",),
    "ia3": ("IA3",),
    "full": ("full",),
    "diag-oft": ("OFT",),
    "boft": ("OFT",),
    "glora": ("GLoRA",),
    "dylora": ("LoRA",),
}
"""The kinds that a trainer's network module, or LyCORIS' algo, writes. LyCORIS adds norm and full to any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraReport:
    """A report on a LoRA for its user. Each text is one plain line; markup in it is only text."""

    name: str
    alias: str
    hash: str
    """AutoV3, computed from the file."""
    kinds: tuple[tuple[str, int], ...]
    """Each kind with its number of modules, most frequent first."""
    ranks: tuple[tuple[int, int], ...]
    """Each rank with its number of modules, in rising order."""
    alphas: tuple[tuple[float | None, int], ...]
    """Each alpha with its number of modules; None where the file has none."""
    text_layers: tuple[int, ...]
    """The text encoder layers that it changes, from 1."""
    text_other: tuple[str, ...]
    """What it changes in the text encoder outside the layers."""
    text_2: tuple[str, ...]
    """What it changes in SDXL's second text encoder: spans of layers, then other modules."""
    unet_blocks: tuple[tuple[str, int], ...]
    """Each block with its number of modules, in the order of data flow."""
    embeddings: tuple[str, ...]
    depth: int
    """The number of text encoder layers, for the next field."""
    text_dead_from: int | None
    """The least Clip Skip at which its text-encoder part has no effect; None when it always has one or does not
    exist."""
    trained_clip_skip: int | None
    trained_clip_skip_source: str
    base_model: str | None
    family: str | None
    """As seen in the weights."""
    trigger_words: tuple[str, ...]
    folders: tuple[str, ...]
    tags: tuple[tuple[str, int], ...]
    tag_total: int
    """Number of distinct tags, of which `tags` are the most frequent."""
    unknown_keys: int
    warnings: tuple[str, ...]

    @property
    def text_note(self) -> str:
        """A sentence on the Clip Skip from which the text-encoder part has no effect."""
        if self.unknown_keys:
            return f"unknown: {self.unknown_keys} of its keys are not known, so it is not known what its text-encoder part does"
        if not self.text_layers and not self.text_other and not self.text_2:
            return "no text-encoder part: it changes only the UNet, at every Clip Skip"
        if self.family == Family.SDXL.label:
            return "SDXL reads the layer before the last, Clip Skip 2, of each of its text encoders (12 and 32 layers)"
        if self.text_dead_from is None:
            return f"its text-encoder part has an effect at every Clip Skip from 1 to {self.depth}"
        return (
            f"its text-encoder part has no effect from Clip Skip {self.text_dead_from} on, where its layers are not run"
        )

    @property
    def lines(self) -> tuple[tuple[str, str], ...]:
        """The lines of the report, each as name and value."""
        blocks = ", ".join(f"{block} {count}" for block, count in self.unet_blocks)
        text = ", ".join([*_spans(self.text_layers), *self.text_other])
        if self.family == Family.SDXL.label:
            second = ", ".join(self.text_2) or "none"
            text = f"CLIP-L {text or 'none'} (of 12); OpenCLIP-bigG {second} (of 32)" if text or self.text_2 else ""
        skip = f"{self.trained_clip_skip or 'unknown'} ({self.trained_clip_skip_source})"
        tags = ", ".join(f"{tag} {count}" for tag, count in self.tags[:20])
        more = f" and {self.tag_total - 20} more" if self.tag_total > 20 else ""
        rows = (
            ("LoRA", self.name if self.alias == self.name else f"{self.name} ({self.alias})"),
            ("Hash", f"{self.hash} (AutoV3)"),
            ("Kind", ", ".join(f"{kind} x {count}" for kind, count in self.kinds)),
            ("Rank", ", ".join(f"{rank} x {count}" for rank, count in self.ranks)),
            ("Alpha", ", ".join(f"{'none' if a is None else f'{a:g}'} x {count}" for a, count in self.alphas)),
            ("Text layers", text or ("not known" if self.unknown_keys else "none")),
            ("Clip Skip", self.text_note),
            ("UNet", blocks or ("not known" if self.unknown_keys else "none")),
            ("Embeddings", ", ".join(self.embeddings)),
            ("Trained at Clip Skip", skip),
            ("Base model", ", ".join(word for word in (self.base_model, self.family) if word)),
            ("Trigger words", ", ".join(self.trigger_words)),
            ("Folders", ", ".join(self.folders)),
            ("Tags", tags + more),
        )
        return tuple((name, value) for name, value in rows if value)


def inspect_lora(
    path: str | os.PathLike[str],
    *,
    table: NameTable | None = None,
    depth: int | None = None,
    allow_pickle: bool = False,
) -> LoraReport:
    """Report on a LoRA file of any family; keys that are foreign to the table are counted."""
    return report_lora(load_lora(path, family=None, table=table, allow_pickle=allow_pickle), depth=depth)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraOutline:
    """Facts from a LoRA's header, enough for a list of hundreds without reading any weight."""

    alias: str
    family: str | None
    width: int | None
    """Width of the text encoder that it was made for, where its shapes tell."""
    rank: int | None
    """The largest rank."""
    text_layers: tuple[int, ...]
    touches_text: bool
    touches_unet: bool
    trained_clip_skip: int | None
    trained_clip_skip_source: str
    trigger_words: tuple[str, ...]
    tags: tuple[tuple[str, int], ...]
    warnings: tuple[str, ...]


def outline_lora(header: Header, *, table: NameTable | None = None) -> LoraOutline:
    """Return what the header of a LoRA file tells."""
    family, metadata = lora_family(header.shapes, header.metadata), header.metadata
    keys = read_keys(header.tensors, table or table_of(family.family))
    names, tags, skip = list(keys.modules), notes.tag_counts(metadata), notes.trained_skip(metadata, family.family)
    downs = (header.tensors[parts["down"]].shape for parts in keys.modules.values() if "down" in parts)
    return LoraOutline(
        alias=notes.plain_line(metadata.get("ss_output_name") or header.path.stem),
        family=family.label or None,
        width=text_width(header.shapes),
        rank=max((shape[0] for shape in downs if shape), default=None),
        text_layers=tuple(sorted({int(name.split(".")[3]) + 1 for name in names if _in_layer(name)})),
        touches_text=any(name.startswith("text_encoder") for name in names),
        touches_unet=any(name.startswith("unet.") for name in names),
        trained_clip_skip=skip.clip_skip,
        trained_clip_skip_source=skip.source,
        trigger_words=notes.trigger_words(metadata),
        tags=tuple(tags.most_common(TAGS)) if tags else (),
        warnings=(
            *notes.skip_warnings(metadata, family.family),
            *_unread(keys.unknown, family),
            *_other_family(metadata, family),
        ),
    )


def report_lora(lora: Lora, *, depth: int | None = None) -> LoraReport:
    """Report on a LoRA, for a text encoder of `depth` layers (by default its family's)."""
    depth = depth or (lora.family.family or Family.SD1).depth or Family.SD1.depth
    second = _second(lora.modules)
    modules = lora.modules.values()
    scaled = [module for module in modules if module.rank is not None]
    layers = sorted({int(name.split(".")[3]) + 1 for name in lora.modules if _in_layer(name)})
    first = [name for name in lora.modules if name.startswith("text_encoder.")]
    other = sorted({name.removeprefix("text_encoder.") for name in first if not _in_layer(name)})
    tags = notes.tag_counts(lora.metadata)
    skip = notes.trained_skip(lora.metadata, lora.family.family)
    return LoraReport(
        name=notes.plain_line(lora.name),
        alias=notes.plain_line(lora.alias),
        hash=lora.hash,
        kinds=tuple(Counter(_change_kind(module.kind.name, module.parts) for module in modules).most_common()),
        ranks=tuple(sorted(Counter(module.rank for module in scaled if module.rank is not None).items())),
        alphas=tuple(sorted(Counter(m.alpha for m in scaled).items(), key=lambda item: item[0] or 0.0)),
        text_layers=tuple(layers),
        text_other=tuple(other),
        text_2=second,
        unet_blocks=_blocks(name for name in lora.modules if name.startswith("unet.")),
        embeddings=tuple(notes.plain_line(name) for name in lora.embeddings),
        depth=depth,
        text_dead_from=text_dead_from(layers, depth=depth) if layers and not other and not second else None,
        trained_clip_skip=skip.clip_skip,
        trained_clip_skip_source=skip.source,
        base_model=notes.base_model(lora.metadata),
        family=lora.family.label or None,
        trigger_words=notes.trigger_words(lora.metadata),
        folders=notes.folders(lora.metadata),
        tags=tuple(tags.most_common(TAGS)) if tags else (),
        tag_total=len(tags or ()),
        unknown_keys=len(lora.unknown),
        warnings=(*lora.warnings, *_warnings(lora)),
    )


def text_dead_from(layers: Iterable[int], *, depth: int) -> int | None:
    """Return the least Clip Skip that leaves out all these layers; None when the first one is always run.

    Clip Skip N runs layers 1 to depth - N + 1; what comes after the deepest one needed changes nothing.
    """
    dead = depth + 2 - min(layers)
    return dead if dead <= depth else None


def _in_layer(name: str) -> bool:
    return name.startswith("text_encoder.encoder.layers.")


def _second(names: Iterable[str]) -> tuple[str, ...]:
    """Return what is changed in the second text encoder: spans of layers, counted from 1, then other modules."""
    second = [name.removeprefix("text_encoder_2.") for name in names if name.startswith("text_encoder_2.")]
    layers = sorted({int(name.split(".")[2]) + 1 for name in second if name.startswith("encoder.layers.")})
    return (*_spans(tuple(layers)), *sorted({name for name in second if not name.startswith("encoder.layers.")}))


def _change_kind(name: str, parts: Mapping[str, object]) -> str:
    return f"{name} with DoRA" if {"dora_scale", "magnitude"} & parts.keys() else name


def _blocks(names: Iterable[str]) -> tuple[tuple[str, int], ...]:
    """Return the UNet's blocks with their number of modules: conv_in, down 0..., mid, up 0..., others."""
    order = {"conv_in": 0, "time_embedding": 1, "down_blocks": 2, "mid_block": 3, "up_blocks": 4}
    counts: Counter[tuple[str, ...]] = Counter()
    for name in names:
        words = name.split(".")[1:]
        counts[tuple(words[:2] if words[0] in ("down_blocks", "up_blocks") else words[:1])] += 1
    ordered = sorted(counts.items(), key=lambda item: (order.get(item[0][0], 5), item[0]))
    return tuple((".".join(block), count) for block, count in ordered)


def _spans(numbers: tuple[int, ...]) -> Iterator[str]:
    """Yield numbers as people write them: 1-3, 5."""
    start = None
    for number in numbers:
        start = number if start is None else start
        if number + 1 not in numbers:
            yield f"{start}" if start == number else f"{start}-{number}"
            start = None


def _warnings(lora: Lora) -> Iterator[str]:
    """Yield warnings where metadata and content disagree."""
    text = lora.metadata.get("sshs_model_hash", "").strip().lower()
    if text and not (len(text) >= 10 and lora.sha256.startswith(text)):
        yield (
            f"sshs_model_hash says {notes.plain_line(text[:12])}, but its content is {lora.hash}: "
            "the file was changed after training; A1111 and Civitai may know it by the other hash"
        )
    yield from notes.skip_warnings(lora.metadata, lora.family.family)
    yield from _network_warnings(lora)
    if lora.metadata.get("ss_tag_frequency") and notes.tag_counts(lora.metadata) is None:
        yield "ss_tag_frequency is not readable JSON; its tags are not shown"
    yield from _unread(lora.unknown, lora.family)
    yield from _other_family(lora.metadata, lora.family)


def _unread(unknown: tuple[str, ...], family: LoraFamily) -> Iterator[str]:
    """Yield a warning about keys that name nothing in a model of its family."""
    if unknown:
        family_name = family.label if family.family else "SD 1.x"
        yield f"{len(unknown)} keys name nothing in an {family_name} model: {few(map(notes.plain_line, unknown))}"


def _other_family(metadata: Mapping[str, str], family: LoraFamily) -> Iterator[str]:
    stated = stated_family(metadata)
    if family.by_weights and stated is not None and stated is not family.family:
        value = metadata.get("ss_base_model_version") or metadata.get("modelspec.architecture", "")
        name = "ss_base_model_version" if metadata.get("ss_base_model_version") else "modelspec.architecture"
        yield f"{name} says {notes.plain_line(value)!r}, but its weights are {family.label}'s"


def _network_warnings(lora: Lora) -> Iterator[str]:
    """Yield warnings where the trainer's network settings differ from the file's content."""
    arguments = notes.network_args(lora.metadata)
    network = lora.metadata.get("ss_network_module", "").strip()
    algorithm = str(arguments.get("algo", "")) if network.startswith("lycoris") else network
    kinds = {module.kind.name for module in lora.modules.values()}
    expected = ALGORITHMS.get(algorithm.lower())
    allowed = {*(expected or ()), *(("norm", "full") if network.startswith("lycoris") else ())}
    if expected is not None and kinds - allowed:
        yield f"ss_network_module says {notes.plain_line(algorithm)!r}, but the file contains {', '.join(sorted(kinds - allowed))}"
    for setting, argument, values, word in (
        ("ss_network_dim", "conv_dim", {m.rank for m in lora.modules.values()}, "ranks"),
        ("ss_network_alpha", "conv_alpha", {m.alpha for m in lora.modules.values()}, "alphas"),
    ):
        stated = {_float_or_none(lora.metadata.get(setting)), _float_or_none(arguments.get(argument))} - {None}
        stored = {float(value) for value in values if value is not None}
        if stated and _float_or_none(lora.metadata.get(setting)) is not None and stored and stored - stated:
            yield f"{setting} says {lora.metadata[setting].strip()[:20]}, but the file's {word} are {_number_list(stored)}"


def _float_or_none(text: object) -> float | None:
    """Return the number in a setting; None for "Dynamic", which resized LoRAs have, and for anything else."""
    try:
        return float(str(text)[:20])
    except ValueError:
        return None


def _number_list(numbers: set[float]) -> str:
    listed = sorted(numbers)
    return ", ".join(f"{n:g}" for n in listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
