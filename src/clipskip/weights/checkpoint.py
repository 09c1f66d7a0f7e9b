"""A whole SD 1.x model in memory: three networks under canonical names, complete and finite, free of its file."""

import hashlib
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from clipskip.errors import DamagedFile
from clipskip.networks import TextShape, UNetShape, VAEShape, tensors_of
from clipskip.spec.family import Family
from clipskip.spec.render import FileRef
from clipskip.spec.skip import ClipSkip
from clipskip.weights.container import Header, Stamp, as_path, same_file
from clipskip.weights.hashes import hash_file
from clipskip.weights.identify import (
    FileKind,
    Identity,
    check_loadable,
    identify,
    missing_tensors,
    stated_clip_skip,
)
from clipskip.weights.keys import Source, canonical
from clipskip.weights.pickles import read_allowed
from clipskip.weights.reading import convert_tensors, read_tensors
from clipskip.weights.shapes import native_px, text_shape, unet_shape, vae_shape

Prediction = Literal["epsilon", "v"]
State = dict[str, Float[Tensor, "..."]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """The file that weights came from."""

    name: str
    """Stem, free of commas, colons and quotes: infotexts carry it."""
    path: Path
    sha256: str
    """Of the file; of a diffusers folder, sha256 over its weight files' names and sha256, in order."""
    stamps: Mapping[Path, Stamp] = field(default_factory=lambda: MappingProxyType({}))
    """Every weight file, as it was when it was read."""

    @property
    def ref(self) -> FileRef:
        """Name and the 10 digits that the field knows a checkpoint by."""
        return FileRef(name=self.name, hash=self.sha256[:10])

    @property
    def unchanged(self) -> bool:
        """Whether the files on disk are still those that were read, by size, time and inode."""
        return all(same_file(path, stamp) for path, stamp in self.stamps.items())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """A model ready to be built; the tensors are its own, whatever becomes of the file."""

    family: Family
    text: State
    unet: State
    vae: State
    text_shape: TextShape
    unet_shape: UNetShape
    vae_shape: VAEShape
    prediction: Prediction
    zero_terminal_snr: bool = False
    trained_clip_skip: int | None = None
    native_px: int = 512
    """Side of the pictures that it was trained on."""
    source: SourceFile
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFacts:
    """What is known of a checkpoint before its weights are read: enough to plan pictures with it."""

    source: SourceFile
    family: Family
    depth: int
    """Layers of its text encoder."""
    width: int
    trained_clip_skip: int | None
    native_px: int

    @property
    def ref(self) -> FileRef:
        """Name and hash."""
        return self.source.ref

    @property
    def default_clip_skip(self) -> ClipSkip:
        """What the file says it was trained at, else its family's default."""
        return ClipSkip(self.trained_clip_skip or self.family.default_skip)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextWeights:
    """A text encoder alone."""

    family: Family
    state: State
    shape: TextShape
    trained_clip_skip: int | None = None
    source: SourceFile


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Opened:
    """A file of either format whose parts are known and not yet read."""

    header: Header
    pickled: dict[str, Shaped[Tensor, "..."]] | None
    parts: Mapping[str, Mapping[str, Source]]
    identity: Identity

    def read(self, part: str, wanted: Mapping[str, object], *, dtype: torch.dtype, device: str | torch.device) -> State:
        """A part's tensors, just those wanted."""
        sources = {name: self.parts[part][name] for name in wanted}
        if self.pickled is None:
            return read_tensors(self.header, sources, dtype=dtype, device=device)
        return convert_tensors(self.pickled, sources, file=self.header.path.name, dtype=dtype, device=device)


def load_checkpoint(
    path: str | os.PathLike[str],
    *,
    dtype: torch.dtype,
    text_dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    allow_pickle: bool = False,
    prediction: Prediction | None = None,
) -> Checkpoint:
    """The SD 1.x model in a single file or a diffusers folder.

    Complete and finite, or an error that names what is wrong. `prediction` overrides what the file says;
    `text_dtype` is the text encoder's, where it is not `dtype`.
    Pickles (.ckpt, .pt) need `allow_pickle`.
    """
    file = as_path(path)
    opened = _open(file, allow_pickle=allow_pickle)
    check_loadable(opened.identity)
    _check_whole(opened.identity)
    with ThreadPoolExecutor(1) as beside:
        source = beside.submit(source_file, opened.header)
        shapes = {part: {n: s.shape for n, s in sources.items()} for part, sources in opened.parts.items()}
        text = text_shape(shapes["text_encoder"], opened.header)
        unet = unet_shape(shapes["unet"], opened.header)
        vae = vae_shape(shapes["vae"], opened.header)
        said = opened.identity.prediction
        return Checkpoint(
            family=Family.SD1,
            text=opened.read("text_encoder", tensors_of(text), dtype=text_dtype or dtype, device=device),
            unet=opened.read("unet", tensors_of(unet), dtype=dtype, device=device),
            vae=opened.read("vae", tensors_of(vae), dtype=dtype, device=device),
            text_shape=text,
            unet_shape=unet,
            vae_shape=vae,
            prediction=prediction or ("v" if said == "v" else "epsilon"),
            zero_terminal_snr=opened.identity.zero_terminal_snr,
            trained_clip_skip=opened.identity.trained_clip_skip,
            native_px=native_px(opened.header),
            source=source.result(),
            metadata=opened.header.metadata,
        )


def read_facts(path: str | os.PathLike[str], *, allow_pickle: bool = False) -> CheckpointFacts:
    """The same checks as `load_checkpoint` makes of a file's header, and what it says; the weights are not read."""
    opened = _open(as_path(path), allow_pickle=allow_pickle)
    check_loadable(opened.identity)
    _check_whole(opened.identity)
    shape = text_shape({name: source.shape for name, source in opened.parts["text_encoder"].items()}, opened.header)
    return CheckpointFacts(
        source=source_file(opened.header),
        family=Family.SD1,
        depth=shape.depth,
        width=shape.width,
        trained_clip_skip=opened.identity.trained_clip_skip,
        native_px=native_px(opened.header),
    )


def load_text(
    path: str | os.PathLike[str],
    *,
    dtype: torch.dtype,
    device: str | torch.device = "cpu",
    allow_pickle: bool = False,
) -> TextWeights:
    """Only the text encoder of an SD 1.x file, which may lack the rest: a twentieth of the reading."""
    opened = _open(as_path(path), allow_pickle=allow_pickle)
    identity = opened.identity
    if identity.kind is not FileKind.TEXT_ENCODER and not (identity.kind is FileKind.CHECKPOINT and identity.variant):
        check_loadable(identity)
    sources = opened.parts.get("text_encoder", {})
    lost = missing_tensors("text_encoder", sources, opened.header)
    layers = next((encoder.missing_layers for encoder in identity.encoders), ())
    if lost or layers:
        raise _incomplete(identity.path, [f"text encoder layer {n} (counted from 0)" for n in layers] or lost)
    shape = text_shape({name: source.shape for name, source in sources.items()}, opened.header)
    return TextWeights(
        family=Family.SD1,
        state=opened.read("text_encoder", tensors_of(shape), dtype=dtype, device=device),
        shape=shape,
        trained_clip_skip=stated_clip_skip(opened.header.metadata),
        source=source_file(opened.header),
    )


def source_file(header: Header) -> SourceFile:
    """The name and content hash of the file or folder that a header is of."""
    digests = [(path, hash_file(path).sha256) for path in header.stamps]
    if header.is_folder:
        lines = sorted(f"{path.relative_to(header.path).as_posix()} {sha256}\n" for path, sha256 in digests)
        sha256, name = hashlib.sha256("".join(lines).encode()).hexdigest(), header.path.resolve().name
    else:
        sha256, name = digests[0][1], header.path.stem
    return SourceFile(name=plain_name(name), path=header.path, sha256=sha256, stamps=header.stamps)


def plain_name(stem: str) -> str:
    """A file's stem without the characters that break infotexts: comma, colon, quotes, line ends."""
    return re.sub(r"[,:\"'\x00-\x1f\x7f]+", "_", stem).strip("_ ") or "model"


def _open(path: Path, *, allow_pickle: bool) -> _Opened:
    header, pickled = read_allowed(path, allow_pickle=allow_pickle)
    return _Opened(header=header, pickled=pickled, parts=canonical(header.shapes), identity=identify(header))


def _check_whole(identity: Identity) -> None:
    if identity.missing:
        raise _incomplete(identity.path, list(identity.missing))


def _incomplete(path: Path, lost: list[str]) -> DamagedFile:
    rest = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
    return DamagedFile(f"{path.name} is incomplete: it lacks {'; '.join(lost[:3])}{rest}; download it again")
