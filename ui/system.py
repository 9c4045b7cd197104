"""The System tab: models, queue, memory, timings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gradio as gr

if TYPE_CHECKING:
    from ui.page import Page


def build(page: Page) -> gr.Tab:
    """Build the tab."""
    with page.tab("system", "System") as tab:
        gr.Markdown("### System")
    return tab
