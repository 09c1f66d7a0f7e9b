"""A LoRA in; what `inspect` tells of it out: what it changes, how, what it was trained on, what does not add up."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from clipskip.weights.container import Header
from clipskip.weights.lora import metadata as told
from clipskip.weights.lora.file import Lora, few, load_lora
from clipskip.weights.lora.keys import guess_family, read_keys, text_width
from clipskip.weights.lora.names import NameTable, sd1_table

SD1_DEPTH = 12
TAGS = 100
"""Tags that a report keeps, the most frequent first."""
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
"""A trainer's network module, or LyCORIS' algo, and the kinds that it writes. LyCORIS adds norm and full to any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraReport:
    """What there is to know about a LoRA before it is used. All text is one plain line; markup in it is only text."""

    name: str
    alias: str
    hash: str
    """AutoV3, computed."""
    kinds: tuple[tuple[str, int], ...]
    """Kind and how many modules are of it, the most frequent first."""
    ranks: tuple[tuple[int, int], ...]
    """Rank and number of modules, ascending."""
    alphas: tuple[tuple[float | None, int], ...]
    """Alpha and number of modules; None where the file gives none."""
    text_layers: tuple[int, ...]
    """Text encoder layers that it changes, 1 the first."""
    text_other: tuple[str, ...]
    """What it changes of the text encoder outside the layers."""
    unet_blocks: tuple[tuple[str, int], ...]
    """Block and number of modules in it, in the order in which data flows."""
    embeddings: tuple[str, ...]
    depth: int
    """Layers of the text encoder that the next field is about."""
    text_dead_from: int | None
    """The least Clip Skip at which its text-encoder part cannot act; None when it acts at all or there is none."""
    trained_clip_skip: int | None
    trained_clip_skip_source: str
    base_model: str | None
    family: str | None
    """Seen in the weights."""
    trigger_words: tuple[str, ...]
    folders: tuple[str, ...]
    tags: tuple[tuple[str, int], ...]
    tag_total: int
    """Different tags, of which `tags` are the most frequent."""
    unknown_keys: int
    warnings: tuple[str, ...]

    @property
    def text_note(self) -> str:
        """From which Clip Skip on the text-encoder part is without effect, as a sentence."""
        if not self.text_layers and not self.text_other:
            return "no text-encoder part: it acts on the UNet alone, at every Clip Skip"
        if self.text_dead_from is None:
            return f"its text-encoder part acts at every Clip Skip from 1 to {self.depth}"
        return f"its text-encoder part cannot act from Clip Skip {self.text_dead_from} on: those layers are not run"

    @property
    def lines(self) -> tuple[tuple[str, str], ...]:
        """Name and value of each line that a reader wants, in order."""
        blocks = ", ".join(f"{block} {count}" for block, count in self.unet_blocks)
        text = ", ".join([*_spans(self.text_layers), *self.text_other])
        skip = f"{self.trained_clip_skip or 'unknown'} ({self.trained_clip_skip_source})"
        tags = ", ".join(f"{tag} {count}" for tag, count in self.tags[:20])
        more = f" and {self.tag_total - 20} more" if self.tag_total > 20 else ""
        rows = (
            ("LoRA", self.name if self.alias == self.name else f"{self.name} ({self.alias})"),
            ("Hash", f"{self.hash} (AutoV3)"),
            ("Kind", ", ".join(f"{kind} x {count}" for kind, count in self.kinds)),
            ("Rank", ", ".join(f"{rank} x {count}" for rank, count in self.ranks)),
            ("Alpha", ", ".join(f"{'none' if a is None else f'{a:g}'} x {count}" for a, count in self.alphas)),
            ("Text layers", text or "none"),
            ("Clip Skip", self.text_note),
            ("UNet", blocks or "none"),
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
    depth: int = SD1_DEPTH,
    allow_pickle: bool = False,
) -> LoraReport:
    """The report on a LoRA file, also on one for another family: its foreign keys are counted."""
    return report_lora(load_lora(path, table=table, strict=False, allow_pickle=allow_pickle), depth=depth)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraOutline:
    """What a LoRA's header tells: enough for a list of hundreds, none of whose weights are read."""

    alias: str
    family: str | None
    width: int | None
    """Numbers per token of the text encoder that it was made for, where its shapes tell."""
    rank: int | None
    """The largest."""
    text_layers: tuple[int, ...]
    touches_text: bool
    touches_unet: bool
    trained_clip_skip: int | None
    trained_clip_skip_source: str
    trigger_words: tuple[str, ...]
    tags: tuple[tuple[str, int], ...]
    warnings: tuple[str, ...]


def outline_lora(header: Header, *, table: NameTable | None = None) -> LoraOutline:
    """What the header of a LoRA file tells."""
    keys, metadata = read_keys(header.tensors, table or sd1_table()), header.metadata
    names, tags, skip = list(keys.modules), told.tag_counts(metadata), told.trained_skip(metadata)
    downs = (header.tensors[parts["down"]].shape for parts in keys.modules.values() if "down" in parts)
    unknown = f"{len(keys.unknown)} keys name nothing in an SD 1.x model: {few(map(told.plain, keys.unknown))}"
    return LoraOutline(
        alias=told.plain(metadata.get("ss_output_name") or header.path.stem),
        family=guess_family(header.shapes),
        width=text_width(header.shapes),
        rank=max((shape[0] for shape in downs if shape), default=None),
        text_layers=tuple(sorted({int(name.split(".")[3]) + 1 for name in names if _in_layer(name)})),
        touches_text=any(name.startswith("text_encoder.") for name in names),
        touches_unet=any(name.startswith("unet.") for name in names),
        trained_clip_skip=skip.clip_skip,
        trained_clip_skip_source=skip.source,
        trigger_words=told.trigger_words(metadata),
        tags=tuple(tags.most_common(TAGS)) if tags else (),
        warnings=(*told.skip_warnings(metadata), *([unknown] if keys.unknown else [])),
    )


def report_lora(lora: Lora, *, depth: int = SD1_DEPTH) -> LoraReport:
    """The report on a LoRA, for a text encoder of `depth` layers."""
    modules = lora.modules.values()
    scaled = [module for module in modules if module.rank is not None]
    layers = sorted({int(m.name.split(".")[3]) + 1 for m in modules if _in_layer(m.name)})
    other = sorted({m.name.removeprefix("text_encoder.") for m in modules if m.is_text and not _in_layer(m.name)})
    tags = told.tag_counts(lora.metadata)
    skip = told.trained_skip(lora.metadata)
    return LoraReport(
        name=told.plain(lora.name),
        alias=told.plain(lora.alias),
        hash=lora.hash,
        kinds=tuple(Counter(_kind(module.kind.name, module.parts) for module in modules).most_common()),
        ranks=tuple(sorted(Counter(module.rank for module in scaled if module.rank is not None).items())),
        alphas=tuple(sorted(Counter(m.alpha for m in scaled).items(), key=lambda item: item[0] or 0.0)),
        text_layers=tuple(layers),
        text_other=tuple(other),
        unet_blocks=_blocks(module.name for module in modules if not module.is_text),
        embeddings=tuple(told.plain(name) for name in lora.embeddings),
        depth=depth,
        text_dead_from=text_dead_from(layers, depth=depth) if layers and not other else None,
        trained_clip_skip=skip.clip_skip,
        trained_clip_skip_source=skip.source,
        base_model=told.base_model(lora.metadata),
        family=lora.family,
        trigger_words=told.trigger_words(lora.metadata),
        folders=told.folders(lora.metadata),
        tags=tuple(tags.most_common(TAGS)) if tags else (),
        tag_total=len(tags or ()),
        unknown_keys=len(lora.unknown),
        warnings=(*lora.warnings, *_warnings(lora)),
    )


def text_dead_from(layers: Iterable[int], *, depth: int) -> int | None:
    """The least Clip Skip that leaves out all these layers, or None when the first is always run.

    Clip Skip N runs layers 1 to depth - N + 1; what comes after the deepest one needed changes nothing.
    """
    dead = depth + 2 - min(layers)
    return dead if dead <= depth else None


def _in_layer(name: str) -> bool:
    return name.startswith("text_encoder.encoder.layers.")


def _kind(name: str, parts: Mapping[str, object]) -> str:
    return f"{name} with DoRA" if {"dora_scale", "magnitude"} & parts.keys() else name


def _blocks(names: Iterable[str]) -> tuple[tuple[str, int], ...]:
    """UNet blocks and their modules: conv_in, down 0..., mid, up 0..., the rest."""
    order = {"conv_in": 0, "time_embedding": 1, "down_blocks": 2, "mid_block": 3, "up_blocks": 4}
    counts: Counter[tuple[str, ...]] = Counter()
    for name in names:
        words = name.split(".")[1:]
        counts[tuple(words[:2] if words[0] in ("down_blocks", "up_blocks") else words[:1])] += 1
    ordered = sorted(counts.items(), key=lambda item: (order.get(item[0][0], 5), item[0]))
    return tuple((".".join(block), count) for block, count in ordered)


def _spans(numbers: tuple[int, ...]) -> Iterator[str]:
    """Numbers as people write them: 1-3, 5."""
    start = None
    for number in numbers:
        start = number if start is None else start
        if number + 1 not in numbers:
            yield f"{start}" if start == number else f"{start}-{number}"
            start = None


def _warnings(lora: Lora) -> Iterator[str]:
    """Where metadata and content disagree."""
    text = lora.metadata.get("sshs_model_hash", "").strip().lower()
    if text and not (len(text) >= 10 and lora.sha256.startswith(text)):
        yield (
            f"sshs_model_hash says {told.plain(text[:12])}, its content is {lora.hash}: "
            "the file was changed after training; A1111 and Civitai may know it by the other hash"
        )
    yield from told.skip_warnings(lora.metadata)
    yield from _network_warnings(lora)
    if lora.metadata.get("ss_tag_frequency") and told.tag_counts(lora.metadata) is None:
        yield "ss_tag_frequency is not readable JSON; its tags are not shown"
    if lora.unknown:
        yield f"{len(lora.unknown)} keys name nothing in an SD 1.x model: {few(map(told.plain, lora.unknown))}"
    version = lora.metadata.get("ss_base_model_version", "")
    if lora.family == "SD 1.x" and version and not version.startswith("sd_v1"):
        yield f"ss_base_model_version says {told.plain(version)!r}, its weights are SD 1.x's"


def _network_warnings(lora: Lora) -> Iterator[str]:
    """Where the trainer's settings of the network are not what the file holds."""
    arguments = told.network_args(lora.metadata)
    network = lora.metadata.get("ss_network_module", "").strip()
    algorithm = str(arguments.get("algo", "")) if network.startswith("lycoris") else network
    kinds = {module.kind.name for module in lora.modules.values()}
    expected = ALGORITHMS.get(algorithm.lower())
    allowed = {*(expected or ()), *(("norm", "full") if network.startswith("lycoris") else ())}
    if expected is not None and kinds - allowed:
        yield f"ss_network_module says {told.plain(algorithm)!r}, the file holds {', '.join(sorted(kinds - allowed))}"
    for setting, argument, values, word in (
        ("ss_network_dim", "conv_dim", {m.rank for m in lora.modules.values()}, "ranks"),
        ("ss_network_alpha", "conv_alpha", {m.alpha for m in lora.modules.values()}, "alphas"),
    ):
        stated = {_number(lora.metadata.get(setting)), _number(arguments.get(argument))} - {None}
        found = {float(value) for value in values if value is not None}
        if stated and _number(lora.metadata.get(setting)) is not None and found and found - stated:
            yield f"{setting} says {lora.metadata[setting].strip()[:20]}, the file's {word} are {_listed(found)}"


def _number(text: object) -> float | None:
    """The number in a setting; None for "Dynamic", which resized LoRAs have, and for anything else."""
    try:
        return float(str(text)[:20])
    except ValueError:
        return None


def _listed(numbers: set[float]) -> str:
    listed = sorted(numbers)
    return ", ".join(f"{n:g}" for n in listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
