"""The page over large collections: it works before they are read, and finds one of thousands at each key."""

import json
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect
from web_page import DRAWN_MS, add_lora, check, fill, needs_browser

SEARCH_MS = 100
"""What a key may take, half of it for a busy machine, with 5,000 files."""


def lora(name: str, **facts: Any) -> dict[str, Any]:
    """A LoRA as `GET /v1/files` lists it."""
    empty = {
        "file": f"{name}.safetensors", "size_bytes": 9_437_712, "family": "SD 1.x", "width": 768, "trained_clip_skip": 2,
        "trained_clip_skip_source": None, "preview": None, "title": None, "made_for": None, "advised_weight": None,
        "advised_clip_skip": None, "hash": None, "alias": None, "rank": 8, "trigger_words": [], "tag_counts": {},
        "touches": {"text_encoder": True, "unet": True, "text_layers": [1]}, "warnings": [],
    }  # fmt: skip
    return {"name": name} | empty | facts


def answer(page: Page, lists: dict[str, Any]) -> None:
    """Lets the page have these lists."""

    def fulfil(route: Route) -> None:
        route.fulfill(status=200, content_type="application/json", body=json.dumps({"upscalers": []} | lists))

    page.route("**/v1/files", fulfil)


@needs_browser
def test_the_page_draws_while_the_files_are_still_read(page: Page) -> None:
    model = lora("starter", layers=12, width=256)
    lists = {"models": [], "loras": [], "embeddings": [], "reading": {"done": 40, "total": 5000}}
    answer(page, lists)
    page.reload()
    page.wait_for_selector("#ready", state="attached")
    expect(page.locator("#model-about")).to_contain_text("Reading model files: 40 of 5000")
    fill(page, steps=1, skips="1", lora=None, prompt="swamp")
    lists |= {"models": [model], "loras": [lora("gnome", advised_weight=0.7, advised_clip_skip=2)], "reading": None}
    expect(page.locator("#model")).to_have_value("starter")
    expect(page.locator("#model-about")).to_contain_text("12 layers")
    assert page.input_value("#prompt") == "swamp" and page.input_value("#steps") == "1"
    page.fill("#add-lora", "gnome")
    expect(page.locator("#add-lora-list [role=option]")).to_contain_text("weight 0.7 advised · Clip Skip 2 advised")
    add_lora(page, "gnome")
    assert page.get_by_label("LoRA gnome: weight").input_value() == "0.7"
    expect(page.locator(".chosen .warning")).to_contain_text("for a text encoder of 768, not 256")


@needs_browser
def test_what_is_typed_before_the_page_is_ready_stays_and_empties_nothing_else(page: Page) -> None:
    page.fill("#prompt", "kept from before")
    page.fill("#steps", "33")
    held: list[Route] = []
    page.route("**/v1/samplers", lambda route: held.append(route))  # playwright marks the function
    page.reload(wait_until="load")
    page.fill("#prompt", "typed early")
    for _ in range(100):
        if held:
            break
        page.wait_for_timeout(20)
    held[0].continue_()
    page.wait_for_selector("#ready", state="attached")
    for _ in range(2):
        values = [
            page.input_value(f"#{name}") for name in ("prompt", "steps", "cfg_scale", "seed", "clip_skips", "sampler")
        ]
        assert values == ["typed early", "33", "7", "-1", "1-5", "Euler a"]
        page.unroute("**/v1/samplers")
        page.reload()
        page.wait_for_selector("#ready", state="attached")


@needs_browser
def test_one_of_five_thousand_loras_is_found_at_each_key(page: Page) -> None:
    tags = {f"tag{number}": 5 for number in range(20)}
    many = [lora(f"lora{number:04d}", tag_counts=tags, trigger_words=[f"word{number}"]) for number in range(5000)]
    answer(page, {"models": [lora("starter", layers=12)], "loras": many, "embeddings": [], "reading": None})
    page.reload()
    page.wait_for_selector("#ready", state="attached")
    page.click("#add-lora")
    page.locator("#add-lora-list [role=option]").nth(49).wait_for()
    expect(page.locator("#add-lora-list .more")).to_contain_text("4950 more")
    spent = page.evaluate("""async () => {
        const field = document.getElementById("add-lora"), spent = [];
        for (const text of ["w", "wo", "wor", "word", "word4", "word42", "word424", "word4242"]) {
            const begun = performance.now();
            field.value = text;
            field.dispatchEvent(new Event("input", { bubbles: true }));
            document.getElementById("add-lora-list").getBoundingClientRect();
            spent.push(performance.now() - begun);
        }
        return spent;
    }""")
    assert max(spent) < SEARCH_MS, spent
    expect(page.locator("#add-lora-list [role=option] .name")).to_have_text(["lora4242"])
    check(page)
    page.press("#add-lora", "Escape")
    expect(page.locator("#add-lora-list")).to_be_hidden()


@needs_browser
@pytest.mark.slow
def test_a_list_of_files_comes_from_the_server_and_stays_quick(page: Page) -> None:
    page.locator("nav a", has_text="Models").click()
    expect(page.locator(".card h3")).to_have_text(["pony", "starter", "blueprint", "gnome", "ogre"], timeout=DRAWN_MS)
