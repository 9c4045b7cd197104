"""A queue that draws in this process: who draws, what ends a job, what a request may ask for."""

from __future__ import annotations

import contextvars
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engine import env, schema
from engine.config import EngineConfig
from engine.engine import resolve
from engine.errors import NotAvailable, UsageError
from engine.jobs import Job, JobStore, inline
from engine.jobs.delivery import Delivery
from engine.jobs.inline import ATTENDED, Draw, Fence, InlineQueue, failed
from engine.jobs.queue import QueueOptions
from engine.types import Request
from tests.engine.jobs.conftest import Line
from tests.engine.jobs.flat import FlatEngine

Opener = Callable[..., Line]


@pytest.fixture
def flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opener]:
    """Start queues with an engine that draws flat colours."""
    monkeypatch.setattr(inline, "Engine", FlatEngine)
    monkeypatch.setattr(FlatEngine, "gate", threading.Semaphore(0))
    opened: list[InlineQueue] = []

    def start(device: Any = lambda draw: draw, fence: Fence | None = None, **options: Any) -> Line:
        delivery = Delivery(tmp_path / "outputs", Path(tempfile.mkdtemp(dir=tmp_path)))
        store, limits = JobStore(tmp_path / "jobs.sqlite3"), QueueOptions(**options)
        queue = InlineQueue(EngineConfig(), env.read(), store, delivery, limits, device=device, fence=fence)
        queue.start()
        opened.append(queue)
        return Line(queue, tmp_path)

    yield start
    for queue in opened:
        queue.close()


def ask(line: Line, prompt: str = "x", attended: bool = True, **fields: Any) -> Job:
    """Put a request in whose asker draws it, unless they are said not to."""
    queue = line.queue
    request = schema.read(Request, {"prompt": prompt, "width": 16, "height": 16, "seed": 1, **fields})
    assert queue.spec is not None
    resolved = resolve(request, queue.spec, queue.served)
    return queue.submit(request, "image", resolved=resolved, model="m", notes={ATTENDED: True} if attended else None)


def inline_of(line: Line) -> InlineQueue:
    assert isinstance(line.queue, InlineQueue)
    return line.queue


def test_the_thread_that_asks_draws(flat: Opener) -> None:
    line = flat()
    queue, threads = inline_of(line), set[int]()
    job = ask(line, num_outputs_per_prompt=2)
    assert queue.is_due(job)
    queue.listen(job.id, lambda change, job: threads.add(threading.get_ident()) if change == "preview" else None, True)
    seen = [(job.step, job.preview) for _ in queue.drive(job)]
    assert seen[:3] == [(1, b"jpeg"), (2, b"jpeg"), (3, b"jpeg")]
    assert threads == {threading.get_ident()}
    assert line.ended(job) == ["done"]
    assert [Image.open(made.location).getpixel((3, 3)) for made in job.artifacts] == [(7, 7, 7), (8, 8, 8)]
    assert line.scratch() == []
    assert list(queue.drive(job)) == []  # nobody draws it twice
    assert queue.contexts == {}


def test_a_job_that_nobody_attends_is_drawn_by_a_thread_in_the_context_of_its_asker(flat: Opener) -> None:
    visitor: contextvars.ContextVar[str] = contextvars.ContextVar("visitor")
    met = []

    def device(draw: Draw) -> Draw:
        def lent(*given: Any) -> Any:
            met.append(visitor.get("nobody"))
            yield from draw(*given)

        return lent

    line = flat(device, max_running=1)
    visitor.set("ann")
    first = ask(line, attended=False)
    visitor.set("bob")
    second = ask(line, attended=False)
    assert line.ended(first, second) == ["done", "done"]
    assert met == ["ann", "bob"]


def test_who_asked_and_is_gone_is_waited_for_and_then_replaced(flat: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inline, "PATIENCE_S", 0.05)
    line = flat()
    there = [True]
    inline_of(line).attended = lambda job: there[0]
    job = ask(line)
    threading.Event().wait(0.2)
    assert inline_of(line).is_due(job)  # they are still there
    there[0] = False
    assert line.ended(job) == ["done"]


def test_leaving_in_the_middle_does_not_end_a_job(flat: Opener) -> None:
    line = flat()
    job = ask(line, "hold")
    drawing = inline_of(line).drive(job)
    FlatEngine.gate.release(1)
    next(drawing)
    drawing.close()  # type: ignore[attr-defined]
    assert job.status == "running"
    FlatEngine.gate.release(2)
    assert line.ended(job) == ["done"]


def test_cancel_ends_a_job_after_the_step_in_hand(flat: Opener) -> None:
    line = flat()
    queue = inline_of(line)
    job = ask(line)
    drawing = queue.drive(job)
    next(drawing)
    queue.cancel(job.id)
    assert list(drawing) == []
    assert line.ended(job) == ["cancelled"]
    engine = queue.inline.engine
    assert isinstance(engine, FlatEngine) and engine.left == 1


def test_cancel_before_anybody_draws_lets_the_next_one_begin(flat: Opener) -> None:
    line = flat(max_running=1)
    first, second = ask(line), ask(line)
    assert not inline_of(line).is_due(second)
    line.queue.cancel(first.id)
    assert line.ended(first) == ["cancelled"]
    assert inline_of(line).is_due(second)


def test_what_fails_fails_alone(flat: Opener) -> None:
    def device(draw: Draw) -> Draw:
        def lent(job: str, request: Any, preview: bool) -> Any:
            if request["prompt"] == "quota":
                yield failed(job, "no GPU is left for you today"), b""
            elif request["prompt"] == "broken":
                raise RuntimeError("the device is gone")
            elif request["prompt"] != "nothing":
                yield from draw(job, request, preview)

        return lent

    line = flat(device)
    jobs = [ask(line, prompt) for prompt in ("FAULT", "quota", "broken", "nothing", "fine")]
    for job in jobs:
        list(inline_of(line).drive(job))
    assert line.ended(*jobs) == ["generation_failed"] * 4 + ["done"]
    messages = [(job.error or {}).get("message") for job in jobs[:3]]
    assert messages[:2] == ["a test asked for this error", "no GPU is left for you today"]
    assert messages[2] == "generation failed: the device is gone"


def test_a_job_that_takes_too_long_ends(flat: Opener) -> None:
    line = flat(job_timeout_s=0.05)
    job = ask(line)
    drawing = inline_of(line).drive(job)
    next(drawing)
    threading.Event().wait(0.1)
    assert list(drawing) == []
    assert line.ended(job) == ["timeout"]


def test_a_fence_bounds_requests_for_every_door(flat: Opener) -> None:
    line = flat(fence=Fence(caps={"num_inference_steps": 30, "width": 8}, loras=("neon-night",)))
    assert line.queue.spec is not None
    defaults = line.queue.spec.defaults
    assert line.queue.spec.limits["width"] == defaults["width"]  # what a model does by itself is never too much
    with pytest.raises(UsageError, match=r"^num_inference_steps: must be at most 30 for tiny-scenes, got 31$"):
        ask(line, num_inference_steps=31)
    with pytest.raises(UsageError, match=r"^loras: must be among neon-night; got 'pixel-art'$"):
        ask(line, loras=[{"path": "pixel-art"}])
    from engine import hub

    own = str(hub.bundled_loras()["neon-night"])
    for path in ("neon-night", own):
        job = ask(line, loras=[{"path": path}])
        list(inline_of(line).drive(job))
        assert line.ended(job) == ["done"]
    assert inline_of(line).contexts == {}


def test_the_limits_of_a_model_stay_when_they_are_lower() -> None:
    assert Fence(caps={"width": 64, "height": 4}).limits({"width": 32}, {"height": 8}) == {"width": 32, "height": 8}
    assert Fence().limits({"width": 32}, {}) == {"width": 32}


def test_control_calls_that_change_the_server_are_refused(flat: Opener) -> None:
    line = flat()
    assert line.queue.call("list_loras").result() == {"result": {"loaded_adapters": []}}
    with pytest.raises(
        NotAvailable, match=r"^set_lora: the adapters of this server are fixed; name those of a request"
    ):
        line.queue.call("set_lora", lora_nickname="a").result()
    with pytest.raises(NotAvailable, match=r"^this server keeps its model$"):
        line.queue.switch("other")


def test_closing_frees_the_engine(flat: Opener) -> None:
    line = flat()
    engine = inline_of(line).inline.engine
    line.queue.close()
    assert isinstance(engine, FlatEngine) and engine.closed
