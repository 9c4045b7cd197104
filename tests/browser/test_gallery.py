"""The gallery in a real browser, and settings that come back: out of it, of dropped files, of pasted texts."""

from __future__ import annotations

import base64
import io
import zipfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, expect

from engine import recipe_file
from tests.browser.conftest import PHONE, WAIT_MS, opened, watched
from tests.engine.test_settings_text import RECIPE
from tests.sgdiff_app.server.serving import Running

expect.set_options(timeout=WAIT_MS)
A1111 = "a pasted cat\nNegative prompt: dog\nSteps: 12, Sampler: Euler a, CFG scale: 4, Seed: 77, Size: 192x192"
DROP = """
([name, data]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], name));
  for (const kind of ['dragover', 'drop']) {
    document.querySelector('#header').dispatchEvent(
      new DragEvent(kind, {dataTransfer, bubbles: true, cancelable: true}));
  }
}
"""


def draw(server: Running, prompt: str, **more: Any) -> Any:
    """Have something drawn through the API; return its job."""
    body = {"prompt": prompt, "size": "64x64", "response_format": "url", **more}
    server.client.post("/v1/images/generations", json=body)
    return server.service.queue.page(limit=1)[0][0]


def visit(page: Page) -> None:
    page.get_by_role("tab", name="Gallery").click()
    page.locator(".grid .card, .grid .blank").first.wait_for(state="attached")


def drop(page: Page, path: Path) -> None:
    page.evaluate(DROP, [path.name, base64.b64encode(path.read_bytes()).decode()])


def prompts(page: Page) -> list[str]:
    return page.locator(".card .under").all_inner_texts()


def clean(server: Running) -> None:
    for job in server.service.queue.page(limit=100)[0]:
        server.service.queue.delete(job.id)


def test_look_load_star_and_delete(page: Page, server: Running) -> None:
    clean(server)
    draw(server, "an older boat")
    job = draw(server, "a <b>gallery</b> boat", n=3, seed=40)
    draw(server, "FAULT")
    visit(page)
    page.wait_for_function("document.querySelectorAll('.mosaic img').length === 4")
    assert prompts(page) == ["a <b>gallery</b> boat", "an older boat"]
    broken = "[...document.querySelectorAll('.mosaic img')].filter((e) => e.complete && !e.naturalWidth).length"
    assert page.evaluate(broken) == 0
    page.locator(".card .open").first.click()
    page.get_by_role("button", name="Output 3").click()
    expect(page.locator(".recipe")).to_contain_text("42")
    page.get_by_role("button", name="Copy prompt").click()
    page.wait_for_function("navigator.clipboard.readText().then((text) => text === 'a <b>gallery</b> boat')")
    with page.expect_download() as download:
        page.locator(".about").get_by_role("button", name="Download").click()
    assert download.value.path().read_bytes() == Path(job.artifacts[2].location).read_bytes()
    page.get_by_role("button", name="Load settings").click()
    expect(page.get_by_placeholder("What to draw")).to_have_value("a <b>gallery</b> boat")
    expect(page.get_by_label("Seed")).to_have_value("42")
    visit(page)
    page.keyboard.press("Escape")  # out of the large view
    expect(page.locator(".card")).to_have_count(2)
    page.locator(".filters").get_by_text("Failed", exact=True).click()
    expect(page.locator(".card .wrong")).to_have_text("a test asked for this error")
    page.locator(".filters").get_by_text("All", exact=True).click()
    expect(page.locator(".card")).to_have_count(2)
    page.get_by_placeholder("Search prompts").fill("OLDER")
    expect(page.locator(".card")).to_have_count(1)
    page.locator(".card").hover()
    page.get_by_role("button", name="Star", exact=True).first.click()
    expect(page.locator(".card .mark[aria-pressed=true]")).to_have_count(1)
    page.get_by_placeholder("Search prompts").fill("")
    expect(page.locator(".card")).to_have_count(2)
    page.get_by_label("Starred").check()
    expect(page.locator(".card")).to_have_count(1)


def test_several_at_once(page: Page, server: Running) -> None:
    clean(server)
    files = [Path(draw(server, f"boat {i}", embed_recipe=True).artifacts[0].location) for i in range(3)]
    visit(page)
    page.locator(".card").first.hover()
    for place in (0, 2):
        page.locator(".card .pick input").nth(place).check()
    expect(page.locator(".bulk .count")).to_have_text("2 selected")
    page.get_by_label("without the recipe", exact=True).check()
    with page.expect_download() as download:
        page.locator(".bulk").get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == "sgdiff-app-2-results.zip"
    with zipfile.ZipFile(download.value.path()) as archive:
        found = [Image.open(io.BytesIO(archive.read(name))) for name in archive.namelist()]
    assert len(found) == 2 and not any("sgdiff" in image.info for image in found)
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.locator(".bulk").get_by_role("button", name="Delete").click()
    page.once("dialog", lambda dialog: dialog.accept())
    assert all(path.exists() for path in files)
    page.locator(".bulk").get_by_role("button", name="Delete").click()
    expect(page.locator(".card")).to_have_count(1)
    assert prompts(page) == ["boat 1"] and [path.exists() for path in files] == [False, True, False]
    page.locator(".card .open").click()
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.locator(".about").get_by_role("button", name="Delete").click()
    expect(page.locator(".large img")).to_be_visible()
    page.once("dialog", lambda dialog: dialog.accept())
    page.locator(".about").get_by_role("button", name="Delete").click()
    expect(page.locator(".grid .blank")).to_contain_text("Nothing here yet")
    assert not files[1].exists()


def test_a_dropped_file_and_a_pasted_text_bring_their_settings(page: Page, server: Running, tmp_path: Path) -> None:
    recipe = {
        **RECIPE,
        "inputs": {},
        "request": {**RECIPE["request"], "prompt": "a dropped boat", "seed": 2**53 + 1},
    }  # more than browsers count to
    Image.new("RGB", (8, 8)).save(tmp_path / "ours.png", **recipe_file.image_fields("png", recipe))
    jobs = server.service.queue.store.count()
    visit(page)
    drop(page, tmp_path / "ours.png")
    expect(page.get_by_placeholder("What to draw")).to_have_value("a dropped boat")
    expect(page.get_by_label("Seed")).to_have_value(str(2**53 + 1))
    expect(page.locator(".note")).to_contain_text("Settings of sgdiff-app are in Generate now.")
    page.get_by_role("button", name="Import").click()
    page.get_by_role("textbox", name="Settings").fill(A1111)
    page.keyboard.press("Control+Enter")
    expect(page.get_by_placeholder("What to draw")).to_have_value("a pasted cat")
    expect(page.locator(".note")).to_contain_text("Settings of AUTOMATIC1111")
    expect(page.get_by_label("Seed")).to_have_value("77")
    page.locator(".note").get_by_role("button", name="Close").click()
    expect(page.locator(".note")).to_have_count(0)
    Image.new("RGB", (8, 8)).save(tmp_path / "bare.png")
    drop(page, tmp_path / "bare.png")
    expect(page.get_by_text("bare.png: no settings inside")).to_be_visible()
    assert server.service.queue.store.count() == jobs  # nothing is drawn by itself


def test_it_fits_a_phone(chromium: Browser, server: Running) -> None:
    draw(server, "a boat on a phone")
    context = chromium.new_context(viewport=PHONE, has_touch=True)  # type: ignore[arg-type]
    page = context.new_page()
    wrong = watched(page)
    opened(page, server)
    page.evaluate("document.querySelector('#tab-gallery-button')?.click()")
    page.locator(".overflow-menu > button").click()
    page.locator(".overflow-dropdown").get_by_text("Gallery").click()
    page.locator(".card .open").first.click()
    page.locator(".large img").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    context.close()
    assert not wrong
