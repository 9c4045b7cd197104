"""The page as a whole: header, tabs, theme, and how it is mounted beside the API."""

from __future__ import annotations

import asyncio
import html
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, TypeVar

import gradio as gr

from ui import compare, drop, edit, files, gallery, generate, loras, skips, sliders, system, theme, video
from ui.desk import Desk, Snapshot
from ui.page import Page, View

T = TypeVar("T")
TITLE = "sgdiff-app"
LOG_OUT = (
    '<form class="logout" method="post" action="logout"><button type="submit" aria-label="Log out" title="Log out">'
    "<span>Log out</span></button></form>"
)
TABS = (generate, edit, video, loras, gallery, compare, system)
EVENTS = 500  # that Gradio works at side by side: each window that follows jobs is one, and takes no thread
CACHE_S = (3600, 24 * 3600)  # how often the page's own copies of files are looked through, and how old they may get


def build(desk: Desk, tabs: Sequence[ModuleType] = TABS) -> gr.Blocks:
    """Return the page of a desk."""
    return with_loop(lambda: _built(desk, tabs))


def with_loop(work: Callable[[], T]) -> T:
    """Call something while this thread has an event loop: Gradio asks for it, and would make one that nobody closes."""

    async def call() -> T:
        return work()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(call())
    return work()


def _built(desk: Desk, tabs: Sequence[ModuleType]) -> gr.Blocks:
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=CACHE_S) as demo:
        page = Page(desk)
        login = desk.options.login
        bar = gr.HTML(header(desk.snapshot(""), login), elem_id="header", padding=False)
        page.views.append(View([bar], header_state, lambda snapshot: [header(snapshot, login)]))
        drop.build(page)
        with gr.Tabs(elem_id="tabs") as page.tabs:
            for tab in tabs:
                tab.build(page)
        assert all(isinstance(child, gr.Tab) for child in page.tabs.children), "else labels go to other tabs"
        page.connect(demo)
    demo.max_threads = EVENTS
    demo.queue(api_open=False, default_concurrency_limit=None)
    files.guard(demo)
    skips.spare(demo)
    sliders.guard(demo, (part for form in page.forms.values() for part in form.components))
    return demo


def launch_options(desk: Desk) -> dict[str, Any]:
    """Return what belongs to `launch` and to `mount_gradio_app` alike: the looks, and what is served to whom."""
    outputs = desk.queue.delivery.folder or desk.queue.delivery.scratch
    looks = {"theme": theme.theme(), "css": theme.css(), "head": theme.head(), "favicon_path": str(theme.ICON)}
    return {
        **looks,
        "footer_links": [],
        "run_history": False,
        "allowed_paths": [str(outputs.resolve()), str(desk.thumbnails.folder)],
        "max_file_size": desk.options.max_upload,
        "root_path": desk.options.root_path or None,
        "ssr_mode": False,
        "mcp_server": False,
        "enable_monitoring": False,
        "pwa": True,
        "show_error": True,
    }


def mount(app: Any, desk: Desk) -> None:
    """Serve the page of a desk from an application, below "/"; routes that it has already come first."""

    def mounted() -> None:
        demo = build(desk)
        demo.has_launched = True  # `launch` alone says so by itself; before, Gradio takes files from everywhere
        gr.mount_gradio_app(app, demo, path="/", **launch_options(desk))

    with_loop(mounted)


def header_state(snapshot: Snapshot) -> object:
    """Say what the header would show, in few words."""
    return snapshot.health, snapshot.model, snapshot.running, snapshot.waiting


def header(snapshot: Snapshot, login: bool = False) -> str:
    """Return the header: the program's name, the model, whether it is ready, how much is to do, the way out."""
    count = snapshot.running + snapshot.waiting
    work = (
        "idle"
        if not count
        else f"{snapshot.running} running" + (f", {snapshot.waiting} waiting" if snapshot.waiting else "")
    )
    title = html.escape(snapshot.error) if snapshot.health == "unhealthy" else ""
    return (
        f'<div class="topbar"><span class="name">{TITLE}</span>'
        f'<span class="model" title="The model that draws">{html.escape(snapshot.model)}</span>'
        f'<span class="health {snapshot.health}" title="{title}"><i></i>{snapshot.health}</span>'
        f'<span class="work">{work}</span><span class="rest"></span>{drop.BUTTON}'
        f'<button type="button" class="shade" data-dark aria-label="Light or dark"></button>'
        f"{LOG_OUT if login else ''}</div>"
    )
