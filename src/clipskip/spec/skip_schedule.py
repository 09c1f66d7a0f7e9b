"""A Clip Skip that changes while the picture is drawn."""

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from clipskip.errors import SkipOutOfRange, SpecError
from clipskip.spec.skip import ClipSkip, shown

MAX_CHARACTERS = 200
"""The most characters of one written schedule."""
LEAST_SHARE = 0.001
"""The least share of the steps: no picture has more than 300 denoiser calls."""
MOST_CALLS = 300

_TOKEN = re.compile(r"[\[\]:|]|[^\[\]:|]+")
_WRITTEN = "write [1:2:0.5] (1, then 2 after half of the steps), [1:2:10] (after step 10), [1|2] (alternating) or [3>2>1] (one per step)"


@dataclass(frozen=True, slots=True, kw_only=True)
class SkipSchedule:
    """A Clip Skip that changes while the picture is drawn, in A1111's editing syntax: [1:2:0.5] or [1|2].

    It counts denoiser calls as prompt editing does (prompt/edits.py): a sampler of second order has two per step.
    """

    skips: tuple["ClipSkip | SkipSchedule", ...]
    """Two where `when` is set; else two or more, used in turn. Each may be a schedule itself."""
    when: int | float | None = None
    """The call after which the second follows or, below 1, the share of the calls; None: the next one with each
    call."""

    def __post_init__(self) -> None:
        if len(self.skips) < 2 or (self.when is not None and len(self.skips) > 2):
            raise SpecError(f"a clip skip that changes has two values; {_WRITTEN}", field="clip_skip")
        when = self.when
        if when is None:
            return
        share = isinstance(when, float) and LEAST_SHARE <= when < 1
        if not share and not (isinstance(when, int) and not isinstance(when, bool) and when >= 1):
            raise SpecError(
                f"clip skip changes at {when}; give a share of the steps from {LEAST_SHARE} to below 1, "
                "such as 0.5, or a step, such as 10",
                field="clip_skip",
            )

    def __str__(self) -> str:
        if self.when is None:
            return f"[{'|'.join(map(str, self.skips))}]"
        return f"[{self.skips[0]}:{self.skips[1]}:{self.when}]"

    @property
    def first(self) -> ClipSkip:
        """The Clip Skip that the picture begins with."""
        return self.skips[0].first

    @property
    def parts(self) -> tuple[ClipSkip, ...]:
        """Every Clip Skip in it."""
        return tuple(dict.fromkeys(part for skip in self.skips for part in skip.parts))

    @property
    def alternates(self) -> bool:
        """Return whether any part of it alternates."""
        return self.when is None or any(isinstance(skip, SkipSchedule) and skip.alternates for skip in self.skips)

    def check(self, depth: int) -> "SkipSchedule":
        """Return this schedule; SkipOutOfRange when an encoder of `depth` layers lacks one of its layers."""
        for part in self.parts:
            part.check(depth)
        return self

    def over(self, calls: int) -> tuple[tuple[int, ClipSkip], ...]:
        """Return (until_step, Clip Skip), each for the calls up to and including its step, counted from 0 as for
        texts."""
        ends = set(range(1, calls + 1)) if self.alternates else {calls, *self._changes(calls)}
        return tuple((end, self._at(end, calls)) for end in sorted(ends))

    def check_calls(self, calls: int) -> "SkipSchedule":
        """Return this schedule; SpecError when a picture with so many denoiser calls ends before all of it is used."""
        begun, used = 0, set()
        for until, skip in self.over(calls):
            if begun < calls:
                used.add(skip)
            begun = until + 1
        if never := [part for part in self.parts if part not in used]:
            raise SpecError(
                f"clip skip {self} never reaches {', '.join(map(str, never))}: this picture has {calls} denoiser calls, and "
                "a change at call n takes effect at the next call; change earlier, or use more steps",
                field="clip_skip",
            )
        return self

    def _changes(self, calls: int) -> set[int]:
        inner = {call for skip in self.skips if isinstance(skip, SkipSchedule) for call in skip._changes(calls)}
        return inner | ({step} if (step := self._step(calls)) >= 1 else set())

    def _step(self, calls: int) -> int:
        """Return the last step of the first Clip Skip; below 1 it has none."""
        assert self.when is not None
        return min(int(self.when * calls) if isinstance(self.when, float) else self.when, calls)

    def _at(self, step: int, calls: int) -> ClipSkip:
        """Return the Clip Skip at a step, counted from 1."""
        turn = (step - 1) % len(self.skips) if self.when is None else int(step > self._step(calls))
        chosen = self.skips[turn]
        return chosen._at(step, calls) if isinstance(chosen, SkipSchedule) else chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSkips:
    """A Clip Skip for each of the first denoiser calls, of which the last stays: [4>3>2], reForge's dynamic Clip Skip.

    A1111's editing syntax cannot express it, because a change there first takes effect in the third call.
    """

    skips: tuple[ClipSkip, ...]
    """Two or more; the last two differ."""

    def __post_init__(self) -> None:
        if len(self.skips) < 2 or self.skips[-1] == self.skips[-2] or len(self.skips) > MOST_CALLS:
            raise SpecError(
                f"a clip skip for each step has from 2 to {MOST_CALLS} values, the last of which holds to the end; write it like [4>3>2]",
                field="clip_skip",
            )

    @classmethod
    def of(cls, skips: Sequence[ClipSkip]) -> "EncoderSkip":
        """Return them as one value: the Clip Skip itself where it never changes."""
        changes = [i for i in range(1, len(skips)) if skips[i] != skips[i - 1]]
        return cls(skips=tuple(skips[: changes[-1] + 1])) if changes else skips[0]

    def __str__(self) -> str:
        return f"[{'>'.join(map(str, self.skips))}]"

    @property
    def first(self) -> ClipSkip:
        """The Clip Skip that the picture begins with."""
        return self.skips[0]

    @property
    def parts(self) -> tuple[ClipSkip, ...]:
        """Every Clip Skip in it."""
        return tuple(dict.fromkeys(self.skips))

    def check(self, depth: int) -> "StepSkips":
        """Return this; SkipOutOfRange when an encoder of `depth` layers lacks one of its layers."""
        for part in self.parts:
            part.check(depth)
        return self

    def over(self, calls: int) -> tuple[tuple[int, ClipSkip], ...]:
        """Return (until_step, Clip Skip), each for the calls up to and including its step, counted from 0."""
        read = self.skips[:calls]
        ends = [call for call in range(len(read) - 1) if read[call] != read[call + 1]]
        return (*((end, read[end]) for end in ends), (calls, read[-1]))

    def check_calls(self, calls: int) -> "StepSkips":
        """Return this; SpecError when a picture with so many denoiser calls ends before all of it is used."""
        if calls < len(self.skips):
            raise SpecError(
                f"clip skip {self} has {len(self.skips)} values, but this picture has {calls} denoiser calls; give fewer, or "
                "use more steps",
                field="clip_skip",
            )
        return self


EncoderSkip = ClipSkip | SkipSchedule | StepSkips
"""The Clip Skip of one text encoder: one layer, or layers over time. All have first, parts, check and over."""


def parse_encoder_skip(text: str) -> EncoderSkip:
    """Parse one encoder's Clip Skip as users type it: "2", "1.5", "[1:2:0.5]" or "[1|2]"."""
    if "[" not in text:
        return ClipSkip.parse(text)
    if ">" in text:
        return _read_steps(text)
    if len(text) > MAX_CHARACTERS:
        raise SpecError(
            f"this clip skip has {len(text):,} characters, and at most {MAX_CHARACTERS} are read; {_WRITTEN}",
            field="clip_skip",
        )
    tokens = deque(_TOKEN.findall(text.strip()))
    try:
        skip = _read_skip(tokens)
    except (IndexError, ValueError):
        skip = None
    if skip is None or tokens:
        raise SkipOutOfRange(f"clip skip {shown(text)} cannot be read; {_WRITTEN}", field="clip_skip")
    return skip


def _read_steps(text: str) -> EncoderSkip:
    """Parse [4>3>2]."""
    inner = text.strip()
    values = inner[1:-1].split(">") if inner[0] == "[" and inner[-1] == "]" else []
    if not 2 <= len(values) <= MOST_CALLS:
        raise SkipOutOfRange(f"clip skip {shown(text)} cannot be read; {_WRITTEN}", field="clip_skip")
    return StepSkips.of([ClipSkip.parse(value) for value in values])


def _read_skip(tokens: deque[str]) -> ClipSkip | SkipSchedule:
    """Read and remove a Clip Skip from the start of the tokens; IndexError or ValueError where there is none."""
    token = tokens.popleft().strip() or tokens.popleft()
    if token in ("]", ":", "|"):
        raise ValueError
    if token != "[":
        return ClipSkip.parse(token)
    skips = [_read_skip(tokens)]
    while (mark := _mark(tokens)) == "|":
        skips.append(_read_skip(tokens))
    if mark == "]":
        if len(skips) == 1:
            raise ValueError
        return SkipSchedule(skips=tuple(skips))
    skips.append(_read_skip(tokens))
    if len(skips) > 2 or _mark(tokens) != ":":
        raise ValueError
    when = tokens.popleft().strip()
    if _mark(tokens) != "]" or not re.fullmatch(r"[0-9]+|[0-9]*\.[0-9]*", when):
        raise ValueError
    return SkipSchedule(skips=tuple(skips), when=float(when) if "." in when else int(when))


def _mark(tokens: deque[str]) -> str:
    """Return the next token that is not a space."""
    return tokens.popleft().strip() or tokens.popleft()
