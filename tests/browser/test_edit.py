"""Edit in a real browser: a picture as a whole with what was before, a painted part, a file that is no picture."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect

from engine.jobs import Job
from tests.browser.conftest import WAIT_MS
from tests.sgdiff_app.server.serving import Running

expect.set_options(timeout=WAIT_MS)


LONG_MS = 40_000  # the editor draws with the processor where there is no graphics card


def begin(page: Page, folder: Path) -> Path:
    """Open the tab and give it a picture of 320 x 200."""
    path = folder / "in.png"
    Image.linear_gradient("L").resize((320, 200)).convert("RGB").save(path)
    page.get_by_role("tab", name="Edit").click()
    page.locator(".picture input[type=file]").set_input_files(path)
    expect(page.locator(".picture img")).to_be_visible()
    return path


def edit(page: Page, prompt: str) -> None:
    page.get_by_placeholder("What the result should show").fill(prompt)
    page.get_by_role("button", name="Edit", exact=True).click()


def asked(page: Page, server: Running, prompt: str) -> Job:
    """Wait for the result of a prompt and return its job."""
    expect(page.locator(".outcome:visible .said")).to_have_text(prompt, timeout=LONG_MS)
    return next(job for job in server.service.queue.page(limit=100)[0] if job.request.prompt == prompt)


def test_a_picture_as_a_whole_with_what_was_before(page: Page, server: Running, tmp_path: Path) -> None:
    path = begin(page, tmp_path)
    edit(page, "a whole picture")
    job = asked(page, server, "a whole picture")
    assert job.kind == "edit"
    assert job.request.mask_path is None
    assert (job.resolved.width, job.resolved.height, job.resolved.strength) == (320, 192, 0.6)
    (kept,) = job.request.image_path or ()
    assert Path(kept).read_bytes() == path.read_bytes()
    expect(page.locator(".compare img")).to_have_count(2)
    given = page.locator(".picture img").get_attribute("src") or ""
    page.locator(".outcome:visible").get_by_role("button", name="Use as input").click()
    expect(page.locator(".picture img")).not_to_have_attribute("src", given)


def test_a_painted_part(page: Page, server: Running, tmp_path: Path) -> None:
    begin(page, tmp_path)
    page.get_by_text("Painted part", exact=True).click()
    canvas = page.locator(".painter canvas").first
    expect(page.get_by_label("Brush", exact=True)).to_be_visible()
    edit(page, "a painted part")
    expect(page.get_by_text("Nothing is painted yet")).to_be_visible()
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 20, y)
    page.mouse.down()
    page.mouse.move(x + 20, y, steps=2)
    page.mouse.up()
    expect(page.get_by_label("Undo", exact=True)).to_be_enabled()
    edit(page, "a painted part")
    mask = Image.open(asked(page, server, "a painted part").request.mask_path or "")
    assert (mask.mode, mask.size) == ("L", (320, 200))
    assert mask.getpixel((160, 100)) == 255
    assert [mask.getpixel(corner) for corner in ((0, 0), (319, 0), (0, 199), (319, 199))] == [0] * 4


def test_a_file_that_is_no_picture_is_said_by_its_name(page: Page, tmp_path: Path) -> None:
    begin(page, tmp_path)
    broken = tmp_path / "holiday.png"
    broken.write_bytes(b"no picture")
    page.get_by_role("button", name="Clear", exact=True).or_(page.get_by_label("Remove Image")).first.click()
    page.locator(".picture input[type=file]").set_input_files(broken)
    expect(page.get_by_text("holiday.png: is no image of a kind that can be read")).to_be_visible()
    edit(page, "nothing to edit")
    expect(page.get_by_text("Add a picture first")).to_be_visible()
