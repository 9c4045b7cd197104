"""The page in a window or in a browser: what is shown where, the process of a window, one server per data folder."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
import urllib.request
import webbrowser
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine import env
from engine.errors import OutputError, SgdiffError, UsageError
from sgdiff_app import config, desktop, serve
from sgdiff_app.desktop import Front
from sgdiff_app.options import ServerOptions
from tests.sgdiff_app.server.conftest import Starter, start  # noqa: F401 - a fixture
from tests.sgdiff_app.server.serving import WORKER
from tests.sgdiff_app.test_serve import PAGE, program_with

# Stands for pywebview: notes what it is told, and shows nothing until a file says how the window ends.
WEBVIEW = """
import json, pathlib, time
from webview.errors import WebViewException
here = pathlib.Path(__file__).parent.parent
settings, told = {"ALLOW_DOWNLOADS": False}, {}
def create_window(title, url, **more):
    told.update(title=title, url=url, **more)
def start(**more):
    told.update(downloads=settings["ALLOW_DOWNLOADS"], **more)
    (here / "told.part").write_text(json.dumps(told))
    (here / "told.part").rename(here / "told.json")
    while not (here / "end").exists():
        time.sleep(0.01)
    if (here / "end").read_text() == "fail":
        raise WebViewException("You must have either QT or GTK\\nwith Python extensions installed")
"""


class Screen:
    """A machine with a display, pywebview and a browser, as far as a test wants."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch, self.opened = folder, patch, list[str]()
        (folder / "webview").mkdir()
        (folder / "webview" / "__init__.py").write_text(WEBVIEW)
        (folder / "webview" / "errors.py").write_text("class WebViewException(Exception): pass\n")
        for name in ("CI", "WAYLAND_DISPLAY", *env.REMOTE):
            patch.delenv(name, raising=False)
        patch.setattr(webbrowser, "open", lambda url: bool(self.opened.append(url)) or True)

    def display(self, there: bool = True) -> None:
        self.patch.setenv("DISPLAY", ":0") if there else self.patch.delenv("DISPLAY", raising=False)

    def library(self, there: bool = True) -> None:
        path = os.pathsep.join([str(self.folder), str(Path(desktop.__file__).parent.parent)])
        self.patch.setenv("PYTHONPATH", path)
        found = SimpleNamespace() if there else None
        self.patch.setattr(desktop.importlib.util, "find_spec", lambda name: found)

    def terminal(self, there: bool = True) -> None:
        for stream in (sys.stdin, sys.stderr):
            self.patch.setattr(stream, "isatty", lambda: there)

    def told(self) -> dict[str, Any]:
        end = time.monotonic() + 60
        while not (self.folder / "told.json").exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        found: dict[str, Any] = json.loads((self.folder / "told.json").read_text())
        return found

    def end(self, how: str = "closed") -> None:
        (self.folder / "end").write_text(how)


@pytest.fixture
def screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Screen:
    """A desktop with everything, and a terminal in which nobody sits."""
    found = Screen(tmp_path, monkeypatch)
    found.display()
    found.library()
    found.terminal(False)
    return found


def front(*flags: str, command: str = "serve") -> Front:
    return desktop.front_of(config.load(list(flags), command), Path("data"))


BROWSER, WINDOW, NOTHING = (False, True), (True, False), (False, False)


@pytest.mark.parametrize(
    ("command", "flags", "shown"),
    [
        ("serve", [], NOTHING),
        ("serve", ["--open-browser"], BROWSER),
        ("serve", ["--window"], WINDOW),
        ("serve", ["--window", "--open-browser"], WINDOW),
        ("desktop", [], WINDOW),
        ("serve", ["--headless"], NOTHING),
    ],
)
def test_what_is_asked_for_is_shown(screen: Screen, command: str, flags: list[str], shown: tuple[bool, bool]) -> None:
    found = front(*flags, command=command)
    assert (found.window, found.browser) == shown


def test_a_browser_opens_unasked_only_where_somebody_sits(screen: Screen) -> None:
    screen.terminal()
    assert front().browser
    assert not front("--no-open-browser").browser
    assert not front("--headless").browser
    for name in ("CI", *env.REMOTE):
        screen.patch.setenv(name, "true")
        assert not front().browser, name
        screen.patch.delenv(name)
    screen.patch.setenv("CI", "false")
    assert front().browser
    screen.display(False)
    assert not front().browser
    screen.display()
    screen.terminal(False)
    assert not front().browser


def test_a_window_without_its_library_is_refused_with_what_helps(screen: Screen) -> None:
    screen.library(False)
    for command, flags in (("desktop", []), ("serve", ["--window"]), ("desktop", ["--no-open-browser"])):
        with pytest.raises(UsageError) as found:
            front(*flags, command=command)
        assert found.value.message == (
            "window: pywebview is missing: pip install 'sgdiff-app[desktop]'; "
            "--open-browser shows the page in a browser instead"
        )
    assert front("--open-browser", command="desktop").browser
    screen.library()
    screen.display(False)
    with pytest.raises(UsageError, match="window: there is no display; --open-browser shows"):
        front(command="desktop")


def test_the_command_ends_with_2_before_anything_is_touched(screen: Screen, refused: Callable[..., str]) -> None:
    screen.library(False)
    for words in (["desktop"], ["serve", "--window"], ["desktop", "--dry-run"]):
        assert "pip install 'sgdiff-app[desktop]'" in refused(*words, "--data-dir", "data")
    assert refused("desktop", "--host", "0.0.0.0").startswith("host: 0.0.0.0 can be reached from other machines")
    assert not Path("data").exists()


@pytest.mark.parametrize("flag", ["--headless", "--no-webui"])
def test_what_contradicts_a_server_without_a_page(screen: Screen, refused: Callable[..., str], flag: str) -> None:
    for words, name in ((["desktop"], "window"), (["serve", "--window"], "window"),
                        (["serve", "--open-browser"], "open_browser")):  # fmt: skip
        assert refused(*words, flag) == f"{name}: contradicts --headless, which serves no page"


# On the screen


def test_the_browser_is_told_the_url(screen: Screen, caplog: pytest.LogCaptureFixture) -> None:
    async def shown() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(Front(browser=True, lack="it is gone").show("http://x/"), 0.2)

    caplog.set_level(logging.INFO)
    asyncio.run(shown())
    assert screen.opened == ["http://x/"]
    assert "--window: it is gone; the page opens in a browser" in caplog.text


def test_without_a_browser_the_url_is_said(screen: Screen, caplog: pytest.LogCaptureFixture) -> None:
    screen.patch.setattr(webbrowser, "open", lambda url: False)
    desktop.open_browser("http://x/")
    screen.display(False)
    desktop.open_browser("http://y/")
    assert "the page is at http://x/" in caplog.text and "the page is at http://y/" in caplog.text


def test_a_window_keeps_what_it_knows_and_ends_when_it_is_closed(screen: Screen) -> None:
    async def shown() -> None:
        showing = asyncio.create_task(Front(window=True, data=screen.folder / "data").show("http://x/"))
        told = await asyncio.to_thread(screen.told)
        assert (told["url"], told["title"], told["private_mode"]) == ("http://x/", "sgdiff-app", False)
        assert told["storage_path"] == str(screen.folder / "data" / "window") and Path(told["storage_path"]).is_dir()
        assert told["downloads"] is told["text_select"] is True
        assert not showing.done()
        screen.end()
        await asyncio.wait_for(showing, 10)

    asyncio.run(shown())


def test_a_window_that_cannot_be_opened(screen: Screen, capfd: pytest.CaptureFixture[str]) -> None:
    screen.end("fail")
    with pytest.raises(SgdiffError, match=r"window: it could not be opened .*; the page is at http://x/") as found:
        asyncio.run(Front(window=True, data=screen.folder).show("http://x/"))
    assert found.value.exit_status == 1
    assert capfd.readouterr().err == "error: You must have either QT or GTK with Python extensions installed\n"


def test_a_window_closes_with_its_server(screen: Screen) -> None:
    async def shown() -> None:
        showing = asyncio.create_task(Front(window=True, data=screen.folder).show("http://x/"))
        await asyncio.to_thread(screen.told)
        showing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await showing

    began = time.monotonic()
    asyncio.run(shown())
    assert time.monotonic() - began < desktop.CLOSING_S


# One server per data folder


def test_a_server_is_found_by_its_data_folder(start: Starter, tmp_path: Path) -> None:  # noqa: F811
    server = start("--api-key", "k", "--root-path", "/pictures")
    data, url = tmp_path / "data", f"{server.url}/pictures/"
    assert desktop.running(data) is None
    with desktop.told(data, url, server.service.instance):
        assert desktop.running(data) == url
        server.service.queue.draining = True  # whatever its state
        assert desktop.running(data) == url
    assert desktop.running(data) is None
    with desktop.told(data, url, "srv_of_another"):
        assert desktop.running(data) is None, "the port is another server's now"
    for text in ("", "[]", "{}", '{"url": 1, "instance": "x"}', '{"url": "ftp://x/", "instance": "x"}'):
        (data / desktop.RUNNING).write_text(text)
        assert desktop.running(data) is None


def test_a_second_window_is_one_of_the_first_server(
    screen: Screen, start: Starter, tmp_path: Path, cli: Callable[..., Any]  # noqa: F811
) -> None:  # fmt: skip
    server = start()
    words = ("desktop", "--data-dir", tmp_path / "data", "--log-format", "text")
    with desktop.told(tmp_path / "data", f"{server.url}/", server.service.instance):
        screen.end()
        answer = cli(*words)
        assert (answer.status, screen.told()["url"]) == (0, f"{server.url}/")
        assert f"a server with this data folder runs already: {server.url}/" in answer.err
        screen.library(False)
        assert cli(*words, "--open-browser").status == 0
        assert screen.opened == [f"{server.url}/"]
    assert server.client.get("/health").status_code == 200, "closing that window ends nothing"


def test_a_server_that_has_just_begun_is_waited_for(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(*_: object) -> int:
        try:
            raise BlockingIOError
        except BlockingIOError as error:
            raise OutputError("data: is in use by another server") from error

    found = iter([None, None, None, "http://x/"])
    settings = config.load(["--data-dir", "data", "--open-browser"], "desktop")
    monkeypatch.setattr(desktop, "LOOK_S", 0.01)
    monkeypatch.setattr(desktop, "running", lambda data: next(found))
    monkeypatch.setattr(serve, "run", taken)
    screen.library(False)
    assert desktop.run(settings, env.read()) == 0
    assert screen.opened == ["http://x/"]
    monkeypatch.setattr(desktop, "running", lambda data: None)
    monkeypatch.setattr(desktop, "STARTING_S", 0.05)
    with pytest.raises(OutputError, match="is in use by another server"):
        desktop.run(settings, env.read())


def test_where_the_server_listens_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with desktop.told(tmp_path / "none", "http://x/", "srv_1"):
        assert "so no window finds this server" in caplog.text


def test_the_data_folder_is_one_for_both_commands() -> None:
    assert serve.data_of(ServerOptions(data_dir="~/x")) == Path.home() / "x"
    assert serve.data_of(ServerOptions()).name == "sgdiff"


# From the command to its end

DESKTOP = (sys.executable, *program_with(*WORKER, before=PAGE)[:2], "desktop", "--port", "0", "--log-format", "text")


def test_closing_the_window_ends_the_server(screen: Screen, tmp_path: Path) -> None:
    with subprocess.Popen(
        [*DESKTOP, "--data-dir", str(tmp_path / "data")], stderr=subprocess.PIPE, text=True
    ) as program:
        try:
            url = screen.told()["url"]
            assert desktop.running(tmp_path / "data") == url
            with urllib.request.urlopen(url, timeout=20) as page:
                assert page.read().decode() == "the page"
            screen.end()
            _, said = program.communicate(timeout=30)
        finally:
            program.kill()
    assert program.returncode == 0
    assert "stopping: the window is closed; what runs has 60 s to finish" in said and "Traceback" not in said
    assert desktop.running(tmp_path / "data") is None


def test_a_window_that_does_not_open_ends_the_server_with_its_reason(screen: Screen, tmp_path: Path) -> None:
    screen.end("fail")
    done = subprocess.run(
        [*DESKTOP, "--data-dir", str(tmp_path / "data")], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 1
    assert "You must have either QT or GTK" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: window: it could not be opened")
