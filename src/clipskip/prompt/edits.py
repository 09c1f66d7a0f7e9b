"""Prompt editing and alternation, `[from:to:when]` and `[a|b]`: which text conditions which denoiser call.

A1111 1.8.0 modules/prompt_parser.py:15-133 reads this with an Earley parser, whose time grows with the cube of the
prompt's length. The language is the same here, read in one pass. What its grammar says:

    group  = "(" prompt ")" | "(" prompt ":" prompt ")" | "[" prompt "]"            attention, left as text
           | "[" [prompt ":"] prompt ":" [space] number [space] "]"                 editing
           | "[" prompt ("|" [prompt])+ "]"                                         alternation
    prompt = (group | text)*           text: no bracket, colon, bar or backslash, unless a backslash precedes it
    whole  = (prompt | any bracket or colon)*

So a bracket that makes no group is text, and with it every bracket around it; a bar outside an alternation, or a
backslash before nothing or a new line, cannot be read at all: then the whole prompt is taken as it stands.
"""

import re
from dataclasses import dataclass, field

from clipskip.errors import PromptError
from clipskip.prompt.limits import check_steps, check_text

MAX_WRITTEN = 20_000_000
"""The most characters of all texts of one schedule."""
MAX_VISITS = 3_000_000
"""The most tokens times steps at which the text changes."""

_TOKEN = re.compile(r"[\[\]():|]|(?:[^\\\[\]():|]++|\\.)++")
_WHEN = re.compile(r"\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*")
_CLOSES = {")": "(", "]": "["}
NOTHING = -1
"""Stands for the first text of [to:when], which is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """An edit or alternation: where each of its texts begins, and when one follows the other."""

    starts: tuple[int, ...]
    """Token indices; an edit has two, and its first may be NOTHING."""
    when: str | None
    """As written; None for an alternation."""
    after: int
    """Index of the token behind it."""


@dataclass(slots=True)
class _Program:
    """A prompt as tokens, from which one pass writes the text of any step."""

    tokens: list[str]
    groups: dict[int, _Group] = field(default_factory=dict)
    """Groups by the index of their opening bracket."""
    leave: dict[int, int] = field(default_factory=dict)
    """From a token that ends one of a group's texts to the token behind the group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Timeline:
    """The rule by which an edit's number is counted."""

    steps: int
    fraction_offset: float = 0.0
    step_offset: int = 0
    old: bool = False

    def step(self, when: str) -> int:
        """Return the last step that uses an edit's first text; below 1, no step does."""
        value = float(when)
        if self.old:
            value = value * self.steps if value < 1 else value
        elif "." in when:
            value = (value - self.fraction_offset) * self.steps
        else:
            value -= self.step_offset
        return int(max(min(value, self.steps), -1.0))


def parse_schedule(
    text: str, steps: int, *, hires_steps: int | None = None, old_timelines: bool = False
) -> list[tuple[int, str]]:
    """Return texts with the last step of each, counted from 1; the last is `steps`.

    `steps` counts denoiser calls: twice the sampler's steps where it is of second order. With `hires_steps` the result
    is the second pass's, over that many. `old_timelines` reads numbers as before A1111 1.6: below 1 they are fractions,
    else steps. Raises PromptError where the texts would grow too long, SpecError for impossible steps.
    """
    check_text(text)
    check_steps(steps)
    timeline = _Timeline(steps=steps, old=old_timelines)
    if hires_steps is not None and not old_timelines:
        check_steps(hires_steps, "hires_steps")
        timeline = _Timeline(steps=hires_steps, fraction_offset=1.0, step_offset=steps)
    program = _read_program(text)
    if program is None:
        return [(timeline.steps, text)]
    whens = {at: timeline.step(group.when) for at, group in program.groups.items() if group.when is not None}
    ends = {timeline.steps, *(when for when in whens.values() if when >= 1)}
    if len(whens) < len(program.groups):
        ends = set(range(1, timeline.steps + 1))
    if len(ends) * len(text) > MAX_WRITTEN or len(ends) * len(program.tokens) > MAX_VISITS:
        raise PromptError(
            f"the prompt is too long for its edits: {len(text):,} characters at {len(ends):,} different steps; "
            "shorten it",
            field="prompt",
        )
    return [(end, _text_of(program, whens, end)) for end in sorted(ends)]


def is_literal(text: str) -> bool:
    """Return whether the grammar does not cover this prompt, so that its edits are taken as text."""
    return _read_program(text) is None


def _read_program(text: str) -> _Program | None:
    """Read the prompt; None where the grammar does not cover it."""
    program = _Program(_TOKEN.findall(text))
    if sum(map(len, program.tokens)) != len(text):
        return None
    stack: list[list[int]] = []  # for each open bracket the indices of it and of the marks right in it
    for index, token in enumerate(program.tokens):
        if token in ("(", "["):
            stack.append([index])
        elif token in (":", "|"):
            if stack:
                stack[-1].append(index)
            elif token == "|":
                return None
        elif token in _CLOSES:
            frame = stack.pop() if stack else []
            if not _close(program, frame, index):
                if _has_bar(program, [frame, *stack]):
                    return None
                stack.clear()
    return None if _has_bar(program, stack) else program


def _has_bar(program: _Program, frames: list[list[int]]) -> bool:
    return any(program.tokens[mark] == "|" for frame in frames for mark in frame)


def _close(program: _Program, frame: list[int], close: int) -> bool:
    """Return whether the two brackets make a group; groups that change with the step are added to the program."""
    if not frame or program.tokens[frame[0]] != _CLOSES[program.tokens[close]]:
        return False
    marks = [program.tokens[mark] for mark in frame[1:]]
    if program.tokens[close] == ")":
        return marks in ([], [":"])
    if "|" in marks:
        if ":" in marks:
            return False
        _note(program, frame, [mark + 1 for mark in frame], close=close)
        return True
    return not marks or _close_edit(program, frame, close)


def _close_edit(program: _Program, frame: list[int], close: int) -> bool:
    """Return whether the bracket holds one or two texts and, behind its last colon, a number; if so, add the edit."""
    start, *between, last = frame
    when = _WHEN.fullmatch(program.tokens[last + 1])
    if len(between) > 1 or last + 2 != close or when is None:
        return False
    starts = [start + 1, between[0] + 1] if between else [NOTHING, start + 1]
    _note(program, frame, starts, close=close, when=when[1])
    return True


def _note(program: _Program, frame: list[int], starts: list[int], *, close: int, when: str | None = None) -> None:
    """Add a group to the program."""
    program.groups[frame[0]] = _Group(starts=tuple(starts), when=when, after=close + 1)
    program.leave.update(dict.fromkeys((*frame[1:], close), close + 1))


def _text_of(program: _Program, whens: dict[int, int], step: int) -> str:
    """Return the prompt's text at a step, counted from 1."""
    written: list[str] = []
    at, size = 0, len(program.tokens)
    while at < size:
        if at in program.groups:
            group = program.groups[at]
            turn = (step - 1) % len(group.starts) if group.when is None else int(step > whens[at])
            at = group.after if group.starts[turn] == NOTHING else group.starts[turn]
        elif at in program.leave:
            at = program.leave[at]
        else:
            written.append(program.tokens[at])
            at += 1
    return "".join(written)
