"""What a tab shows in place of itself while the model cannot do what the tab is for, and what helps."""

from __future__ import annotations

import asyncio
import html
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import gradio as gr

from engine import hub
from engine.catalog import MODELS, ModelSpec
from engine.errors import SgdiffError
from ui.page import QUIET
from ui.say import told

if TYPE_CHECKING:
    from ui.page import Page

NAMED = 4  # models that are named
SYSTEM = "system"  # the tab where models are chosen
Able = Callable[[ModelSpec], bool]


def words(spec: ModelSpec, kind: str, lack: str, able: Able) -> str:
    """Return what is said: what the model does, what it cannot do, and which can."""
    names = [*bundled(able), *(entry.id for entry in MODELS if able(entry))]
    listed = "".join(f"<li>{html.escape(name)}</li>" for name in list(dict.fromkeys(names))[:NAMED])
    return (
        f'<div class="vacant"><h3>{html.escape(f"{spec.id} {kind}")}</h3><p>{html.escape(lack)}</p>'
        f'<p class="muted">Models that can, among others:</p><ul class="muted">{listed}</ul></div>'
    )


def bundled(able: Able) -> list[str]:
    """Return the models that came with the program and are able to."""
    here = hub.bundled_names()
    return [entry.id for entry in MODELS if entry.id in here and able(entry)]


def build(page: Page, said: Callable[[ModelSpec | None], str], able: Able) -> gr.Column:
    """Build it inside a tab; `said` returns `words`, or nothing while the model is able to."""

    def offer() -> dict[str, Any]:
        ours = bundled(able)[:1] if page.desk.options.model_switch else []
        return {"value": f"Switch to {ours[0]}" if ours else "", "visible": bool(ours), "interactive": True}

    with gr.Column(visible=bool(said(page.desk.spec)), elem_classes="lacking") as box:
        text = gr.HTML(said(page.desk.spec), padding=False)
        with gr.Row(elem_classes="actions"):
            switch = gr.Button(**offer(), variant="primary", size="sm", min_width=160)
            choose = gr.Button("Choose a model", size="sm", min_width=160)

    @told
    async def change() -> AsyncIterator[dict[str, Any]]:
        name = bundled(able)[0]
        loading = page.desk.switch(name)
        yield gr.update(value=f"Loading {name}…", interactive=False)
        try:
            await asyncio.wrap_future(loading)
        except SgdiffError:
            yield gr.update(**offer())
            raise
        yield gr.update(**offer())

    page.on_model([text, switch], lambda: [said(page.desk.spec), gr.update(**offer())])
    page.later(lambda: choose.click(lambda: gr.Tabs(selected=SYSTEM), None, [page.tabs], **QUIET))
    switch.click(change, None, [switch], concurrency_limit=None, **QUIET)
    return box
