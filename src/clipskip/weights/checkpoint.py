"""A whole model in memory: its networks under canonical names, complete, finite and independent of its file."""

import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from clipskip.errors import DamagedFile
from clipskip.networks import Shape, UNetShape, VAEShape, best_dtype, parameters_of, tensors_of
from clipskip.spec import Family
from clipskip.weights.container import Header, as_path
from clipskip.weights.facts import CheckpointFacts, EncoderFacts, Prediction, SourceFile
from clipskip.weights.hashes import hash_file
from clipskip.weights.header import read_header
from clipskip.weights.identify import FileKind, Identity, check_loadable, identify, missing_tensors, stated_clip_skip
from clipskip.weights.keys import TEXT_PARTS, TensorSource, canonical
from clipskip.weights.pickles import read_allowed
from clipskip.weights.prediction import NORM, PROBED, Stated, by_answer, by_spread
from clipskip.weights.shape_reader import native_px, text_shape, unet_shape, vae_shape
from clipskip.weights.tensors import convert_tensors, read_one_by_one, read_tensors

State = dict[str, Float[Tensor, "..."]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """A model ready to be built. It owns its tensors, whatever happens to the file."""

    facts: CheckpointFacts
    text: tuple[State, ...]
    """The tensors of each text encoder."""
    unet: State
    vae: State


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextWeights:
    """The text encoders of a checkpoint."""

    family: Family
    encoders: tuple[EncoderFacts, ...]
    states: tuple[State, ...]
    trained_clip_skip: int | None = None
    source: SourceFile


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Opened:
    """A file of either format whose parts are known but not yet read."""

    header: Header
    pickled: dict[str, Shaped[Tensor, "..."]] | None
    parts: Mapping[str, Mapping[str, TensorSource]]
    identity: Identity

    @property
    def family(self) -> Family:
        """The model's family; callers check first that it is known."""
        return self.identity.family or Family.SD1

    def sizes(self, part: str) -> dict[str, tuple[int, ...]]:
        """Return a part's tensors and their shapes."""
        return {name: source.shape for name, source in self.parts[part].items()}

    def encoders(self) -> tuple[EncoderFacts, ...]:
        """Return the file's text encoders with the rules by which its family reads them."""
        rules = zip(TEXT_PARTS, self.family.value.encoders, strict=False)
        return tuple(
            EncoderFacts(
                part=part, rule=rule, shape=text_shape(self.sizes(part), self.header, component=part, rule=rule)
            )
            for part, rule in rules
            if part in self.parts
        )

    def read(self, part: str, shape: Shape, *, dtype: torch.dtype, device: str | torch.device) -> State:
        """Read the tensors of a part's network."""
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
    check_bytes: Callable[[int], None] | None = None,
) -> Checkpoint:
    """Load the model in a single file or a diffusers folder, complete and finite.

    `prediction` overrides what the file says; `text_dtype` is the text encoders' dtype where it differs from `dtype`.
    With `refiner`, a model that only finishes pictures is accepted. Pickles (.ckpt, .pt) need `allow_pickle`.
    `check_bytes` is called before any weight is read, with the bytes that all of them will take. Raises an error that
    names what is wrong.
    """
    opened = _open_checkpoint(as_path(path), allow_pickle=allow_pickle)
    _check_kind(opened.identity, refiner=refiner)
    encoders, unet, vae = _networks(opened)
    if check_bytes is not None:
        text = (text_dtype or dtype).itemsize * sum(parameters_of(encoder.shape) for encoder in encoders)
        check_bytes(text + dtype.itemsize * (parameters_of(unet) + parameters_of(vae)))
    with ThreadPoolExecutor(1) as beside:
        source = beside.submit(source_file, opened.header)
        texts = [opened.read(e.part, e.shape, dtype=text_dtype or dtype, device=device) for e in encoders]
        states = {
            part: opened.read(part, shape, dtype=dtype, device=device) for part, shape in (("unet", unet), ("vae", vae))
        }
        stated = Stated(prediction, "the user") if prediction else _stated(opened, unet, states["unet"])
        facts = _facts(opened, source.result(), encoders, unet, vae, stated=stated)
    return Checkpoint(facts=facts, text=tuple(texts), unet=states["unet"], vae=states["vae"])


def read_facts(path: str | os.PathLike[str], *, allow_pickle: bool = False, refiner: bool = False) -> CheckpointFacts:
    """Check a file's header as `load_checkpoint` does and return its facts.

    Weights are not read, except those of an SD 2.x UNet whose prediction nothing else tells.
    """
    opened = _open_checkpoint(as_path(path), allow_pickle=allow_pickle)
    _check_kind(opened.identity, refiner=refiner)
    encoders, unet, vae = _networks(opened)
    return _facts(opened, source_file(opened.header), encoders, unet, vae, stated=_stated(opened, unet))


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
    stated: Stated,
) -> CheckpointFacts:
    prediction: Prediction = (
        "v" if stated.prediction == "v" else "epsilon"
    )  # epsilon where nothing tells the prediction
    probed = stated.source.startswith(PROBED)
    return CheckpointFacts(
        source=source,
        family=opened.family,
        encoders=encoders,
        unet=unet,
        vae=vae,
        prediction=prediction,
        prediction_note=(
            f"{source.name} does not say what it predicts; {stated.source} points to {prediction}, which is used: "
            "--prediction overrides it"
        )
        if probed
        else "",
        zero_terminal_snr=opened.identity.zero_terminal_snr,
        trained_clip_skip=opened.identity.trained_clip_skip,
        native_px=native_px(opened.header, row=opened.family.value, predicts_v=prediction == "v"),
        metadata=opened.header.metadata,
    )


def _stated(opened: _Opened, shape: UNetShape, unet: State | None = None) -> Stated:
    """Return the UNet's prediction as its file states it, or for SD 2.x as its weights show, which are read if need
    be."""
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
    """Load only the text encoders of a file, which may lack the rest; this reads a twentieth of it."""
    opened = _open_checkpoint(as_path(path), allow_pickle=allow_pickle)
    identity = opened.identity
    if identity.kind is not FileKind.TEXT_ENCODER and not (identity.kind is FileKind.CHECKPOINT and identity.variant):
        check_loadable(identity)
    layers = [
        f"{encoder.name} layer {layer} (counted from 0)"
        for encoder in identity.encoders
        for layer in encoder.missing_layers
    ]
    missing = [
        lack
        for part in TEXT_PARTS
        if part in opened.parts
        for lack in missing_tensors(part, opened.parts[part], opened.header, family=opened.family)
    ]
    if missing or layers:
        raise _incomplete(identity.path, layers or missing)
    encoders = opened.encoders()
    return TextWeights(
        family=opened.family,
        encoders=encoders,
        states=tuple(opened.read(e.part, e.shape, dtype=dtype, device=device) for e in encoders),
        trained_clip_skip=stated_clip_skip(opened.header.metadata),
        source=source_file(opened.header),
    )


def read_again(
    source: SourceFile, names: Collection[str], *, dtypes: Mapping[str, torch.dtype]
) -> Iterator[tuple[str, Float[Tensor, "..."]]]:
    """Read some weights of an open model again, one after another, by their full names (`unet.conv_in.weight`).

    `dtypes` has the dtype of each part. Raises DamagedFile where the file has changed; a pickle cannot be read in
    parts.
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
    """Return the name and content hash of the file or folder that a header describes."""
    digests = [(path, hash_file(path).sha256) for path in header.stamps]
    if header.is_folder:
        lines = sorted(f"{path.relative_to(header.path).as_posix()} {sha256}\n" for path, sha256 in digests)
        sha256, name = hashlib.sha256("".join(lines).encode()).hexdigest(), header.path.resolve().name
    else:
        sha256, name = digests[0][1], header.path.stem
    return SourceFile(name=plain_name(name), path=header.path, sha256=sha256, stamps=header.stamps)


def plain_name(stem: str) -> str:
    """Return a file's stem without the characters that break infotexts: comma, colon, quotes, line ends."""
    return re.sub(r"[,:\"'\x00-\x1f\x7f]+", "_", stem).strip("_ ") or "model"


def _open_checkpoint(path: Path, *, allow_pickle: bool) -> _Opened:
    header, pickled = read_allowed(path, allow_pickle=allow_pickle)
    return _Opened(header=header, pickled=pickled, parts=canonical(header.shapes), identity=identify(header))


def _check_kind(identity: Identity, *, refiner: bool) -> None:
    check_loadable(identity, refiner=refiner)
    if identity.missing:
        raise _incomplete(identity.path, list(identity.missing))


def _incomplete(path: Path, missing: list[str]) -> DamagedFile:
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return DamagedFile(f"{path.name} is incomplete: it lacks {'; '.join(missing[:3])}{more}; download it again")
