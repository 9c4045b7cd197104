"""A browser and a server with its page for the tests of what a user sees."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

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


@pytest.fixture
def page(chromium: Browser, server: Running) -> Iterator[Page]:
    """The page in a window of its own, at its first tab. An error in the console of the browser fails the test."""
    context = chromium.new_context(viewport=DESK)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.set_default_timeout(WAIT_MS)
    found = context.new_page()
    wrong = watched(found)
    opened(found, server)
    yield found
    context.close()
    assert not wrong


def watched(page: Page) -> list[str]:
    """Return what the console of a page tells of errors, and requests to anywhere else, as they come."""
    wrong = list[str]()

    def hear(kind: str, text: str) -> None:
        if kind == "error" and not any(words in text for words in LEAVING):
            wrong.append(text)

    page.on("console", lambda message: hear(message.type, message.text))
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
