"""The Edit tab: what it offers for which model, and the request that it makes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from engine.catalog import MODELS, ModelSpec, by_name
from engine.errors import InputError, NotFound, UsageError
from ui import edit
from ui.page import Page


def spec(name: str) -> ModelSpec:
    found = by_name(name)
    assert found is not None
    return found


TINY, PLUS, KLEIN, OVIS = (
    spec(name) for name in ("tiny-scenes", "Qwen-Image-Edit-2511", "FLUX.2-klein-4B", "Ovis-Image-7B")
)
CLIPS = next(entry for entry in MODELS if entry.is_video)


def tab(served: ModelSpec) -> tuple[Any, edit.Inputs]:
    """Return a page that stands for the real one, and the inputs of the tab."""
    with gr.Blocks():
        inputs = edit._inputs(served)
    return SimpleNamespace(desk=SimpleNamespace(spec=served)), inputs


def shown(updates: list[dict[str, Any]]) -> list[bool]:
    return [update["visible"] for update in updates]


def picture(folder: Path, name: str = "in.png", size: tuple[int, int] = (64, 48)) -> str:
    path = folder / name
    Image.new("RGB", size, "teal").save(path)
    return str(path)


def test_modes_are_those_of_the_model() -> None:
    assert edit.modes(TINY) == [edit.WHOLE, edit.PART]
    assert edit.modes(KLEIN) == edit.modes(None) == [edit.WHOLE]
    assert [edit.takes_several(entry) for entry in (TINY, PLUS, KLEIN)] == [False, True, True]


def test_a_model_that_cannot_edit_says_so_and_names_what_can() -> None:
    assert edit.empty(TINY) == edit.empty(KLEIN) == edit.empty(None) == ""
    assert "AIDC-AI/Ovis-Image-7B draws from words alone" in edit.empty(OVIS)
    assert "makes clips" in edit.empty(CLIPS)
    for told in (edit.empty(OVIS), edit.empty(CLIPS)):
        assert "<li>tiny-scenes</li>" in told


def test_what_is_shown_follows_model_mode_and_picture() -> None:
    # the picture, several of them, their order, the mode, the editor, "Other picture"
    assert shown(edit.arranged(TINY, edit.WHOLE, True)) == [True, False, False, True, False, False]
    assert shown(edit.arranged(TINY, edit.PART, True)) == [False, False, False, True, True, True]
    assert shown(edit.arranged(TINY, edit.PART, False)) == [True, False, False, True, False, False]
    assert shown(edit.arranged(PLUS, edit.PART, True)) == [False, True, True, False, False, False]


def test_another_model_changes_what_the_tab_offers() -> None:
    options = SimpleNamespace(model_switch=True)
    desk = SimpleNamespace(spec=None, adapters=SimpleNamespace(server=()), options=options)
    with gr.Blocks():
        page = Page(desk)  # type: ignore[arg-type]
        with gr.Tabs() as page.tabs:
            edit.build(page)
    outputs, render = page.refreshers[-1]
    offered = {}
    for served in (OVIS, TINY, PLUS):
        desk.spec = served
        lacking, space, prompt, *inputs = render()
        assert len(outputs) == 3 + len(inputs)
        offered[served.id] = (lacking["visible"], space["visible"], prompt["placeholder"], inputs[3]["visible"])
    assert offered == {
        OVIS.id: (True, False, "What to change", False),
        TINY.id: (False, True, "What the result should show", True),
        PLUS.id: (False, True, "What to change", False),
    }


def test_the_size_is_the_pictures_unless_it_is_set() -> None:
    with gr.Blocks():
        form = edit.EditForm(TINY)
        form.side("width")
        form.side("height")
    assert form.values([None, None]) == {}
    assert [update["value"] for update in form.updates({}, TINY)] == ["", ""]
    assert [update["value"] for update in form.updates({"width": 320}, TINY)] == ["320", ""]


def test_the_whole_picture_is_sent_as_it_came(tmp_path: Path) -> None:
    page, inputs = tab(TINY)
    path = picture(tmp_path)
    assert edit._prepare(page, inputs)(path, None, edit.WHOLE, None) == {"image_path": [path]}


def test_what_was_painted_becomes_a_mask_of_the_pictures_size(tmp_path: Path) -> None:
    page, inputs = tab(TINY)
    inputs.editor.GRADIO_CACHE = str(tmp_path)
    layer = Image.new("RGBA", (32, 24), (0, 0, 0, 0))
    layer.paste((99, 102, 241, 153), (4, 4, 8, 8))
    made = edit._prepare(page, inputs)(picture(tmp_path), None, edit.PART, {"layers": [layer]})
    assert made is not None
    mask = Image.open(made["mask_path"])
    assert (mask.size, mask.getbbox()) == ((64, 48), (8, 8, 16, 16))


def test_nothing_painted_asks_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = list[str]()
    monkeypatch.setattr(gr, "Info", lambda message, **more: told.append(message))
    page, inputs = tab(TINY)
    assert edit._prepare(page, inputs)(picture(tmp_path), None, edit.PART, {"layers": []}) is None
    assert told == [edit.UNPAINTED]


def test_several_pictures_keep_their_order(tmp_path: Path) -> None:
    page, inputs = tab(PLUS)
    paths = [picture(tmp_path, f"{name}.png") for name in "cab"]
    made = edit._prepare(page, inputs)(None, [(path, None) for path in paths], edit.WHOLE, None)
    assert made == {"image_path": paths}


def test_no_picture_and_a_broken_one_are_told(tmp_path: Path) -> None:
    page, inputs = tab(TINY)
    prepare = edit._prepare(page, inputs)
    with pytest.raises(UsageError, match="Add a picture first"):
        prepare(None, None, edit.WHOLE, None)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nrest")
    with pytest.raises(InputError, match=r"^broken\.png: is "):
        prepare(str(tmp_path / "broken.png"), None, edit.WHOLE, None)


def test_a_result_lies_beside_what_it_was_made_from_while_both_are_there(tmp_path: Path) -> None:
    """The comparison follows the choice by itself: what is gone is no mistake of a user."""
    result = picture(tmp_path, "out.png", (32, 24))
    job = SimpleNamespace(request=SimpleNamespace(image_path=(picture(tmp_path),)))

    class Results:
        page = SimpleNamespace(desk=SimpleNamespace(spec=TINY))

        def made_at(self, items: list[Any], chosen: int) -> Any:
            if chosen >= len(items):
                raise NotFound("gone")
            return job, SimpleNamespace(width=32, height=24)

        def path_at(self, items: list[Any], chosen: int) -> str:
            return result

    with gr.Blocks() as demo:
        Results.items, Results.chosen = gr.State([]), gr.State(0)  # type: ignore[attr-defined]
        edit._connect_slider(Results(), gr.ImageSlider())  # type: ignore[arg-type]
    (show,) = {entry.fn for entry in demo.fns.values()}
    assert show is not None
    before, after = show([["img_1", 0]], 0)["value"]
    assert (before.size, after) == ((32, 24), result)
    assert show([], 0) == show([["img_1", 0]], 1) == gr.update(value=None, visible=False)
    Path(job.request.image_path[0]).unlink()
    assert show([["img_1", 0]], 0) == gr.update(value=None, visible=False)


@pytest.mark.parametrize(
    ("at", "step", "order", "now"),
    [(0, 1, "bac", 1), (2, -1, "acb", 1), (0, -1, "abc", 0), (2, 1, "abc", 2), (5, 1, "abc", 5)],
)
def test_a_picture_moves_past_its_neighbour(at: int, step: int, order: str, now: int) -> None:
    assert edit.reordered(list("abc"), at, step) == (list(order), now)
