"""What tests do on the page: fill its form, draw, look at what is shown, and look for what a reader with weak eyes misses."""

import shutil
from pathlib import Path
from typing import Any, cast

import axe_playwright_python
import pytest
from playwright.sync_api import Page, expect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on this machine (Debian: apt install chromium)"
)
PROMPT = "best quality, swamp, gnome, reeds"
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
DRAWN_MS = 120_000
"""A sweep of few steps takes seconds; a machine that is busy with other work gets more."""
SEEN_MS = 20_000
"""How long a test waits for what the page should show: on a machine that is busy with other work an answer takes seconds."""
expect.set_options(timeout=SEEN_MS)
NAMED = frozenset(
    {
        "button", "checkbox", "combobox", "img", "link", "listbox", "progressbar", "radio", "radiogroup", "searchbox",
        "slider", "spinbutton", "textbox",
    }
)  # fmt: skip


def fill(page: Page, *, skips: str = "1,2", steps: int = 2, lora: str | None = "gnome", prompt: str = PROMPT) -> None:
    page.fill("#prompt", prompt)
    page.fill("#clip_skips", skips)
    page.fill("#steps", str(steps))
    page.fill("#cfg_scale", "4")
    page.fill("#seed", "5")
    if lora:
        add_lora(page, lora)


def add_lora(page: Page, name: str) -> None:
    page.fill("#add-lora", name)
    page.locator("#add-lora-list [role=option]").first.wait_for()
    page.press("#add-lora", "Enter")


def draw(page: Page, **asked: Any) -> None:
    fill(page, **asked)
    page.click("#start")
    expect(page.locator("#sweep")).to_be_visible(timeout=DRAWN_MS)
    expect(page.locator("#progress")).to_be_hidden(timeout=DRAWN_MS)


def clipboard(page: Page) -> str:
    return cast(str, page.evaluate("navigator.clipboard.readText()"))


def shown(page: Page) -> str:
    return page.locator(".pane.shown img:not(.over)").get_attribute("src") or ""


def check(page: Page) -> None:
    """Names from the browser's own accessibility tree; contrast 4.5 (WCAG 2.2, 1.4.3)."""
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    shown = [node for node in tree if not node.get("ignored") and node["role"]["value"] in NAMED]
    nameless = [node for node in shown if not node.get("name", {}).get("value", "").strip()]
    assert shown and not [(node["role"]["value"], node.get("properties")) for node in nameless]
    assert sum(node["role"]["value"] == "main" for node in tree if not node.get("ignored")) <= 1
    assert violations(page) == []
    seen = page.evaluate(Path(__file__).with_name("legible.js").read_text())
    assert seen == {"faint": [], "twice": [], "wide": 0}


def violations(page: Page) -> list[str]:
    """What axe finds against WCAG 2.2 A and AA, and its best practices, on what is shown."""
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html'][:160]}" for one in found]
