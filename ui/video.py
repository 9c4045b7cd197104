"""The Video tab: clips from words or a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gradio as gr

if TYPE_CHECKING:
    from ui.page import Page


def build(page: Page) -> gr.Tab:
    """Build the tab."""
    with page.tab("video", "Video") as tab:
        gr.Markdown("### Video")
    return tab
