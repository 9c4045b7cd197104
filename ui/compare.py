"""The Compare tab: a grid over the values of one or two settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gradio as gr

if TYPE_CHECKING:
    from ui.page import Page


def build(page: Page) -> gr.Tab:
    """Build the tab."""
    with page.tab("compare", "Compare") as tab:
        gr.Markdown("### Compare")
    return tab
