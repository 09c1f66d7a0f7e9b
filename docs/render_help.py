"""Prints docs/commands.md: what every command says of itself. `make docs` writes it, a test compares."""

import os

os.environ["COLUMNS"] = "100"

import typer
from typer.testing import CliRunner

from clipskip.doors.cli import app


def page() -> str:
    """The page as Markdown."""
    group = typer.main.get_command(app)
    commands = [[], *([name] for name in group.commands)]  # type: ignore[attr-defined]  # a click group
    texts = [CliRunner().invoke(app, [*words, "--help"], prog_name="clipskip").stdout for words in commands]
    blocks = [
        f"## clipskip {' '.join(words)}".rstrip() + f"\n```\n{text.strip()}\n```"
        for words, text in zip(commands, texts, strict=True)
    ]
    end = (
        "## Exit codes\n0: done. 2: something that you can put right; one line says what was asked, what is true and what to do.\n"
        "130: stopped with Ctrl-C; what was finished is kept, and the same command goes on from there."
    )
    return "\n\n".join(["# Commands", *blocks, end]) + "\n"


if __name__ == "__main__":
    print(page(), end="")
