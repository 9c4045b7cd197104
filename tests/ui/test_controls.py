"""The controls that tabs share: what is run, what is remembered, and what the seed's buttons do."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from engine.catalog import by_name
from ui import controls
from ui import desk as desks
from ui.forms import Form
from ui.page import Page

TINY = by_name("tiny-scenes")
ASKED = SimpleNamespace(session_hash="window")


class Desk:
    """Takes down what it is asked for."""

    spec = TINY
    client, new_client = desks.Desk.client, desks.Desk.new_client

    def __init__(self) -> None:
        self.asked = list[tuple[Any, ...]]()

    def request(self, values: dict[str, Any]) -> dict[str, Any]:
        return values

    def submit(self, request: dict[str, Any], client: str, tab: str) -> Any:
        self.asked.append((request, client, tab))
        return SimpleNamespace(id="img_1")

    def cancel_current(self, client: str, tab: str) -> None:
        self.asked.append(("cancel", client, tab))


def handlers(desk: Desk, **settings: Any) -> tuple[Any, Any, Form]:
    """Return what the two buttons of a tab "edit" do, and its form: prompts, seed and count."""
    with gr.Blocks() as demo:
        page = Page(desk)  # type: ignore[arg-type]
        form = page.forms["edit"] = Form(TINY)
        controls.words(form, "What to draw")
        controls.seed_row(form)
        row = controls.run_row("Run")
        controls.connect_run(page, "edit", row, **settings)
    by_target = {entry.targets[0][0]: entry.fn for entry in demo.fns.values()}
    return by_target[row.run._id], by_target[row.stop._id], form


def test_the_form_is_asked_for_in_the_name_of_the_browser() -> None:
    desk = Desk()
    run, stop, form = handlers(desk)
    assert list(form.entries) == ["prompt", "negative_prompt", "seed", "num_outputs_per_prompt"]
    pulse, history = run(ASKED, "client_1", None, [["old", ""]], "a boat", None, "7", 2)
    assert desk.asked == [({"prompt": "a boat", "seed": 7, "num_outputs_per_prompt": 2}, "client_1", "edit")]
    assert (pulse, history) == ("img_1", [["a boat", ""], ["old", ""]])
    run(ASKED, "", [], None, "a boat", None, "", 1)
    assert desk.asked[-1] == (
        {"prompt": "a boat", "num_outputs_per_prompt": 1, "loras": []},
        "client_window",
        "edit",
    )
    stop(ASKED, "client_1")
    assert desk.asked[-1] == ("cancel", "client_1", "edit")
    for wrong in (5, ["client_1"], {"a": 1}):  # what only an event that somebody has made up holds
        run(ASKED, wrong, None, wrong, "a boat", None, "", 1)
        assert desk.asked[-1][1] == "client_window"
        stop(ASKED, wrong)
        assert desk.asked[-1] == ("cancel", "client_window", "edit")


def test_a_prompt_is_remembered_once_and_the_oldest_forgotten() -> None:
    run, _, _ = handlers(Desk())
    before = [[f"prompt {i}", ""] for i in range(controls.HISTORY)]
    _, history = run(ASKED, "client_1", None, before, "prompt 3", "", "", 1)
    assert history[:2] == [["prompt 3", ""], ["prompt 0", ""]]
    assert len(history) == controls.HISTORY and len({entry[0] for entry in history}) == len(history)
    _, history = run(ASKED, "client_1", None, history, "prompt 3", "", "", 1)
    assert len({entry[0] for entry in history}) == len(history) == controls.HISTORY
    _, history = run(ASKED, "client_1", None, before, "new", "", "", 1)
    assert (history[0], history[-1], len(history)) == (["new", ""], before[-2], controls.HISTORY)


def test_what_is_remembered_fits_a_browser() -> None:
    run, _, _ = handlers(Desk())
    before = [[f"{i} {'x' * 3990}", ""] for i in range(controls.HISTORY)]
    _, history = run(ASKED, "client_1", None, before, "new", "", "", 1)
    assert history[0] == ["new", ""] and history[1] == before[0]
    assert 10 < len(history) < controls.HISTORY
    assert sum(len(prompt) for prompt, _ in history) <= controls.ROOM
    long = "y" * controls.LONGEST
    assert run(ASKED, "client_1", None, before, long, "z", "", 1)[1][0] == before[0]
    assert run(ASKED, "client_1", None, before, long, "", "", 1)[1][0] == [long, ""]


@pytest.mark.parametrize("painted", ["mask.png", None])
def test_inputs_of_the_tab_join_the_form_or_stop_it(painted: str | None) -> None:
    desk = Desk()
    with gr.Blocks():
        own = gr.Textbox()
    run, _, _ = handlers(
        desk,
        inputs=[own],
        prepare=lambda path: None if painted is None else {"image_path": [path], "mask_path": painted},
    )
    run(ASKED, "client_1", None, [], "in.png", "a boat", None, "", 1)
    request = {"prompt": "a boat", "num_outputs_per_prompt": 1, "image_path": ["in.png"], "mask_path": painted}
    assert [asked for asked, _, _ in desk.asked] == ([request] if painted else [])


def test_a_browser_is_told_the_sides_of_every_chip_as_the_fields_hold_them() -> None:
    told = json.loads(controls.Shapes({"auto": (None, None), "1:1": (64, 32)}, (64, 48), "auto").text())
    assert told == {"chips": {"auto": ["", ""], "1:1": ["64", "32"]}, "own": ["64", "48"], "empty": "auto"}
