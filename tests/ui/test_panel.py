"""The results panel: what it says of jobs that wait, run and have ended, and what it does with an output."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import gradio as gr
import pytest

from engine.errors import NotFound
from engine.jobs import Job
from tests.ui.desks import desk_at
from ui import panel as panels
from ui.desk import Desk
from ui.page import Page
from ui.panel import Panel


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_at(tmp_path_factory.mktemp("panel"), "--max-running", "1") as found:
        yield found


@pytest.fixture
def panel(desk: Desk) -> Panel:
    with gr.Blocks():
        page = Page(desk)
        return Panel(page, "generate")


def ask(desk: Desk, prompt: str, client: str, **values: Any) -> Job:
    return desk.submit(desk.request({"prompt": prompt, **values}), client, "generate")


def test_an_empty_panel_says_what_it_is_for(desk: Desk, panel: Panel) -> None:
    (said,) = panel.progress(desk.snapshot("nobody"))
    assert "What you ask for appears here." in said


def test_what_runs_and_what_waits(desk: Desk, panel: Panel) -> None:
    ask(desk, "a slow <b>hill</b>", "c1")
    ask(desk, "a second <b>hill</b>", "c1")
    said, states = list[str](), list[object]()
    for snapshot in desk.follow("c1"):
        said += panel.progress(snapshot)
        states.append(panel.progress_state(snapshot))
    assert any(re.search(r"data:image/jpeg;base64,.*step \d+ of 20", text) for text in said)
    waiting = next(text for text in said if "<ul" in text)
    assert "a second &lt;b&gt;hill&lt;/b&gt;" in waiting and "next" in waiting and "data-cancel=" in waiting
    assert "<b>" not in "".join(said)
    assert len({repr(state) for state in states}) > 3  # the page learns of steps


def test_a_job_that_came_to_nothing_says_why(desk: Desk, panel: Panel) -> None:
    ask(desk, "FAULT", "c2")
    (said,) = panel.progress(list(desk.follow("c2"))[-1])
    assert 'role="alert"' in said and "a test asked for this error" in said
    cancelled = ask(desk, "a slow hill", "c2")
    desk.cancel(cancelled.id)
    (said,) = panel.progress(list(desk.follow("c2"))[-1])
    assert "Cancelled." in said


def test_outputs_are_shown_by_path_the_newest_first(desk: Desk, panel: Panel) -> None:
    first, second = ask(desk, "one", "c3", seed=7, num_outputs_per_prompt=2), ask(desk, "two", "c3", seed=9)
    snapshot = list(desk.follow("c3"))[-1]
    results, actions, items, chosen, about, recipe, download, _ = panel.finished(snapshot)
    assert items == [[second.id, 0], [first.id, 0], [first.id, 1]] and chosen == 0
    assert results["value"] == [entry.location for job in (second, first) for entry in job.artifacts]
    assert actions["visible"] and download["value"] == second.artifacts[0].location
    assert "Seed 9 · 256 × 256 · 20 steps" in about
    assert json.loads(recipe)["request"]["seed"] == 9
    assert panel.path_at(items, 2) == first.artifacts[1].location
    assert panel.told_of(first, 1)[0].startswith('<div class="line muted">Seed 8')


def test_what_was_deleted_meanwhile_is_told(desk: Desk, panel: Panel) -> None:
    job = ask(desk, "gone", "c4")
    items = panel.finished(list(desk.follow("c4"))[-1])[2]
    desk.delete(job.id)
    with pytest.raises(NotFound):
        panel.path_at(items, 0)
    assert panel.finished(desk.snapshot("c4"))[2] == []


@pytest.mark.parametrize(("value", "text"), [(0.25, "0.2 s"), (12.4, "12 s"), (89, "89 s"), (200, "3 min")])
def test_durations_as_people_say_them(value: float, text: str) -> None:
    assert panels.seconds(value) == text
