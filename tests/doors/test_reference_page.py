"""The page that shows the API, in a browser."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect
from served import served
from web_page import needs_browser

from clipskip.doors.http import build_app
from clipskip.sweep import Studio
from clipskip.weights import Library

pytestmark = needs_browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    studio = Studio(tmp_path_factory.mktemp("out"), Library((tmp_path_factory.mktemp("models"),)))
    with served(build_app(studio)) as found:
        yield found
    studio.close()


def test_every_call_is_shown_with_its_fields(address: str, browser: Browser) -> None:
    page, faults = browser.new_page(), list[str]()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.goto(f"{address}/docs")
    expect(page.locator("details").first).to_be_visible()
    whole = page.evaluate("fetch('/openapi.json').then((answer) => answer.json())")
    assert page.locator("details").count() == sum(len(calls) for calls in whole["paths"].values())
    page.fill("#filter", "txt2img")
    (shown,) = [one for one in page.locator("details").all() if one.is_visible()]
    shown.locator("summary").click()
    expect(shown.locator("td", has_text="override_settings_restore_afterwards")).to_be_visible()
    assert not faults
    page.close()
