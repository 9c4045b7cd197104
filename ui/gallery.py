"""The Gallery tab: every finished job of the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gradio as gr

if TYPE_CHECKING:
    from ui.page import Page


def build(page: Page) -> gr.Tab:
    """Build the tab."""
    with page.tab("gallery", "Gallery") as tab:
        gr.Markdown("### Gallery")
    return tab
