"""The viewer, on the page of a server and in the one file that a sweep leaves: the same keys do the same."""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from web_page import draw, needs_browser, shown, violations

from clipskip.image import PageCell, write_page

COLUMNS, ROWS = ["Clip Skip 1", "Clip Skip 2", "Clip Skip 3"], ["without LoRA", "gnome"]

PLACES = [(r, c) for r in range(2) for c in range(3)]


def png(row: int, column: int) -> bytes:
    """A picture of one grey that its place says, 64 by 48."""
    stored = io.BytesIO()
    Image.fromarray(np.full((48, 64, 3), 40 * (3 * row + column), np.uint8)).save(stored, "PNG")
    return stored.getvalue()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A sweep's own page, of 2 rows and 3 columns."""
    for r, c in PLACES:
        (tmp_path / f"{r}-{c}.png").write_bytes(png(r, c))
    cells = [
        [
            PageCell(path=tmp_path / f"{r}-{c}.png", settings=f"swamp\nSteps: 2, Size: 64x48, Clip skip: {c + 1}")
            for c in range(3)
        ]
        for r in range(2)
    ]
    path = tmp_path / "index.html"
    path.write_text(write_page(cells, columns=COLUMNS, rows=ROWS, prompt="swamp", name="abc", depth=12))
    return path


@pytest.fixture
def own(browser: Browser, file: Path) -> Iterator[Page]:
    """The file opened from disk; it asks nothing and its console says nothing."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, accept_downloads=True)
    context.set_default_timeout(20_000)
    tab, said, asked = context.new_page(), list[str](), list[str]()
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(file.as_uri())
    yield tab
    context.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [file.as_uri()]


def pixel(page: Page) -> int:
    """The grey of the picture that is shown."""
    return int(
        page.evaluate("""() => {
        const image = document.querySelector(".pane.shown img"), canvas = document.createElement("canvas");
        canvas.width = canvas.height = 1;
        const brush = canvas.getContext("2d");
        brush.drawImage(image, 0, 0, 1, 1);
        return brush.getImageData(0, 0, 1, 1).data[0];
    }""")
    )


@needs_browser
def test_the_file_is_scrubbed_flipped_wiped_and_measured_by_the_keys_of_the_page(own: Page) -> None:
    press = own.keyboard.press
    expect(own.locator("#shown-name")).to_have_text("Clip Skip 1, gnome")
    assert pixel(own) == 120
    press("ArrowRight")
    press("ArrowUp")
    assert (own.inner_text("#shown-name"), pixel(own)) == ("Clip Skip 2, without LoRA", 40)
    press("h")
    press("ArrowRight")
    expect(own.locator(".pane.held figcaption")).to_have_text("Clip Skip 2, without LoRA")
    press("Space")
    expect(own.locator(".pane.held")).to_be_hidden()
    assert (own.inner_text("#shown-name"), pixel(own)) == ("Clip Skip 2, without LoRA", 40)
    press("Space")
    assert (own.inner_text("#shown-name"), pixel(own)) == ("Clip Skip 3, without LoRA", 80)
    press("w")
    own.fill("#wipe", "25")
    assert (
        own.evaluate("getComputedStyle(document.querySelector('.pane.shown .over')).clipPath")
        == "inset(0px 75% 0px 0px)"
    )
    own.evaluate("document.activeElement.blur()")
    press("d")
    expect(own.locator("#difference")).to_contain_text("Mean difference")


@needs_browser
def test_after_a_click_the_keys_are_the_viewers_again_and_stay_where_the_keyboard_put_them(own: Page) -> None:
    press = own.keyboard.press
    own.click("#hold")
    expect(own.locator("#main")).to_be_focused()
    press("ArrowRight")
    press("Space")
    expect(own.locator("#hold")).to_have_text("Put away")
    assert own.inner_text("#shown-name") == "Clip Skip 1, gnome", "Space flips to the held picture"
    press("Space")
    own.locator("#rows label", has_text="without LoRA").click()
    expect(own.locator("#main")).to_be_focused()
    press("ArrowRight")
    assert own.inner_text("#shown-name") == "Clip Skip 3, without LoRA"
    box = own.locator("#skip").bounding_box()
    assert box
    own.mouse.click(box["x"] + 2, box["y"] + box["height"] / 2)
    expect(own.locator("#main")).to_be_focused()
    press("ArrowDown")
    assert own.inner_text("#shown-name") == "Clip Skip 1, gnome"
    own.focus("#star")
    press("Enter")
    expect(own.locator("#star")).to_be_focused()
    press("f")
    press("ArrowRight")
    press("d")
    expect(own.locator("#full-name")).to_contain_text("Difference: Clip Skip 1, gnome and Clip Skip 2, gnome")
    press("w")
    expect(own.locator("#full-name")).to_have_text("Clip Skip 1, gnome | Clip Skip 2, gnome")
    press("f")


@needs_browser
def test_axes_are_swapped_values_hidden_and_only_the_starred_kept(own: Page) -> None:
    heads = own.locator("#grid thead th")
    own.keyboard.press("s")
    expect(own.locator("#star")).to_have_attribute("aria-pressed", "true")
    own.click("#arrange summary")
    own.click("#swap")
    expect(heads).to_have_text(ROWS)
    own.evaluate("document.activeElement.blur()")
    own.keyboard.press("ArrowDown")
    assert own.inner_text("#shown-name") == "Clip Skip 2, gnome"
    own.click("#swap")
    own.locator("#values label", has_text="Clip Skip 2").click()
    expect(own.locator(".cell")).to_have_count(4)
    own.evaluate("document.activeElement.blur()")
    own.locator(".cell").first.click()
    own.keyboard.press("ArrowRight")
    assert own.inner_text("#shown-name") == "Clip Skip 3, without LoRA", "what is hidden is passed over"
    own.click("#only-starred")
    expect(own.locator(".cell")).to_have_count(1)
    expect(own.locator(".cell")).to_have_attribute("aria-label", "Show Clip Skip 1, gnome, starred")


@needs_browser
def test_the_picture_fills_the_screen_and_plays_through_the_clip_skips(own: Page) -> None:
    own.keyboard.press("f")
    expect(own.locator("#panel")).to_be_hidden()
    box = own.locator(".pane.shown .view").bounding_box()
    assert box and box["height"] >= 890, box
    own.keyboard.press("ArrowRight")
    expect(own.locator("#full-name")).to_have_text("Clip Skip 2, gnome")
    own.keyboard.press("f")
    own.click("#play")
    expect(own.locator("#shown-name")).to_have_text("Clip Skip 3, gnome")
    expect(own.locator("#shown-name")).to_have_text("Clip Skip 1, gnome")
    own.click("#play")
    expect(own.locator("#play")).to_have_attribute("aria-pressed", "false")


@needs_browser
def test_the_grid_and_the_zip_hold_what_is_seen(own: Page, tmp_path: Path) -> None:
    own.click("#arrange summary")
    own.locator("#values label", has_text="Clip Skip 2").click()
    with own.expect_download() as saved:
        own.click("#save-zip")
    saved.value.save_as(tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert names == [f"row{r}-clipskip{c}.{end}" for r in (0, 1) for c in (1, 3) for end in ("png", "txt")]
        assert archive.read("row1-clipskip3.png") == png(1, 2)
        assert archive.read("row0-clipskip3.txt").decode().endswith("Clip skip: 3")
    own.evaluate("""() => {
        window.written = [];
        CanvasRenderingContext2D.prototype.fillText = (text) => window.written.push(text);
    }""")
    for button, kind in (("#save-png", "PNG"), ("#save-webp", "WEBP")):
        with own.expect_download() as saved:
            own.click(button)
        saved.value.save_as(tmp_path / "grid")
        with Image.open(tmp_path / "grid") as grid:
            assert grid.format == kind and grid.height == 32 + 2 * 56
            assert abs(int(np.asarray(grid.convert("L"))[32 + 56 + 20, grid.width - 30]) - 200) <= 2
    assert own.evaluate("window.written") == ["Clip Skip 1", "Clip Skip 3", *ROWS] * 2


@needs_browser
def test_the_row_that_is_seen_is_saved_as_an_animation_pixel_by_pixel(own: Page) -> None:
    own.click("#arrange summary")
    own.locator("#values label", has_text="Clip Skip 2").click()
    with own.expect_download() as saved:
        own.click("#save-animation")
    with Image.open(saved.value.path()) as animated:
        assert (animated.format, animated.size, getattr(animated, "n_frames", 1)) == ("WEBP", (64, 48), 2)
        for frame, place in enumerate([(1, 0), (1, 2)]):
            animated.seek(frame)
            animated.load()
            assert animated.info["duration"] == 700
            np.testing.assert_array_equal(np.asarray(animated.convert("RGB")), 40 * (3 * place[0] + place[1]))


@needs_browser
def test_a_sweeps_own_page_names_its_model_seed_and_date(browser: Browser, file: Path) -> None:
    cells = [[PageCell(path=file.parent / f"{r}-{c}.png", settings=f"row {r}") for c in range(3)] for r in range(2)]
    more = {"model": {"name": "starter", "depth": 12}, "seed": 5, "created": "2026-11-29T12:20:00.000+00:00"}
    file.write_text(write_page(cells, columns=COLUMNS, rows=ROWS, prompt="swamp", more=more))
    tab = browser.new_page()
    tab.goto(file.as_uri())
    expect(tab.locator("#sweep-about")).to_have_text(re.compile(r"^starter · seed 5 · Nov 29, 2026"))
    tab.close()


@needs_browser
def test_a_page_that_names_files_beside_it_saves_them_once_its_folder_is_chosen(
    browser: Browser, file: Path, tmp_path: Path
) -> None:
    cells = [[PageCell(path=file.parent / f"{r}-{c}.png", settings=f"row {r}") for c in range(3)] for r in range(2)]
    file.write_text(write_page(cells, columns=COLUMNS, rows=ROWS, prompt="swamp", linked=True))
    context = browser.new_context(viewport={"width": 1440, "height": 900}, accept_downloads=True)
    context.set_default_timeout(20_000)
    tab = context.new_page()
    tab.goto(file.as_uri())
    tab.click("#arrange summary")
    tab.click("#save-zip")
    expect(tab.locator("#save-error")).to_contain_text("choose the folder that it lies in")
    assert violations(tab) == []
    with tab.expect_download() as saved:
        tab.set_input_files("#folder", file.parent)
    with zipfile.ZipFile(saved.value.path()) as archive:
        assert archive.read("row1-clipskip3.png") == png(1, 2) and len(archive.namelist()) == 12
    with tab.expect_download() as saved:
        tab.click("#save-png")
    with Image.open(saved.value.path()) as grid:
        assert abs(int(np.asarray(grid.convert("L"))[32 + 56 + 20, grid.width - 30]) - 200) <= 2
    context.close()


@needs_browser
def test_sheets_are_paged_before_they_are_too_large(page: Page) -> None:
    found = page.evaluate("""async () => {
        const { sheetSize } = await import("/web/export.js");
        const sizes = { cellWidth: 512, cellHeight: 768, left: 200, top: 32 };
        return [[5, 2], [60, 4], [12, 500]].map(([columns, rows]) => sheetSize({ ...sizes, columns, rows }));
    }""")
    for size, (columns, rows) in zip(found, [(5, 2), (60, 4), (12, 500)], strict=True):
        width, height = 200 + size["across"] * 520, 32 + size["down"] * 776
        assert width * height <= 200_000_000 and max(width, height) <= 16_000, size
        assert size["across"] <= columns and size["down"] <= rows
    assert found[0] == {"across": 5, "down": 2}


@needs_browser
@pytest.mark.parametrize("page", [(390, "dark"), (1440, "light"), (2560, "dark")], indirect=True)
def test_the_picture_takes_the_room_that_the_window_has(page: Page) -> None:
    draw(page, steps=1, prompt="swamp, room")
    box, width = page.locator(".pane.shown .view").bounding_box(), page.viewport_size["width"]  # type: ignore[index]  # it is set
    assert box
    share = {390: box["width"] / 390, 1440: box["height"] / 900, 2560: box["height"] / 900}[width]
    assert share > {390: 0.9, 1440: 0.55, 2560: 0.8}[width], (box, share)
    if width == 390:
        page.reload()
        page.wait_for_selector("#ready", state="attached")
        page.locator(".cell").first.wait_for()
        box = page.locator(".pane.shown .view").bounding_box()
        assert box and box["y"] < 300, "pictures come first"
    assert shown(page)


@needs_browser
def test_thumbnails_of_twelve_columns_are_not_stamps(page: Page) -> None:
    draw(page, steps=1, skips="1-12", lora=None, prompt="swamp, twelve")
    box = page.locator(".cell").first.bounding_box()
    assert box and box["width"] >= 64, box


def test_the_data_of_a_page_is_the_data_of_the_api(file: Path) -> None:
    found = re.search(r'id="data">(.*?)</script>', file.read_text(), re.S)
    assert found and {"id", "prompt", "columns", "rows", "cells", "model"} <= json.loads(found[1]).keys()


SEEDS, WEIGHTS = (5, 6, 7), (0.5, 1.0)


def varied(folder: Path) -> Path:
    """A sweep's own page of Clip Skip 1 to 3, a LoRA off and at two weights, three seeds and two CFG scales, with scores."""
    rows = [
        {"name": f"seed {seed}", "loras": [lora] if weight else [], "values": values}
        for weight in (None, *WEIGHTS)
        for seed in SEEDS
        for cfg in (3, 7)
        for lora in [{"name": "gnome", "text_encoder": weight, "unet": weight, "hash": ""}]
        for values in [{"seed": seed, "cfg": cfg} | ({"lora-weight": weight} if weight else {})]
    ]
    cells = []
    for r, row in enumerate(rows):
        cells.append([])
        for c in range(3):
            (folder / f"{r}-{c}.png").write_bytes(png(r % 2, c))
            scores = {"guidance_kept": (3 - c) / 3 + row["values"]["seed"] / 100}
            cells[-1].append(
                PageCell(path=folder / f"{r}-{c}.png", settings=f"swamp\nSize: 64x48, Clip skip: {c + 1}, row {r}",
                     id=f"{r:06d}{c:06d}", scores=scores)
            )  # fmt: skip
    axes = [
        {"name": "lora-weight", "label": "LoRA", "values": list(WEIGHTS)},
        {"name": "seed", "label": "seed", "values": list(SEEDS)},
        {"name": "cfg", "label": "CFG", "values": [3, 7]},
    ]
    measure = {
        "name": "guidance_kept",
        "label": "guidance kept",
        "unit": "share",
        "higher_is_better": True,
        "source": "advise",
    }
    badge = {"column": 2, "kind": "broken from here", "about": "", "value": 0.1, "text": "10% of the guidance is left"}
    more = {
        "rows": rows,
        "axes": axes,
        "measures": [measure],
        "summary": {"badges": [badge], "lines": ["Clip Skip 1 keeps most."]},
        "left_out": ["pony, with LoRA: gnome is made for SD 1.x"],
    }
    path = folder / "index.html"
    names = [str(row["name"]) for row in rows]
    path.write_text(write_page(cells, columns=COLUMNS, rows=names, prompt="swamp", name="many", depth=12, more=more))
    return path


@pytest.fixture
def many(browser: Browser, tmp_path: Path) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(20_000)
    tab, said = context.new_page(), list[str]()
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto(varied(tmp_path).as_uri())
    yield tab
    context.close()
    assert said == []


@needs_browser
def test_one_axis_is_across_one_down_seeds_lie_in_a_cell_and_the_rest_are_pages(many: Page) -> None:
    expect(many.locator("#grid tbody th")).to_have_text(["without LoRA", "LoRA 0.5", "LoRA 1"])
    many.click("#left-out summary")
    expect(many.locator("#left-out li")).to_have_text(["pony, with LoRA: gnome is made for SD 1.x."])
    expect(many.locator(".cell")).to_have_count(9)
    expect(many.locator(".cell").first.locator("img")).to_have_count(3)
    box = many.locator(".pane.shown .view").bounding_box()
    assert box and box["height"] > 0.48 * 900, "three rows, badges and a score leave the picture half of the window"
    assert (many.text_content("#cell-settings") or "").endswith("row 17")
    many.select_option("[data-axis='3'] select", "3")
    assert (many.text_content("#cell-settings") or "").endswith("row 16")
    many.keyboard.press("ArrowUp")
    assert (many.text_content("#cell-settings") or "").endswith("row 10")
    many.click("#arrange summary")
    many.select_option("#axis-down", label="Seed")
    expect(many.locator("#grid tbody th")).to_have_text(["Seed 5", "Seed 6", "Seed 7"])
    expect(many.locator(".cell").first.locator("img")).to_have_count(1)
    many.select_option("#axis-across", label="CFG")
    expect(many.locator("#grid thead th")).to_have_text(["CFG 3", "CFG 7"])
    many.select_option("[data-axis='0'] select", "3")
    assert (many.text_content("#cell-settings") or "").endswith("Clip skip: 3, row 10")


OPEN_S = 1.0
"""What the page's own thread may take to open, on the processor: the wall clock of a busy machine says little."""


@needs_browser
def test_of_ten_thousand_cells_only_what_is_seen_is_made_and_fetched(browser: Browser, tmp_path: Path) -> None:
    for r, c in PLACES:
        (tmp_path / f"{r}-{c}.png").write_bytes(png(r, c))
    skips, seeds = range(1, 11), range(1000)
    text = "swamp, " + "reeds, " * 40 + "\nSteps: 20, Size: 64x48, Clip skip: {}, Seed: {}"
    cells = [
        [
            PageCell(path=tmp_path / f"{r % 2}-{c % 3}.png", settings=text.format(c + 1, r), id=f"{r:06d}{c:06d}")
            for c in range(10)
        ]
        for r in seeds
    ]
    rows = [{"name": f"seed {seed}", "loras": [], "values": {"seed": seed}} for seed in seeds]
    more = {"rows": rows, "axes": [{"name": "seed", "label": "seed", "values": list(seeds)}]}
    names, columns = [str(row["name"]) for row in rows], [f"Clip Skip {skip}" for skip in skips]
    path = tmp_path / "index.html"
    path.write_text(
        write_page(cells, columns=columns, rows=names, prompt="swamp", name="all", depth=12, linked=True, more=more)
    )
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(20_000)
    tab, asked = context.new_page(), list[str]()
    tab.on("request", lambda request: asked.append(request.url))
    metrics = context.new_cdp_session(tab)
    metrics.send("Performance.enable", {"timeDomain": "threadTicks"})
    tab.goto(path.as_uri())
    tab.locator(".cell.finished img").first.wait_for()
    spent = {one["name"]: one["value"] for one in metrics.send("Performance.getMetrics")["metrics"]}["TaskDuration"]
    assert spent < OPEN_S, spent
    assert 0 < tab.locator(".cell").count() < 400
    expect(tab.locator("#shown-name")).to_have_text("Clip Skip 1, seed 999")
    tab.keyboard.press("ArrowUp")
    tab.keyboard.press("ArrowRight")
    expect(tab.locator("#shown-name")).to_have_text("Clip Skip 2, seed 998")
    expect(tab.locator(".cell.shown")).to_be_visible()
    tab.locator("#sheet .scroll").evaluate("box => { box.scrollTop = 0; }")
    expect(tab.get_by_role("button", name="Show Clip Skip 1, seed 0", exact=True)).to_be_visible()
    assert tab.locator(".cell").count() < 400
    tab.get_by_role("button", name="Show Clip Skip 3, seed 1", exact=True).click()
    expect(tab.locator("#shown-name")).to_have_text("Clip Skip 3, seed 1")
    tab.click("#arrange summary")
    tab.click("#swap")
    expect(tab.locator("#grid tbody th").nth(7)).to_be_attached()  # of ten, those that the window has room for
    expect(tab.locator(".cell.shown")).to_have_attribute("aria-label", "Show Clip Skip 3, seed 1")
    assert tab.locator(".cell").count() < 400
    assert violations(tab) == []
    context.close()
    assert len(set(asked)) <= 1 + len(PLACES)


@needs_browser
def test_a_score_is_drawn_over_the_grid_with_the_mean_and_spread_of_seeds(many: Page) -> None:
    many.select_option("#score", "guidance_kept")
    score = many.locator(".cell .score").first
    expect(score).to_be_visible()
    expect(score).to_have_text("106% ±1%")
    for kind in ("outline", "bar", "heat"):
        many.select_option("#score-as", kind)
        assert many.get_attribute("#sheet", "data-score") == kind
    levels = many.eval_on_selector_all(
        ".cell", "all => all.slice(0, 3).map(one => Number(one.style.getPropertyValue('--level')))"
    )
    assert levels == sorted(levels, reverse=True) and 0 <= levels[2] < levels[1] < levels[0] <= 1
    expect(many.locator("#grid thead .badge-of")).to_have_text(["broken from here"])
    expect(many.locator("#cell-scores")).to_contain_text("guidance kept")
    assert violations(many) == []


@needs_browser
def test_two_pictures_are_compared_blind_and_told_apart_afterwards(many: Page) -> None:
    many.keyboard.press("ArrowRight")
    many.keyboard.press("h")
    many.keyboard.press("ArrowRight")
    many.keyboard.press("b")
    expect(many.locator(".pane:not([hidden]) figcaption")).to_have_text(["A", "B"])
    expect(many.locator("#sheet")).not_to_be_visible()
    assert "Clip Skip" not in many.inner_text("#stage")
    assert all(
        "Clip Skip" not in (one or "")
        for one in many.eval_on_selector_all(".pane img", "all => all.map(one => one.alt)")
    )
    many.keyboard.press("a")
    said = many.inner_text("#blind-said")
    chosen = re.search(r"You chose (Clip Skip \d), ", said)
    assert chosen and f"A was {chosen[1]}" in said and "Clip Skip 2" in said and "Clip Skip 3" in said
    expect(many.locator("#tally li").first).to_have_text(f"{chosen[1]}: 1 of 1")
    assert violations(many) == []
    many.click("#blind-stop")
    many.keyboard.press("x")
    many.keyboard.press("s")
    many.reload()
    expect(many.locator("#tally li").first).to_have_text(f"{chosen[1]}: 1 of 1")
    expect(many.locator(".cell", has_text="♛")).to_have_count(1)
