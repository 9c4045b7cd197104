"""The results panel: what it says of jobs that wait, run and have ended, and what it does with an output."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from engine.errors import NotFound
from engine.jobs import Job
from tests.ui.desks import desk_at, following
from tests.ui.markup import WICKED, shown, wicked
from ui import controls
from ui import panel as panels
from ui.desk import EXPIRED, GONE, OUTDATED, Desk, Snapshot
from ui.forms import Form
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


Handler = Callable[..., Any]


@pytest.fixture
def demo() -> gr.Blocks:
    return gr.Blocks()


@pytest.fixture
def handlers(desk: Desk, demo: gr.Blocks) -> tuple[Panel, dict[str, Handler]]:
    """Return a panel whose results another tab takes, and what its buttons do."""
    with demo:
        page = Page(desk)
        with gr.Tabs() as page.tabs, page.tab("generate", "Generate"):
            found = Panel(page, "generate")
            page.takes_input("edit", [gr.Image(type="filepath")], lambda path: [path])
            form = Form(desk.spec)
            row = controls.seed_row(form)
            controls.connect_seed(found, form, row)
            for connect in page.waiting:
                connect()
    parts = {name: getattr(found, name) for name in ("use", "vary", "star", "delete", "results", "status")}
    by_target = {entry.targets[0][0]: entry.fn for entry in demo.fns.values() if entry.targets}
    return found, {name: by_target[part._id] for name, part in (parts | {"keep": row.lock}).items()}


def ask(desk: Desk, prompt: str, client: str, **values: Any) -> Job:
    return desk.submit(desk.request({"prompt": prompt, **values}), client, "generate")


def over(desk: Desk, client: str) -> list[Snapshot]:
    return list(following(desk, client))


def test_an_empty_panel_says_what_it_is_for(desk: Desk, panel: Panel) -> None:
    (said,) = panel.progress(desk.snapshot("nobody"))
    assert "What you ask for appears here." in said


def test_what_runs_and_what_waits(desk: Desk, panel: Panel) -> None:
    ask(desk, "a slow <b>hill</b>", "c1")
    ask(desk, "a second <b>hill</b>", "c1")
    said, states = list[str](), list[object]()
    for snapshot in following(desk, "c1"):
        said += panel.progress(snapshot)
        states.append(panel.progress_state(snapshot))
    assert any(re.search(r"data:image/jpeg;base64,.*step \d+ of 20", text) for text in said)
    waiting = next(text for text in said if "<ul" in text)
    assert "a second &lt;b&gt;hill&lt;/b&gt;" in waiting and "next" in waiting and "data-cancel=" in waiting
    assert "<b>" not in "".join(said)
    assert len({repr(state) for state in states}) > 3  # the page learns of steps


def test_a_job_that_came_to_nothing_says_why(desk: Desk, panel: Panel) -> None:
    ask(desk, "FAULT", "c2")
    (said,) = panel.progress(over(desk, "c2")[-1])
    assert 'role="alert"' in said and "a test asked for this error" in said
    cancelled = ask(desk, "a slow hill", "c2")
    desk.cancel(cancelled.id)
    (said,) = panel.progress(over(desk, "c2")[-1])
    assert "Cancelled." in said


def test_outputs_are_shown_by_path_the_newest_first(desk: Desk, panel: Panel) -> None:
    first, second = ask(desk, "one", "c3", seed=7, num_outputs_per_prompt=2), ask(desk, "two", "c3", seed=9)
    snapshot = over(desk, "c3")[-1]
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
    items = panel.finished(over(desk, "c4")[-1])[2]
    desk.delete(job.id)
    with pytest.raises(NotFound):
        panel.path_at(items, 0)
    assert panel.finished(desk.snapshot("c4"))[2] == []


def test_texts_of_jobs_are_never_markup(desk: Desk) -> None:
    running, failed = wicked("running"), wicked("failed")
    snapshot = replace(desk.snapshot("nobody"), jobs=(running,), places={}, etas={running.id: 3.0})
    assert shown(panels.drawing(running, snapshot).replace("alert", "ALERT")) == 0  # stages are capitalized
    assert panels.stage_words(WICKED) not in panels.drawing(running, snapshot)
    assert shown(panels.queued([wicked("queued")], snapshot)) == 1
    assert shown(panels.ended(failed)) == shown(panels.idle(WICKED)) == 1
    assert shown(panels.facts(running, running.artifacts[0])) == 2  # the adapter and the prompt


def test_vary_asks_for_the_seed_after_that_of_the_chosen_output(
    desk: Desk, handlers: tuple[Panel, dict[str, Handler]]
) -> None:
    job = ask(desk, "three", "c7", seed=10, num_outputs_per_prompt=3)
    over(desk, "c7")
    found = desk.get(act(handlers[1], "vary", [[job.id, 0], [job.id, 2]], 1))
    assert (found.request.seed, found.resolved.num_outputs_per_prompt, found.request.prompt) == (13, 1, "three")
    other = handlers[1]["vary"](SimpleNamespace(session_hash="s"), [[job.id, 0]], 0, {"a": 1})  # whoever made that up
    assert desk.get(other).notes["client"] == "client_s"
    over(desk, "c6"), over(desk, "client_s")


def test_delete_asks_first(desk: Desk, handlers: tuple[Panel, dict[str, Handler]], demo: gr.Blocks) -> None:
    found, buttons = handlers
    job = ask(desk, "stays", "c8")
    over(desk, "c8")
    assert buttons["delete"]([[job.id, 0]], 0, False) == gr.skip()
    assert desk.get(job.id).artifacts
    (entry,) = (entry for entry in demo.fns.values() if entry.targets[:1] == [(found.delete._id, "click")])
    assert "window.confirm(" in str(entry.js) and entry.inputs[-1] is found.sure  # which gets the answer


ACTIONS = ("use", "vary", "star", "delete", "keep", "results")


def act(handlers: dict[str, Handler], name: str, items: list[list[Any]], chosen: int) -> Any:
    """Press one of the buttons, or choose an output."""
    if name == "results":
        return handlers[name](items, SimpleNamespace(index=chosen))
    more = {"vary": ["c6"], "delete": [True], "keep": ["5"]}.get(name, [])
    first = [SimpleNamespace(session_hash="s")] if name == "vary" else []
    return handlers[name](*first, items, chosen, *more)


@pytest.mark.parametrize("name", ACTIONS)
def test_an_emptied_session_and_an_old_choice_are_told(handlers: tuple[Panel, dict[str, Handler]], name: str) -> None:
    buttons = handlers[1]
    if name == "keep":
        assert act(buttons, name, [], 0) == "5"  # there is no seed to keep
    else:
        with pytest.raises(gr.Error, match=OUTDATED):
            act(buttons, name, [], 0)
    for chosen in (1, -1, None):
        with pytest.raises(gr.Error, match=OUTDATED):
            act(buttons, name, [["img_1", 0]], chosen)  # type: ignore[arg-type]
    with pytest.raises(gr.Error, match="no job"):
        act(buttons, name, [["img_1", 0]], 0)


def test_what_has_expired_or_is_gone_is_told_and_can_be_deleted(
    desk: Desk, handlers: tuple[Panel, dict[str, Handler]]
) -> None:
    found, buttons = handlers
    job = ask(desk, "expires", "c5", seed=3)
    (items,) = (found.finished(snapshot)[2] for snapshot in over(desk, "c5")[-1:])
    for index in (1, -1):
        with pytest.raises(gr.Error, match=OUTDATED):
            act(buttons, "vary", [[job.id, index]], 0)
    desk.files(job)[0].unlink()
    with pytest.raises(gr.Error, match=GONE):
        act(buttons, "use", items, 0)
    assert act(buttons, "keep", items, 0) == "3"  # what needs no file works
    stored = desk.get(job.id)
    stored.expired = True
    desk.queue.keep(stored)
    for name in ("use", "vary", "keep", "results"):
        with pytest.raises(gr.Error, match=EXPIRED):
            act(buttons, name, items, 0)
    assert found.outputs(desk.snapshot("c5")) == []
    assert act(buttons, "star", items, 0)["value"] == "Unstar"
    act(buttons, "delete", items, 0)
    with pytest.raises(NotFound):
        desk.get(job.id)


@pytest.mark.parametrize(("value", "text"), [(0.25, "0.2 s"), (12.4, "12 s"), (89, "89 s"), (200, "3 min")])
def test_durations_as_people_say_them(value: float, text: str) -> None:
    assert panels.seconds(value) == text
