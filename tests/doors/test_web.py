"""The page in a real browser, against the real server and the embedded model."""

import json
import re
import time
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from playwright.sync_api import Page, expect
from spec.test_workflows import page as saved_page
from web_page import DRAWN_MS, PROMPT, check, clipboard, draw, fill, needs_browser, shown

WEB = Path(__file__).parents[2] / "src" / "clipskip" / "doors" / "web"
VIEWER = WEB.parents[1] / "image" / "viewer"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


@needs_browser
def test_a_sweep_is_drawn_scrubbed_flipped_compared_copied_and_found_again(page: Page) -> None:
    draw(page)
    expect(page.locator(".cell.finished")).to_have_count(4)
    assert page.get_attribute("#skip", "max") == "1"

    page.locator("#skip").focus()
    page.keyboard.press("End")
    assert page.inner_text("#shown-name").startswith("Clip Skip 2, ")
    page.keyboard.press("Home")
    first = shown(page)
    page.keyboard.press("ArrowRight")
    assert shown(page) != first and "layer 11 of 12" in page.inner_text("#mini")

    page.locator("#rows label", has_text="without LoRA").click()
    without = shown(page)
    page.locator("#rows label", has_text="gnome").click()
    assert shown(page) != without and page.inner_text("#shown-name") == "Clip Skip 2, gnome"

    page.click("#hold")
    page.locator("#rows label", has_text="without LoRA").click()
    expect(page.locator(".pane.held")).to_be_visible()
    page.click("#zoom-in")
    transforms = page.eval_on_selector_all(".pane:not([hidden]) .inner", "all => all.map(one => one.style.transform)")
    assert len(transforms) == 2 and len(set(transforms)) == 1 and "scale(1.5)" in transforms[0]
    page.locator("#compare label", has_text="Difference").click()
    expect(page.locator("#difference")).to_contain_text("Mean difference")
    check(page)
    page.click("#hold")

    page.locator("#rows label", has_text="gnome").click()
    page.click("#copy")
    settings = clipboard(page)
    assert settings.startswith(PROMPT) and "Clip skip: 2" in settings and "<lora:gnome:1>" in settings
    page.click("#dialects summary")
    comfy = page.locator("#tools li", has_text="ComfyUI")
    expect(comfy.locator("code")).to_have_text("-2")
    comfy.get_by_role("button").click()
    expect(comfy.get_by_role("button")).to_have_text("Copied")
    assert clipboard(page).startswith("ComfyUI: Clip Skip -2 (") and clipboard(page).endswith(settings)
    check(page)

    page.click("#forms summary")
    with page.expect_download() as saved:
        page.locator("#form-list a", has_text="workflow.json").click()
    graph = json.loads(Path(saved.value.path()).read_text())
    assert {"class_type": "CLIPSetLastLayer", "inputs": {"clip": ["2", 1], "stop_at_clip_layer": -2}} in graph.values()
    page.get_by_role("button", name="Copy the draw.py for diffusers").click()
    assert "StableDiffusionPipeline" in clipboard(page)
    page.click("#arrange summary")
    with page.expect_download() as saved:
        page.click("#save-animation")
    with Image.open(saved.value.path()) as animated:
        assert (animated.format, getattr(animated, "n_frames", 1)) == ("WEBP", 2)
    check(page)

    page.goto(page.url.split("#")[0] + "#/history")
    page.reload()
    page.locator("#past a", has_text=PROMPT).first.click()
    expect(page.locator(".cell.finished")).to_have_count(4)
    assert page.input_value("#prompt") == PROMPT, "the draft outlives the page"


@needs_browser
@pytest.mark.slow
def test_a_finished_sweep_is_advised_on_and_each_claim_opens_its_measurement(page: Page) -> None:
    draw(page, prompt="best quality, swamp, gnome")
    page.click("#find-advice")
    expect(page.locator("#stop-advice")).to_be_visible()
    page.click("#stop-advice")
    expect(page.locator("#find-advice")).to_be_visible()
    page.click("#find-advice")
    expect(page.locator("#status-link")).to_have_text("measuring", timeout=DRAWN_MS)
    page.reload()
    expect(page.locator(".said")).to_contain_text("Clip Skip 2", timeout=DRAWN_MS)
    page.get_by_role("button", name="Show Clip Skip 2", exact=True).click()
    assert page.inner_text("#shown-name").startswith("Clip Skip 2")
    expect(page.locator("#curve svg")).to_be_visible()
    for title in ("Why, with", "What the files say", "Is it broken?", "Is gnome ignored?", "Is each phrase followed?"):
        page.locator("summary", has_text=title).click()
    expect(page.locator(".numbers").filter(has_text="conditioning moved")).to_be_visible()
    expect(page.get_by_role("meter", name="Largest reaction to swamp")).to_be_visible()
    expect(page.locator(".evidence")).to_contain_text("modelspec.encoder_layer")
    expect(page.locator(".numbers").filter(has_text="by the UNet")).to_be_visible()
    page.locator("summary", has_text="What each layer makes of the prompt").click()
    context = page.locator(".shaded").filter(has_text="What the other words do")
    expect(context).to_be_visible(timeout=DRAWN_MS)
    assert context.locator("tbody tr", has_text="from swamp").count()
    assert all(row.locator("td").count() == 12 for row in context.locator("tbody tr").all())
    page.locator("summary", has_text="Nearest words").click()
    expect(page.get_by_role("group", name="Nearest words")).to_contain_text("swamp")
    check(page)


@needs_browser
@pytest.mark.slow
def test_a_sweep_is_drawn_scrubbed_and_compared_with_the_keyboard_alone(page: Page) -> None:
    press = page.keyboard.press
    fill(page, steps=1, lora=None, prompt="swamp, gnome")
    page.focus("#prompt")
    _tab_to(page, "add-lora")
    press("ArrowDown")
    page.locator("#add-lora-list [aria-selected=true]", has_text="blueprint").wait_for()
    press("ArrowDown")
    expect(page.locator("#loras")).to_be_empty()
    press("Enter")
    expect(page.locator("#loras strong")).to_have_text(["gnome"])
    press("Control+Enter")
    expect(page.locator(".cell.finished")).to_have_count(4, timeout=DRAWN_MS)
    _tab_to(page, "skip")
    press("Home")
    press("ArrowRight")
    assert page.inner_text("#shown-name") == "Clip Skip 2, without LoRA"
    press("Tab")
    press("ArrowDown")
    assert page.inner_text("#shown-name") == "Clip Skip 2, gnome"
    press("h")
    press("ArrowUp")
    press("d")
    expect(page.locator("#difference")).to_contain_text("Mean difference")


def _tab_to(page: Page, name: str) -> None:
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == name:
            return
    raise AssertionError(f"Tab does not reach {name}")


@needs_browser
@pytest.mark.slow
def test_cancel_works_at_once_and_going_on_draws_the_rest(page: Page) -> None:
    fill(page, skips="1-4", steps=40, lora=None, prompt="night sky, moon")
    page.click("#start")
    page.locator(".cell.drawing").first.wait_for(timeout=DRAWN_MS)
    begun = time.monotonic()
    page.click("#cancel")
    expect(page.locator("#progress-text")).to_contain_text("Cancelled")
    assert time.monotonic() - begun < 5, "measured 0.2 s; the rest is for a busy machine"
    expect(page.locator("#cancel")).to_be_hidden()
    page.click("#resume")
    expect(page.locator("#cancel")).to_be_visible()
    page.click("#cancel")
    expect(page.locator("#progress-text")).to_contain_text("Cancelled")


@needs_browser
def test_a_refusal_is_shown_at_its_field(page: Page) -> None:
    fill(page, steps=151)
    page.click("#start")
    expect(page.locator("#steps-error")).to_contain_text("150")
    expect(page.locator("#steps")).to_be_focused()
    assert page.get_attribute("#steps", "aria-invalid") == "true"
    page.fill("#steps", "2")
    page.fill("#clip_skips", "13")
    page.click("#start")
    expect(page.locator("#clip_skips-error")).to_contain_text("12")
    expect(page.locator("#steps-error")).to_be_empty()


@needs_browser
@pytest.mark.slow
def test_a_lora_that_is_not_that_of_the_settings_is_said_where_it_is_chosen_and_asked_about(page: Page) -> None:
    page.click("#png-info summary")
    page.fill("#settings", 'swamp <lora:gnome:1>\nSteps: 1, Seed: 9, Clip skip: 2, Lora hashes: "gnome: 0123456789ab"')
    page.click("#read-settings")
    expect(page.locator("#loras-doubt")).to_contain_text("Gnome is another file")
    page.click("#start")
    expect(page.locator("#ask")).to_contain_text("Gnome is another file")
    check(page)
    page.click("#ask-no")
    expect(page.locator("#ask")).to_be_hidden()
    expect(page.locator("#sweep")).to_be_hidden()
    expect(page.locator("#loras-doubt")).to_contain_text("Gnome is another file")
    page.click("#start")
    page.click("#ask-yes")
    expect(page.locator(".cell.finished").first).to_be_visible(timeout=DRAWN_MS)


@needs_browser
@pytest.mark.slow
def test_settings_fill_the_form_and_can_be_taken_back(page: Page) -> None:
    fill(page, lora=None)
    page.click("#png-info summary")
    page.fill(
        "#settings",
        "a red frog, swamp\nNegative prompt: blurry\nSteps: 12, Sampler: Euler, CFG scale: 5, Seed: 9, Clip skip: 3, Tiling: True",
    )
    page.click("#read-settings")
    expect(page.locator("#notice-text")).to_contain_text("Tiling")
    assert [page.input_value(f"#{name}") for name in ("prompt", "negative_prompt", "steps", "sampler", "seed")] == [
        "a red frog, swamp", "blurry", "12", "Euler", "9",
    ]  # fmt: skip
    page.click("#notice-action")
    assert page.input_value("#prompt") == PROMPT


@needs_browser
@pytest.mark.slow
def test_a_lora_that_is_dropped_is_added_and_one_that_no_folder_has_is_said(page: Page) -> None:
    for name in ("gnome", "stranger"):
        page.evaluate(
            """(name) => {
                const dropped = new DataTransfer();
                dropped.items.add(new File(["x"], name));
                document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: dropped, bubbles: true }));
            }""",
            f"{name}.safetensors",
        )
        expect(page.locator("#notice-text")).to_contain_text(name)
    expect(page.locator("#notice-text")).to_contain_text("is not in the model folders")
    expect(page.locator(".chosen strong")).to_have_text(["gnome"])


@needs_browser
@pytest.mark.slow
def test_a_workflow_of_comfyui_that_is_dropped_fills_the_form(page: Page) -> None:
    workflow = saved_page()
    workflow["nodes"][1]["mode"] = 4  # without its LoRA, which is not here
    page.evaluate(
        """(text) => {
            const dropped = new DataTransfer();
            dropped.items.add(new File([text], "workflow.json", { type: "application/json" }));
            document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: dropped, bubbles: true }));
        }""",
        json.dumps(workflow),
    )
    expect(page.locator("#prompt")).to_have_value("a fox")
    expect(page.locator("#negative_prompt")).to_have_value("blurry")
    expect(page.locator("#seed")).to_have_value("5")


@needs_browser
@pytest.mark.slow
def test_the_chooser_has_a_button_for_each_layer_of_the_model(page: Page) -> None:
    buttons = page.locator("#chooser button")
    expect(buttons).to_have_count(12)
    page.fill("#clip_skips", "1-3")
    buttons.nth(4).click()
    expect(page.locator("#clip_skips")).to_have_value("1-3,5")
    expect(page.locator("#start")).to_have_text("Sweep: 4 pictures")
    page.fill("#clip_skips", "1-11 (+2)")
    expect(page.locator("#start")).to_have_text("Sweep: 6 pictures")
    expect(page.locator("#chooser [aria-pressed=true]")).to_have_text(["1", "3", "5", "7", "9", "11"])
    page.fill("#clip_skips", "1-5 [3]")
    expect(page.locator("#start")).to_have_text("Sweep: 3 pictures")


@needs_browser
@pytest.mark.slow
def test_a_prompt_is_read_while_it_is_typed(page: Page) -> None:
    page.fill("#prompt", "(swamp:1.2), fireflies <lora:gnome:x>")
    expect(page.locator("#prompt-count")).to_have_text(re.compile(r"^\d+/75$"))
    expect(page.locator("#prompt-reading .error")).to_contain_text("lora:gnome:x")
    page.fill("#prompt", "(swamp:1.2), fireflies <lora:nobody:1>")
    expect(page.locator("#prompt-reading .error")).to_have_text(["LoRA nobody is not in the folders."])
    page.click("#prompt-reading summary")
    expect(page.locator("#prompt-reading .token.up")).to_have_text(["swamp×1.2"])


@needs_browser
@pytest.mark.slow
def test_models_and_loras_are_searched_and_taken_from_the_list(page: Page) -> None:
    page.locator("nav a", has_text="Models").click()
    expect(page.locator(".card", has_text="starter")).to_contain_text("Clip Skip 2")
    page.fill("#search", "gnome")
    expect(page.locator(".card h3")).to_have_text(["gnome"])
    page.get_by_role("button", name="Add gnome to the prompt").click()
    assert "gnome" in page.input_value("#prompt")
    page.locator(".card summary").click()
    expect(page.locator(".card dl").first).to_contain_text("SD 1.x")
    page.get_by_role("button", name="Add LoRA gnome").click()
    expect(page.locator(".chosen strong")).to_have_text(["gnome"])


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("page", [(1440, "light"), (390, "dark")], indirect=True, ids=["wide light", "narrow dark"])
def test_every_control_has_a_name_every_text_is_legible_and_nothing_is_cut_off(page: Page) -> None:
    page.fill("#prompt", PROMPT)
    page.click("#png-info summary")
    check(page)
    page.locator("nav a", has_text="Models").click()
    page.locator(".card").first.wait_for()
    check(page)
    page.locator("nav a", has_text="History").click()
    check(page)
    if page.locator("#past a").count():
        page.locator("#past a").first.click()
        page.locator(".cell").first.wait_for()
        check(page)


@needs_browser
@pytest.mark.slow
def test_the_keyboard_reaches_everything_sees_where_it_is_and_is_trapped_nowhere(page: Page) -> None:
    page.evaluate("document.activeElement.blur()")
    stops: list[str] = []
    for _ in range(80):
        page.keyboard.press("Tab")
        at = page.evaluate("""() => {
            const at = document.activeElement, drawn = getComputedStyle(at);
            return at === document.body ? null : [at.id || at.textContent.trim(), drawn.outlineStyle !== "none"];
        }""")
        if at is None:
            break
        assert at[1], f"focus is not visible on {at[0]}"
        stops.append(at[0])
    assert at is None, "Tab never leaves the page"
    for name in ("prompt", "add-lora", "clip_skips", "sampler", "seed", "start"):
        assert name in stops


def test_the_page_is_served_with_a_policy_that_lets_nothing_else_in(client: TestClient) -> None:
    assert client.get("/").headers["Content-Security-Policy"] == POLICY


def test_no_markup_is_made_of_data_and_nothing_is_asked_of_another_host() -> None:
    for path in (*sorted(WEB.iterdir()), *sorted(VIEWER.glob("*.js"))):
        text = path.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            path.name
        )
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), path.name
        if path.suffix == ".html":
            assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", text)
            assert text.count(' class="primary"') == text.count("<form"), "one clear primary button of each form"
