"""The System tab: only what has changed is sent, buttons do what they say, failures are words."""

from __future__ import annotations

from collections.abc import Iterator

import gradio as gr
import pytest

from engine.errors import NotFound
from tests.ui.desks import desk_at
from ui import system
from ui.desk import Desk
from ui.page import Page
from ui.system import System


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_at(tmp_path_factory.mktemp("system"), "--max-running", "1") as found:
        yield found


@pytest.fixture(scope="module")
def shown(desk: Desk) -> System:
    with gr.Blocks():
        page = Page(desk)
        with gr.Tabs() as page.tabs, page.tab("system", "System") as tab:
            found = System(page, tab)
    found.models.look()
    return found


def test_only_what_has_changed_is_sent(shown: System, desk: Desk) -> None:
    seen, *first = shown.look([])
    assert first == seen
    job = desk.submit(desk.request({"prompt": "a very slow house"}), "me", "generate")
    seen, models, queue, *_ = shown.look(seen)
    assert models == gr.skip() and job.id in queue
    shown.pressed({"do": "cancel", "of": job.id})
    assert job.cancelled


def test_buttons_move_jobs(shown: System, desk: Desk) -> None:
    jobs = [desk.submit(desk.request({"prompt": f"a very slow {i}"}), "me", "generate") for i in range(4)]
    with (changed := desk.queue.supervisor.changed):
        while jobs[0].status == "queued":
            changed.wait(0.01)
    shown.pressed({"do": "next", "of": jobs[3].id})
    shown.pressed({"do": "later", "of": jobs[1].id})
    waiting = [job.id for job in desk.unfinished() if job.status == "queued"]
    assert waiting[-3:] == [jobs[3].id, jobs[2].id, jobs[1].id]
    shown.pressed({"do": "sooner", "of": jobs[1].id})
    assert [job.id for job in desk.unfinished()][-2:] == [jobs[1].id, jobs[2].id]
    for job in jobs:
        desk.cancel(job.id)
    with pytest.raises(NotFound):
        shown.pressed({"do": "cancel", "of": "img_none"})


def test_what_cannot_be_done_is_said_in_place(shown: System) -> None:
    assert 'class="line bad"' in (words := system.said(lambda: shown.models.takes("<b>")))
    assert "must be a hub id (owner/name), got &#x27;&lt;b&gt;&#x27;" in words


def test_versions_and_links(desk: Desk) -> None:
    view = system.about(desk)
    assert f"sgdiff-app {desk.options.version} · python 3." in view and f"gradio {gr.__version__}" in view
    assert 'href="./docs"' in view
