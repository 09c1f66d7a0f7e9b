"""The commands that only look: what a file is, what every layer says, and a prompt's vectors."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from safetensors.torch import save_file

from clipskip.advise import FAMILIES, layer_notes, read_layers
from clipskip.doors.layers_text import layer_lines, layer_picture
from clipskip.encode import TextReader, encode_text, open_text_encoder, text_tensors
from clipskip.errors import NotFound, OutputError
from clipskip.spec import Family, Skip
from clipskip.sweep import find_model
from clipskip.weights import (
    WIDTHS,
    FileKind,
    Hashes,
    Header,
    Identity,
    Library,
    hash_file,
    identify,
    read_allowed,
    source_file,
)
from clipskip.weights.lora import LoraReport, inspect_lora

MOST_LETTERS, MOST_ENTRIES = 2000, 1000
"""The most characters of one text, and entries of one list, in an answer."""
UNSAID = "epsilon (not stated; the usual)"
UNSAID_SD2 = "not stated; its UNet is tested when pictures are drawn with it"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """The results of looking at a model file."""

    path: Path
    header: Header
    identity: Identity
    hashes: Hashes | None
    """None for a folder."""
    lora: LoraReport | None
    """Set for a LoRA."""

    @property
    def fields(self) -> dict[str, Any]:  # Any: what JSON has
        """The results as JSON values."""
        facts = {"identity": self.identity, "hashes": self.hashes, "lora": self.lora}
        fields = {name: dataclasses.asdict(value) for name, value in facts.items() if value is not None}
        if self.hashes is not None:
            fields["hashes"] |= dict(_hash_names(self.hashes, self.identity.kind))
        return cast("dict[str, Any]", _shortened(fields))

    @property
    def lines(self) -> list[str]:
        """The results as lines for a terminal."""
        rows = [("file", str(self.path)), *_identity_lines(self.identity)]
        if self.identity.kind is FileKind.EMBEDDING:
            rows += [("vectors", _vector_line(info.shape)) for info in self.header.tensors.values()]
        if self.hashes is not None:
            digits = _hash_names(self.hashes, self.identity.kind)
            rows.append(("hashes", ", ".join(f"{name} {text}" for name, text in digits)))
        if self.lora is not None:
            rows += [(name.lower(), text) for name, text in self.lora.lines if name not in ("LoRA", "Hash", "Family")]
            rows += [("warning", warning) for warning in self.lora.warnings]
        width = max(len(name) for name, _ in rows)
        return [f"{name:<{width}}  {text}" for name, text in rows if text]


def look_at(path: Path, *, allow_pickle: bool = False) -> Inspected:
    """Look at a model file."""
    if not path.exists():
        raise NotFound(f"{path} does not exist; give the path of a checkpoint, a LoRA or an embedding", field="file")
    header, _ = read_allowed(path, allow_pickle=allow_pickle)
    identity = identify(header)
    return Inspected(
        path=path,
        header=header,
        identity=identity,
        hashes=hash_file(path) if path.is_file() else None,
        lora=inspect_lora(path, allow_pickle=allow_pickle) if identity.kind is FileKind.LORA else None,
    )


def inspect_file(path: Path, *, as_json: bool, allow_pickle: bool = False) -> str:
    """Describe a model file as lines or JSON."""
    inspected = look_at(path, allow_pickle=allow_pickle)
    return json.dumps(inspected.fields, indent=2, ensure_ascii=False) if as_json else "\n".join(inspected.lines)


def _shortened(value: object) -> object:
    """Return JSON values with long texts and lists cut and the rest counted: metadata may hold megabytes."""
    if isinstance(value, str) and len(value) > MOST_LETTERS:
        return f"{value[:MOST_LETTERS]}… ({len(value) - MOST_LETTERS:,} more characters)"
    if isinstance(value, dict):
        return {_shortened(name): _shortened(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        short = [_shortened(inner) for inner in value[:MOST_ENTRIES]]
        return [*short, f"… ({len(value) - MOST_ENTRIES:,} more)"] if len(value) > MOST_ENTRIES else short
    return value if isinstance(value, str | int | float | None) else _shortened(_json_value(value))


def _vector_line(shape: tuple[int, ...]) -> str:
    """Return an embedding's size, and the models whose text encoder has that width."""
    if len(shape) not in (1, 2):
        return " x ".join(map(str, shape))
    count, width = shape if len(shape) == 2 else (1, shape[0])
    family = WIDTHS.get(width)
    return f"{count} x {width}" + (f", for {family}" if family else "")


def _hash_names(hashes: Hashes, kind: FileKind) -> Iterator[tuple[str, str]]:
    """Yield the field's names for a file's hashes, with their digits."""
    yield "AutoV1", hashes.autov1
    yield "AutoV2", hashes.autov2
    yield "AutoV3", hashes.autov3
    if kind is FileKind.EMBEDDING:
        yield "TI hash", hashes.sha256[:12]


def _identity_lines(identity: Identity) -> Iterator[tuple[str, str]]:
    yield "kind", " ".join(filter(None, (str(identity.kind), identity.variant, identity.likely)))
    yield "family", identity.family.label if identity.family else "unknown"
    if identity.family and not identity.family.usable:
        yield "clip skip", f"has no meaning here: {identity.family.why_not}"
    for encoder in identity.encoders:
        yield (
            "text encoder",
            f"{encoder.name}: {encoder.layers} layers x {encoder.width}; Clip Skip 1 to {encoder.layers}"
            if encoder.layers
            else f"{encoder.name}: none of its layers has a known name",
        )
    for part in identity.parts:
        yield (
            part.name,
            f"{part.parameters / 1e6:,.1f} million numbers, {', '.join(part.dtypes)}, {part.size / 1e6:,.1f} MB",
        )
    yield "missing", ", ".join(identity.missing)
    if identity.kind is FileKind.CHECKPOINT:
        stated = f"{identity.prediction} (by {identity.prediction_source})"
        unstated = UNSAID_SD2 if identity.family is Family.SD2 and not identity.variant else UNSAID
        yield "predicts", stated if identity.prediction else unstated
        yield "trained at", _trained_at(identity)
    yield from (("note", note) for note in identity.notes)
    if identity.has_ema:
        yield "also contains", "an averaged (EMA) UNet, which is not used"


def _trained_at(identity: Identity) -> str:
    if identity.trained_clip_skip is None:
        return "not stated"
    why = FAMILIES.get(identity.family) if identity.family else None
    return f"Clip Skip {identity.trained_clip_skip}" + (f" ({why})" if why else "")


def _json_value(value: object) -> object:
    """Return a JSON value for what JSON lacks: paths, enums, families."""
    label = getattr(value, "label", None)
    return label if isinstance(label, str) else str(value)


def encode_to(
    text: str,
    skips: Sequence[Skip],
    *,
    model: str | None,
    encoder: str | None,
    out: Path,
    folders: Sequence[Path],
    allow_pickle: bool,
) -> list[str]:
    """Write one tensor `clip_skip_N` [tokens, width] for each Clip Skip, from one pass, and the pooled vector if there
    is one.

    Returns lines on what was written.
    """
    path, reader = _open_reader(model, folders=folders, allow_pickle=allow_pickle)
    layers = text_tensors(encode_text(reader.only(encoder) if encoder else reader, text, skips))
    header, _ = read_allowed(path, allow_pickle=allow_pickle)
    metadata = {"prompt": text, "model": path.stem, "model_sha256": source_file(header).sha256}
    _write(out, lambda partial: save_file(layers, partial, metadata=metadata))
    return [f"{name}  {tuple(state.shape)}" for name, state in layers.items()]


def tell_layers(
    text: str,
    *,
    model: str | None,
    encoder: str | None,
    out: Path | None,
    folders: Sequence[Path],
    allow_pickle: bool,
    as_json: bool,
) -> str:
    """Describe what each layer of the first or the named encoder makes of a text, as lines or JSON; with `out` as SVG
    too."""
    path, reader = _open_reader(model, folders=folders, allow_pickle=allow_pickle)
    reader = reader.only(encoder or "L") if encoder or len(reader.encoders) > 1 else reader
    layers = read_layers(reader, text)
    if out is not None:
        picture = layer_picture(layers, model=path.stem, text=text)
        _write(out, lambda partial: partial.write_text(picture, encoding="utf-8"))
    if as_json:
        fields = {"model": path.stem, "depth": reader.depth, "prompt": text} | dataclasses.asdict(layers)
        return json.dumps(fields, indent=2, ensure_ascii=False)
    notes = layer_notes(reader.family)
    return "\n".join(layer_lines(layers, model=path.stem, depth=reader.depth, notes=notes))


def _open_reader(model: str | None, *, folders: Sequence[Path], allow_pickle: bool) -> tuple[Path, TextReader]:
    path = find_model(model, hash=None, library=Library.of_user(folders))
    return path, open_text_encoder(path, allow_pickle=allow_pickle)


def _write(out: Path, write: Callable[[Path], object]) -> None:
    """Write a whole file or none."""
    if not out.parent.is_dir():
        raise OutputError(f"cannot write {out}: the folder {out.parent} does not exist; make it first", field="out")
    partial = out.with_name(f".{out.name}.partial")
    try:
        write(partial)
        partial.chmod(0o644)
        partial.replace(out)
    except (OSError, RuntimeError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise OutputError(f"cannot write {out}: {error}; choose another place", field="out") from None
