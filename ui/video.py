"""The Video tab: clips from words or from a picture."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.processing_utils import save_pil_to_cache

from engine.catalog import SMALL_AREA, ModelSpec
from engine.errors import UsageError
from ui import controls, lacking, lora_set, masks, say
from ui.clip_tools import ClipPanel, ClipTools, frame
from ui.forms import Form, bounds, default, label, used
from ui.generate import size_of
from ui.page import QUIET
from ui.panel import Items, seconds
from ui.say import told

if TYPE_CHECKING:
    from ui.page import Page

NAME = "video"
SIDES = ("width", "height")
AUTOMATIC = "Automatic"  # the picture's shape, else the model's own size
NO_SPEC_FRAMES, NO_SPEC_FPS = 1, 16  # of sliders that are hidden until the model is known
MOST_FPS = 60  # of the slider
LACKING = "Add a picture first: this model makes clips that begin with one."


class ClipForm(Form):
    """A form whose size is empty by default where a picture may decide, and whose length goes by the model's steps."""

    def updates(self, values: Mapping[str, Any], spec: ModelSpec | None) -> list[Any]:
        """Return updates that show a request, see `Form.updates`."""
        empty: dict[str, Any] = dict.fromkeys(SIDES) if takes_image(spec) else {}
        return super().updates(empty | dict(values), spec)

    def length(self) -> None:
        """Make and place frames and frames per second."""
        for name, fallback, settings in (
            ("num_frames", NO_SPEC_FRAMES, frames_slider),
            ("fps", NO_SPEC_FPS, fps_slider),
        ):
            value = default(name, self.spec)
            given = settings(self.spec, value)
            slider = gr.Slider(value=value or fallback, label=label(name), min_width=140, **given)
            self.add(name, slider, _rounded, functools.partial(_or, fallback), settings)

    def sides(self) -> None:
        """Make and place width and height."""
        for name in SIDES:
            box = self.widget(name, min_width=120, info=None, placeholder="automatic")
            if takes_image(self.spec):
                box.value = ""


def _rounded(value: float | None) -> int | None:
    return None if value is None else round(value)


def _or(fallback: int, value: int | None) -> int:
    return value or fallback


def frames_slider(spec: ModelSpec | None, value: Any) -> dict[str, Any]:
    """Return how far the slider of frames goes: to twice the model's own number, in steps that it can draw."""
    step = spec.frame_stride if spec is not None else 1
    most = max(2 * (default("num_frames", spec) or 1), value or 1)
    return {
        "visible": used("num_frames", spec),
        "minimum": 1,
        "maximum": 1 + -(-(most - 1) // step) * step,
        "step": step,
    }


def fps_slider(spec: ModelSpec | None, value: Any) -> dict[str, Any]:
    """Return how far the slider of frames per second goes."""
    most = max(MOST_FPS, value or 1)
    return {"visible": used("fps", spec), "minimum": bounds("fps")[0], "maximum": most, "step": 1}


def takes_image(spec: ModelSpec | None) -> bool:
    """Say whether a clip may begin with a picture."""
    return spec is not None and spec.is_video and "image_path" in spec.uses


def needs_image(spec: ModelSpec | None) -> bool:
    """Say whether a clip must begin with a picture."""
    return takes_image(spec) and spec is not None and set(spec.tasks) <= {"I2V"}


def can_draw(spec: ModelSpec | None) -> bool:
    """Say whether a model draws clips; one that is not known yet is trusted to."""
    return spec is None or spec.is_video


def empty(spec: ModelSpec | None) -> str:
    """Return what the tab shows in place of itself when the model draws no clips."""
    if spec is None or can_draw(spec):
        return ""
    return lacking.words(spec, "draws pictures", "It cannot make clips.", can_draw)


def sizes(spec: ModelSpec | None) -> dict[str, tuple[int | None, int | None]]:
    """Return chips of sizes: the model's own lying, standing and square, then the same with fewer pixels."""
    width, height = default("width", spec) or 832, default("height", spec) or 480
    square = size_of("1:1", spec)
    shapes = [(width, height), (height, width), square]
    if width == height:
        shapes += [size_of("16:9", spec), size_of("9:16", spec)]
    if width * height > SMALL_AREA:
        shapes += [(832, 480), (480, 832)]
    found: dict[str, tuple[int | None, int | None]] = {AUTOMATIC: (None, None)} if takes_image(spec) else {}
    return found | {f"{across} × {down}": (across, down) for across, down in shapes}


def shapes(spec: ModelSpec | None) -> controls.Shapes:
    """Return the chips with their sides; empty ones stand for the first, which leaves them to the model."""
    chips = sizes(spec)
    return controls.Shapes(chips, (default("width", spec) or 832, default("height", spec) or 480), next(iter(chips)))


def lasting(frames: float | None, fps: float | None) -> str:
    """Return how long a clip will be."""
    if not frames or not fps:
        return ""
    return f'<div class="line muted">The clip lasts {seconds(frames / fps)}.</div>'


def build(page: Page) -> gr.Tab:
    """Build the tab."""
    spec = page.desk.spec
    form = ClipForm(spec)
    page.forms[NAME] = form
    with page.tab(NAME, "Video") as tab:
        vacant = lacking.build(page, empty, can_draw)
        with gr.Row(elem_classes="workspace", visible=can_draw(spec)) as space:
            with gr.Column(scale=5, min_width=320, elem_classes="settings"):
                picture = gr.Image(
                    label=picture_label(spec), type="filepath", image_mode=None, sources=["upload", "clipboard"],
                    height=240, visible=takes_image(spec), buttons=[], elem_classes="picture",
                )  # fmt: skip
                controls.words(form, "What happens in the clip")
                controls.earlier(page, form)
                row = controls.run_row("Make clip")
                chips = gr.Radio(
                    [*sizes(spec)], value=next(iter(sizes(spec))), label="Size", elem_classes="chips"
                )  # fmt: skip
                with gr.Row():
                    form.length()
                length = gr.HTML(lasting(default("num_frames", spec), default("fps", spec)), padding=False)
                controls.guidance_row(form)
                seed = controls.seed_row(form)
                lora_set.build(page)
                with gr.Accordion("Advanced", open=False):
                    with gr.Row():
                        form.sides()
                    form.rest(without=("strength",))
                controls.reset(page, form)
                controls.connect_chips(page, form, chips, shapes)
            with gr.Column(scale=6, min_width=320):
                panel = ClipPanel(page, NAME)
                ClipTools(panel, lambda: takes_image(page.desk.spec))
    controls.connect_run(page, NAME, row, inputs=[picture], prepare=_prepare(page))
    controls.connect_seed(panel, form, seed)
    pace = [form["num_frames"], form["fps"]]
    gr.on([entry.change for entry in pace], lasting, pace, [length], trigger_mode="always_last", **QUIET)
    _connect_picture(page, panel, picture)

    def on_model() -> list[Any]:
        now = page.desk.spec
        return [
            gr.update(visible=not can_draw(now)),
            gr.update(visible=can_draw(now)),
            gr.update(label=picture_label(now), visible=takes_image(now)),
            gr.update(choices=[*sizes(now)], value=next(iter(sizes(now)))),
            gr.update(visible=takes_image(now)),
        ]

    page.on_model([vacant, space, picture, chips, panel.use], on_model)
    return tab


def picture_label(spec: ModelSpec | None) -> str:
    """Return what stands over the picture."""
    return "First frame" if needs_image(spec) else "First frame, if you like"


def _prepare(page: Page) -> controls.Prepare:
    """Return what makes the input fields of a request."""

    def prepare(picture: str | None) -> Mapping[str, Any]:
        spec = page.desk.spec
        if picture is None or not takes_image(spec):
            if needs_image(spec):
                raise UsageError(LACKING, param="image_path")
            return {}
        masks.checked(picture)
        return {"image_path": [picture]}

    return prepare


def _connect_picture(page: Page, panel: ClipPanel, picture: gr.Image) -> None:
    """Connect what puts a frame, or a result of another tab, in place of the picture."""

    def receive(*paths: str) -> list[Any]:
        if not takes_image(page.desk.spec):
            say.info("The model makes clips from words alone.", "No picture is used")
            return [gr.skip()]
        return [paths[0]]

    def taken(items: Items, chosen: int, index: int) -> Any:
        if not takes_image(page.desk.spec) or not items:
            return gr.skip()
        return save_pil_to_cache(frame(panel.path_at(items, chosen), index), picture.GRADIO_CACHE, "frame", "png")

    @told
    def pick(items: Items, chosen: int, event: gr.SelectData) -> Any:
        return taken(items, chosen, event.index)

    @told
    def last(items: Items, chosen: int) -> Any:
        return taken(items, chosen, -1)

    page.takes_input(NAME, [picture], receive)
    at = [panel.items, panel.chosen]
    panel.strip.select(pick, at, [picture], **QUIET)
    panel.use.value = "Use last frame"
    panel.use.visible = takes_image(page.desk.spec)
    panel.use.click(last, at, [picture], **QUIET)
