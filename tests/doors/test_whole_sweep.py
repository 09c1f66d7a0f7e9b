"""Three seeds, twelve Clip Skips and four LoRA weights: killed while it is drawn, gone on with, measured, opened and tabulated."""

import subprocess
import sys
import time
from pathlib import Path

import pyarrow
import pytest
from playwright.sync_api import Browser, expect
from pyarrow import parquet
from web_page import needs_browser

COMMAND = [sys.executable, "-c", "from clipskip.doors.cli import main; main()"]
ASKED = [
    "sweep", "best quality, swamp, ogre, reeds", "--lora", "ogre", "--seed", "5", "--seeds", "3", "--clip-skip", "1-12",
    "--axis", "lora=all", "--axis", "lora-weight=0.25,0.5,0.75,1", "--steps", "2", "--size", "64x64", "--yes",
    "--scores", "advise",
]  # fmt: skip
CELLS = 3 * 12 * 4


def pictures(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("row*.png")}


def killed(out: Path, *, at_least: int) -> dict[str, bytes]:
    """The pictures of a sweep that is killed once so many are there."""
    process = subprocess.Popen(
        [*COMMAND, *ASKED, "--out", str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while process.poll() is None and len(list(out.glob("row*.png"))) < at_least and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    return pictures(out)


@pytest.mark.slow
@needs_browser
def test_a_sweep_is_killed_goes_on_is_opened_from_disk_and_read_as_a_table(browser: Browser, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    there = killed(out, at_least=40)
    assert 40 <= len(there) < CELLS
    done = subprocess.run(
        [*COMMAND, *ASKED, "--out", str(out)], capture_output=True, text=True, check=True, timeout=900
    )
    whole = pictures(out)
    assert len(whole) == CELLS and all(whole[name] == content for name, content in there.items())
    assert "ogre was trained here" in done.stdout and "over 3 seeds" in done.stdout

    context = browser.new_context(viewport={"width": 1440, "height": 900})
    tab, asked, said = context.new_page(), list[str](), list[str]()
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: said.append(message.text))
    tab.goto((out / "index.html").as_uri())
    expect(tab.locator(".pane.shown img:not(.over)")).to_be_visible()
    assert said == []
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [(out / "index.html").as_uri()]
    assert tab.evaluate("document.querySelectorAll('script').length > 0")
    assert "guidance kept" in tab.content() and "trained here" in tab.content()
    context.close()

    subprocess.run([*COMMAND, "table", str(out), "--out", str(tmp_path / "sweep.parquet")], check=True)
    table = parquet.read_table(tmp_path / "sweep.parquet")
    assert table.num_rows == CELLS
    assert (
        table.schema.field("seed").type == pyarrow.uint64()
        and table.schema.field("cfg_scale").type == pyarrow.float64()
    )
    rows = table.to_pylist()
    assert {row["seed"] for row in rows} == {5, 6, 7}
    assert {row["clip_skip_number"] for row in rows} == set(range(1, 13))
    assert {row["lora.ogre.unet"] for row in rows} == {0.25, 0.5, 0.75, 1.0}
    assert all(row["drawn"] and 0 < row["score.guidance_kept"] < 1.5 for row in rows if row["clip_skip_number"] <= 3)
    assert {row["score.lora_uptake"] for row in rows if row["clip_skip_number"] == 2} == {1.0}
    assert {row["file"] for row in rows} == set(whole)
