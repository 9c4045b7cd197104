"""The LoRA tab: the adapters that are known, and which are set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gradio as gr

if TYPE_CHECKING:
    from ui.page import Page


def build(page: Page) -> gr.Tab:
    """Build the tab."""
    with page.tab("loras", "LoRA") as tab:
        gr.Markdown("### LoRA")
    return tab
