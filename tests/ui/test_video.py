"""The Video tab: what it offers for which model, how long and how large a clip is, and the picture it begins with."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from engine.catalog import ModelSpec, by_name
from engine.errors import InputError, UsageError
from ui import video
from ui.page import Page


def spec(name: str) -> ModelSpec:
    found = by_name(name)
    assert found is not None
    return found


TINY = spec("tiny-scenes")
T2V, EXPERTS, I2V, TI2V, FAST = (
    spec(name)
    for name in (
        "Wan2.1-T2V-1.3B", "Wan2.2-T2V-A14B", "Wan2.2-I2V-A14B", "Wan2.2-TI2V-5B", "FastWan2.1-T2V-1.3B",
    )
)  # fmt: skip


def built(served: ModelSpec | None) -> tuple[Page, Any]:
    """Return a page with the tab, over a desk whose model can be exchanged."""
    options = SimpleNamespace(model_switch=True)
    desk = SimpleNamespace(spec=served, adapters=SimpleNamespace(server=()), options=options)
    with gr.Blocks() as demo:
        page = Page(desk)  # type: ignore[arg-type]
        with gr.Tabs() as page.tabs:
            video.build(page)
    return page, demo


def test_a_model_that_draws_pictures_says_so_and_names_what_makes_clips() -> None:
    assert video.empty(T2V) == video.empty(None) == ""
    told = video.empty(TINY)
    assert "tiny-scenes draws pictures" in told and "It cannot make clips." in told
    assert "Wan" in told


def test_another_model_changes_what_the_tab_offers() -> None:
    page, _ = built(TINY)
    outputs, render = page.refreshers[-1]
    offered = {}
    for served in (TINY, T2V, I2V, TI2V):
        page.desk.spec = served  # type: ignore[misc]
        lacking, space, picture, chips, use = render()
        assert len(outputs) == 5
        offered[served.id] = (
            lacking["visible"],
            space["visible"],
            picture["visible"],
            picture["label"],
            use["visible"],
        )
        assert chips["value"] == chips["choices"][0]
    assert offered == {
        TINY.id: (True, False, False, "First frame, if you like", False),
        T2V.id: (False, True, False, "First frame, if you like", False),
        I2V.id: (False, True, True, "First frame", True),
        TI2V.id: (False, True, True, "First frame, if you like", True),
    }


def test_sizes_are_the_models_own_lying_standing_square_and_smaller() -> None:
    assert [*video.sizes(T2V)] == ["832 × 480", "480 × 832", "624 × 624"]
    assert [*video.sizes(EXPERTS)] == ["1280 × 720", "720 × 1280", "960 × 960", "832 × 480", "480 × 832"]
    assert [*video.sizes(TI2V)][:2] == [video.AUTOMATIC, "1280 × 704"]
    for served in (T2V, EXPERTS, TI2V):
        sides = [side for size in video.sizes(served).values() for side in size if side is not None]
        assert all(side % served.multiple == 0 for side in sides)


def test_an_empty_size_leaves_it_to_the_model() -> None:
    assert (video.shapes(T2V).empty, video.shapes(I2V).empty) == ("832 × 480", video.AUTOMATIC)
    assert video.shapes(T2V).own == (832, 480) == video.shapes(T2V).chips["832 × 480"]
    assert video.shapes(I2V).chips[video.AUTOMATIC] == (None, None)


def test_the_picture_decides_the_size_unless_one_is_set() -> None:
    page, _ = built(I2V)
    form = page.forms["video"]
    shown = dict(zip(form.entries, form.updates({}, I2V), strict=True))
    assert [shown[side]["value"] for side in video.SIDES] == [form["width"].value, form["height"].value] == ["", ""]
    shown = dict(zip(form.entries, form.updates({"width": 640, "height": 480}, I2V), strict=True))
    assert [shown[side]["value"] for side in video.SIDES] == ["640", "480"]
    shown = dict(zip(form.entries, form.updates({}, T2V), strict=True))
    assert [shown[side]["value"] for side in video.SIDES] == ["832", "480"]


def test_frames_go_in_the_steps_of_the_model() -> None:
    slider = video.frames_slider(T2V, 81)
    assert (slider["minimum"], slider["maximum"], slider["step"], slider["visible"]) == (1, 165, 4, True)
    assert video.frames_slider(T2V, 1001)["maximum"] == 1001
    assert video.frames_slider(None, None)["visible"] is False
    page, _ = built(T2V)
    form = page.forms["video"]
    assert (form["num_frames"].value, form["fps"].value) == (81, 16)
    values = {name: entry.component.value for name, entry in form.entries.items()}
    read = form.values({**values, "num_frames": 17.0, "fps": 8.0}.values())
    assert (read["num_frames"], read["fps"]) == (17, 8)
    assert isinstance(read["num_frames"], int)


def test_settings_of_two_experts_are_offered_for_them_alone() -> None:
    page, _ = built(T2V)
    form = page.forms["video"]
    names = ("guidance_scale_2", "boundary_ratio", "guidance_scale")
    offered = {}
    for served in (T2V, EXPERTS, FAST):
        updates = dict(zip(form.entries, form.updates({}, served), strict=True))
        offered[served.id] = [updates[name]["visible"] for name in names]
    assert offered == {T2V.id: [False, False, True], EXPERTS.id: [True, True, True], FAST.id: [False, False, False]}


def test_how_long_a_clip_lasts_is_told() -> None:
    assert "The clip lasts 5.1 s." in video.lasting(81, 16)
    assert video.lasting(None, 16) == video.lasting(81, 0) == ""


def test_the_picture_is_sent_where_the_model_takes_one(tmp_path: Path) -> None:
    path = tmp_path / "in.png"
    Image.new("RGB", (64, 48), "teal").save(path)
    page = SimpleNamespace(desk=SimpleNamespace(spec=I2V))
    prepare = video._prepare(page)  # type: ignore[arg-type]
    assert prepare(str(path)) == {"image_path": [str(path)]}
    with pytest.raises(UsageError, match="Add a picture first"):
        prepare(None)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"^broken\.png: is "):
        prepare(str(tmp_path / "broken.png"))
    page.desk.spec = TI2V
    assert prepare(None) == {}
    page.desk.spec = T2V
    assert prepare(str(path)) == {}  # one that was given to the model before


def test_a_result_leads_here_while_the_model_draws_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    told = list[str]()
    monkeypatch.setattr(gr, "Info", lambda message, **more: told.append(message))
    page, _ = built(I2V)
    tabs, picture = page.use_as_input("/tmp/a.png")
    assert (tabs.selected, picture) == ("video", "/tmp/a.png")
    page.desk.spec = T2V  # type: ignore[misc]
    page.use_as_input("/tmp/a.png")
    assert told == ["The model makes clips from words alone."]


def test_a_length_that_was_cleared_is_that_of_the_model() -> None:
    page, _ = built(T2V)
    form = page.forms["video"]
    given = dict(zip(form.entries, (part.value for part in form.components), strict=True))
    values = form.values((given | {"num_frames": None, "fps": None}).values())
    assert "num_frames" not in values and "fps" not in values
    assert video.lasting(None, None) == ""
