"""What the forms are set to outlives a reload, by model, and goes back to the model's own with a click."""

from __future__ import annotations

import json

from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import WAIT_MS

expect.set_options(timeout=WAIT_MS)


def reloaded(page: Page) -> None:
    page.reload()
    page.locator("#header .health.ready").wait_for()
    page.locator("[data-kept-for]").wait_for(state="attached")


def kept(page: Page, text: str) -> None:
    """Wait until the browser keeps a text: it is written shortly after it was changed."""
    page.wait_for_function("text => (localStorage.getItem('sgdiff-forms') || '').includes(text)", arg=text)


def steps(page: Page) -> Locator:
    return page.get_by_label("number input for Steps").locator("visible=true")


def test_a_reload_keeps_the_form(page: Page) -> None:
    page.locator("[data-kept-for]").wait_for(state="attached")
    prompt, seed = page.get_by_placeholder("What to draw"), page.get_by_label("Seed").locator("visible=true")
    page.get_by_test_id("16:9-radio-label").click()
    page.get_by_test_id("3-radio-label").locator("visible=true").click()
    steps(page).fill("33")
    steps(page).press("Tab")
    seed.fill("9007199254740993")
    page.get_by_placeholder("What to keep out").locator("visible=true").fill("fog")
    prompt.fill("a house that is kept")
    kept(page, "a house that is kept")
    reloaded(page)
    expect(prompt).to_have_value("a house that is kept")
    expect(page.locator(".toast-body")).to_have_count(0)
    expect(page.get_by_placeholder("What to keep out").locator("visible=true")).to_have_value("fog")
    expect(seed).to_have_value("9007199254740993")
    expect(steps(page)).to_have_value("33")
    expect(page.get_by_role("radio", name="16:9")).to_be_checked()
    expect(page.get_by_role("radio", name="3", exact=True).locator("visible=true")).to_be_checked()

    page.get_by_role("button", name="Reset to the defaults").click()
    expect(steps(page)).to_have_value("20")
    expect(seed).to_have_value("")
    expect(page.get_by_role("radio", name="1:1")).to_be_checked()
    expect(prompt).to_have_value("a house that is kept")
    kept(page, '"num_inference_steps":20')
    reloaded(page)
    expect(prompt).to_have_value("a house that is kept")
    expect(steps(page)).to_have_value("20")
    expect(seed).to_have_value("")


def test_edit_keeps_its_own(page: Page) -> None:
    page.locator("[data-kept-for]").wait_for(state="attached")
    page.get_by_role("tab", name="Edit").click()
    wish = page.get_by_placeholder("What the result should show")
    wish.fill("a red roof")
    kept(page, "a red roof")
    reloaded(page)
    expect(page.get_by_placeholder("What to draw")).to_have_value("")
    page.get_by_role("tab", name="Edit").click()
    expect(wish).to_have_value("a red roof")


def test_what_is_kept_of_another_model_or_is_nonsense_is_not_shown(page: Page) -> None:
    page.locator("[data-kept-for]").wait_for(state="attached")
    other = {"prompt": "of another", "num_inference_steps": 3}
    wrong = {"prompt": "half of it is nonsense", "num_inference_steps": "many", "seed": "twelve", "width": [1]}
    stored = {"generate": {"someone/else": other}, "edit": 3, "video": {"tiny-scenes": []}}
    page.evaluate("kept => localStorage.setItem('sgdiff-forms', kept)", json.dumps(stored))
    reloaded(page)
    expect(page.get_by_placeholder("What to draw")).to_have_value("")
    expect(steps(page)).to_have_value("20")
    page.evaluate(
        "kept => localStorage.setItem('sgdiff-forms', kept)", json.dumps({"generate": {"tiny-scenes": wrong}})
    )
    reloaded(page)
    expect(page.get_by_placeholder("What to draw")).to_have_value("half of it is nonsense")
    expect(steps(page)).to_have_value("20")
    page.wait_for_timeout(600)  # what was restored is kept as it is now, nonsense left out
    page.evaluate("localStorage.setItem('sgdiff-forms', '[')")
    reloaded(page)
    expect(page.get_by_placeholder("What to draw")).to_have_value("")
