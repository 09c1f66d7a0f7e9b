"""The pages on Clip Skip in full and on A1111 name tests and pictures that there are."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from clipskip.doors.options import build_request
from clipskip.spec import parse_columns, request_from_text

ROOT = Path(__file__).parents[2]
FULL, DIFFERENCES = ROOT / "docs" / "clip-skip-in-full.md", ROOT / "docs" / "a1111-differences.md"


def drawn() -> dict[str, str]:
    """The command of each picture on the page."""
    spec = importlib.util.spec_from_file_location("render_pictures", ROOT / "docs" / "render_pictures.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.commands(FULL.read_text())


def test_every_line_on_a1111_names_a_test_that_there_is() -> None:
    rows = [row for row in DIFFERENCES.read_text().splitlines() if row.startswith("| ") and "| test |" not in row]
    written = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(rows) > 25
    for row in rows:
        named = re.search(r"`(test_\w+)` \|$", row)
        assert named and f"def {named[1]}(" in written, row


def test_the_pictures_of_clip_skip_in_full_are_all_there_and_small() -> None:
    linked = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", FULL.read_text())
    assert linked == list(drawn()) and len(linked) == 6
    assert sum((FULL.parent / path).stat().st_size for path in linked) < 600_000


@pytest.mark.parametrize("path", list(drawn()))
def test_each_picture_was_drawn_by_the_command_above_it(path: str) -> None:
    command = shlex.split(drawn()[path])
    typed = dict(zip(command[3::2], command[4::2], strict=True))
    with Image.open(FULL.parent / path) as picture:
        asked, width = request_from_text(picture.info["parameters"]), picture.width
    wanted = build_request(
        command[2], settings=None, negative_prompt=typed["--negative"],
        phrase_skips=[typed["--phrase-skip"]] if "--phrase-skip" in typed else None,
        negative_clip_skip=typed.get("--negative-clip-skip"),
        typed={"steps": int(typed["--steps"]), "cfg_scale": float(typed.get("--cfg", 7)), "seed": int(typed["--seed"])},
    )  # fmt: skip
    for name in (
        "prompt",
        "negative_prompt",
        "negative_clip_skip",
        "phrase_skips",
        "steps",
        "cfg_scale",
        "seed",
        "rng",
    ):
        assert getattr(asked, name) == getattr(wanted, name), name
    assert width > 256 * len(parse_columns(typed["--clip-skip"]))
