"""What stands in a tab for which the model is not made: words, a way to the models, a switch to one that is here."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from engine import hub
from engine.catalog import MODELS, ModelSpec
from engine.errors import ModelError
from tests.ui.desks import stepping
from ui import lacking
from ui.page import Page

NAMES = ("tiny-scenes", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers")
TINY, CLIPS = (next(spec for spec in MODELS if spec.id == name) for name in NAMES)


def moves(spec: ModelSpec) -> bool:
    return spec.is_video


def said(spec: ModelSpec | None) -> str:
    return "" if spec is None or moves(spec) else lacking.words(spec, "draws <pictures>", "It makes no clips.", moves)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that makes clips came with the program."""
    monkeypatch.setattr(hub, "bundled_names", lambda: NAMES)


def built(desk: Any) -> tuple[gr.Column, Callable[[], Any], list[Any], Any]:
    """Return the box, what tells it anew, and what its two buttons do."""
    with gr.Blocks() as demo:
        page = Page(desk)
        with gr.Tabs() as page.tabs, page.tab("video", "Video"):
            box = lacking.build(page, said, moves)
        page.connect(demo)
    (outputs, render), *_ = page.refreshers
    buttons = [entry for entry in demo.blocks.values() if isinstance(entry, gr.Button)]
    by_target = {entry.targets[0][0]: entry.fn for entry in demo.fns.values() if entry.targets}
    assert outputs[1] is buttons[0]
    return box, render, buttons, [by_target[button._id] for button in buttons]


def a_desk(spec: ModelSpec | None, switch: Any = None, model_switch: bool = True) -> Any:
    return SimpleNamespace(spec=spec, options=SimpleNamespace(model_switch=model_switch), switch=switch)


def test_words_are_text_and_name_what_is_here_first(here: None) -> None:
    told = lacking.words(TINY, "draws <pictures>", "It makes no clips.", moves)
    assert "tiny-scenes draws &lt;pictures&gt;" in told and "It makes no clips." in told
    names = [part.split("<")[0] for part in told.split("<li>")[1:]]
    assert names[0] == CLIPS.id and len(names) == len({*names}) == lacking.NAMED


def test_a_switch_is_offered_to_what_came_with_the_program(here: None) -> None:
    desk = a_desk(TINY)
    box, render, (switch, choose), (_, chosen) = built(desk)
    assert box.visible and switch.visible and switch.value == f"Switch to {CLIPS.id}"
    assert (choose.value, chosen().selected) == ("Choose a model", "system")
    desk.options.model_switch = False
    assert render()[1]["visible"] is False
    desk.spec = CLIPS
    assert render()[0] == ""


def test_nothing_is_offered_that_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "bundled_names", lambda: ("tiny-scenes",))
    assert not built(a_desk(TINY))[2][0].visible


@pytest.mark.parametrize("error", [None, ModelError("it is broken")])
def test_the_button_shows_that_a_model_is_loaded_and_tells_what_prevents_it(
    here: None, error: ModelError | None
) -> None:
    asked, loading = list[str](), Future[None]()

    def switch(name: str) -> Future[None]:
        asked.append(name)
        return loading

    change = built(a_desk(TINY, switch))[3][0]
    steps = stepping(change())
    first = next(steps)
    assert (first["value"], first["interactive"]) == (f"Loading {CLIPS.id}…", False) and asked == [CLIPS.id]
    if error is None:
        loading.set_result(None)
    else:
        loading.set_exception(error)
    assert next(steps)["interactive"] is True
    if error is not None:
        with pytest.raises(gr.Error, match="it is broken"):
            next(steps)
    steps.close()  # type: ignore[attr-defined]
