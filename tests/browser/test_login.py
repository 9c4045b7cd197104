"""The page behind a key, below the prefix of a proxy: in a real browser, from the login to a picture and out again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Window
from tests.sgdiff_app.server.proxy import Proxy
from tests.sgdiff_app.server.serving import Running, Server

PREFIX = "/pictures"
ICON = "/favicon.ico"  # asked for at the root before the page has said where its own is


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with a page, a key and a prefix."""
    flags = ("--api-key", "k1", "--root-path", PREFIX)
    with Server(*flags, folder=tmp_path_factory.mktemp("locked"), page=True) as running:
        yield running


@pytest.fixture
def proxy(locked: Running) -> Iterator[Proxy]:
    found = Proxy(locked.url, PREFIX)
    with found:
        yield found


def log_in(page: Page, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Log in").click()


def expected(window: Window, *urls: str) -> None:
    """Take out what went wrong at addresses: the answer, and what the console tells of it."""
    window.wrong[:] = [entry for entry in window.wrong if not entry.endswith(urls)]


def test_from_the_login_to_a_picture_and_out_again(locked: Running, proxy: Proxy, window: Window) -> None:
    page = window.page
    page.goto(f"{proxy.url}/?from=mail")
    assert page.url == f"{proxy.url}/login?next=%2F%3Ffrom%3Dmail"
    log_in(page, "k2")
    expect(page.get_by_role("alert")).to_have_text("This key is not one of the server's. Look for blanks or missing "
                                                   "characters.")  # fmt: skip
    assert f"401 {proxy.url}/login" in window.wrong
    expected(window, f"{proxy.url}/login")
    with page.expect_response("**/gradio_api/queue/data?**"):  # then the page acts on clicks
        log_in(page, "k1")
    assert page.url == f"{proxy.url}/?from=mail"
    (cookie,) = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", PREFIX)
    page.get_by_label("Prompt", exact=True).first.fill("a red boat")
    page.get_by_role("button", name="Generate", exact=True).first.click()
    picture = page.locator(f"img[src*='{PREFIX}/gradio_api/file=']").first
    picture.wait_for()
    assert picture.evaluate("picture => picture.decode().then(() => picture.naturalWidth)") > 0
    assert page.context.request.get(picture.get_attribute("src") or "").status == 200
    assert page.request.get(f"{locked.url}/config", headers={"cookie": ""}).status == 401
    assert set(proxy.missed) <= {ICON}
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("API key")).to_be_focused()
    page.goto(f"{proxy.url}/")
    expect(page.get_by_label("API key")).to_be_focused()
    expected(window, ICON)


def test_no_page_of_another_origin_uses_the_login(locked: Running, window: Window) -> None:
    """Not even one of the same machine, to which a browser sends the cookie: ports do not part sites."""
    page = window.page
    page.goto(f"{locked.url}{PREFIX}/")
    log_in(page, "k1")
    page.get_by_role("tab", name="Generate").wait_for()
    ask = "url => fetch(url, {method: 'POST', credentials: 'include', mode: 'no-cors', body: '{}'}).then(() => 1)"
    with Proxy(locked.url, PREFIX) as other:
        page.goto(f"{other}/docs")
        said = page.evaluate(ask, f"{locked.url}{PREFIX}/gradio_api/queue/join")
        with page.expect_response("**/cancel") as found:
            page.evaluate(ask, f"{locked.url}{PREFIX}/v1/jobs/img_1/cancel")
    assert said == 1 and found.value.status == 403
    expected(window, ICON, "/gradio_api/queue/join", "/v1/jobs/img_1/cancel")
