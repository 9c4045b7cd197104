"""Another model, chosen while the page is open: forms follow it, keep what was written, and jobs go on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import WAIT_MS
from tests.sgdiff_app.server.serving import Running, Server

expect.set_options(timeout=WAIT_MS)
CONFIGS = Path(__file__).parents[2] / "assets/configs/FLUX.1-dev"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of a model with other settings than that which came with the program."""
    folder = tmp_path_factory.mktemp("switched")
    (folder / "flux").symlink_to(CONFIGS)
    flags = ("--model-path", str(folder / "flux"), "--load-format", "dummy")
    with Server(*flags, folder=folder, page=True) as running:
        yield running


def number(page: Page, label: str) -> Locator:
    return page.get_by_label(f"number input for {label}").locator("visible=true")


def switch(page: Page, name: str) -> None:
    """Serve another model of the list, and come back to where pictures are asked for."""
    page.get_by_role("tab", name="System").click()
    page.get_by_role("button", name=f"Use {name}").click()
    expect(page.locator(".models li[aria-current]")).to_contain_text(name)
    expect(page.locator(".models li[aria-current]")).to_contain_text("in use")
    page.get_by_role("tab", name="Generate").click()


def draw(page: Page, prompt: str) -> None:
    page.get_by_placeholder("What to draw").fill(prompt)
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.locator(".outcome:visible .said")).to_have_text(prompt)
    expect(page.locator(".outcome:visible .results img").first).to_be_visible()


def test_the_forms_follow_the_model_and_jobs_go_on(page: Page, server: Running) -> None:
    flux = str(server.service.queue.served.model_path)
    steps, guidance, true_cfg = number(page, "Steps"), number(page, "Guidance"), number(page, "True CFG")
    page.locator("[data-kept-for]").wait_for(state="attached")
    expect(steps).to_have_value("50")
    expect(guidance).to_have_value("3.5")
    expect(page.locator(".examples img")).to_have_count(0)
    steps.fill("41")
    steps.press("Tab")
    page.get_by_role("button", name="Advanced").click()
    page.get_by_test_id("16:9-radio-label").click()
    expect(page.get_by_label("Width").locator("visible=true")).to_have_value("1360")
    draw(page, "of the first model")

    switch(page, "tiny-scenes")
    expect(steps).to_have_value("20")
    expect(guidance).to_have_count(0)
    expect(true_cfg).to_have_value("4")
    expect(page.get_by_placeholder("What to draw")).to_have_value("of the first model")
    expect(page.get_by_role("radio", name="1:1")).to_be_checked()
    expect(page.locator(".examples img")).to_have_count(4)
    expect(page.get_by_label("Width").locator("visible=true")).to_have_value("256")
    draw(page, "of the second model")

    switch(page, flux)
    expect(guidance).to_have_value("3.5")
    expect(steps).to_have_value("41")  # as it was set when this model was served
    expect(page.get_by_role("radio", name="16:9")).to_be_checked()
    draw(page, "of the first model again")
    jobs = {job.request.prompt: job.resolved for job in server.service.queue.page(limit=10)[0]}
    found = [(jobs[f"of the {name}"].num_inference_steps, jobs[f"of the {name}"].width) for name in
             ("first model", "second model", "first model again")]  # fmt: skip
    assert found == [(41, 1360), (20, 256), (41, 1360)]
