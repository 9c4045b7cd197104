"""The queue, the memory and the timings of the System tab."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator

import pytest

from engine.jobs import Job
from engine.types import Request
from tests.ui.desks import desk_at
from ui import queue_view
from ui.desk import Desk
from ui.queue_view import Memory, memory, queue, steps, timings

REQUEST = Request(prompt="a <b>house</b>")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_at(tmp_path_factory.mktemp("queue"), "--max-running", "1") as found:
        yield found


def ask(desk: Desk, prompt: str) -> Job:
    return desk.submit(desk.request({"prompt": prompt, "width": 64, "height": 64}), "me", "generate")


def offers(view: str, job: Job) -> list[str]:
    return re.findall(rf'data-do="(\w+)" data-of="{job.id}"', view)


def test_what_runs_and_what_waits_with_what_can_be_done(desk: Desk) -> None:
    assert "Nothing is waiting." in queue(desk)
    jobs = [ask(desk, f"a very slow <i>house</i> {i}") for i in range(4)]
    view = queue(desk)
    assert [offers(view, job) for job in jobs] == [
        ["cancel"],
        ["later", "cancel"],
        ["sooner", "later", "cancel"],
        ["next", "sooner", "cancel"],
    ]
    assert "<i>house" not in view and "page, tiny-scenes" in view and "2 before it" in view
    desk.move(jobs[3].id, -1)
    assert [job.id for job in desk.unfinished()[1:]] == [jobs[1].id, jobs[3].id, jobs[2].id]
    desk.move(jobs[1].id, 1)
    assert [job.id for job in desk.unfinished()[1:]] == [jobs[3].id, jobs[1].id, jobs[2].id]
    for job in jobs:
        desk.cancel(job.id)


def test_memory_is_told_by_the_worker(desk: Desk) -> None:
    told = Memory(desk)
    told.view()
    for _ in range(500):
        if "GB" in (view := told.view()):
            break
        threading.Event().wait(0.01)
    assert "cpu · 0.4 GB of 1.0 GB used · 0.2 GB by the model · 0.3 GB at the peak" in view
    assert "width:25.0%" in view and "width:15.0%" in view


def test_memory_that_is_not_known_divides_by_nothing() -> None:
    assert "0.0 GB of 0.0 GB" in memory({"device": "cpu"})


def test_a_bar_for_each_job_and_a_colour_for_each_stage() -> None:
    first = Job("img_1", "image", "m", "m", REQUEST, REQUEST, stages={"text_encoding": 100.0, "denoising": 900.0})
    second = Job("img_2", "image", "m", "m", REQUEST, REQUEST, stages={"denoising": 500.0})
    view = timings([first, second, Job("img_3", "image", "m", "m", REQUEST, REQUEST)])
    assert view.count('class="stack"') == 2
    assert "<b>" not in view.replace("<b>text", "") and "a &lt;b&gt;house" in view
    assert "width:10.00%" in view and "width:90.00%" in view and "width:50.00%" in view
    assert view.count(f"background:{queue_view.COLOURS[1]}") == 3  # in the legend and in both bars
    assert "Text encoding" in view and "text_encoding" not in view
    assert "Make something" in timings([])


def test_steps_are_a_line() -> None:
    job = Job("img_1", "image", "m", "m", REQUEST, REQUEST, steps_ms=[10.0, 20.0, 2000.0])
    assert 'points="0.0,79.6 200.0,79.2 400.0,4.0"' in steps(job)
    assert "3 steps of the last job: 20 ms each, the longest 2.0 s" in steps(job)
    assert steps(Job("img_1", "image", "m", "m", REQUEST, REQUEST, steps_ms=[10.0])) == ""
