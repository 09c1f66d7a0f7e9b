"""What is known of a checkpoint before its weights are read: enough to plan pictures with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from clipskip.networks import TextShape, UNetShape, VAEShape
from clipskip.spec.encoder_skips import Skip, check_depths, skip_for
from clipskip.spec.family import Family, TextReading
from clipskip.spec.render import FileRef
from clipskip.spec.skip import ClipSkip
from clipskip.weights.container import Stamp, same_file
from clipskip.weights.keys import TEXT_PARTS

Prediction = Literal["epsilon", "v"]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderFacts:
    """One text encoder of a file, and how its family reads it."""

    part: str
    """text_encoder, or text_encoder_2 for SDXL's OpenCLIP bigG."""
    shape: TextShape
    """As the file holds it."""
    rule: TextReading

    @property
    def number(self) -> int:
        """Which of a Clip Skip's numbers is its own: 0 for CLIP-L (and a family's only one), 1 for OpenCLIP bigG."""
        return TEXT_PARTS.index(self.part)

    @property
    def depth(self) -> int:
        """Layers of the whole network, from whose end Clip Skip counts: a file may lack the last (SD 2.x folders)."""
        return self.rule.whole_depth(self.shape.depth, width=self.shape.width)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFacts:
    """A checkpoint by its header: where it is, of which family, how large its networks are, how it was trained."""

    source: SourceFile
    family: Family
    encoders: tuple[EncoderFacts, ...]
    unet: UNetShape
    vae: VAEShape
    prediction: Prediction
    prediction_note: str = ""
    """A line for who draws with it where its file says nothing and its UNet was asked; else nothing."""
    zero_terminal_snr: bool = False
    trained_clip_skip: int | None = None
    native_px: int = 512
    """Side of the pictures that it was trained on."""
    metadata: Mapping[str, str]

    @property
    def ref(self) -> FileRef:
        """Name and hash."""
        return self.source.ref

    @property
    def depths(self) -> tuple[int, ...]:
        """Layers of each text encoder."""
        return tuple(encoder.depth for encoder in self.encoders)

    @property
    def depth(self) -> int:
        """The deepest Clip Skip that every encoder has."""
        return min(self.depths)

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers per token of each text encoder."""
        return tuple(encoder.shape.width for encoder in self.encoders)

    @property
    def width(self) -> int:
        """Numbers per token, of all encoders together."""
        return sum(self.widths)

    def check(self, skip: Skip) -> None:
        """SkipOutOfRange for a Clip Skip that its encoders do not have."""
        check_encoders(skip, self.encoders)

    @property
    def default_clip_skip(self) -> ClipSkip:
        """What the file says it was trained at, else its family's default."""
        return ClipSkip(self.trained_clip_skip or self.family.default_skip)


def check_encoders(skip: Skip, encoders: Sequence[EncoderFacts]) -> None:
    """SkipOutOfRange for a Clip Skip that one of these encoders does not have."""
    first = encoders[0]
    if len(encoders) == 1 and first.number:
        skip_for(skip, first.number).check(first.depth)
    else:
        check_depths(skip, [encoder.depth for encoder in encoders])
