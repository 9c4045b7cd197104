"""`desktop`, `--window`, `--open-browser`: the page in a window or in a browser, and one server per data folder."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

from engine import env, log
from engine.env import Environment
from engine.errors import OutputError, SgdiffError, UsageError
from engine.profiler import monotonic
from sgdiff_app.config import Settings
from sgdiff_app.options import ServerOptions

logger = log.get(__name__)

LIBRARY = "webview"
TITLE, SIZE, SMALLEST = "sgdiff-app", (1280, 860), (390, 480)
RUNNING = "server.json"  # in the data folder: where the server listens that has it
INSTANCE = "x-instance-id"  # header of /health, by which a server is told from another that has its port now
ASK_S, STARTING_S, LOOK_S = 2.0, 15.0, 0.2
CLOSING_S = 5.0  # what a window gets to close


@dataclass(frozen=True, slots=True)
class Front:
    """How the page is shown on this machine once the server listens."""

    window: bool = False
    browser: bool = False
    data: Path = Path()
    lack: str = ""  # why it is no window

    async def show(self, url: str) -> None:
        """Show the page; return when its window is closed, and never for a browser. Raises SgdiffError."""
        if self.lack:
            logger.info("--window: %s; the page opens in a browser", self.lack)
        if self.window:
            await _window(url, self.data / "window")
            return
        if self.browser:
            await asyncio.to_thread(open_browser, url)
        await asyncio.Event().wait()


def is_window(settings: Settings) -> bool:
    """Say whether a window of its own is wanted."""
    return settings.command == "desktop" or settings.noun(ServerOptions).window


def front_of(settings: Settings, data: Path) -> Front:
    """Return how the page is shown. Raises UsageError for what this machine cannot show."""
    options = settings.noun(ServerOptions)
    wanted = is_window(settings)
    if options.headless or options.webui is False:
        for name, asked in (("window", wanted), ("open_browser", options.open_browser)):
            if asked:
                raise UsageError(f"{name}: contradicts --headless, which serves no page", param=name)
        return Front()
    if not wanted:
        return Front(browser=_by_itself() if options.open_browser is None else options.open_browser, data=data)
    if importlib.util.find_spec(LIBRARY) is not None and env.has_display():
        return Front(window=True, data=data)
    lack = "there is no display" if not env.has_display() else "pywebview is missing: pip install 'sgdiff-app[desktop]'"
    if not options.open_browser:
        raise UsageError(f"window: {lack}; --open-browser shows the page in a browser instead", param="window")
    return Front(browser=True, data=data, lack=lack)


def _by_itself() -> bool:
    """Say whether a browser is opened unasked: where somebody sits at this machine and has typed the command."""
    return sys.stdin.isatty() and sys.stderr.isatty() and env.has_display() and not env.is_remote()


def run(settings: Settings, environment: Environment) -> int:
    """Show the page of the server that has the data folder; start one where there is none. Raises SgdiffError."""
    from sgdiff_app import serve

    serve.check(settings)
    data = serve.data_of(settings.noun(ServerOptions))
    front = front_of(settings, data)
    if front == Front():
        return serve.run(settings, environment)
    url = running(data)
    if url is None:
        try:
            return serve.run(settings, environment)
        except OutputError as error:
            url = _starting(data) if isinstance(error.__cause__, BlockingIOError) else None
            if url is None:
                raise
    logger.info("a server with this data folder runs already: %s", url)
    if front.window:
        asyncio.run(front.show(url))
    else:
        open_browser(url)
    return 0


# The page on the screen


def open_browser(url: str) -> None:
    """Open the page in the browser of this machine, or say where it is."""
    opened = False
    if env.has_display():  # without one, a browser for terminals would take this one
        with suppress(webbrowser.Error, OSError):
            opened = webbrowser.open(url)
    if not opened:
        logger.warning("no browser could be opened; the page is at %s", url)


async def _window(url: str, folder: Path) -> None:
    """Show a window in a process of its own, whose main thread it needs, until it is closed. Raises SgdiffError."""
    argv = (sys.executable, "-m", "sgdiff_app.desktop", url, str(folder))
    process = await asyncio.create_subprocess_exec(*argv)
    try:
        status = await process.wait()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), CLOSING_S)
    if status > 0:  # below, a signal has closed it
        message = f"window: it could not be opened (exit status {status}); the page is at {url}"
        raise SgdiffError(message, code="window_failed", param="window")


def main(argv: Sequence[str]) -> int:
    """Be the process of a window: a URL, and the folder in which it keeps cookies and settings."""
    import webview
    from webview.errors import WebViewException

    url, folder = argv
    Path(folder).mkdir(parents=True, exist_ok=True)
    webview.settings["ALLOW_DOWNLOADS"] = True
    size = {"width": SIZE[0], "height": SIZE[1], "min_size": SMALLEST}
    webview.create_window(TITLE, url, text_select=True, zoomable=True, **size)
    try:
        webview.start(private_mode=False, storage_path=folder)
    except WebViewException as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


# One server per data folder


@contextmanager
def told(data: Path, url: str, instance: str) -> Iterator[None]:
    """Say in the data folder where its server listens and has a page, as long as it does."""
    path = data / RUNNING
    try:
        path.write_text(json.dumps({"url": url, "instance": instance}))
    except OSError as error:
        logger.warning("%s: cannot be written, so no window finds this server: %s", path, error.strerror)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()


def running(data: Path) -> str | None:
    """Return the URL of the page of the server that has a data folder; None when there is none that answers."""
    try:
        found = json.loads((data / RUNNING).read_text())
        url, instance = found["url"], found["instance"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return url if isinstance(url, str) and instance and _instance_at(url) == instance else None


def _starting(data: Path) -> str | None:
    """Wait for a server that has just begun to start."""
    end = monotonic() + STARTING_S
    while (url := running(data)) is None and monotonic() < end:
        threading.Event().wait(LOOK_S)
    return url


def _instance_at(url: str) -> str | None:
    """Return which server answers at a URL of this machine, in whatever state it is."""
    if not url.startswith("http://"):
        return None
    ask: Callable[..., object] = build_opener(ProxyHandler({})).open
    try:
        answer = ask(url + "health", timeout=ASK_S)
    except HTTPError as error:  # 503 while it loads
        answer = error
    except (OSError, ValueError):
        return None
    with answer:  # type: ignore[attr-defined]
        return str(answer.headers.get(INSTANCE))  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
