"""A browser and a server with its page for the tests of what a user sees."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.sgdiff_app.server.serving import Running, Server

NAMES = ("chromium", "chromium-browser", "google-chrome")  # .ci/run installs the first where none is there
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
WAIT_MS = 30_000
LEAVING = ("signal is aborted", "Connection errored out")  # what the page says of its streams while it is left
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the page's libraries warn each other, in threads of this process."""
    for item in items:
        if "browser" in item.path.parts:
            item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One browser for all tests."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    assert path is not None, f"the tests of the page need a browser: one of {', '.join(NAMES)} on the PATH"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with its page, and a worker that draws flat colours."""
    with Server(folder=tmp_path_factory.mktemp("paged"), page=True) as running:
        yield running


@dataclass
class Window:
    """A window of its own, at no page yet, and what went wrong in it: a test takes out what it means to go wrong."""

    page: Page
    wrong: list[str]


@pytest.fixture
def window(chromium: Browser) -> Iterator[Window]:
    """A window. An error in the console of the browser fails the test."""
    context = chromium.new_context(viewport=DESK)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    found = Window(page, watched(page))
    yield found
    context.close()
    assert not found.wrong


@pytest.fixture
def page(window: Window, server: Running) -> Page:
    """The page of the server in a window, at its first tab."""
    opened(window.page, server)
    return window.page


def watched(page: Page) -> list[str]:
    """Return what the console of a page tells of errors, and requests to anywhere else, as they come."""
    wrong = list[str]()

    def hear(message: ConsoleMessage) -> None:
        if message.type == "error" and not any(words in message.text for words in LEAVING):
            wrong.append(f"{message.text} {message.location['url']}")

    page.on("console", hear)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("response", lambda answer: wrong.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    page.on("request", lambda sent: None if _is_ours(sent.url) else wrong.append(f"asks {sent.url}"))
    return wrong


def _is_ours(url: str) -> bool:
    return url.startswith(("http://127.0.0.1:", "data:", "blob:"))


def opened(page: Page, server: Running) -> None:
    """Open the page and wait until it listens to events."""
    page.goto(server.url)
    page.get_by_role("tab", name="Generate").wait_for()
    page.locator("#header .health.ready").wait_for()
