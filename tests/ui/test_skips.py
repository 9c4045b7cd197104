"""Outputs that are skipped: nothing is made for them, and all others are told as Gradio tells them."""

from __future__ import annotations

import asyncio
from typing import Any

import gradio as gr
import pytest

from ui import skips


def made(demo: gr.Blocks, outputs: list[Any], answer: Any) -> list[Any]:
    """Return what a browser is sent when an event answers something."""
    with demo:
        gr.Button().click(lambda: answer, None, outputs)
    event = [*demo.fns.values()][-1]
    told = asyncio.run(demo.postprocess_data(event, answer, None))
    return [gr.skip() if value == {**gr.skip(), "props": gr.skip()} else value for value in told]


@pytest.mark.parametrize("spared", [False, True])
def test_a_page_is_told_the_same(spared: bool) -> None:
    with gr.Blocks() as demo:
        one, two, state, kept = gr.HTML(), gr.Button("x"), gr.State(), gr.BrowserState("")
    if spared:
        skips.spare(demo)
    skip, some = gr.skip(), [one, two, state, kept]
    assert made(demo, some, [skip, skip, skip, skip]) == [skip, skip, None, skip]
    assert made(demo, some, ["a", skip, ["b"], "c"]) == ["a", skip, None, "c"]
    assert made(demo, some, [skip, gr.update(visible=False), skip, skip])[1] == gr.update(visible=False)
    assert made(demo, some, [skip, skip, ["b"], skip]) == [skip, skip, None, skip]
    assert made(demo, some, ("a", "b", "c", "d")) == ["a", "b", None, "d"]
    assert made(demo, [one], "a") == ["a"] and made(demo, [one], skip) == [skip]
    assert made(demo, some, {one: "a"}) == ["a", skip, None, skip]


def test_nothing_is_made_for_what_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    with gr.Blocks() as demo:
        one, two = gr.HTML(), gr.Button("x")
    skips.spare(demo)
    fresh = list[str]()
    init = gr.components.Component.__init__

    def counted(self: Any, *given: Any, **more: Any) -> None:
        fresh.append(type(self).__name__)
        init(self, *given, **more)

    event_of = made(demo, [one, two], ["a", gr.skip()])  # makes the event too
    assert event_of == ["a", gr.skip()]
    event = [*demo.fns.values()][-1]
    monkeypatch.setattr(gr.components.Component, "__init__", counted)
    asyncio.run(demo.postprocess_data(event, [gr.skip(), gr.skip()], None))
    assert fresh == []
    asyncio.run(demo.postprocess_data(event, [gr.skip(), gr.update(visible=False)], None))
    assert fresh == ["Button"]
