"""A Space in a browser: its handler draws; a reload in the middle loses nothing; what others draw is not shown."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from engine import env
from engine.jobs import inline
from sgdiff_app import config
from sgdiff_app.server import space
from tests.browser.conftest import DESK, WAIT_MS
from tests.engine.jobs.flat import FlatEngine


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A Space whose engine draws flat colours."""
    patch = pytest.MonkeyPatch()
    patch.setattr(inline, "Engine", FlatEngine)
    patch.setattr(FlatEngine, "gate", threading.Semaphore(0))
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED"):
        patch.setenv(name, "False")  # a Space sets them for its process; they are put back afterwards
    there = space.build(config.load((), "serve"), env.read())
    page, place = there.start()
    yield place
    there.close()
    page.close()
    patch.undo()


def test_a_picture_is_drawn_and_a_reload_in_the_middle_loses_nothing(chromium: Browser, url: str) -> None:
    context = chromium.new_context(viewport=DESK)
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    wrong = list[str]()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(url)
    page.locator("#header .health.ready").wait_for()
    tabs = page.get_by_role("tab").all_inner_texts()
    assert "Generate" in tabs and not {"Gallery", "System"} & {*tabs}
    page.get_by_label("Prompt", exact=True).fill("hold a hill")
    page.get_by_role("button", name="Generate", exact=True).click()
    FlatEngine.gate.release(1)
    panel = page.locator(".status").first
    expect(panel).to_contain_text("step 1 of 3", timeout=WAIT_MS)
    page.reload()
    expect(panel).to_contain_text("step 1 of 3", timeout=WAIT_MS)
    FlatEngine.gate.release(2)
    page.locator(".results img").first.wait_for()
    assert page.locator(".results img").first.evaluate("image => image.naturalWidth") > 0
    context.close()
    assert not wrong
