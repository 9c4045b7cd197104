"""System in a real browser: the queue with its buttons, another model, a download that cannot be, a phone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from engine import hub
from engine.engine import resolve
from engine.types import Request
from tests.browser.conftest import PHONE, WAIT_MS
from tests.sgdiff_app.server.serving import Running, Server

expect.set_options(timeout=WAIT_MS)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server whose model is another one than that which ships with the program."""
    folder, bundled = tmp_path_factory.mktemp("paged"), hub.bundled("tiny-scenes")
    assert bundled is not None
    (folder / "mine").symlink_to(bundled)
    with Server("--model-path", str(folder / "mine"), "--max-running", "1", folder=folder, page=True) as running:
        yield running


def visit(page: Page) -> None:
    page.get_by_role("tab", name="System").click()
    page.locator(".models li").first.wait_for()


def ask(server: Running, prompt: str) -> None:
    queue, request = server.service.queue, Request(prompt=prompt, width=64, height=64, num_inference_steps=20)
    assert queue.spec is not None
    queue.submit(request, "image", resolved=resolve(request, queue.spec, queue.served), model="mine")


def test_the_queue_is_seen_and_changed(page: Page, server: Running) -> None:
    visit(page)
    expect(page.get_by_text("Nothing is waiting.")).to_be_visible()
    for i in range(3):
        ask(server, f"a very slow {i}")
    rows = page.locator(".block.of-queue li")
    expect(rows).to_have_count(3)
    rows.nth(2).get_by_role("button", name="Sooner").click()
    expect(rows.nth(1)).to_contain_text("a very slow 2")
    rows.nth(2).get_by_role("button", name="Cancel").click()
    expect(rows).to_have_count(2)
    rows.nth(0).get_by_role("button", name="Cancel").click()
    expect(page.locator(".block.of-where .chart .stack")).to_have_count(1)
    expect(page.locator(".block.of-memory")).to_contain_text("0.4 GB of 1.0 GB used")


def test_another_model_and_a_download_that_cannot_be(page: Page) -> None:
    visit(page)
    page.get_by_label("Get another model").fill("someone/something")
    page.get_by_label("Get another model").press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("forbids to download it")
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.get_by_role("button", name="Use tiny-scenes").click()
    expect(page.locator(".models li").first).to_contain_text("tiny-scenes")
    expect(page.locator(".models li").first).to_contain_text("in use")
