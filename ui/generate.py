"""The Generate tab: pictures from words."""

from __future__ import annotations

import base64
import functools
import html
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

import engine
from engine.catalog import ModelSpec
from ui import controls, lacking, lora_set
from ui.forms import Form, default
from ui.page import QUIET
from ui.panel import Panel

if TYPE_CHECKING:
    from ui.page import Page

NAME = "generate"
RATIOS = ("1:1", "4:3", "3:2", "16:9", "3:4", "2:3", "9:16")
MODEL = "tiny-scenes"  # whose pictures of the examples are shown
SHELVES = (
    Path(engine.__file__).parent / "assets" / "examples",
    Path(engine.__file__).parents[1] / "assets" / "examples",
)
PICK_JS = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-at]');
  if (button) trigger('select', {at: Number(button.dataset.at)});
});
"""


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt to begin with, and the seed of its picture."""

    prompt: str
    seed: int


# What also a small model knows: it fills the first minute.
EXAMPLES = (
    Example("A beautiful sunset over the mountains", 1),
    Example("a red house by a lake at night, on the left, with pine trees", 5),
    Example("a lighthouse by the sea in fog", 7),
    Example("a yellow hot-air balloon over a meadow at dawn", 2),
)


def build(page: Page) -> gr.Tab:
    """Build the tab."""
    spec = page.desk.spec
    form = page.forms[NAME] = Form(spec)
    with page.tab(NAME, "Generate") as tab:
        vacant = lacking.build(page, empty, can_draw)
        with gr.Row(elem_classes="workspace", visible=can_draw(spec)) as space:
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
                controls.reset(page, form)
                controls.connect_chips(page, form, ratio, shapes)
                examples(page, form)
            with gr.Column(scale=6, min_width=320):
                panel = Panel(page, NAME)
    controls.connect_run(page, NAME, row)
    controls.connect_seed(panel, form, seed)

    def on_model() -> list[Any]:
        said = empty(page.desk.spec)
        return [gr.update(visible=bool(said)), gr.update(visible=not said)]

    page.on_model([vacant, space], on_model)
    return tab


def can_draw(spec: ModelSpec | None) -> bool:
    """Say whether a model draws pictures from words; one that is not known yet is trusted to."""
    return spec is None or "T2I" in spec.tasks


def empty(spec: ModelSpec | None) -> str:
    """Return what the tab shows in place of itself when the model draws no pictures from words."""
    if spec is None or can_draw(spec):
        return ""
    if spec.is_video:
        return lacking.words(spec, "makes clips", "They are made in the Video tab. It cannot draw pictures.", can_draw)
    return lacking.words(spec, "edits pictures", "That is done in the Edit tab. It cannot draw from words.", can_draw)


def chips(spec: ModelSpec | None) -> gr.Radio:
    """Return the aspect ratios to choose from."""
    return gr.Radio([*RATIOS], value=shapes(spec).empty, label="Shape", elem_classes="chips")


def examples(page: Page, form: Form) -> None:
    """Place prompts to begin with; one click puts one into the form, with the seed of the picture that is shown."""
    gr.HTML('<div class="line muted">Try one of these</div>', padding=False)
    row = gr.HTML(row_of(page.desk.spec), js_on_load=PICK_JS, elem_classes="examples", padding=False)

    def pick(event: gr.EventData) -> list[Any]:
        chosen = EXAMPLES[int(event._data["at"])]
        return [chosen.prompt, str(chosen.seed) if drawn(page.desk.spec) else gr.skip()]

    row.select(pick, None, [form["prompt"], form["seed"]], **QUIET)
    page.on_model([row], lambda: [row_of(page.desk.spec)])


def drawn(spec: ModelSpec | None) -> bool:
    """Say whether the pictures of the examples are what a model draws."""
    return spec is not None and spec.id == MODEL


def row_of(spec: ModelSpec | None) -> str:
    """Return the examples as HTML, with their pictures where they are what the model draws."""
    buttons = (
        f'<button type="button" class="example" data-at="{i}">{_image(example) if drawn(spec) else ""}'
        f"<span>{html.escape(example.prompt)}</span></button>"
        for i, example in enumerate(EXAMPLES)
    )
    return f'<div class="row">{"".join(buttons)}</div>'


@functools.cache
def _image(example: Example) -> str:
    """Return the picture of an example as HTML that holds it; nothing where it is missing."""
    path = picture_of(example)
    if not path.is_file():
        return ""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="" width="48" height="48" src="data:image/webp;base64,{data}">'


def picture_of(example: Example) -> Path:
    """Return the file of an example's picture: in an installation beside the other bundled files, or in a checkout."""
    name = "-".join(example.prompt.lower().replace(",", "").split()[:5])
    return next((shelf for shelf in SHELVES if shelf.is_dir()), SHELVES[-1]) / f"{MODEL}-{name}.webp"


def size_of(ratio: str, spec: ModelSpec | None) -> tuple[int, int]:
    """Return width and height of a shape: about as many pixels as the model's own size, sides that it can draw."""
    across, down = (int(part) for part in ratio.split(":"))
    area = (default("width", spec) or 1024) * (default("height", spec) or 1024)
    step = spec.multiple if spec is not None else 16
    width = math.sqrt(area * across / down)
    return _near(width, step), _near(width * down / across, step)


def _near(side: float, step: int) -> int:
    return max(step, round(side / step) * step)


def shapes(spec: ModelSpec | None) -> controls.Shapes:
    """Return the shapes with their sides; empty ones stand for the shape of the model's own size, where it has one."""
    own = (default("width", spec) or 1024, default("height", spec) or 1024)
    sides = {ratio: size_of(ratio, spec) for ratio in RATIOS}
    return controls.Shapes(sides, own, next((ratio for ratio, size in sides.items() if size == own), None))
