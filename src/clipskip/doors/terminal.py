"""The frame of every command: output without control characters, and one line at the end whatever happens."""

import contextlib
import os
import platform
import re
import signal
import sys
import tempfile
import traceback
from itertools import pairwise
from pathlib import Path

import typer

from clipskip import __version__
from clipskip.errors import ClipskipError, printable

EXIT_FAULT, EXIT_USER_ERROR, EXIT_INTERRUPTED = 1, 2, 130
RAY, LOCAL = "--ray", "local"
ISSUES = "https://github.com/clipskip/clipskip/issues"


def say(text: object, *, error: bool = False) -> None:
    """Print text, which may be others' words, so that a terminal shows it and obeys nothing in it."""
    print(printable(str(text), lines=True), file=sys.stderr if error else sys.stdout, flush=True)


def run(app: typer.Typer) -> int:
    """Run the command that was typed and return the exit code. Any failure is one line on standard error."""
    try:
        return _run(app)
    except ClipskipError as error:
        say(f"clipskip: {error}", error=True)
        return EXIT_USER_ERROR
    except (KeyboardInterrupt, typer.Abort):
        say("clipskip: stopped", error=True)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends
        return EXIT_FAULT
    except Exception as error:  # the last resort: a fault of ours is one line too
        say(_fault(error), error=True)
        return EXIT_FAULT
    finally:
        # Python waits for threads that still write; Ctrl-C there would print a traceback of that wait.
        with contextlib.suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGINT, lambda *_: os._exit(EXIT_INTERRUPTED))


def _run(app: typer.Typer) -> int:
    try:
        code = app(args=_words(), standalone_mode=False)
    except typer.TyperException as error:
        message = error.format_message()
        if message.startswith("Usage:"):  # the help, which is what typing nothing asks for
            say(message, error=True)
            return EXIT_USER_ERROR
        context = getattr(error, "ctx", None)  # errors of use have it, those of files not
        command = f"clipskip {context.info_name}" if context is not None and context.parent else "clipskip"
        say(f"clipskip: {_one_line(error, message)}; see {command} --help", error=True)
        return EXIT_USER_ERROR
    if code == EXIT_INTERRUPTED:
        say("clipskip: stopped", error=True)
    return code if isinstance(code, int) else 0


def _words() -> list[str]:
    """Return what was typed, with the value of an option that may stand alone: `--ray` is `--ray local`."""
    words: list[str] = []
    for word, after in pairwise([*sys.argv[1:], "--"]):
        words += [word, LOCAL] if word == RAY and after.startswith("-") and "--" not in words else [word]
    return words


def _one_line(error: typer.TyperException, message: str) -> str:
    """Typer's sentence, with the value that it leaves out."""
    words = " ".join(message.split()).rstrip(".").replace("Input should be", "it should be")
    words = re.sub(r", unable to [^;]*$", "", words)
    names = getattr(getattr(error, "param", None), "opts", ())
    typed = [
        value if equals else after
        for word, after in pairwise([*sys.argv[1:], ""])
        for name, equals, value in (word.partition("="),)
        if name in names
    ]
    if typed and "Invalid value" in message:
        words += f", not '{printable(typed[-1], limit=80)}'"  # of an option that is given twice the last one counts
    return printable(words, limit=400)


def _fault(error: Exception) -> str:
    """Return the line for an internal error: what it was, and where its traceback is for a report."""
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    report = (
        f"clipskip {__version__}, Python {platform.python_version()}, {platform.platform()}\n"
        f"{printable(' '.join(sys.argv[1:2]))} ...\n\n{''.join(traceback.format_exception(error))}"
    )
    try:
        handle, name = tempfile.mkstemp(prefix="clipskip-fault-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(report)
        where = f"with {Path(name)}, which holds the details"
    except OSError:
        where = "with what you did; the details could not be written to a file"
    return f"clipskip: a fault of its own ({printable(what, limit=200)}); please report it at {ISSUES} {where}"
