"""The Edit tab: pictures from pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gradio as gr

if TYPE_CHECKING:
    from ui.page import Page


def build(page: Page) -> gr.Tab:
    """Build the tab."""
    with page.tab("edit", "Edit") as tab:
        gr.Markdown("### Edit")
    return tab
