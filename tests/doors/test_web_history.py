"""Past sweeps on the page: found by words, renamed, deleted; and the scores of a sweep's cells."""

import re

import pytest
from playwright.sync_api import Page, expect
from web_page import DRAWN_MS, check, draw, needs_browser


@needs_browser
def test_past_sweeps_are_searched_renamed_noted_and_deleted(page: Page) -> None:
    draw(page, steps=1, skips="1,2", lora=None, prompt="swamp, to be named")
    before = page.locator(".pane.shown .view").bounding_box()
    page.click(".naming summary")
    page.fill("#sweep-name", "Reeds at dusk")
    page.fill("#sweep-note", "the second try")
    expect(page.locator("#sweep-prompt")).to_have_text("Reeds at dusk")
    assert page.locator(".pane.shown .view").bounding_box() == before, "the picture stays where it is"
    check(page)
    page.keyboard.press("Escape")
    expect(page.locator("#sweep-note")).to_be_hidden()
    page.click("#winner")
    expect(page.locator("#winner")).to_have_attribute("aria-pressed", "true")
    page.reload()
    expect(page.locator("#sweep-prompt")).to_have_text("Reeds at dusk")
    expect(page.locator("#sweep-words")).to_have_text("swamp, to be named")
    expect(page.locator("#sweep-note")).to_have_value("the second try")
    expect(page.locator(".cell", has_text="♛")).to_have_count(1)
    with page.expect_download() as saved:
        page.locator("#links a", has_text="Table (CSV)").click()
    assert "swamp, to be named" in saved.value.path().read_text()

    page.locator("nav a", has_text="History").click()
    page.fill("#history-search", "dusk second")
    entry = page.locator("#past li")
    expect(entry).to_have_count(1)
    check(page)
    page.get_by_role("button", name="Rename Reeds at dusk").click()
    page.get_by_label("Name of Reeds at dusk").fill("Night reeds")
    page.keyboard.press("Enter")
    expect(page.locator("#history-about")).to_have_text("None has these words.")
    page.fill("#history-search", "night reeds")
    expect(entry.locator("strong")).to_have_text("Night reeds")
    page.get_by_role("button", name="Delete Night reeds").click()
    page.get_by_role("button", name="Keep it").click()
    page.get_by_role("button", name="Delete Night reeds").click()
    check(page)
    page.get_by_role("button", name="Delete 2 pictures for good").click()
    expect(page.locator("#history-about")).to_have_text("None has these words.")


@needs_browser
@pytest.mark.slow
def test_the_cells_of_a_sweep_are_scored_and_the_scores_drawn(page: Page) -> None:
    draw(page, steps=2, skips="1,2", prompt="swamp, gnome")
    page.click("#score-cells")
    expect(page.locator("#stop-scoring")).to_be_visible()
    expect(page.locator("#score-cells")).to_be_visible(timeout=2 * DRAWN_MS)
    page.select_option("#score", "guidance_kept")
    expect(page.locator(".cell .score").first).to_have_text(re.compile(r"^\d+%$"))
    expect(page.locator("#grid thead .badge-of").first).to_have_text(re.compile("trained here|LoRA gone|broken"))
    check(page)
    before = page.locator(".pane.shown .view").bounding_box()
    page.click("#score-says summary")
    page.click("#dialects summary")
    page.locator("#tools li").first.wait_for()
    assert page.locator(".pane.shown .view").bounding_box() == before, "the picture stays where it is"
    cut = page.evaluate(
        "(({ clientHeight, scrollHeight }) => scrollHeight - clientHeight)(document.getElementById('cell-scores'))"
    )
    assert cut == 0, "every score of the picture is seen, however long the panel"
