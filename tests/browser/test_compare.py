"""Compare in a real browser: a grid fills, outlives a reload, opens a recipe and is downloaded; a phone."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.browser.conftest import PHONE, WAIT_MS, opened
from tests.sgdiff_app.server.serving import Running

expect.set_options(timeout=WAIT_MS)


def test_a_grid(page: Page, server: Running) -> None:
    page.get_by_role("tab", name="Compare").click()
    page.get_by_placeholder("What to draw in every cell").fill("a slow house")
    page.get_by_label("Values").first.fill("1, 2, 3")
    expect(page.get_by_text("3 pictures")).to_be_visible()
    page.get_by_role("button", name="Compare").click()
    cells = page.locator(".compare td img")
    expect(cells).to_have_count(3)
    opened(page, server)
    page.get_by_role("tab", name="Compare").click()
    expect(cells).to_have_count(3)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as one picture").click()
    assert download.value.suggested_filename == "sgdiff-app-grid.png"
    page.get_by_role("button", name="Open the recipe").nth(1).click()
    expect(page.locator("#tab-compare .recipe tr", has_text="Seed")).to_contain_text("2")
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.get_by_role("button", name="Load settings").last.click()
    expect(page.get_by_placeholder("What to draw", exact=True)).to_have_value("a slow house")
