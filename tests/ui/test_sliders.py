"""Sliders: what was cleared asks for the default or is told, as is what is out of reach."""

from __future__ import annotations

import asyncio
from typing import Any

import gradio as gr
import pytest
from gradio.state_holder import SessionState

from ui import sliders


def demo_of(seen: list[Any]) -> tuple[gr.Blocks, Any]:
    """Return a page with a slider of a form and one of none, and the event that reads both."""
    with gr.Blocks() as demo:
        of_form = gr.Slider(1, 50, 20, step=1, label="Steps")
        other = gr.Slider(0, 4, 1, label="Crossfade, s")
        gr.Button().click(lambda *values: seen.append(values), [of_form, other], None)
    sliders.guard(demo, [of_form])
    return demo, next(iter(demo.fns.values()))


def given(*values: Any) -> list[Any]:
    demo, event = demo_of([])
    found: list[Any] = asyncio.run(demo.preprocess_data(event, list(values), None))
    return found


def served_anew(*values: Any, **ends: Any) -> list[Any]:
    """Return what the event gets in a window whose sliders another model gave other ends."""
    with gr.Blocks() as demo:
        slider = gr.Slider(1, 50, 20, step=1, label="Steps")
        gr.Button().click(lambda steps: None, slider, None)
        gr.Button().click(lambda: gr.update(**ends), None, slider)
    sliders.guard(demo, [slider])
    state = SessionState(demo)
    event, switch = demo.fns.values()

    async def run() -> list[Any]:
        await demo.postprocess_data(switch, gr.update(**ends), state)
        found: list[Any] = await demo.preprocess_data(event, list(values), state)
        assert (slider.minimum, slider.maximum) == (1, 50)  # as other windows have it
        return found

    return asyncio.run(run())


def test_another_model_s_ends_are_those_of_the_window_that_shows_it() -> None:
    assert served_anew(90, maximum=100) == [90]
    with pytest.raises(gr.Error) as raised:
        served_anew(20, maximum=8)
    assert "Steps: must be a number from 1 to 8, got 20" in str(raised.value.message)
    assert served_anew(None, minimum=10) == [None]  # cleared: what Gradio itself sees instead is in reach too


def test_a_cleared_slider_of_a_form_asks_for_the_default() -> None:
    assert given(None, 2) == [None, 2]
    assert given(7, 2) == [7, 2]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((7, None), "Crossfade, s: must be a number from 0 to 4, got nothing"),
        ((60, 2), "Steps: must be a number from 1 to 50, got 60"),
        (("many", 2), "Steps: must be a number from 1 to 50, got many"),
        ((True, 2), "Steps: must be a number from 1 to 50, got True"),
        ((float("nan"), 2), "Steps: must be a number from 1 to 50, got nan"),
    ],
)
def test_what_a_slider_cannot_be_is_told_with_its_name(values: tuple[Any, ...], words: str) -> None:
    with pytest.raises(gr.Error) as raised:
        given(*values)
    assert words in str(raised.value.message)
