"""What is written about the commands is what they do."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_of_commands_is_their_own_help() -> None:
    done = subprocess.run([sys.executable, "docs/render_help.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == (ROOT / "docs" / "commands.md").read_text(), "run `make docs`"


def test_every_python_example_of_the_documents_is_python() -> None:
    blocks = [
        block
        for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
        for block in re.findall(r"```python\n(.*?)```", path.read_text(), re.S)
    ]
    assert blocks
    for block in blocks:
        compile(block, "example", "exec")


def test_what_make_says_exists() -> None:
    recipes = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
    assert {"demo", "test", "check"} <= set(recipes) and os.access(ROOT / ".ci" / "run", os.X_OK)
