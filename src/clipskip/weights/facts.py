"""Facts about a checkpoint from its header alone, enough to plan pictures with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from clipskip.networks import TextShape, UNetShape, VAEShape
from clipskip.spec import ClipSkip, Family, FileRef, Skip, TextReading, check_depths, skip_for
from clipskip.weights.container import Stamp, same_file
from clipskip.weights.keys import TEXT_PARTS

Prediction = Literal["epsilon", "v"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """The file that weights were read from."""

    name: str
    """The file's stem without commas, colons and quotes, because infotexts contain it."""
    path: Path
    sha256: str
    """sha256 of the file; for a diffusers folder, of its weight files' names and sha256 in order."""
    stamps: Mapping[Path, Stamp] = field(default_factory=lambda: MappingProxyType({}))
    """Every weight file's stamp from when it was read."""

    @property
    def ref(self) -> FileRef:
        """The name, and the 10 digits by which the field knows a checkpoint."""
        return FileRef(name=self.name, hash=self.sha256[:10])

    @property
    def unchanged(self) -> bool:
        """Return whether the files on disk are still those that were read, by size, time and inode."""
        return all(same_file(path, stamp) for path, stamp in self.stamps.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderFacts:
    """One text encoder of a file, and how its family reads it."""

    part: str
    """text_encoder, or text_encoder_2 for SDXL's OpenCLIP bigG."""
    shape: TextShape
    """The dimensions as stored in the file."""
    rule: TextReading

    @property
    def number(self) -> int:
        """The index of its own number in a Clip Skip: 0 for CLIP-L (and a family's only one), 1 for OpenCLIP bigG."""
        return TEXT_PARTS.index(self.part)

    @property
    def depth(self) -> int:
        """Number of layers in the whole network, from whose end Clip Skip counts; SD 2.x folders lack the last one."""
        return self.rule.whole_depth(self.shape.depth, width=self.shape.width)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFacts:
    """A checkpoint by its header: its file, its family, its networks' sizes and its training."""

    source: SourceFile
    family: Family
    encoders: tuple[EncoderFacts, ...]
    unet: UNetShape
    vae: VAEShape
    prediction: Prediction
    prediction_note: str = ""
    """A note for the user where the file does not state its prediction and its UNet was asked; else empty."""
    zero_terminal_snr: bool = False
    trained_clip_skip: int | None = None
    native_px: int = 512
    """Side, in pixels, of the pictures that it was trained on."""
    metadata: Mapping[str, str]

    @property
    def ref(self) -> FileRef:
        """Its name and hash."""
        return self.source.ref

    @property
    def depths(self) -> tuple[int, ...]:
        """Number of layers of each text encoder."""
        return tuple(encoder.depth for encoder in self.encoders)

    @property
    def depth(self) -> int:
        """The deepest Clip Skip that every encoder has."""
        return min(self.depths)

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of each text encoder."""
        return tuple(encoder.shape.width for encoder in self.encoders)

    @property
    def width(self) -> int:
        """Width of a token's vector, over all encoders."""
        return sum(self.widths)

    def check(self, skip: Skip) -> None:
        """Raise SkipOutOfRange for a Clip Skip that its encoders do not have."""
        check_encoders(skip, self.encoders)

    @property
    def default_clip_skip(self) -> ClipSkip:
        """The Clip Skip that the file was trained at, else its family's default."""
        return ClipSkip(self.trained_clip_skip or self.family.default_skip)


def check_encoders(skip: Skip, encoders: Sequence[EncoderFacts]) -> None:
    """Raise SkipOutOfRange for a Clip Skip that one of these encoders does not have."""
    first = encoders[0]
    if len(encoders) == 1 and first.number:
        skip_for(skip, first.number).check(first.depth)
    else:
        check_depths(skip, [encoder.depth for encoder in encoders])
