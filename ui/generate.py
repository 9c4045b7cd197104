"""The Generate tab: pictures from words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

from engine.catalog import ModelSpec
from ui.forms import Form, default, seed_text, seeds
from ui.page import QUIET
from ui.panel import Panel
from ui.say import told

if TYPE_CHECKING:
    from ui.page import Page

NAME = "generate"
HISTORY = 50
RATIOS = ("1:1", "4:3", "3:2", "16:9", "3:4", "2:3", "9:16")
CUSTOM = "custom"
MOST = 4  # outputs that the count offers


def build(page: Page) -> gr.Tab:
    """Build the tab."""
    spec = page.desk.spec
    form = page.forms[NAME] = Form(spec)
    with page.tab(NAME, "Generate") as tab, gr.Row(elem_classes="workspace"):
        with gr.Column(scale=5, min_width=320, elem_classes="settings"):
            form.widget("prompt", lines=3, max_lines=12, autofocus=True, info=None, placeholder="What to draw")
            form.widget("negative_prompt", lines=1, max_lines=6, info=None, placeholder="What to keep out")
            with gr.Row(elem_classes="run-row"):
                run = gr.Button("Generate", variant="primary", elem_classes="run", scale=3, min_width=120)
                stop = gr.Button("Cancel", elem_classes="cancel", scale=1, min_width=80)
            ratio = chips(spec)
            with gr.Row():
                form.widget("num_inference_steps", min_width=140, info=None)
                form.widget("true_cfg_scale", min_width=140, info=None)
                form.widget("guidance_scale", min_width=140, info=None)
            dice, lock = seed_row(form)
            with gr.Accordion("Advanced", open=False):
                with gr.Row():
                    form.widget("width", min_width=120, info=None)
                    form.widget("height", min_width=120, info=None)
                form.rest(without=("strength", "num_frames", "fps", "x264_preset"))
        with gr.Column(scale=6, min_width=320):
            panel = Panel(page, NAME)
    _connect(page, form, panel, run, stop)
    _connect_size(page, form, ratio)
    _connect_seed(panel, form, dice, lock)
    return tab


def chips(spec: ModelSpec | None) -> gr.Radio:
    """Return the aspect ratios to choose from."""
    return gr.Radio([*RATIOS], value=ratio_of(spec, None, None), label="Shape", elem_classes="chips")


def seed_row(form: Form) -> tuple[gr.Button, gr.Button]:
    """Place seed and count; return the dice and the lock."""
    with gr.Row(elem_classes="seed-row"):
        seed = gr.Textbox(label="Seed", placeholder="random", max_lines=1, min_width=120, scale=3)
        form.add("seed", seed, seeds, seed_text)
        dice = gr.Button("🎲", elem_classes="icon", min_width=44, scale=0)
        lock = gr.Button("🔒", elem_classes="icon", min_width=44, scale=0)
        form.add(
            "num_outputs_per_prompt",
            gr.Radio([*range(1, MOST + 1)], value=1, label="Count", elem_classes="chips", min_width=160, scale=3),
        )
    return dice, lock


def _connect(page: Page, form: Form, panel: Panel, run: gr.Button, stop: gr.Button) -> None:
    """Connect what runs and what cancels."""

    @told
    def submit(client: str, loras: Any, history: list[Any], *given: Any) -> list[Any]:
        values = form.values(given)
        job = page.submit(NAME, values, client, loras)
        pair = [values.get("prompt") or "", values.get("negative_prompt") or ""]
        return [job.id, [pair, *(entry for entry in history or [] if entry != pair)][:HISTORY]]

    @told
    def cancel(client: str) -> None:
        page.desk.cancel_current(client, NAME)

    shared = [page.client, page.loras, page.history]
    run.click(submit, [*shared, *form.components], [page.pulse, page.history], trigger_mode="multiple", **QUIET)
    stop.click(cancel, [page.client], None, **QUIET)


def _connect_size(page: Page, form: Form, ratio: gr.Radio) -> None:
    """Keep shape, width and height together."""

    def pick(chosen: str | None) -> list[Any]:
        if chosen is None:
            return [gr.skip(), gr.skip()]
        return list(size_of(chosen, page.desk.spec))

    def tell(width: float | None, height: float | None) -> str | None:
        return ratio_of(page.desk.spec, width, height)

    sides = [form["width"], form["height"]]
    ratio.input(pick, [ratio], sides, **QUIET)
    gr.on([side.change for side in sides], tell, sides, [ratio], **QUIET)


def _connect_seed(panel: Panel, form: Form, dice: gr.Button, lock: gr.Button) -> None:
    """Connect the dice, which empties the seed, and the lock, which keeps that of the chosen result."""

    @told
    def keep(items: Sequence[Any], chosen: int, now: str) -> str:
        if not items:
            return now
        job, index = panel.job_at(items, chosen)
        return str(panel.page.desk.artifacts(job)[index].seed)

    dice.click(lambda: "", None, [form["seed"]], **QUIET)
    lock.click(keep, [panel.items, panel.chosen, form["seed"]], [form["seed"]], **QUIET)


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
