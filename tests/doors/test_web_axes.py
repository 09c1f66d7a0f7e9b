"""What a sweep varies, on the form: axes that the server reads, and SDXL's two encoders, each with its Clip Skip."""

from playwright.sync_api import Page, expect
from web_page import DRAWN_MS, check, fill, needs_browser


@needs_browser
def test_sdxl_has_two_sliders_linked_at_first_and_other_models_have_none(page: Page) -> None:
    expect(page.locator("#encoders")).to_be_hidden()
    page.fill("#model", "pony")
    page.locator("#model-list [role=option]").first.wait_for()
    page.press("#model", "Enter")
    expect(page.locator("#encoders")).to_be_visible()
    page.fill("#skip-l", "4")
    assert page.input_value("#skip-g") == "4"
    page.fill("#skip-g", "30")
    assert (page.input_value("#skip-l"), page.input_value("#skip-g")) == ("12", "12"), "linked, no deeper than CLIP-L"
    page.click("#link-skips")
    page.fill("#skip-l", "2")
    page.fill("#skip-g", "5")
    assert (page.input_value("#skip-l"), page.input_value("#skip-g")) == ("2", "5")
    check(page)
    fill(page, steps=1, skips="2", lora=None, prompt="a red frog")
    page.click("#add-skip")
    expect(page.locator("#clip_skips")).to_have_value("2,2/5")
    expect(page.locator("#start")).to_have_text("Sweep: 2 pictures")
    page.click("#link-skips")
    assert page.input_value("#skip-g") == "2"
    page.fill("#width", "64")
    page.click("#start")
    expect(page.locator(".cell.finished")).to_have_count(2, timeout=DRAWN_MS)
    expect(page.locator("#grid thead th")).to_have_text(["Clip Skip 2", "Clip Skip 2/5"])


@needs_browser
def test_axes_are_read_by_the_server_as_they_are_typed_and_drawn(page: Page) -> None:
    fill(page, steps=1, skips="1,2", lora="gnome", prompt="swamp, axes")
    page.click("#add-axis")
    page.get_by_label("Values of Seed").fill("5-7")
    expect(page.locator("#axes .about")).to_have_text("3 values: 5, 6, 7")
    expect(page.locator("#start")).to_have_text("Sweep: 12 pictures")
    page.click("#add-axis")
    page.get_by_label("What is varied").nth(1).select_option("lora-weight")
    page.get_by_label("Values of LoRA weight").fill("half")
    expect(page.locator("#axes-error")).to_contain_text("'half' is not a number or a range")
    page.click("#start")
    expect(page.locator("#axes-error")).to_contain_text("'half'")
    expect(page.locator("#sweep")).to_be_hidden()
    page.get_by_label("Values of LoRA weight").fill("0.5..1.0 (+0.5)")
    expect(page.locator("#start")).to_have_text("Sweep: 18 pictures")
    page.get_by_label("What is varied").nth(1).select_option("model")
    page.get_by_label("Values of Checkpoint").fill("starter||pony")
    expect(page.locator("#axes-doubt")).to_contain_text("Left out: pony, with LoRA: ", timeout=DRAWN_MS)
    page.get_by_label("What is varied").nth(1).select_option("lora-weight")
    page.get_by_label("What is varied").nth(1).select_option("cfg")
    page.get_by_label("Values of CFG scale").fill("0.5..2")
    expect(page.locator("#axes-error")).to_contain_text("0.5 is out of range; use 1 to 30")
    expect(page.locator("#cfg_scale-error")).to_be_empty()
    page.get_by_label("What is varied").nth(1).select_option("negative-clip-skip")
    page.get_by_label("Values of Negative Clip Skip").fill("1-11 (+5)")
    expect(page.locator("#axes .about").nth(1)).to_have_text("3 values: 1, 6, 11")
    page.get_by_label("What is varied").nth(1).select_option("lora-weight")
    page.get_by_label("Values of LoRA weight").fill("0.5..1.0 (+0.5)")
    expect(page.locator("#axes-doubt")).to_be_hidden(timeout=DRAWN_MS)
    expect(page.locator("#start")).to_have_text("Sweep: 18 pictures")
    check(page)
    page.reload()
    page.wait_for_selector("#ready", state="attached")
    expect(page.get_by_label("Values of Seed")).to_have_value("5-7")
    expect(page.locator("#start")).to_have_text("Sweep: 18 pictures")
    page.click("#start")
    expect(page.locator("#progress")).to_be_hidden(timeout=DRAWN_MS)
    expect(page.locator("#grid tbody th")).to_have_text(["without LoRA", "LoRA 0.5", "LoRA 1"])
    expect(page.locator(".cell").first.locator("img")).to_have_count(3)
    check(page)
