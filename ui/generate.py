"""The Generate tab: pictures from words."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import gradio as gr

from engine.catalog import ModelSpec
from ui import controls, lora_set
from ui.forms import Form, default
from ui.panel import Panel

if TYPE_CHECKING:
    from ui.page import Page

NAME = "generate"
RATIOS = ("1:1", "4:3", "3:2", "16:9", "3:4", "2:3", "9:16")
# What also a small model knows: it fills the first minute.
EXAMPLES = (
    "A beautiful sunset over the mountains",
    "a red house by a lake at night, on the left, with pine trees",
    "a lighthouse by the sea in fog",
    "a yellow hot-air balloon over a meadow at dawn",
)


def build(page: Page) -> gr.Tab:
    """Build the tab."""
    spec = page.desk.spec
    form = page.forms[NAME] = Form(spec)
    with page.tab(NAME, "Generate") as tab, gr.Row(elem_classes="workspace"):
        with gr.Column(scale=5, min_width=320, elem_classes="settings"):
            controls.words(form, "What to draw", autofocus=True)
            controls.earlier(page, form)
            row = controls.run_row("Generate")
            ratio = chips(spec)
            controls.guidance_row(form)
            seed = controls.seed_row(form)
            lora_set.build(page)
            with gr.Accordion("Advanced", open=False):
                with gr.Row():
                    form.widget("width", min_width=120, info=None)
                    form.widget("height", min_width=120, info=None)
                form.rest(without=("strength", "num_frames", "fps", "x264_preset"))
            examples(form)
        with gr.Column(scale=6, min_width=320):
            panel = Panel(page, NAME)
    controls.connect_run(page, NAME, row)
    controls.connect_seed(panel, form, seed)
    controls.connect_chips(
        form, ratio, lambda chosen: size_of(chosen, page.desk.spec), lambda *sides: ratio_of(page.desk.spec, *sides)
    )
    return tab


def chips(spec: ModelSpec | None) -> gr.Radio:
    """Return the aspect ratios to choose from."""
    return gr.Radio([*RATIOS], value=ratio_of(spec, None, None), label="Shape", elem_classes="chips")


def examples(form: Form) -> None:
    """Place prompts to begin with; one click puts one into the form."""
    gr.HTML('<div class="line muted">Try one of these</div>', padding=False)
    with gr.Row(elem_classes="examples"):
        for text in EXAMPLES:
            button = gr.Button(text, size="sm", elem_classes="example", scale=0, min_width=80)
            button.click(None, None, [form["prompt"]], js=f"() => {json.dumps(text)}")


def size_of(ratio: str, spec: ModelSpec | None) -> tuple[int, int]:
    """Return width and height of a shape: about as many pixels as the model's own size, sides that it can draw."""
    across, down = (int(part) for part in ratio.split(":"))
    area = (default("width", spec) or 1024) * (default("height", spec) or 1024)
    step = spec.multiple if spec is not None else 16
    width = math.sqrt(area * across / down)
    return _near(width, step), _near(width * down / across, step)


def _near(side: float, step: int) -> int:
    return max(step, round(side / step) * step)


def ratio_of(spec: ModelSpec | None, width: float | None, height: float | None) -> str | None:
    """Return the shape that has these sides, by default the model's own; None when none has."""
    size = (width or default("width", spec) or 1024, height or default("height", spec) or 1024)
    return next((ratio for ratio in RATIOS if size_of(ratio, spec) == size), None)
