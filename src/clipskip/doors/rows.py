"""The table of settings as command-line options."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from clipskip.spec import MAX_SEED, SETTINGS, Setting, parse_size

SIZES = {
    "--size": ("width", "height", "Width x height in pixels, multiples of 8: 512x768."),
    "--hires-size": (
        "hires_width",
        "hires_height",
        "Width x height of the second pass, instead of a scale: 1024x1536. A side of 0 follows the other.",
    ),
}
"""Options that set two settings at once."""


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for each row of the table to the command, whose `typed` receives what was typed, by key."""
    own = inspect.signature(command, eval_str=True).parameters.values()
    options = [_parameter(row) for row in SETTINGS if row.flag not in SIZES]
    options += [_size_option(flag, text) for flag, (_, _, text) in SIZES.items()]
    flags = {_name(row.flag): row.key for row in SETTINGS if row.flag not in SIZES}

    @wraps(command)
    def call(**given: Any) -> None:
        typed = {key: given.pop(name) for name, key in flags.items()}
        for flag, (width, height, _) in SIZES.items():
            if (text := given.pop(_name(flag))) is not None:
                typed[width], typed[height] = parse_size(text, field=_name(flag))
        command(**given, typed={key: value for key, value in typed.items() if value is not None})

    placed = [option for p in own for option in (options if p.name == "typed" else [p])]
    parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in placed]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads it
    call.__annotations__ = {p.name: p.annotation for p in parameters}
    return call


def help_of(row: Setting) -> str:
    """Return a row's help, with its range or choices."""
    if row.choices:
        return f"{row.help} [{', '.join(row.choices[:-1])} or {row.choices[-1]}]"
    if row.kind is str or row.high == MAX_SEED:
        return row.help
    return f"{row.help} [{row.low} to {row.high}]"


def _parameter(row: Setting) -> inspect.Parameter:
    kind: Any = row.kind  # Any: an annotation that is made from the row
    annotation = Annotated[kind | None, typer.Option(row.flag, help=help_of(row))]
    return inspect.Parameter(_name(row.flag), inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _size_option(flag: str, text: str) -> inspect.Parameter:
    annotation = Annotated[str | None, typer.Option(flag, help=text)]
    return inspect.Parameter(_name(flag), inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _name(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")
