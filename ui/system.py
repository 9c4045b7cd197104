"""The System tab: models and their downloads, the queue, memory, timings, versions."""

from __future__ import annotations

import html
import platform
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gradio as gr

from engine.errors import SgdiffError
from ui import queue_view
from ui.desk import Desk
from ui.models import PRESS_JS, Models
from ui.page import QUIET
from ui.say import told

if TYPE_CHECKING:
    from ui.page import Page

NAME, LABEL = "system", "System"
LOOK_S = 1.5  # while the tab is open
LINKS = (("./docs", "API routes"), ("./openapi.json", "OpenAPI description"))


def build(page: Page) -> gr.Tab:
    """Build the tab."""
    with page.tab(NAME, LABEL) as tab:
        System(page, tab)
    return tab


class System:
    """Everything but the forms is shown anew while the tab is open, where it has changed."""

    def __init__(self, page: Page, tab: gr.Tab) -> None:
        self.page, self.desk = page, page.desk
        self.models, self.memory = Models(page.desk), queue_view.Memory(page.desk)
        self.timer, self.seen = gr.Timer(LOOK_S, active=False), gr.State([])
        with gr.Row(elem_classes="workspace"):
            with gr.Column(scale=5, min_width=320, elem_classes="settings"):
                self.list = _section("Models", js_on_load=PRESS_JS)
                self.name: gr.Dropdown | None = None
                if self.desk.options.model_switch:
                    self._build_add()
                self.device = _section("Memory")
                _section("About", value=about(self.desk))
            with gr.Column(scale=6, min_width=320, elem_classes="settings"):
                self.queue = _section("Queue", js_on_load=PRESS_JS)
                self.times = _section("Where the time went")
        self._connect(tab)

    def _build_add(self) -> None:
        self.name = gr.Dropdown(
            [], value=None, label="Get another model", allow_custom_value=True, filterable=True,
            info="One of the list, or any hub id (owner/name)",
        )  # fmt: skip
        self.note = gr.HTML("", padding=False, elem_classes="asked")
        self.get = gr.Button("Download", size="sm", elem_classes="other")

    @property
    def shown(self) -> list[Any]:
        """What is looked at again and again, in the order of `views`."""
        return [self.list, self.queue, self.device, self.times]

    def views(self) -> list[str]:
        """Return what each of `shown` shows now."""
        done, _ = self.desk.page(status="done", limit=queue_view.SHOWN)
        return [self.models.view(), queue_view.queue(self.desk), self.memory.view(), queue_view.timings(done)]

    def look(self, seen: list[str]) -> list[Any]:
        """Return what is seen now, and updates for what has changed."""
        views = self.views()
        before = seen if len(seen) == len(views) else [None] * len(views)
        return [views, *(gr.skip() if old == new else new for old, new in zip(before, views, strict=True))]

    def _connect(self, tab: gr.Tab) -> None:
        outputs = [self.seen, *self.shown]

        def visit(seen: list[str]) -> list[Any]:
            self.models.look()
            choices: list[Any] = [gr.update(choices=self.models.absent())] if self.name is not None else []
            return [gr.Timer(active=True), *self.look(seen), *choices]

        def awake(event: gr.SelectData) -> Any:
            return gr.Timer(active=event.value == LABEL)

        @told
        def do(seen: list[str], event: gr.EventData) -> list[Any]:
            self.pressed(event._data)
            return self.look([])

        choice: list[Any] = [self.name] if self.name is not None else []
        tab.select(visit, [self.seen], [self.timer, *outputs, *choice], **QUIET)
        self.page.tabs.select(awake, None, [self.timer], **QUIET)
        self.timer.tick(self.look, [self.seen], outputs, trigger_mode="once", concurrency_limit=None, **QUIET)
        for entry in (self.list, self.queue):
            entry.click(do, [self.seen], outputs, **QUIET)
        if self.name is not None:
            self._connect_add(outputs)

    def _connect_add(self, outputs: list[Any]) -> None:
        assert self.name is not None

        def ask(name: str | None) -> Any:
            if not name:
                yield ""
                return
            yield '<div class="line muted">Asking the hub…</div>'
            yield said(lambda: self.models.takes(name))

        def get(name: str | None) -> list[Any]:
            words = said(lambda: f"Downloading {self.models.start(name or '').model}.")
            return [words, *self.look([])]

        self.name.input(ask, [self.name], [self.note], **QUIET)
        self.get.click(get, [self.name], [self.note, *outputs], **QUIET)

    def pressed(self, data: Any) -> None:
        """Do what a button of a list says. Raises SgdiffError."""
        of, desk = str(data["of"]), self.desk
        actions: dict[str, Callable[[], object]] = {
            "use": lambda: self.models.use(of),
            "get": lambda: self.models.start(of),
            "cancel": lambda: desk.cancel(of),
            "next": lambda: desk.raise_priority(of),
            "sooner": lambda: desk.move(of, -1),
            "later": lambda: desk.move(of, 1),
        }
        actions[data["do"]]()


def said(action: Callable[[], str]) -> str:
    """Return what an action says, or why it cannot be done."""
    try:
        return f'<div class="line muted">{html.escape(action())}</div>'
    except SgdiffError as error:
        return f'<div class="line bad" role="alert">{html.escape(error.message)}</div>'


def _section(title: str, **settings: Any) -> gr.HTML:
    """Place a heading and what stands below it."""
    with gr.Column(elem_classes="section"):
        gr.HTML(f"<h3>{title}</h3>", padding=False)
        return gr.HTML(**{"value": "", "padding": False, "elem_classes": f"of-{title.split()[0].lower()}", **settings})


def about(desk: Desk) -> str:
    """Return versions and links."""
    versions = {"sgdiff-app": desk.options.version, "python": platform.python_version(), "gradio": gr.__version__}
    told: Any = desk.queue.supervisor.told.get("recipe") or {}
    versions |= {name: version for name, version in (told.get("versions") or {}).items() if name == "torch"}
    words = html.escape(" · ".join(f"{name} {version}" for name, version in versions.items()))
    links = "".join(f'<a href="{address}" target="_blank">{text}</a>' for address, text in LINKS)
    return f'<div class="line muted">{words}</div><div class="line">{links}</div>'
