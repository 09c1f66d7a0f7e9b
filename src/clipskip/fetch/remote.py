"""A file that can be fetched, as its host describes it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from clipskip.weights import FileKind


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """One file of a model's version."""

    url: str
    name: str
    """File name with its ending, without folders."""
    kind: FileKind
    size: int = 0
    """In bytes; 0 where the host does not tell."""
    is_rounded: bool = False
    """Whether `size` is exact only to a KiB, like Civitai's kilobytes."""
    sha256: str = ""
    """64 hex digits in lower case; empty where the host has none."""
    title: str = ""
    """Model and version, as people know them."""
    card: Mapping[str, object] = field(default_factory=dict)
    """The host's own description of the version: trigger words, base model, example pictures."""
    hash: str = ""
    """The hash by which it was asked for, where its host does not say that the file has it; empty where it does."""
    notes: tuple[str, ...] = ()
    """What the user should know: a hash that the host lacks, a scan that has not ended."""

    @property
    def least(self) -> int:
        """The fewest bytes that it can have."""
        return max(0, self.size - 1024) if self.is_rounded else self.size
