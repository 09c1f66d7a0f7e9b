"""The page's main flow in Firefox: drawn, scrubbed, held, compared, marked, saved; then the sweep's own page from disk."""

import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from firefox import PROGRAM, Firefox
from PIL import Image
from web_page import PROMPT

pytestmark = [pytest.mark.slow, pytest.mark.skipif(PROGRAM is None, reason="no firefox-esr on this machine")]


@pytest.fixture
def firefox(tmp_path: Path) -> Iterator[Firefox]:
    opened = Firefox(tmp_path)
    yield opened
    opened.close()


def text(firefox: Firefox, selector: str) -> str:
    return str(firefox.run("return document.querySelector(arguments[0]).textContent", selector))


def judge(firefox: Firefox) -> None:
    """Scrub, flip the row, hold, compare and star by the keys of the viewer."""
    firefox.run("document.activeElement.blur()")
    firefox.press("ArrowLeft", "ArrowLeft", "ArrowDown")
    assert text(firefox, "#shown-name") == "Clip Skip 1, gnome"
    firefox.press("ArrowRight", "h", "ArrowUp")
    assert text(firefox, "#shown-name") == "Clip Skip 2, without LoRA"
    assert text(firefox, ".pane.held figcaption") == "Clip Skip 2, gnome"
    firefox.press("d")
    assert "Mean difference" in str(firefox.wait("document.getElementById('difference').textContent"))
    firefox.press("w")
    assert (
        firefox.run("return getComputedStyle(document.querySelector('.pane.shown .over')).clipPath")
        == "inset(0px 50% 0px 0px)"
    )
    firefox.press("+")
    scales = firefox.run(
        "return [...document.querySelectorAll('.pane:not([hidden]) .inner')].map((one) => one.style.transform)"
    )
    assert scales and all("scale(1.5)" in scale for scale in scales)
    firefox.press("0", "h", "s")
    assert firefox.run("return document.getElementById('star').getAttribute('aria-pressed')") == "true"


def saved(firefox: Firefox, ending: str) -> Path:
    """The file that was downloaded last, once it is whole."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        files = [path for path in firefox.downloads.iterdir() if path.suffix == ending]
        if files and not list(firefox.downloads.glob("*.part")) and files[-1].stat().st_size:
            return max(files, key=lambda path: path.stat().st_mtime_ns)
        time.sleep(0.1)
    raise AssertionError(f"no {ending} is saved: {list(firefox.downloads.iterdir())}")


def test_the_main_flow_works_in_firefox_on_the_server_and_from_disk(
    firefox: Firefox, server: str, tmp_path: Path
) -> None:
    firefox.resize(1440, 900)
    firefox.go(server)
    firefox.wait("document.getElementById('ready')")
    firefox.wait("document.getElementById('model').value")
    for field, value in (("prompt", PROMPT), ("clip_skips", "1-3"), ("steps", "2"), ("cfg_scale", "4"), ("seed", "5")):
        firefox.type(f"#{field}", value)
    firefox.type("#add-lora", "gnome")
    firefox.wait("document.querySelector('#add-lora-list [role=option]')")
    firefox.press("Enter")
    firefox.click("#start")
    firefox.wait("document.querySelectorAll('.cell.finished').length === 6")
    firefox.wait("document.getElementById('progress').hidden")
    judge(firefox)
    firefox.click("#forms summary")
    firefox.wait("document.querySelector('#form-list a[download=\"workflow.json\"]')")
    firefox.run("document.getElementById('arrange').open = true")
    firefox.click("#save-png")
    with Image.open(saved(firefox, ".png")) as grid:
        assert grid.format == "PNG" and grid.width > 3 * 64
    firefox.click("#save-animation")
    with Image.open(saved(firefox, ".webp")) as animated:
        assert (animated.format, getattr(animated, "n_frames", 1)) == ("WEBP", 3)
    page = firefox.run(
        "return [...document.querySelectorAll('#links a')].find((one) => one.textContent === 'Page').href"
    )
    with urllib.request.urlopen(page) as answer:
        (tmp_path / "index.html").write_bytes(answer.read())
    assert firefox.errors(server) == []

    own = (tmp_path / "index.html").as_uri()
    firefox.go(own)
    firefox.wait("document.querySelectorAll('.cell.finished').length === 6")
    judge(firefox)
    firefox.run("document.getElementById('arrange').open = true")
    firefox.click("#save-zip")
    assert saved(firefox, ".zip").stat().st_size > 6 * 1000
    assert firefox.errors(own) == []
