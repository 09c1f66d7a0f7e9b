"""Draws the pictures of docs/clip-skip-in-full.md again, each by the command that stands above it on the page.

    python docs/render_pictures.py [NAME ...]      # all of them, or first, schedule, ...

A picture is the grid of that command, in fewer colours so that it is small; its settings stay in it.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image, PngImagePlugin

PAGE = Path(__file__).with_name("clip-skip-in-full.md")
RUN = "from clipskip.doors.cli import main; main()"
COLOURS = 128
SHOWN = re.compile(r"```sh\n(clipskip sweep [^\n]+)\n```\n!\[[^\]]*\]\(([^)]+\.png)\)")


def commands(page: str) -> dict[str, str]:
    """The command of each picture, by the picture's path as the page links it."""
    return {path: command for command, path in SHOWN.findall(page)}


def draw(command: str, to: Path) -> None:
    """Runs the command and puts its grid there."""
    to.parent.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder:
        words = [*shlex.split(command)[1:], "--out", folder]
        subprocess.run([sys.executable, "-c", RUN, *words], check=True)
        with Image.open(Path(folder) / "grid.png") as grid:
            kept = PngImagePlugin.PngInfo()
            kept.add_itxt("parameters", grid.info["parameters"])
            few = grid.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
            few.save(to, optimize=True, pnginfo=kept)


def main(names: list[str]) -> None:
    """Draws those that are named, or all."""
    for path, command in commands(PAGE.read_text()).items():
        if not names or Path(path).stem in names:
            draw(command, PAGE.parent / path)


if __name__ == "__main__":
    main(sys.argv[1:])
