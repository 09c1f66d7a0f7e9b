"""What the page says before it draws: files that are missing or others, sizes that are not the model's, LoRAs that do not fit."""

import re

import pytest
from playwright.sync_api import Page, expect
from web_page import DRAWN_MS, check, draw, fill, needs_browser

GUIDE = """best quality, swamp
Negative prompt: lowres
Steps: 30, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 512x512, Model hash: 69528490df, Model: anything-v4.0-pruned, Clip skip: 2"""


@needs_browser
def test_settings_of_a_model_that_is_not_here_say_so_and_draw_nothing(page: Page) -> None:
    page.click("#png-info summary")
    page.fill("#settings", GUIDE)
    page.click("#read-settings")
    expect(page.locator("#model")).to_have_value("anything-v4.0-pruned")
    expect(page.locator("#model-error")).to_contain_text("anything-v4.0-pruned")
    page.click("#start")
    expect(page.locator("#model-error")).to_contain_text("anything-v4.0-pruned")
    expect(page.locator("#sweep")).to_be_hidden()
    page.click("#model")
    page.fill("#model", "starter")
    page.locator("#model-list [role=option]").first.wait_for()
    page.press("#model", "Enter")
    expect(page.locator("#model-error")).to_be_empty()
    expect(page.locator("#width-doubt")).to_contain_text("512x512 is 16 times the area")
    page.fill("#steps", "1")
    page.click("#start")
    expect(page.locator("#ask")).to_contain_text("as long")
    page.fill("#width", "")
    page.fill("#height", "")
    expect(page.locator("#ask")).to_be_hidden()
    expect(page.locator("#width-doubt")).to_be_empty()
    page.fill("#width", "512")
    page.click("#start")
    page.click("#ask-size")
    expect(page.locator("#sweep")).to_be_visible(timeout=DRAWN_MS)
    expect(page.locator("#cell-settings")).to_contain_text("Size: 128x128", timeout=DRAWN_MS)


@needs_browser
def test_settings_are_pasted_anywhere_on_the_page_and_other_text_into_a_field_stays_there(page: Page) -> None:
    def paste(selector: str, text: str) -> None:
        page.evaluate(
            """([selector, text]) => {
                const clipboardData = new DataTransfer();
                clipboardData.setData("text/plain", text);
                const pasted = new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true });
                document.querySelector(selector).dispatchEvent(pasted);
            }""",
            [selector, text],
        )

    paste("#steps", GUIDE)
    expect(page.locator("#notice")).to_be_hidden()
    paste("#main", GUIDE)
    expect(page.locator("#prompt")).to_have_value("best quality, swamp")
    expect(page.locator("#steps")).to_have_value("30")
    paste(
        "#main",
        f"{'How I drew this. ' * 99}\n\nPositive Prompt: {GUIDE.replace('Negative prompt', chr(10) + 'Negative Prompt')}",
    )
    expect(page.locator("#notice-text")).to_contain_text("characters)")
    assert len(page.inner_text("#notice-text")) < 500, "a guide around its settings is not shown whole over the page"
    page.fill("#prompt", "")
    paste("#prompt", GUIDE.replace("Steps: 30", "Steps: 31"))
    expect(page.locator("#steps")).to_have_value("31")


@needs_browser
def test_the_keys_work_after_a_click_on_sweep_and_escape_puts_away(page: Page) -> None:
    draw(page, steps=1, lora=None, prompt="swamp, keys")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("End")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#shown-name") == "Clip Skip 2"
    page.keyboard.press("h")
    expect(page.locator(".pane.held")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".pane.held")).to_be_hidden()
    with page.expect_download() as saved:
        page.click("#save")
    assert re.fullmatch(r"row0-clipskip02-seed5-[0-9a-f]+\.png", saved.value.suggested_filename)


@needs_browser
def test_a_note_of_a_lora_goes_with_its_tag(page: Page) -> None:
    fill(page, steps=1, lora=None, prompt="swamp <lora:nobody:1>")
    page.click("#start")
    expect(page.locator("#loras-error")).to_contain_text("nobody")
    page.fill("#prompt", "swamp")
    expect(page.locator("#loras-error")).to_be_empty()
    expect(page.locator("#prompt-reading .error")).to_have_count(0)


@needs_browser
def test_one_side_alone_makes_a_square_and_a_limit_is_said_in_words(page: Page) -> None:
    fill(page, steps=1, skips="1", lora=None, prompt="swamp, square")
    page.fill("#width", "64")
    page.click("#start")
    expect(page.locator("#sweep")).to_be_visible(timeout=DRAWN_MS)
    expect(page.locator("#cell-settings")).to_contain_text("Size: 64x64", timeout=DRAWN_MS)
    page.fill("#steps", "151")
    page.click("#start")
    expect(page.locator("#steps-error")).to_have_text("151 is too large; 150 is the most.")


@needs_browser
def test_a_server_that_is_gone_is_said_over_the_page_until_it_is_back(page: Page) -> None:
    page.clock.install()
    page.reload()
    page.wait_for_selector("#ready", state="attached")
    page.route("**/v1/status", lambda route: route.abort())
    page.clock.run_for(6000)
    expect(page.locator("#notice-text")).to_contain_text("The server does not answer")
    expect(page.locator("#status")).to_have_text("no answer")
    check(page)
    page.route("**/v1/sweeps/check", lambda route: route.abort())
    page.click("#start")
    expect(page.locator("#form-error")).to_contain_text("The server does not answer")
    page.unroute("**/v1/status")
    page.clock.run_for(6000)
    expect(page.locator("#notice")).to_be_hidden()
    expect(page.locator("#form-error")).to_be_empty()


@needs_browser
@pytest.mark.parametrize("name", ["models", "history"])
def test_each_page_has_one_main_landmark(page: Page, name: str) -> None:
    page.locator(f"nav a[data-page={name}]").click()
    expect(page.get_by_role("main")).to_have_count(1)
    check(page)


@needs_browser
def test_a_sweep_that_goes_on_is_linked_in_the_header_and_followed_by_other_tabs(page: Page) -> None:
    fill(page, skips="1-4", steps=60, lora=None, prompt="two tabs")
    page.click("#start")
    page.locator(".cell.drawing").first.wait_for(timeout=DRAWN_MS)
    page.click("#cancel")
    expect(page.locator("#progress-text")).to_contain_text("Cancelled")
    other = page.context.new_page()
    other.goto(page.url)
    other.wait_for_selector("#ready", state="attached")
    other.click("#resume")
    expect(page.locator("#cancel")).to_be_visible(timeout=30_000)
    link = page.locator("#status-link")
    expect(link).to_have_text("drawing")
    page.locator("nav a", has_text="History").click()
    link.click()
    expect(page.locator("#sweep-prompt")).to_have_text("two tabs")
    page.click("#cancel")
    other.close()


@needs_browser
def test_a_second_pass_is_asked_for_in_the_form_and_comes_from_settings(page: Page) -> None:
    fill(page, skips="1", steps=1, lora=None)
    page.click("#hires summary")
    page.fill("#hires_scale", "1.5")
    page.select_option("#hires_upscaler", "Lanczos")
    check(page)
    with page.expect_request(lambda one: one.url.endswith("/v1/sweeps") and one.method == "POST") as sent:
        page.click("#start")
    body = sent.value.post_data_json
    said = {name: value for name, value in body.items() if name.startswith("hires_")}
    assert said == {"hires_scale": 1.5, "hires_upscaler": "Lanczos", "hires_denoising_strength": 0.7}
    expect(page.locator("#sweep")).to_be_visible(timeout=DRAWN_MS)
    page.click("#png-info summary")
    for hires, scale, upscaler in (
        (", Denoising strength: 0.5, Hires upscale: 2, Hires upscaler: 4x-Sharp", "2", "4x-Sharp"),
        ("", "", "Latent"),
    ):
        page.fill("#settings", GUIDE + hires)
        page.click("#read-settings")
        expect(page.locator("#hires_scale")).to_have_value(scale)
        expect(page.locator("#hires_upscaler")).to_have_value(upscaler)
