"""Video in a real browser: a clip that plays, a part of it, a GIF file, and a tab that says what draws clips."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from engine.jobs.edits import edited
from tests.browser.conftest import PHONE, WAIT_MS, opened, watched
from tests.sgdiff_app.server.serving import Running, Server

expect.set_options(timeout=WAIT_MS)
CLIPS = ("--model-path", "Wan-AI/Wan2.2-TI2V-5B-Diffusers", "--load-format", "dummy", "--offline")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server whose model draws clips of flat colours."""
    with Server(*CLIPS, folder=tmp_path_factory.mktemp("clips"), page=True) as running:
        yield running


def make(page: Page, prompt: str) -> None:
    """Ask for 9 small frames at 8 a second, and wait for them."""
    page.get_by_role("tab", name="Video").click()
    advanced = page.get_by_role("button", name="Advanced").locator("visible=true")
    advanced.click()
    for name, value in (("Width", "128"), ("Height", "96")):
        page.get_by_label(name, exact=True).locator("visible=true").fill(value)
    advanced.click()
    for name, value in (("Frames", "9"), ("Frames per second", "8")):
        page.get_by_label(f"number input for {name}", exact=True).locator("visible=true").fill(value)
        page.keyboard.press("Tab")
    expect(page.get_by_text("The clip lasts 1.1 s.")).to_be_visible()
    page.get_by_placeholder("What happens in the clip").fill(prompt)
    page.get_by_role("button", name="Make clip").click()
    expect(page.locator(".outcome:visible .said")).to_have_text(prompt)


def test_a_clip_plays_and_is_cut(page: Page, server: Running) -> None:
    make(page, "a boat on the sea")
    video = page.locator(".player video")
    expect(page.locator(".strip img")).to_have_count(8)
    page.wait_for_function("() => document.querySelector('.player video').currentTime > 0.1")
    state = video.evaluate("it => [it.readyState, it.duration, it.paused, it.muted, it.loop, it.videoWidth]")
    assert state == [4, 1.125, False, True, True, 128]

    page.locator(".strip button").last.click()  # stops there, and becomes the first frame of the next clip
    expect(page.locator(".picture:visible img")).to_be_visible()
    assert video.evaluate("it => [it.paused, it.currentTime > 1]") == [True, True]

    page.get_by_role("button", name="Trim, join, GIF").click()
    trim, end = page.get_by_role("button", name="Trim", exact=True), page.get_by_label("number input for To second")
    expect(end).to_have_value("1.12")  # what is filled in before the clip's own length is there is lost
    end.fill("0")
    page.keyboard.press("Tab")
    trim.click()
    expect(page.locator(".toast-body")).to_contain_text("end: must be after the start at 0 s")
    expect(trim).to_be_enabled()
    expect(page.locator(".busy .bar")).to_have_count(0)
    end.fill("0.5")
    page.keyboard.press("Tab")
    trim.click()
    told = page.locator(".outcome:visible .block.facts")
    expect(told).to_contain_text("Edit 1 · MP4 · 0.5 s · 128 × 96")
    expect(page.locator(".results:visible video")).to_have_count(2)
    page.get_by_role("button", name="Make GIF").click()
    expect(told).to_contain_text("Edit 2 · GIF")
    expect(page.locator(".player img")).to_be_visible()
    (job,) = server.service.queue.page(limit=9)[0]
    assert [path.suffix for path in edited(job)] == [".mp4", ".gif"]

    page.reload()
    page.get_by_role("tab", name="Video").click()
    expect(page.locator(".results:visible [data-index]")).to_have_count(3)


def test_a_phone_shows_it_all(chromium: Browser, server: Running) -> None:
    context = chromium.new_context(viewport=PHONE)
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    wrong = watched(page)
    opened(page, server)
    make(page, "a boat on a phone")
    expect(page.locator(".player video")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    context.close()
    assert not wrong
