"""The Edit tab: pictures from pictures, as a whole, where painted, or from several of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from engine.catalog import IMG2IMG, INPAINT, ModelSpec
from engine.errors import InputError, NotFound, UsageError
from ui import controls, lacking, lora_set, masks, say
from ui.forms import Form, label, properties, typed
from ui.page import QUIET
from ui.panel import Panel

if TYPE_CHECKING:
    from ui.page import Page

NAME = "edit"
WHOLE, PART = "Whole picture", "Painted part"
KINDS = [".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"]
SIDES = ("width", "height")
LACKING = 'Add a picture first: drop one into the tab, or press "Use as input" under a result.'
UNPAINTED = "Nothing is painted yet. Paint over what should change, then press Edit."


class EditForm(Form):
    """A form whose size is empty by default: the picture decides."""

    def updates(self, values: Mapping[str, Any], spec: ModelSpec | None) -> list[Any]:
        """Return updates that show a request, see `Form.updates`."""
        return super().updates(dict.fromkeys(SIDES) | dict(values), spec)

    def side(self, name: str) -> None:
        """Make and place a side of the size."""

        def settings(spec: ModelSpec | None, value: Any) -> dict[str, Any]:
            return properties(name, spec, value) | {"info": None}

        given = settings(self.spec, None)
        kind, read, show = typed(name)
        box = kind(label=label(name), placeholder="as the picture", min_width=120, **given)
        self.add(name, box, read, show, settings)


@dataclass(slots=True)
class Inputs:
    """What the pictures come in: `one` or `several`, as many as the model takes, and the editor to paint on one."""

    one: gr.Image
    several: gr.Gallery
    several_row: gr.Row
    earlier: gr.Button
    later: gr.Button
    chosen: gr.State  # which of several is moved
    mode: gr.Radio
    editor: gr.ImageEditor
    replace: gr.UploadButton

    @property
    def shown(self) -> list[Any]:
        """What depends on the model and on the mode, see `visible`."""
        return [self.one, self.several, self.several_row, self.mode, self.editor, self.replace]


def can_edit(spec: ModelSpec | None) -> bool:
    """Say whether a model makes pictures from pictures; one that is not known yet is trusted to."""
    return spec is None or ("image_path" in spec.uses and not spec.is_video)


def takes_several(spec: ModelSpec | None) -> bool:
    """Say whether a model takes several pictures at once."""
    return spec is not None and spec.max_images > 1


def modes(spec: ModelSpec | None) -> list[str]:
    """Return what a model can be asked to change."""
    return [WHOLE, PART] if spec is not None and INPAINT in spec.features else [WHOLE]


def wish(spec: ModelSpec | None) -> str:
    """Return what stands in an empty prompt: some models are told of the result, others what to do."""
    told_result = spec is None or IMG2IMG in spec.features
    return "What the result should show" if told_result else "What to change"


def empty(spec: ModelSpec | None) -> str:
    """Return what the tab shows in place of itself when the model cannot edit."""
    if spec is None or can_edit(spec):
        return ""
    kind = "makes clips" if spec.is_video else "draws from words alone"
    return lacking.words(spec, kind, "It cannot edit pictures.", can_edit)


def build(page: Page) -> gr.Tab:
    """Build the tab."""
    spec = page.desk.spec
    form = EditForm(spec)
    page.forms[NAME] = form
    with page.tab(NAME, "Edit") as tab:
        vacant = lacking.build(page, empty, can_edit)
        with gr.Row(elem_classes="workspace", visible=can_edit(spec)) as space:
            with gr.Column(scale=5, min_width=320, elem_classes="settings"):
                inputs = _inputs(spec)
                controls.words(form, wish(spec))
                controls.earlier(page, form)
                row = controls.run_row("Edit")
                form.widget("strength", info="0 keeps the picture, 1 draws it anew")
                controls.guidance_row(form)
                seed = controls.seed_row(form)
                lora_set.build(page)
                with gr.Accordion("Advanced", open=False):
                    with gr.Row():
                        for name in SIDES:
                            form.side(name)
                    form.rest(without=("num_frames", "fps", "x264_preset"))
                controls.reset(page, form)
            with gr.Column(scale=6, min_width=320):
                panel = Panel(page, NAME)
                slider = gr.ImageSlider(
                    show_label=False, interactive=False, visible=False, buttons=["fullscreen"],
                    max_height=460, elem_classes="compare",
                )  # fmt: skip
    controls.connect_run(
        page, NAME, row, inputs=[inputs.one, inputs.several, inputs.mode, inputs.editor], prepare=_prepare(page, inputs)
    )
    controls.connect_seed(panel, form, seed)
    _connect_inputs(page, inputs)
    _connect_order(inputs)
    _connect_slider(panel, slider)

    def on_model() -> list[Any]:
        now = page.desk.spec
        able = can_edit(now)
        return [
            gr.update(visible=not able),
            gr.update(visible=able),
            gr.update(placeholder=wish(now)),
            *arranged(now, WHOLE, False, choice=WHOLE),
        ]

    page.on_model([vacant, space, form["prompt"], *inputs.shown], on_model)
    page.takes_input(NAME, [inputs.one, inputs.several], lambda *paths: [paths[0], [*paths]], several=True)
    return tab


def _inputs(spec: ModelSpec | None) -> Inputs:
    """Place what the pictures come in."""
    several, choice = takes_several(spec), modes(spec)
    one = gr.Image(
        label="Picture", type="filepath", image_mode=None, sources=["upload", "clipboard"], height=320,
        visible=not several, buttons=["fullscreen"], elem_classes="picture",
    )  # fmt: skip
    gallery = gr.Gallery(
        label="Pictures, in this order", type="filepath", file_types=KINDS, columns=4, height=260,
        object_fit="contain", interactive=True, allow_preview=False, visible=several, buttons=[],
        elem_classes="pictures",
    )  # fmt: skip
    with gr.Row(visible=several, elem_classes="actions") as row:
        earlier = gr.Button("◀ Earlier", size="sm", min_width=80)
        later = gr.Button("Later ▶", size="sm", min_width=80)
    mode = gr.Radio(choice, value=WHOLE, label="Change", visible=len(choice) > 1, elem_classes="chips mode")
    editor = gr.ImageEditor(
        label="Paint here", type="pil", sources=(), transforms=(), layers=False, height=420,
        brush=gr.Brush(default_size="auto", colors=[masks.PAINT], default_color=masks.PAINT, color_mode="fixed"),
        buttons=["fullscreen"], format="png", visible=False, elem_classes="painter",
    )  # fmt: skip
    replace = gr.UploadButton(
        "Other picture", file_types=KINDS, size="sm", visible=False, type="filepath", elem_classes="other"
    )  # fmt: skip
    return Inputs(one, gallery, row, earlier, later, gr.State(0), mode, editor, replace)


def arranged(spec: ModelSpec | None, mode: str, filled: bool, /, **values: Any) -> list[Any]:
    """Return updates for `Inputs.shown`; `filled` says whether there is a picture to paint on.

    `values` are new ones of `one`, of `editor`, and of the mode itself (`choice`).
    """
    several, known = takes_several(spec), modes(spec)
    mode = mode if mode in known else WHOLE
    part = mode == PART and filled and not several
    one, chosen, editor = ({"value": values[name]} if name in values else {} for name in ("one", "choice", "editor"))
    return [
        gr.update(visible=not several and not part, **one),
        gr.update(visible=several),
        gr.update(visible=several),
        gr.update(choices=known, visible=len(known) > 1, **chosen),
        gr.update(visible=part, **editor),
        gr.update(visible=part),
    ]


def _prepare(page: Page, inputs: Inputs) -> controls.Prepare:
    """Return what makes the input fields of a request."""

    def prepare(
        one: str | None, several: Sequence[tuple[str, Any]] | None, mode: str, painting: Mapping[str, Any] | None
    ) -> Mapping[str, Any] | None:
        paths = [path for path, _ in several or ()] if takes_several(page.desk.spec) else [one] if one else []
        if not paths:
            raise UsageError(LACKING, param="image_path")
        pictures = [masks.checked(path) for path in paths]
        if mode == WHOLE:
            return {"image_path": paths}
        mask = masks.painted(painting, pictures[0].size)
        if mask is None:
            say.info(UNPAINTED, "Nothing to do yet")
            return None
        return {"image_path": paths, "mask_path": masks.saved(mask, inputs.editor)}

    return prepare


def _connect_inputs(page: Page, inputs: Inputs) -> None:
    """Keep picture, mode and editor together; a file that is no picture is said so and dropped at once."""

    def picture(given: Mapping[str, Any] | None) -> Any:
        return masks.checked(given["path"]) if given else None

    def take(given: Mapping[str, Any] | None, mode: str) -> list[Any]:
        try:
            found = picture(given)
        except InputError as error:
            say.warn_of(error)
            return arranged(page.desk.spec, mode, False, one=None, editor=None)
        canvas = masks.canvas(found) if found is not None and mode == PART else None
        return arranged(page.desk.spec, mode, found is not None, editor=canvas)

    def wipe(given: Mapping[str, Any] | None) -> Any:
        return masks.canvas(picture(given)) if given else None

    def check(given: Sequence[Mapping[str, Any]] | None) -> Any:
        paths = [entry["image"]["path"] for entry in given or () if "image" in entry]
        kept = [path for path in paths if _usable(path)]
        most = page.desk.spec.max_images if page.desk.spec is not None else 1
        if len(kept) > most:
            say.warn(f"The model takes at most {most} pictures; the first {most} are kept.", "Too many")
        return kept[:most] if len(kept[:most]) < len(given or ()) else gr.skip()

    raw: dict[str, Any] = {"preprocess": False, **QUIET}  # what is no picture cannot be preprocessed either
    # The last of several at once counts: a mode may be chosen while the picture is still looked at.
    gr.on(
        [inputs.one.change, inputs.mode.input], take, [inputs.one, inputs.mode], inputs.shown,
        trigger_mode="always_last", **raw,
    )  # fmt: skip
    inputs.editor.clear(wipe, [inputs.one], [inputs.editor], **raw)  # the picture is cleared with what was painted
    inputs.several.upload(check, [inputs.several], [inputs.several], **raw)
    inputs.replace.upload(lambda path: path, [inputs.replace], [inputs.one], **QUIET)


def _usable(path: str) -> bool:
    try:
        masks.checked(path)
    except InputError as error:
        say.warn_of(error)
        return False
    return True


def _connect_order(inputs: Inputs) -> None:
    """Connect what moves the chosen one of several pictures."""
    chosen = inputs.chosen

    def pick(event: gr.SelectData) -> int:
        return int(event.index)

    def moved(step: int) -> Any:
        def move(given: Sequence[tuple[str, Any]] | None, at: int) -> list[Any]:
            paths, now = reordered([path for path, _ in given or ()], at, step)
            return [gr.update(value=paths, selected_index=now), now]

        return move

    inputs.several.select(pick, None, [chosen], **QUIET)
    for button, step in ((inputs.earlier, -1), (inputs.later, 1)):
        button.click(moved(step), [inputs.several, chosen], [inputs.several, chosen], **QUIET)


def reordered(paths: list[str], at: int, step: int) -> tuple[list[str], int]:
    """Return the paths with one of them moved, and where it is now."""
    to = at + step
    if not (0 <= at < len(paths) and 0 <= to < len(paths)):
        return paths, at
    paths = [*paths]
    paths[at], paths[to] = paths[to], paths[at]
    return paths, to


def _connect_slider(panel: Panel, slider: gr.ImageSlider) -> None:
    """Show the chosen result beside what it was made from."""

    def show(items: Sequence[Sequence[Any]], chosen: int) -> Any:
        try:
            job, made = panel.made_at(items, chosen)
            path = panel.path_at(items, chosen)
        except NotFound:  # what is gone is told of where it is used
            return gr.update(value=None, visible=False)
        spec = panel.page.desk.spec
        sources = job.request.image_path or ()
        source = sources[-1 if spec is not None and spec.shaped_by else 0] if sources else None
        old = masks.before(source, (made.width, made.height)) if source else None
        return gr.update(value=(old, path) if old is not None else None, visible=old is not None)

    gr.on([panel.items.change, panel.chosen.change], show, [panel.items, panel.chosen], [slider], **QUIET)
