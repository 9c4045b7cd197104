"""Takes pictures of every tab, light, dark and on a phone, of a server that draws with the bundled model.

--keep DIR keeps what was drawn there, so that a second run only looks. A few pictures are drawn through the page
itself, as a visitor would; the other windows get the storage of that browser, so that they show the same jobs.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "assets/screenshots"
SUNSET = ROOT / "assets/examples/sunset.png"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync")
WAIT_S, DRAW_S = 60, 900  # for what the page does; for what a slow machine loads and draws
QUALITY, MOST_KB = 76, 550
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": DESK, "color_scheme": "light"},
    "dark": {"viewport": DESK, "color_scheme": "dark"},
    "phone": {"viewport": PHONE, "color_scheme": "light", "has_touch": True},
}
PICTURES = (  # the last one is what Generate shows
    ("a yellow hot-air balloon over a meadow at dawn", 3),
    ("a red boat on a calm lake, pine trees", 2),
    ("a red house by a lake at night, on the left, with pine trees", 5),
    ("a lighthouse by the sea in fog", 7),
    ("A beautiful sunset over the mountains", 11),
)
EDITED, STRENGTH, SEED = "mountains by a lake at sunset, with pine trees", "0.8", "7"
STEPS = "2, 4, 8"  # of the grid
CLIPS, CLIP = "Video", ("a red sailboat sails to the left on the sea at sunset", 2)


def generate(page: Page) -> None:
    """Show the newest picture, with its prompt in the form."""
    prompt, seed = PICTURES[-1]
    page.get_by_placeholder("What to draw", exact=True).fill(prompt)
    page.get_by_label("Seed", exact=True).locator("visible=true").fill(str(seed))
    page.locator(".outcome:visible .results img").first.wait_for()


def edit(page: Page) -> None:
    """Show what became of a picture."""
    _ask_for_edit(page)
    page.locator(".outcome:visible .results img").first.wait_for()


def _ask_for_edit(page: Page) -> None:
    page.locator(".picture input[type=file]").set_input_files(SUNSET)
    page.locator(".picture img").wait_for()
    page.get_by_placeholder("What the result should show").fill(EDITED)
    strength = page.get_by_label("number input for Strength").locator("visible=true")
    strength.fill(STRENGTH)
    strength.blur()
    page.get_by_label("Seed", exact=True).locator("visible=true").fill(SEED)


def gallery(page: Page) -> None:
    """Show the cards, each with its picture."""
    page.locator(".grid .card").first.wait_for()
    page.wait_for_function("!document.querySelector('.mosaic .wait')")


def compare(page: Page) -> None:
    """Show the grid that this browser asked for last, with what it was asked with."""
    _ask_for_grid(page)
    page.locator(".compare td img").last.wait_for()


def _ask_for_grid(page: Page) -> None:
    page.get_by_placeholder("What to draw in every cell").fill(PICTURES[-1][0])
    page.get_by_label("Across").click()
    page.get_by_role("option", name="Steps", exact=True).click()
    page.get_by_label("Values").locator("visible=true").first.fill(STEPS)
    page.get_by_placeholder("random, the same in all cells").fill(str(PICTURES[-1][1]))


def video(page: Page) -> None:
    """Show the clip with its frames."""
    page.get_by_placeholder("What happens in the clip").fill(CLIP[0])
    page.wait_for_function("document.querySelector('.player video')?.readyState >= 2")
    page.locator(".strip img").last.wait_for()


def system(page: Page) -> None:
    """Show what the device is asked for while the tab is open."""
    page.locator(".of-memory .stack").wait_for()


def plain(page: Page) -> None:
    """Show a tab as it opens."""


TABS: dict[str, Callable[[Page], None]] = {
    "Generate": generate,
    "Edit": edit,
    "Video": video,
    "LoRA": plain,
    "Gallery": gallery,
    "Compare": compare,
    "System": system,
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tabs", nargs="*", metavar="TAB", help=f"which of {', '.join(TABS)}; all when none is named")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where what is drawn stays for the next run")
    args = parser.parse_args(argv)
    names = {name.lower(): name for name in TABS}
    if unknown := [tab for tab in args.tabs if tab.lower() not in names]:
        parser.error(f"no tab {', '.join(unknown)}: one of {', '.join(TABS)}")
    chosen = [names[tab.lower()] for tab in args.tabs] or list(TABS)
    with contextlib.ExitStack() as stack:
        work = args.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work.mkdir(parents=True, exist_ok=True)
        url = stack.enter_context(served(work))
        browser = stack.enter_context(chromium())
        if not (work / "browser.json").exists():
            draw(browser, url, work / "browser.json")
        state = json.loads((work / "browser.json").read_text(encoding="utf-8"))
        for origin in state["origins"]:
            origin["origin"] = url  # the port is another one in each run
        FOLDER.mkdir(exist_ok=True)
        for look, options in LOOKS.items():
            take(browser, url, look, {**options, "storage_state": state}, [tab for tab in chosen if tab != CLIPS])
        if CLIPS in chosen:
            film(browser, url, state)
            for look, options in LOOKS.items():
                take(browser, url, look, {**options, "storage_state": state}, [CLIPS])
    size = sum(path.stat().st_size for path in FOLDER.glob("*.webp")) / 1000
    print(f"{FOLDER.relative_to(ROOT)}: {size:.0f} kB")
    return int(size > MOST_KB)


@contextlib.contextmanager
def served(work: Path) -> Iterator[str]:
    """A server with its page and the bundled model, once it can draw."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-P", "-m", "sgdiff_app", "serve", "--port", str(port), "--data-dir", str(work / "data")]
    command += ["--output-path", str(work / "outputs"), "--input-save-path", str(work / "inputs")]
    with (work / "server.log").open("ab") as log, subprocess.Popen(command, cwd=ROOT, stderr=log) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_for(url, process)
            yield url
        finally:
            process.terminate()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + DRAW_S
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError, json.JSONDecodeError):
            if urllib.request.urlopen(f"{url}/health", timeout=5).status == 200:
                return
        time.sleep(0.5)
    raise SystemExit("the server did not start: see server.log of --keep DIR")


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A browser."""
    expect.set_options(timeout=WAIT_S * 1000)
    path = next(filter(None, map(shutil.which, BROWSERS)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@contextlib.contextmanager
def window(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """The page in a browser of its own, once it listens."""
    context = browser.new_context(**options)
    context.set_default_timeout(WAIT_S * 1000)
    page = context.new_page()
    page.goto(url)
    page.locator("#header .health.ready").wait_for()
    page.wait_for_function("Object.keys(localStorage).includes('sgdiff-client')")
    yield page
    context.close()


def draw(browser: Browser, url: str, state: Path) -> None:
    """Draw a few pictures as a visitor would, and keep the storage of the browser."""
    with window(browser, url, viewport=DESK) as page:
        for prompt, seed in PICTURES:
            page.get_by_placeholder("What to draw", exact=True).fill(prompt)
            page.get_by_label("Seed", exact=True).locator("visible=true").fill(str(seed))
            page.get_by_role("button", name="Generate", exact=True).click()
            _wait_until_drawn(page, prompt)
        select(page, "Edit")
        _ask_for_edit(page)
        page.get_by_role("button", name="Edit", exact=True).click()
        _wait_until_drawn(page, EDITED)
        select(page, "Compare")
        _ask_for_grid(page)
        page.get_by_role("button", name="Compare", exact=True).click()
        expect(page.locator(".compare td img")).to_have_count(len(STEPS.split(",")), timeout=DRAW_S * 1000)
        page.context.storage_state(path=state)


def film(browser: Browser, url: str, state: dict[str, Any]) -> None:
    """Switch to the model that makes clips, and make one unless there is one."""
    with window(browser, url, viewport=DESK, storage_state=state) as page:
        select(page, CLIPS)
        page.get_by_role("button", name="Switch to").locator("visible=true").click()
        page.get_by_role("button", name="Make clip").wait_for()
        expect(page.locator("#header .health.ready")).to_be_visible(timeout=DRAW_S * 1000)
        if not page.locator(".player video").count():
            page.get_by_placeholder("What happens in the clip").fill(CLIP[0])
            page.get_by_label("Seed", exact=True).locator("visible=true").fill(str(CLIP[1]))
            page.get_by_role("button", name="Make clip").click()
            _wait_until_drawn(page, CLIP[0])


def _wait_until_drawn(page: Page, prompt: str) -> None:
    expect(page.locator(".outcome:visible .said")).to_have_text(prompt, timeout=DRAW_S * 1000)


def select(page: Page, tab: str) -> None:
    """Open a tab; where the window is narrow, some of them are in a menu."""
    entry = page.get_by_role("tab", name=tab, exact=True).locator("visible=true")
    if not entry.count():
        page.locator(".overflow-menu > button").click()
        page.locator(".overflow-dropdown").get_by_text(tab, exact=True).click()
        return
    entry.click()


def take(browser: Browser, url: str, look: str, options: dict[str, Any], tabs: Sequence[str]) -> None:
    """Take a picture of each tab in one look."""
    with window(browser, url, **options) as page:
        for tab in tabs:
            select(page, tab)
            TABS[tab](page)
            page.evaluate("document.activeElement?.blur(); window.scrollTo(0, 0)")
            page.mouse.move(0, 0)
            page.wait_for_timeout(1500)  # what slides and fades comes to rest
            with Image.open(io.BytesIO(page.screenshot())) as picture:
                path = FOLDER / f"{tab.lower()}-{look}.webp"
                picture.convert("RGB").save(path, quality=QUALITY, method=6)
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    sys.exit(main())
