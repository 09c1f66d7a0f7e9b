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
├── FetchError                a model could not be fetched from where it lies
├── OutputError               the pictures cannot be written where they were asked for
├── Conflict                  somebody else has changed it, or is at it; look again
└── Busy                      too much is waiting already; later it is welcome

A message says what was asked, what is true here, and what to do. It may quote what strangers wrote, so it is escaped
here, once for all doors, terminals and logs.
"""

import re

LONGEST_WORD, LONGEST_MESSAGE = 200, 2000
UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
"""Characters that a terminal or a log obeys instead of showing: control characters, line ends, marks that change the
direction of text, tags and lone surrogates."""


def printable(text: str, *, lines: bool = False, limit: int = 0) -> str:
    r"""Return the text with unprintable characters written as \\u001b, as JSON does.

    With `lines`, line ends and tabs stay. With a `limit`, the text is cut to that many characters.
    """
    if limit and len(text) > limit:
        text = f"{text[: limit - 1]}…"

    def escaped(match: re.Match[str]) -> str:
        if lines and match[0] in "\n\t":
            return match[0]
        units = match[0].encode("utf-16-be", "surrogatepass")
        return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))

    return UNSEEN.sub(escaped, text)


class ClipskipError(Exception):
    """An error that the user can put right. `field` is the setting at fault, under the name that users know."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        words = re.sub(rf"\S{{{LONGEST_WORD + 1},}}", lambda word: f"{word[0][:LONGEST_WORD]}…", message)
        super().__init__(printable(words, limit=LONGEST_MESSAGE))
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


class FetchError(ClipskipError):
    """A model could not be fetched from where it lies."""


class OutputError(ClipskipError):
    """The pictures cannot be written where they were asked for."""


class Conflict(ClipskipError):
    """Somebody else has changed what is to be changed, or is at it."""


class Busy(ClipskipError):
    """Too much is waiting already."""
