"""Every error a user can put right, in one tree.

ClipskipError                 anything below; a door shows one line and exits 2 (HTTP: 422)
├── SpecError                 a setting is not valid: a number out of range, an unknown sampler
│   └── SkipOutOfRange        this Clip Skip is not one of this encoder's layers
├── PromptError               the prompt cannot be read as A1111 reads it
├── FileError                 a file is not what it is used as
│   ├── NotFound              no such model, LoRA, embedding or settings file where we looked
│   ├── DamagedFile           empty, truncated, an LFS pointer, a web page, NaN weights, a missing layer
│   ├── UnsafeFile            it could run code when loaded (a pickle)
│   └── WrongKind             a sound file of another kind or family (a LoRA as model, SDXL, Flux)
├── LoraError                 a LoRA that cannot be applied whole to this model
├── OutputError               the pictures cannot be written where they were asked for
└── Busy                      too much is waiting already; later it is welcome

A message says what was asked, what is true here, and what to do.
"""


class ClipskipError(Exception):
    """Something that the user can put right. `field` names the setting at fault, as users know it."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class SpecError(ClipskipError):
    """A setting is not valid."""


class SkipOutOfRange(SpecError):
    """A Clip Skip that is not one of this encoder's layers."""


class PromptError(ClipskipError):
    """A prompt that cannot be read."""


class FileError(ClipskipError):
    """A file is not what it is used as."""


class NotFound(FileError):
    """No such file where we looked."""


class DamagedFile(FileError):
    """The file's content is incomplete or broken."""


class UnsafeFile(FileError):
    """The file could run code when loaded."""


class WrongKind(FileError):
    """A sound file of another kind or family."""


class LoraError(ClipskipError):
    """A LoRA that cannot be applied whole to this model."""


class OutputError(ClipskipError):
    """The pictures cannot be written where they were asked for."""


class Busy(ClipskipError):
    """Too much is waiting already."""
