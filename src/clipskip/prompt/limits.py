"""Limits on prompts that no picture needs to exceed, so that every reader takes linear time."""

from clipskip.errors import PromptError, SpecError

MAX_CHARACTERS = 500_000
MAX_STEPS = 10_000
"""The most denoiser calls of a schedule."""


def check_text(text: str) -> None:
    """Raise PromptError for text that is too long, or that contains half of a surrogate pair."""
    if len(text) > MAX_CHARACTERS:
        raise PromptError(
            f"the prompt has {len(text):,} characters, and at most {MAX_CHARACTERS:,} are read; shorten it",
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
    """Raise SpecError for a number of steps that a schedule cannot have."""
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= MAX_STEPS:
        raise SpecError(f"{name} {steps!r} is out of range; use 1 to {MAX_STEPS}", field=name)
