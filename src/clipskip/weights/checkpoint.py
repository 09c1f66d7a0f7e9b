"""A whole model in memory: its networks under canonical names, complete and finite, free of its file."""

import hashlib
import os
import re
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from clipskip.errors import DamagedFile
from clipskip.networks import Shape, UNetShape, VAEShape, best_dtype, tensors_of
from clipskip.spec.family import Family
from clipskip.weights.container import Header, as_path
from clipskip.weights.facts import CheckpointFacts, EncoderFacts, Prediction, SourceFile
from clipskip.weights.hashes import hash_file
from clipskip.weights.header import read_header
from clipskip.weights.identify import FileKind, Identity, check_loadable, identify, missing_tensors, stated_clip_skip
from clipskip.weights.keys import TEXT_PARTS, Source, canonical
from clipskip.weights.pickles import read_allowed
from clipskip.weights.prediction import NORM, PROBED, Stated, by_answer, by_spread
from clipskip.weights.reading import convert_tensors, read_one_by_one, read_tensors
from clipskip.weights.shapes import native_px, text_shape, unet_shape, vae_shape

State = dict[str, Float[Tensor, "..."]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """A model ready to be built; the tensors are its own, whatever becomes of the file."""

    facts: CheckpointFacts
    text: tuple[State, ...]
    """Of each text encoder."""
    unet: State
    vae: State


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextWeights:
    """A checkpoint's text encoders alone."""

    family: Family
    encoders: tuple[EncoderFacts, ...]
    states: tuple[State, ...]
    trained_clip_skip: int | None = None
    source: SourceFile


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Opened:
    """A file of either format whose parts are known and not yet read."""

    header: Header
    pickled: dict[str, Shaped[Tensor, "..."]] | None
    parts: Mapping[str, Mapping[str, Source]]
    identity: Identity

    @property
    def family(self) -> Family:
        """Whose model it is; checked before anything else is asked."""
        return self.identity.family or Family.SD1

    def sizes(self, part: str) -> dict[str, tuple[int, ...]]:
        """A part's tensors and their shapes."""
        return {name: source.shape for name, source in self.parts[part].items()}

    def encoders(self) -> tuple[EncoderFacts, ...]:
        """The text encoders that it has, as its family reads them."""
        rules = zip(TEXT_PARTS, self.family.value.encoders, strict=False)
        return tuple(
            EncoderFacts(
                part=part, rule=rule, shape=text_shape(self.sizes(part), self.header, component=part, rule=rule)
            )
            for part, rule in rules
            if part in self.parts
        )

    def read(self, part: str, shape: Shape, *, dtype: torch.dtype, device: str | torch.device) -> State:
        """The tensors of a part's network."""
        sources = {name: self.parts[part][name] for name in tensors_of(shape)}
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
    refiner: bool = False,
) -> Checkpoint:
    """The model in a single file or a diffusers folder.

    Complete and finite, or an error that names what is wrong. `prediction` overrides what the file says;
    `text_dtype` is the text encoders', where it is not `dtype`. A `refiner` may be one that only finishes pictures.
    Pickles (.ckpt, .pt) need `allow_pickle`.
    """
    opened = _open(as_path(path), allow_pickle=allow_pickle)
    _check(opened.identity, refiner=refiner)
    encoders, unet, vae = _networks(opened)
    with ThreadPoolExecutor(1) as beside:
        source = beside.submit(source_file, opened.header)
        texts = [opened.read(one.part, one.shape, dtype=text_dtype or dtype, device=device) for one in encoders]
        states = {
            part: opened.read(part, shape, dtype=dtype, device=device) for part, shape in (("unet", unet), ("vae", vae))
        }
        told = Stated(prediction, "the user") if prediction else _stated(opened, unet, states["unet"])
        facts = _facts(opened, source.result(), encoders, unet, vae, told=told)
    return Checkpoint(facts=facts, text=tuple(texts), unet=states["unet"], vae=states["vae"])


def read_facts(path: str | os.PathLike[str], *, allow_pickle: bool = False, refiner: bool = False) -> CheckpointFacts:
    """The same checks as `load_checkpoint` makes of a file's header, and what it says; the weights are not read, save an
    SD 2.x UNet's of which nothing else tells what it predicts."""
    opened = _open(as_path(path), allow_pickle=allow_pickle)
    _check(opened.identity, refiner=refiner)
    encoders, unet, vae = _networks(opened)
    return _facts(opened, source_file(opened.header), encoders, unet, vae, told=_stated(opened, unet))


def _networks(opened: _Opened) -> tuple[tuple[EncoderFacts, ...], UNetShape, VAEShape]:
    header, row = opened.header, opened.family.value
    unet = unet_shape(opened.sizes("unet"), header, row=row)
    return opened.encoders(), unet, vae_shape(opened.sizes("vae"), header, row=row)


def _facts(
    opened: _Opened,
    source: SourceFile,
    encoders: tuple[EncoderFacts, ...],
    unet: UNetShape,
    vae: VAEShape,
    *,
    told: Stated,
) -> CheckpointFacts:
    prediction: Prediction = "v" if told.prediction == "v" else "epsilon"  # epsilon where nothing tells
    asked = told.source.startswith(PROBED)
    return CheckpointFacts(
        source=source,
        family=opened.family,
        encoders=encoders,
        unet=unet,
        vae=vae,
        prediction=prediction,
        prediction_note=(
            f"{source.name} does not say what it predicts; by {told.source} that is {prediction}, which is drawn: "
            "--prediction overrides it"
        )
        if asked
        else "",
        zero_terminal_snr=opened.identity.zero_terminal_snr,
        trained_clip_skip=opened.identity.trained_clip_skip,
        native_px=native_px(opened.header, row=opened.family.value, predicts_v=prediction == "v"),
        metadata=opened.header.metadata,
    )


def _stated(opened: _Opened, shape: UNetShape, unet: State | None = None) -> Stated:
    """What tells what the UNet predicts: its file, else for SD 2.x its weights, which are read where they are not given."""
    stated = Stated(opened.identity.prediction, opened.identity.prediction_source)
    if stated.prediction or opened.family is not Family.SD2 or opened.identity.variant:
        return stated
    unet = unet or opened.read("unet", shape, dtype=best_dtype(torch.device("cpu")), device="cpu")
    return by_spread(unet[NORM]) if NORM in unet else by_answer(unet, shape)


def load_text(
    path: str | os.PathLike[str],
    *,
    dtype: torch.dtype,
    device: str | torch.device = "cpu",
    allow_pickle: bool = False,
) -> TextWeights:
    """Only the text encoders of a file, which may lack the rest: a twentieth of the reading."""
    opened = _open(as_path(path), allow_pickle=allow_pickle)
    identity = opened.identity
    if identity.kind is not FileKind.TEXT_ENCODER and not (identity.kind is FileKind.CHECKPOINT and identity.variant):
        check_loadable(identity)
    layers = [
        f"{encoder.name} layer {layer} (counted from 0)"
        for encoder in identity.encoders
        for layer in encoder.missing_layers
    ]
    lost = [
        lack
        for part in TEXT_PARTS
        if part in opened.parts
        for lack in missing_tensors(part, opened.parts[part], opened.header, family=opened.family)
    ]
    if lost or layers:
        raise _incomplete(identity.path, layers or lost)
    encoders = opened.encoders()
    return TextWeights(
        family=opened.family,
        encoders=encoders,
        states=tuple(opened.read(one.part, one.shape, dtype=dtype, device=device) for one in encoders),
        trained_clip_skip=stated_clip_skip(opened.header.metadata),
        source=source_file(opened.header),
    )


def read_again(
    source: SourceFile, names: Collection[str], *, dtypes: Mapping[str, torch.dtype]
) -> Iterator[tuple[str, Float[Tensor, "..."]]]:
    """Some weights of an open model by their full names (`unet.conv_in.weight`), one after another, as they were loaded.

    `dtypes` are those of its parts. DamagedFile where the file is another by now; a pickle cannot be read by parts.
    """
    if not source.unchanged:
        raise DamagedFile(f"{source.path.name} changed while it was in use; start again with the file that you want")
    header = read_header(source.path)
    parts = canonical(header.shapes)
    for part, dtype in dtypes.items():
        local = [name.removeprefix(f"{part}.") for name in names if name.startswith(f"{part}.")]
        for name, tensor in read_one_by_one(header, {name: parts[part][name] for name in local}, dtype=dtype):
            yield f"{part}.{name}", tensor


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


def _check(identity: Identity, *, refiner: bool) -> None:
    check_loadable(identity, refiner=refiner)
    if identity.missing:
        raise _incomplete(identity.path, list(identity.missing))


def _incomplete(path: Path, lost: list[str]) -> DamagedFile:
    rest = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
    return DamagedFile(f"{path.name} is incomplete: it lacks {'; '.join(lost[:3])}{rest}; download it again")
