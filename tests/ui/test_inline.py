"""The desk of a Space: the handler that follows draws; a GPU is lent to it; what everybody may see."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from gradio.context import LocalContext

from engine import env
from engine.config import EngineConfig
from engine.jobs import JobStore, inline
from engine.jobs.delivery import Delivery
from engine.jobs.inline import Events, InlineQueue
from tests.engine.jobs.flat import FlatEngine
from tests.ui.desks import following
from ui.desk import Options
from ui.inline import LONGEST_S, TABS, InlineDesk, device, duration, stepped, visitor

Opener = Callable[..., InlineDesk]
VALUES = {"width": 16, "height": 16, "seed": 1}


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opener]:
    """Open desks over an engine that draws flat colours."""
    monkeypatch.setattr(inline, "Engine", FlatEngine)
    monkeypatch.setattr(FlatEngine, "gate", threading.Semaphore(0))
    monkeypatch.setattr("ui.inline.UPDATE_S", 0.0)
    queues: list[InlineQueue] = []

    def start(lend: Any = None) -> InlineDesk:
        store, delivery = JobStore(tmp_path / "jobs.sqlite3"), Delivery(tmp_path / "outputs", tmp_path / "scratch")
        queue = InlineQueue(EngineConfig(), env.read(), store, delivery, device=device(lend))
        queue.start()
        queues.append(queue)
        options = Options(version="1", data=tmp_path, inputs=tmp_path / "inputs", model_name=lambda: "flat")
        return InlineDesk(queue, env.read(), options)

    yield start
    for queue in queues:
        queue.close()


def drawn_by(desk: InlineDesk, prompt: str = "a hill", client: str = "ann") -> list[tuple[str, int]]:
    """Ask for a picture and follow it to its end; return the statuses and steps that a page saw."""
    desk.submit(desk.request({"prompt": prompt, **VALUES}), client, "generate")
    return [(snapshot.jobs[0].status, snapshot.jobs[0].step) for snapshot in following(desk, client)]


def test_the_handler_that_follows_draws_and_the_last_it_shows_is_the_end(opened: Opener) -> None:
    desk = opened()
    seen = drawn_by(desk)
    assert [step for _, step in seen[:4]] == [0, 1, 2, 3]
    job = desk.jobs_of("ann")[0]
    assert job.status == "done" and seen[-1][0] == "done"
    assert [path.suffix for path in desk.files(job)] == [".png"]


def test_pages_are_told_of_previews(opened: Opener) -> None:
    desk = opened()
    desk.submit(desk.request({"prompt": "x", **VALUES}), "ann", "generate")
    assert b"jpeg" in [snapshot.jobs[0].preview for snapshot in following(desk, "ann")]


def test_a_page_draws_the_jobs_of_its_own_browser_alone(opened: Opener) -> None:
    desk = opened()
    other = desk.submit(desk.request({"prompt": "x", **VALUES}), "bob", "generate")
    assert drawn_by(desk)[-1][0] == "done"
    assert desk.inline.is_due(other)
    assert [snapshot.jobs[0].status for snapshot in following(desk, "bob")][-1] == "done"


def test_a_page_that_is_left_loses_nothing_and_another_one_reattaches(opened: Opener) -> None:
    desk = opened()
    job = desk.submit(desk.request({"prompt": "hold", **VALUES}), "ann", "generate")
    FlatEngine.gate.release(1)
    with closing(following(desk, "ann")) as page:  # type: ignore[type-var]
        next(page), next(page)
    assert job.status == "running" and job.step == 1
    FlatEngine.gate.release(2)
    assert [snapshot.jobs[0].status for snapshot in following(desk, "ann")][-1] == "done"


class Gate(threading.Semaphore):
    """Tells that a drawing waits."""

    def __init__(self) -> None:
        super().__init__(0)
        self.reached = threading.Event()

    def acquire(self, *given: Any, **more: Any) -> bool:
        self.reached.set()
        return super().acquire(*given, **more)


def test_a_page_that_is_left_in_the_middle_of_a_step_loses_nothing_either(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, desk = Gate(), opened()
    monkeypatch.setattr(FlatEngine, "gate", gate)
    desk.submit(desk.request({"prompt": "hold", **VALUES}), "ann", "generate")

    async def leave() -> None:
        page = desk.follow("ann")
        step = asyncio.ensure_future(anext(page))  # type: ignore[arg-type]
        while not gate.reached.is_set():
            if step.done():
                step = asyncio.ensure_future(anext(page))  # type: ignore[arg-type]
            await asyncio.sleep(0.01)
        step.cancel()
        assert not (await asyncio.wait([step], timeout=0.5))[0]  # what a thread does cannot be stopped
        gate.release(1)
        with pytest.raises(asyncio.CancelledError):
            await step
        async with asyncio.timeout(30):
            while desk.followers:
                await asyncio.sleep(0.01)

    asyncio.run(leave())
    gate.release(2)
    assert [snapshot.jobs[0].status for snapshot in following(desk, "ann")][-1] == "done"


def test_what_is_left_is_closed_after_the_step_in_hand() -> None:
    begun, go, closed = threading.Event(), threading.Event(), list[str]()

    def work() -> Iterator[int]:
        try:
            yield 1
            begun.set()
            assert go.wait(20)
            closed.append("step")
            yield 2
        finally:
            closed.append("closed")

    async def leave(held: Any) -> None:
        steps = stepped(held)
        assert await anext(steps) == 1
        step = asyncio.ensure_future(anext(steps))  # type: ignore[arg-type]
        await asyncio.to_thread(begun.wait, 20)
        step.cancel()
        await asyncio.sleep(0)
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await step

    held = work()  # as a traceback may hold it: what nobody closes stays open
    asyncio.run(leave(held))
    assert closed == ["step", "closed"]


def test_a_gpu_is_lent_to_a_drawing_for_the_time_that_it_takes(opened: Opener) -> None:
    asked = []

    def lend(duration: Any) -> Callable[[Any], Any]:
        def decorate(draw: Any) -> Any:
            def lent(job: str, request: Mapping[str, Any], preview: bool) -> Events:
                asked.append((duration(job, request, preview), preview))
                yield from draw(job, request, preview)

            return lent

        return decorate

    assert drawn_by(opened(lend))[-1][0] == "done"
    assert asked == [(40, True)]  # 20 steps of a small picture


def test_what_the_lender_says_is_what_the_page_says(opened: Opener) -> None:
    def lend(duration: Any) -> Callable[[Any], Any]:
        def refuse(job: str, request: Mapping[str, Any], preview: bool) -> Events:
            raise gr.Error("You have exceeded your free GPU quota")
            yield

        return lambda draw: refuse

    desk = opened(lend)
    assert drawn_by(desk)[-1][0] == "failed"
    assert (desk.jobs_of("ann")[0].error or {})["message"] == "You have exceeded your free GPU quota"


def test_the_time_asked_for_grows_with_the_work_up_to_a_bound() -> None:
    small = duration("j", {"width": 512, "height": 512, "num_inference_steps": 4}, False)
    large = duration("j", {"width": 2048, "height": 1024, "num_inference_steps": 20}, False)
    several = duration("j", {"width": 512, "height": 512, "num_inference_steps": 4, "num_outputs_per_prompt": 4}, False)
    assert small < several < large < LONGEST_S
    assert duration("j", {"num_inference_steps": 1000}, False) == LONGEST_S


def test_a_request_of_the_api_counts_for_its_sender() -> None:
    request = SimpleNamespace(headers={"x-ip-token": "t"})
    with visitor(request):
        assert LocalContext.request.get().headers["x-ip-token"] == "t"
    assert LocalContext.request.get(None) is None


def test_what_shows_the_jobs_of_everybody_is_left_out() -> None:
    names = [tab.__name__ for tab in TABS]
    assert "ui.generate" in names
    assert not {"ui.gallery", "ui.system"} & {*names}
