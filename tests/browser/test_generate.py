"""Generate in a real browser: a picture and its preview, keys, cancel, queue, reload, a phone, dark mode."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.conftest import PHONE, WAIT_MS, opened, watched
from tests.sgdiff_app.server.serving import Running

expect.set_options(timeout=WAIT_MS)


def panel(page: Page) -> Locator:
    """The results panel of the visible tab."""
    return page.locator(".outcome:visible")


def write(page: Page, prompt: str) -> None:
    page.get_by_placeholder("What to draw").fill(prompt)


def run(page: Page, prompt: str) -> None:
    write(page, prompt)
    page.get_by_role("button", name="Generate").click()


def drawn(page: Page, prompt: str) -> None:
    """Wait until a prompt's picture is the chosen one."""
    expect(panel(page).locator(".said")).to_have_text(prompt)
    expect(panel(page).locator(".results img").first).to_be_visible()


def test_a_new_page_says_where_pictures_appear_and_what_to_ask_for(page: Page) -> None:
    expect(panel(page).get_by_text("What you ask for appears here.")).to_be_visible()
    page.get_by_role("button", name="a lighthouse by the sea in fog").click()
    expect(page.get_by_placeholder("What to draw")).to_have_value("a lighthouse by the sea in fog")
    page.get_by_role("button", name="Generate").click()
    drawn(page, "a lighthouse by the sea in fog")


def test_a_picture_with_its_preview(page: Page) -> None:
    run(page, "a very slow red house")
    live = panel(page).locator("img.live")
    first = live.get_attribute("src")
    expect(live).not_to_have_attribute("src", first or "")  # it changes while the picture is drawn
    expect(panel(page).locator(".drawing .line")).to_contain_text(re.compile(r"step \d+ of 20"))
    drawn(page, "a very slow red house")
    expect(live).to_have_count(0)
    expect(page.locator("#header .work")).to_have_text("idle")


def test_the_keys_run_and_cancel(page: Page) -> None:
    write(page, "a very slow and cancelled house")
    page.keyboard.press("Control+Enter")
    expect(panel(page).locator(".drawing")).to_be_visible()
    page.keyboard.press("Escape")
    expect(panel(page).locator(".status .line")).to_contain_text("Cancelled.")


def test_jobs_wait_in_a_list_and_can_be_cancelled_there(page: Page, server: Running) -> None:
    server.service.queue.options = server.service.queue.options.__class__(max_running=1)
    run(page, "a very slow first one")
    expect(panel(page).locator(".drawing")).to_be_visible()
    run(page, "a very slow second one")
    waiting = panel(page).locator(".queue li")
    expect(waiting).to_have_count(1)
    expect(waiting).to_contain_text("next")
    waiting.get_by_role("button", name="Cancel this job").click()
    expect(waiting).to_have_count(0)
    drawn(page, "a very slow first one")


def test_a_reload_reattaches_and_a_second_window_sees_the_same(page: Page, server: Running) -> None:
    other = page.context.new_page()
    opened(other, server)
    write(page, "a very slow picture that outlives the page")
    page.get_by_test_id("4-radio-label").click()  # four outputs: time enough
    page.get_by_role("button", name="Generate").click()
    expect(panel(page).locator(".drawing")).to_be_visible()
    page.reload()
    expect(panel(page).locator(".drawing")).to_be_visible()
    expect(panel(other).locator(".drawing")).to_be_visible()
    drawn(page, "a very slow picture that outlives the page")
    drawn(other, "a very slow picture that outlives the page")
    jobs, _ = server.service.queue.page(limit=100)
    assert sum(job.request.prompt == "a very slow picture that outlives the page" for job in jobs) == 1


def test_a_mistake_is_told_and_the_form_stays(page: Page) -> None:
    write(page, "a house")
    page.get_by_label("Seed").fill("twelve")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_text("seed: must be a whole number from 0 up")).to_be_visible()
    toast = page.locator(".toast-body")
    expect(toast.get_by_text("Please check the settings", exact=True)).to_be_visible()
    expect(toast.get_by_text("Error", exact=True)).to_be_hidden()
    expect(page.get_by_label("Seed")).to_have_value("twelve")
    expect(page.get_by_placeholder("What to draw")).to_have_value("a house")


def test_what_can_be_done_with_a_result(page: Page, server: Running) -> None:
    page.get_by_label("Seed").fill("41")
    run(page, "a result")
    drawn(page, "a result")
    expect(panel(page).locator(".facts .line")).to_contain_text("Seed 41")
    panel(page).get_by_role("button", name="Copy settings").click()
    page.wait_for_function("navigator.clipboard.readText().then((text) => text.startsWith('{'))")
    recipe = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert (recipe["request"]["prompt"], recipe["request"]["seed"]) == ("a result", 41)
    with page.expect_download() as download:
        panel(page).get_by_role("link", name="Download").or_(panel(page).get_by_role("button", name="Download")).click()
    assert download.value.path().read_bytes().startswith(b"\x89PNG")
    panel(page).get_by_role("button", name="Vary").click()
    expect(panel(page).locator(".facts .line")).to_contain_text("Seed 42")
    panel(page).get_by_role("button", name="Star", exact=True).click()
    expect(panel(page).get_by_role("button", name="Unstar")).to_be_visible()
    page.once("dialog", lambda dialog: dialog.dismiss())
    panel(page).get_by_role("button", name="Delete").click()
    page.wait_for_timeout(500)
    expect(panel(page).locator(".facts .line")).to_contain_text("Seed 42")
    page.once("dialog", lambda dialog: dialog.accept())
    panel(page).get_by_role("button", name="Delete").click()
    expect(panel(page).locator(".facts .line")).to_contain_text("Seed 41")
    seeds = {job.resolved.seed for job in server.service.queue.page(limit=100)[0] if job.request.prompt == "a result"}
    assert seeds == {41}


def test_the_shape_sets_the_sides_and_follows_them(page: Page) -> None:
    page.get_by_role("button", name="Advanced").click()
    width, height = page.get_by_label("Width"), page.get_by_label("Height")
    page.get_by_test_id("16:9-radio-label").click()
    expect(width).to_have_value("336")
    expect(height).to_have_value("192")
    width.fill("192")
    height.fill("336")
    height.blur()
    expect(page.get_by_role("radio", name="9:16")).to_be_checked()
    for across, down, shape in (("", "", "1:1"), ("256", "", "1:1"), ("64", "640", None), ("0336", "192", "16:9")):
        width.fill(across)
        height.fill(down)
        if shape is None:
            expect(page.locator("fieldset:has-text('Shape') input:checked")).to_have_count(0)
        else:
            expect(page.get_by_role("radio", name=shape, exact=True)).to_be_checked()
    width.fill("336x")
    expect(page.locator("fieldset:has-text('Shape') input:checked")).to_have_count(0)
    page.get_by_test_id("1:1-radio-label").click()
    expect(width).to_have_value("256")
    expect(height).to_have_value("256")


def test_what_is_left_empty_stays_empty(page: Page, server: Running) -> None:
    page.get_by_role("button", name="Advanced").click()
    expect(page.get_by_label("Output compression")).to_have_value("")
    run(page, "left empty")
    drawn(page, "left empty")
    (job,) = (job for job in server.service.queue.page(limit=100)[0] if job.request.prompt == "left empty")
    assert (job.request.output_compression, job.request.seed) == (None, None)


def test_an_earlier_prompt_comes_back(page: Page) -> None:
    run(page, "an earlier prompt")
    drawn(page, "an earlier prompt")
    write(page, "")
    page.locator(".earlier input:visible").click()
    page.get_by_role("option", name="an earlier prompt").click()
    expect(page.get_by_placeholder("What to draw")).to_have_value("an earlier prompt")


@pytest.mark.parametrize("size", [PHONE, {"width": 768, "height": 1024}])
def test_it_fits_a_phone(chromium: Browser, server: Running, size: dict[str, int]) -> None:
    context = chromium.new_context(viewport=size, has_touch=True)  # type: ignore[arg-type]
    page = context.new_page()
    wrong = watched(page)
    opened(page, server)
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    bar = page.locator(".topbar > *").evaluate_all(
        "all => all.filter(e => e.offsetHeight).map(e => e.offsetTop + e.offsetHeight / 2)"
    )
    assert max(bar) - min(bar) < 8, "one line"
    touched = page.locator(".settings").locator("button.run, button.cancel, button.icon, button.example, .chips label")
    assert min(touched.evaluate_all("all => all.filter(e => e.offsetParent).map(e => e.offsetHeight)")) >= 40
    run(page, "on a phone")
    drawn(page, "on a phone")
    expect(panel(page)).to_be_in_viewport()
    context.close()
    assert not wrong


def test_dark_mode_is_a_click_and_stays(page: Page) -> None:
    page.emulate_media(color_scheme="light")
    page.reload()
    background = "getComputedStyle(document.body).backgroundColor"
    page.locator("#header .health.ready").wait_for()
    light = page.evaluate(background)
    page.get_by_role("button", name="Light or dark").click()
    page.wait_for_function(f"{background} !== '{light}'")
    page.reload()
    page.locator("#header .health.ready").wait_for()
    page.wait_for_function(f"{background} !== '{light}'")
