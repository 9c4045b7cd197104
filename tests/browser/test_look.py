"""How the page looks, in a real browser: every text is read easily, every control has a name, a phone shows it all."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser import audits
from tests.browser.conftest import PHONE, WAIT_MS

expect.set_options(timeout=WAIT_MS)
TABS = ("Generate", "Edit", "Video", "LoRA", "Gallery", "Compare", "System")
PICTURE = Path(__file__).parents[2] / "assets/examples/sunset.png"
DRAWN_MS, REST_MS = 100, 300  # until a tab is drawn; until a toast has come to rest


def select(page: Page, tab: str) -> None:
    """Open a tab; where the window is narrow, some of them are in a menu."""
    entry = page.get_by_role("tab", name=tab, exact=True).locator("visible=true")
    if not entry.count():
        page.locator(".overflow-menu > button").click()
        entry = page.locator(".overflow-dropdown").get_by_text(tab, exact=True)
    entry.click()


def draw(page: Page, tab: str, prompt: str) -> None:
    page.locator("textarea:visible").first.fill(prompt)
    page.get_by_role("button", name=tab, exact=True).click()
    expect(page.locator(".outcome:visible .said")).to_have_text(prompt)


def furnish(page: Page) -> None:
    """Have something to see in every tab: results, a picture to edit, a chosen LoRA, an open accordion."""
    draw(page, "Generate", "a house")
    select(page, "Edit")
    page.locator(".picture input[type=file]").set_input_files(PICTURE)
    expect(page.locator(".picture img")).to_be_visible()
    draw(page, "Edit", "a boat")
    select(page, "LoRA")
    page.get_by_role("button", name="Add Neon night").click()
    expect(page.get_by_role("slider", name="Strength of Neon night")).to_be_visible()
    page.get_by_role("button", name="Add a LoRA").click()
    select(page, "Compare")
    page.get_by_placeholder("What to draw in every cell").fill("a tree")
    page.get_by_label("Values").first.fill("1, 2")
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.locator(".compare td img")).to_have_count(2)


def wrong(page: Page, look: str, *asked: str) -> list[str]:
    """Return what is wrong with what is shown."""
    page.wait_for_timeout(DRAWN_MS)
    return [f"{look}: {line}" for script in asked for line in page.evaluate(script)]


def test_every_tab_can_be_read_named_and_touched(page: Page) -> None:
    page.add_style_tag(content="* { transition: none !important }")
    furnish(page)
    found = list[str]()
    for tab in TABS:
        select(page, tab)
        found += wrong(page, f"{tab}, light", audits.CONTRAST, audits.NAMES, audits.WIDE)
        page.get_by_role("button", name="Light or dark").click()
        found += wrong(page, f"{tab}, dark", audits.CONTRAST)
        page.get_by_role("button", name="Light or dark").click()
    page.set_viewport_size(PHONE)
    for tab in TABS:
        select(page, tab)
        found += wrong(page, f"{tab}, phone", audits.SMALL, audits.WIDE)
    select(page, "Gallery")
    page.get_by_role("button", name="Open: a house").click()
    found += wrong(page, "large view", audits.CONTRAST, audits.NAMES, audits.SMALL, audits.WIDE)
    select(page, "Edit")
    page.get_by_text("Painted part").click()  # last: what it is painted on is drawn anew all the time
    expect(page.locator(".painter canvas:visible").first).to_be_visible()
    found += wrong(page, "painting", audits.NAMES, audits.SMALL, audits.WIDE)
    assert not found, "\n".join(found)


def test_the_focus_is_seen_and_goes_through_the_form_in_its_order(page: Page) -> None:
    page.get_by_role("button", name="Import").focus()
    gone = list[str]()
    for _ in range(22):
        page.keyboard.press("Tab")
        name, outlined = page.evaluate(audits.FOCUS)
        assert outlined, f"nothing shows that {name!r} has the focus"
        gone.append(name)
    wanted = ["Light or dark", "Generate", "Prompt", "Negative prompt", "Generate", "Cancel", "1:1"]
    wanted += ["number input for Steps", "range slider for Steps"]
    at = iter(gone)
    assert all(name in at for name in wanted), "; ".join(gone)


@pytest.mark.parametrize("dark", [False, True])
def test_a_toast_has_icon_and_title_on_one_line(page: Page, dark: bool) -> None:
    if dark:
        page.get_by_role("button", name="Light or dark").click()
    page.get_by_label("Seed", exact=True).locator("visible=true").fill("first")
    page.get_by_role("button", name="Generate", exact=True).click()
    title = page.locator(".toast-own")
    expect(title).to_have_text("Please check the settings")
    page.wait_for_timeout(REST_MS)
    box, toast = title.bounding_box(), page.locator(".toast-body").bounding_box()
    close = page.get_by_test_id("toast-close").bounding_box()
    assert box and toast and close
    assert box["y"] - toast["y"] < 16 and abs(close["y"] + close["height"] / 2 - box["y"] - box["height"] / 2) < 8
    assert page.locator(".toast-icon").is_hidden() and page.locator(".toast-title").is_hidden()
    assert title.evaluate("it => getComputedStyle(it, '::before').maskImage").startswith("url(")
    assert page.evaluate(audits.CONTRAST) == []
