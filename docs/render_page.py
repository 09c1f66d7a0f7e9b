"""Draws docs/page.png: a finished sweep of the embedded model on the page, in Debian's Chromium.

Usage: python docs/render_page.py [file] [light|dark] [width]
"""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

PROMPT, LORA = "best quality, highest detail, 8k, swamp, fireflies, ogre, reeds", "ogre"
NEGATIVE = "lowres, worst quality, low quality, jpeg artifacts, text, signature, watermark, username, blurry, sketch, monochrome"
STEPS, GUIDANCE, SEED = 20, 7, 2
COLOURS = 256
PATIENCE_MS = 1_800_000
SERVE = "from clipskip.doors.cli import main; main()"


def wait_for(address: str) -> None:
    """Returns when the server answers."""
    for _ in range(300):
        try:
            urllib.request.urlopen(f"{address}/v1/status", timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise SystemExit(f"no server at {address}")


def sweep(page: Page) -> None:
    """Draws the sweep and holds two pictures side by side."""
    page.wait_for_selector("#ready", state="attached")
    page.fill("#prompt", PROMPT)
    page.fill("#negative_prompt", NEGATIVE)
    page.fill("#add-lora", LORA)
    page.locator("#add-lora-list [role=option]").first.wait_for()
    page.press("#add-lora", "Enter")
    for name, value in (("steps", STEPS), ("cfg_scale", GUIDANCE), ("seed", SEED)):
        page.fill(f"#{name}", str(value))
    page.click("#start")
    page.wait_for_selector("#sweep:not([hidden])")
    page.wait_for_selector("#progress", state="hidden")
    page.locator("#skip").focus()
    page.keyboard.press("ArrowRight")
    page.locator("#rows label").first.click()
    page.click("#hold")
    page.locator("#rows label").last.click()
    page.evaluate("document.activeElement.blur()")
    page.wait_for_timeout(1000)


def main(file: Path, theme: str, width: int) -> None:
    """Starts a server on an empty folder, draws, takes the picture."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as out:
        server = subprocess.Popen([sys.executable, "-c", SERVE, "serve", "--port", str(port), "--out", out])
        try:
            wait_for(address)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
                page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)  # type: ignore[arg-type]  # a word of the command line
                page.set_default_timeout(PATIENCE_MS)
                page.goto(address)
                sweep(page)
                page.screenshot(path=file)
                browser.close()
        finally:
            server.terminate()
            server.wait(20)
    with Image.open(file) as picture:
        few = picture.convert("RGB").quantize(COLOURS)
    few.save(file, optimize=True)


if __name__ == "__main__":
    words = sys.argv[1:]
    main(
        Path(words[0] if words else Path(__file__).with_name("page.png")),
        words[1] if len(words) > 1 else "light",
        int(words[2]) if len(words) > 2 else 1440,
    )
