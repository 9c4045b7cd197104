"""LoRA in a real browser: a switch changes the picture, none brings it back; files, strengths, those of the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect
from safetensors.torch import save_file

from engine.jobs import Job
from engine.jobs.child import COMMAND
from tests.browser.conftest import DESK, PHONE, WAIT_MS, opened, watched
from tests.sgdiff_app.server.serving import Running, Server

expect.set_options(timeout=WAIT_MS)
PROMPT = "a red house by a lake"
MODEL = ("--model-path", "tiny-scenes")


@pytest.fixture(scope="module")
def drawing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with the bundled model."""
    with Server(*MODEL, folder=tmp_path_factory.mktemp("drawing"), command=COMMAND, page=True) as running:
        yield running


def write(path: Path, base: str, **metadata: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {f"{base}.lora_A.weight": torch.zeros(4, 64), f"{base}.lora_B.weight": torch.zeros(64, 4)}
    save_file(state, path, metadata=metadata)
    return path


def chosen(page: Page) -> Locator:
    """The set in the visible tab."""
    return page.locator(".picked:visible")


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).locator("visible=true").click()


def draw(page: Page, server: Running, count: int) -> tuple[Job, np.ndarray]:
    """Ask for the picture and return it when it is the newest of `count`."""
    page.get_by_role("tab", name="Generate").click()
    press(page, "Generate")
    queue = server.service.queue
    while queue.store.count(status="done") < count:
        page.wait_for_timeout(100)
        assert not queue.store.count(status="failed")
    job = queue.page(limit=1)[0][0]
    return job, np.asarray(Image.open(job.artifacts[0].location).convert("RGB")).astype(int)


def test_a_switch_changes_the_picture_and_none_brings_it_back(chromium: Browser, drawing: Running) -> None:
    context = chromium.new_context(viewport=DESK)  # type: ignore[arg-type]
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    wrong = watched(page)
    opened(page, drawing)
    page.get_by_placeholder("What to draw").fill(PROMPT)
    page.get_by_label("Seed", exact=True).locator("visible=true").fill("7")
    page.get_by_label("number input for Steps").locator("visible=true").fill("4")
    page.keyboard.press("Tab")
    _, before = draw(page, drawing, 1)
    press(page, "Choose")
    press(page, "Use Pencil sketch alone")
    expect(chosen(page).locator("li")).to_have_count(1)
    job, pencil = draw(page, drawing, 2)
    expect(chosen(page).locator("li .what")).to_have_text("Pencil sketch")
    assert [(ref.path, ref.scale) for ref in job.request.loras or ()] == [("pencil-sketch", 1.0)]
    assert np.abs(pencil - before).mean() > 10
    page.reload()
    expect(chosen(page).locator("li .what")).to_have_text("Pencil sketch")
    job, again = draw(page, drawing, 3)
    assert len(job.request.loras or ()) == 1 and (again == pencil).all()
    expect(page.locator(".toast-body")).to_have_count(0)
    press(page, "None")
    expect(chosen(page).locator("li")).to_have_count(0)
    job, after = draw(page, drawing, 4)
    assert job.request.loras == () and (after == before).all()
    merge(page)
    context.close()
    assert not wrong


def merge(page: Page) -> None:
    """Have the server draw with one for everybody, and take it back."""
    press(page, "Choose")
    press(page, "Use Neon night alone")
    expect(chosen(page).locator("li .what")).to_have_text("Neon night")
    page.get_by_text("On the server", exact=True).click()
    expect(page.get_by_text("Nothing is merged now.")).to_be_visible()
    press(page, "Merge my set")
    expect(page.locator(".merged li")).to_have_text("neon-night × 1transformer, merged")
    press(page, "As the server")
    expect(chosen(page)).to_contain_text("Neon night × 1 of the server")
    press(page, "Unmerge")
    expect(page.get_by_text("Nothing is merged now.")).to_be_visible()
    expect(chosen(page).locator(".muted")).to_have_text("none")


def test_files_strengths_and_a_set_that_is_loaded_again(page: Page, server: Running, tmp_path: Path) -> None:
    write(server.service.data / "loras" / "clip.safetensors", "blocks.0.self_attn.q", ss_output_name="Slow pan")
    press(page, "Choose")
    unfit = page.locator(".adapter", has_text="Slow pan")
    expect(unfit).to_contain_text("Made for Wan, not for tiny-scenes.")
    expect(unfit.get_by_role("button")).to_have_count(0)
    page.get_by_text("Add a LoRA", exact=True).click()
    broken = tmp_path / "holiday.safetensors"
    broken.write_bytes(b"no tensors")
    page.locator(".lora-file input[type=file]").set_input_files(broken)
    expect(page.get_by_text("holiday.safetensors: is no safetensors file")).to_be_visible()
    press(page, "Clear")
    page.locator(".lora-file input[type=file]").set_input_files(
        write(
            tmp_path / "ink.safetensors", "transformer.single_transformer_blocks.0.attn.to_q", trigger_words="ink wash"
        )
    )
    expect(chosen(page).locator("li")).to_contain_text("Say: ink wash")
    press(page, "Add Pixel art")
    expect(chosen(page).locator("li")).to_have_count(2)
    strength = chosen(page).locator("li").nth(1).locator("input[type=number]")
    strength.fill("0.35")
    strength.press("Tab")
    page.get_by_placeholder("Search LoRA").fill("pixel")
    expect(page.locator(".adapter")).to_have_count(1)
    page.get_by_role("tab", name="Generate").click()
    expect(chosen(page).locator("li").nth(1).locator("input[type=range]")).to_have_value("0.35")
    page.get_by_placeholder("What to draw").fill("a set that comes back")
    press(page, "Generate")
    expect(page.locator(".outcome:visible .said")).to_have_text("a set that comes back")
    asked = server.service.queue.page(limit=1)[0][0].request.loras or ()
    kept = str((server.service.data / "loras" / "ink.safetensors").resolve())
    assert [(ref.path, ref.scale) for ref in asked] == [(kept, 1.0), ("pixel-art", 0.35)]
    press(page, "None")
    expect(chosen(page).locator("li")).to_have_count(0)
    page.get_by_role("tab", name="Gallery").click()
    page.locator(".card .open").first.click()
    press(page, "Load settings")
    expect(chosen(page).locator("li")).to_have_count(2)
    press(page, "Remove Pixel art")
    expect(chosen(page).locator("li")).to_have_count(1)


def test_it_fits_a_phone(chromium: Browser, server: Running) -> None:
    context = chromium.new_context(viewport=PHONE, has_touch=True)  # type: ignore[arg-type]
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    wrong = watched(page)
    opened(page, server)
    press(page, "Choose")
    press(page, "Use Pixel art alone")
    expect(chosen(page).locator("li")).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    context.close()
    assert not wrong
