"""How much prompt is read: bounds that no picture needs to pass, so that every reader stays linear."""

from clipskip.errors import PromptError, SpecError

MAX_CHARACTERS = 500_000
MAX_STEPS = 10_000
"""Denoiser calls that a schedule can be written over."""


def check_text(text: str) -> None:
    """PromptError for text too long to read, or that is not Unicode text (half of a surrogate pair)."""
    if len(text) > MAX_CHARACTERS:
        raise PromptError(
            f"the prompt has {len(text):,} characters, and {MAX_CHARACTERS:,} is the most that is read; shorten it",
            field="prompt",
        )
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise PromptError(
                f"the prompt's character {error.start + 1} is half of a surrogate pair, not text; remove it",
                field="prompt",
            ) from None


def check_steps(steps: int, name: str = "steps") -> None:
    """SpecError for a number of steps over which no schedule can be written."""
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= MAX_STEPS:
        raise SpecError(f"{name} {steps!r} is out of range; use 1 to {MAX_STEPS}", field=name)
