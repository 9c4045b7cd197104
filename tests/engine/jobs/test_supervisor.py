"""One worker at a time: its deaths, the models it changes between, the adapters that outlive it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from engine.config import EngineConfig
from engine.errors import ModelError, UsageError, WorkerDied
from engine.jobs import Job, queue, supervisor
from engine.profiler import monotonic
from engine.types import LoraRef
from tests.engine.jobs.conftest import Line, Opener

HANGING = (sys.executable, "-c", "import time; time.sleep(60)")
DYING = (sys.executable, "-c", "raise SystemExit(7)")
A = LoraRef(name="a", path="a.safetensors")


def kill(line: Line) -> None:
    child = line.queue.supervisor.child
    assert child is not None
    os.kill(child.process.pid, signal.SIGKILL)


def healths(line: Line) -> list[str]:
    """What health is said to be from now on."""
    heard: list[str] = []
    supervisor = line.queue.supervisor
    say = supervisor._say

    def said(health: str) -> None:
        say(health)
        heard.append(supervisor.health)

    supervisor._say = said  # type: ignore[method-assign]
    return heard


def got(future: Future[Any]) -> Any:
    return future.result(30)


def colour(job: Job) -> bytes:
    """What was drawn: the null worker's colours depend on seed, prompt and adapters."""
    return Path(job.artifacts[0].location).read_bytes()


def test_a_killed_worker_costs_the_running_jobs_alone(opened: Opener) -> None:
    line = opened(max_running=1)
    running, *waiting = line.ask("slow"), line.ask(), line.ask()
    heard = healths(line)
    kill(line)
    assert line.ended(running, *waiting) == ["worker_died", "done", "done"]
    assert [job.setting for job in waiting] == [None, None]  # the number meant something to the dead worker alone
    assert running.error is not None and "exit status -9" in running.error["message"]
    assert set(heard[:-1]) == {"unhealthy"} and heard[-1] == "ready"
    assert (line.queue.supervisor.error, line.scratch()) == ("", [])


def test_until_it_is_back_requests_are_refused_and_questions_wait(opened: Opener) -> None:
    line = opened()
    line.ended(line.ask("DIE"))
    assert line.queue.health == "unhealthy"
    for refused in (line.ask, lambda: got(line.queue.call("set_lora", lora_nickname="a", lora_path="a"))):
        with pytest.raises(WorkerDied, match="exit status 3") as caught:
            refused()
        assert not caught.value.final
    assert line.queue.page()[0][0].status == "failed"
    assert got(line.queue.call("list_loras"))["result"]["active"] == {}
    assert line.queue.health == "ready"
    assert line.ended(line.ask()) == ["done"]


def test_what_was_handed_over_outlives_the_worker(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    line = opened()
    deliver, died = line.queue.delivery.deliver, threading.Event()

    def after_the_death(*arguments: Any) -> Any:
        assert died.wait(20)
        return deliver(*arguments)

    monkeypatch.setattr(line.queue.delivery, "deliver", after_the_death)
    whole, half = line.ask(), line.ask("slow", steps=4, n=2)
    line.until(lambda: whole.drawn == 1 and half.drawn == 1)
    kill(line)
    line.until(lambda: line.queue.health == "unhealthy")
    died.set()
    assert line.ended(whole, half) == ["done", "worker_died"]
    line.until(lambda: len(line.outputs()) == 1 and not line.scratch())


def test_after_three_restarts_it_is_given_up(opened: Opener) -> None:
    line = opened(max_running=1)
    for _ in range(3):
        line.ended(line.ask("DIE"))
        assert line.queue.supervisor.wait(20, "ready") == "ready"
    last, attached, detached = line.ask("DIE"), line.ask(detached=False), line.ask()
    assert line.ended(last, attached) == ["worker_died", "worker_died"]
    supervisor = line.queue.supervisor
    assert supervisor.given_up and line.queue.health == "unhealthy"
    assert "it died 4 times within 10 minutes, and is not started again" in supervisor.error
    with pytest.raises(WorkerDied) as caught:
        line.ask()
    assert caught.value.final and detached.status == "queued"
    with pytest.raises(WorkerDied):
        got(line.queue.call("list_loras"))


def test_deaths_long_ago_are_forgotten(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the four, and of a user who chooses a model again."""
    line = opened(max_running=1)
    boss = line.queue.supervisor
    boss.deaths.extend([monotonic() - supervisor.WITHIN_S - 1] * 3)
    assert line.ended(line.ask("DIE")) == ["worker_died"]
    assert boss.wait(20, "ready") == "ready" and not boss.given_up


def test_a_switch_starts_the_count_of_deaths_anew(opened: Opener, wan_folder: Path) -> None:
    line = opened(max_running=1)
    boss = line.queue.supervisor
    boss.deaths.extend([monotonic()] * 3)
    got(line.queue.switch(str(wan_folder)))
    assert line.ended(line.ask("DIE", kind="video", num_frames=1)) == ["worker_died"]
    assert boss.wait(20, "ready") == "ready" and not boss.given_up


def test_no_error_ends_the_supervisor(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It costs what a death costs."""
    line = opened(max_running=1)
    boss = line.queue.supervisor
    first, hear = boss.child, boss._hear
    faults = [RuntimeError("unexpected")]

    def broken(told: Any, payload: bytes) -> None:
        if faults and told["event"] == "progress":
            raise faults.pop()
        hear(told, payload)

    monkeypatch.setattr(boss, "_hear", broken)
    running, waiting = line.ask("slow", steps=20), line.ask()
    assert line.ended(running, waiting) == ["worker_died", "done"]
    assert boss.thread.is_alive() and len(boss.deaths) == 1 and boss.child is not first
    assert first is not None and first.process.returncode is not None
    assert "its supervisor failed" in caplog.text


def test_an_error_while_a_death_is_told_of_ends_nothing_either(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    line = opened()
    boss = line.queue.supervisor
    ended, faults = boss._ended, [RuntimeError("one"), RuntimeError("two")]

    def broken(status: int) -> None:
        if faults:
            raise faults.pop()
        ended(status)

    monkeypatch.setattr(boss, "_ended", broken)
    kill(line)
    line.until(lambda: not faults)
    line.until(lambda: boss.serving and boss.health == "ready")
    assert line.ended(line.ask()) == ["done"]


def test_a_worker_that_cannot_be_started_is_given_up(opened: Opener) -> None:
    line = opened(command=("/no/such/program",), ready=False)
    line.until(lambda: line.queue.supervisor.given_up)
    assert line.queue.health == "unhealthy"


def test_a_worker_that_never_starts_is_given_up(opened: Opener) -> None:
    line = opened(command=DYING, ready=False)
    line.until(lambda: line.queue.supervisor.given_up)
    assert line.queue.health == "unhealthy"


def test_closing_does_not_wait_for_a_worker_that_hangs(opened: Opener) -> None:
    line = opened(command=HANGING, ready=False)
    line.until(lambda: line.queue.supervisor.child is not None)
    child, begin = line.queue.supervisor.child, monotonic()
    line.queue.close()
    assert monotonic() - begin < 3
    assert child is not None and child.process.returncode == -signal.SIGKILL


def test_answers_that_never_come_are_told_of(opened: Opener) -> None:
    line = opened(command=HANGING, ready=False)
    future = line.queue.call("list_loras")
    line.queue.close()
    with pytest.raises(WorkerDied, match="stopped"):
        got(future)


def test_whoever_asks_may_go_before_the_answer(opened: Opener) -> None:
    """A cancelled future must not harm the thread that answers it."""
    line = opened()
    assert not line.queue.call("list_loras").cancel()
    assert got(line.queue.call("list_loras"))


# Adapters


def set_a(line: Line) -> None:
    got(line.queue.call("set_lora", lora_nickname="a", lora_path="a.safetensors"))


def test_a_change_of_adapters_is_for_later_requests(opened: Opener) -> None:
    line = opened(max_running=1)
    before = [line.ask("slow", steps=4), line.ask()]
    set_a(line)
    after = line.ask()
    assert line.ended(*before, after) == ["done"] * 3
    assert [job.loras for job in (*before, after)] == [(), (), (A,)]
    assert colour(before[1]) != colour(after)
    got(line.queue.call("unmerge_lora"))
    again = line.ask()
    line.ended(again)
    assert again.loras == () and colour(again) == colour(before[1])


def test_own_adapters_of_a_request_are_not_those_of_the_server(opened: Opener) -> None:
    line = opened()
    set_a(line)
    assert line.ask(loras=[]).loras == ()


def test_adapters_are_set_again_after_a_death(opened: Opener) -> None:
    line = opened(max_running=1)
    set_a(line)
    with_a = line.ask()
    line.ended(with_a)
    dying, waiting = line.ask("DIE"), line.ask()
    assert line.ended(dying, waiting) == ["worker_died", "done"]
    assert line.queue.supervisor.wait(20, "ready") == "ready"
    assert got(line.queue.call("list_loras"))["result"]["active"]["transformer"][0]["nickname"] == "a"
    later = line.ask()
    line.ended(later)
    assert later.loras == (A,) and line.queue.loras == (A,)
    assert colour(with_a) == colour(waiting) == colour(later)


def test_a_server_that_starts_with_an_adapter_uses_it_from_the_first_request(opened: Opener) -> None:
    """Also for a video that is asked for while the model loads."""
    line = opened(config=EngineConfig(lora_path=("a.safetensors",)), ready=False)
    assert line.ask().loras == (LoraRef(name="default", path="a.safetensors"),)


def test_a_wrong_call_changes_nothing(opened: Opener) -> None:
    line = opened()
    set_a(line)
    with pytest.raises(ModelError, match="'b' is not loaded") as caught:
        got(line.queue.call("set_lora", lora_nickname="b"))
    assert caught.value.code == "lora_not_found"
    with pytest.raises(UsageError):
        got(line.queue.call("set_lora", lora_nickname=["a", "b"], lora_path="a"))
    assert line.queue.loras == (A,)


# Models


def loads(line: Line) -> list[str]:
    """The models that are loaded from now on."""
    found: list[str] = []
    supervisor = line.queue.supervisor
    load = supervisor._load

    def loading() -> None:
        found.append(Path(supervisor.config.model_path).name)
        load()

    supervisor._load = loading  # type: ignore[method-assign]
    return found


def test_another_model_is_served_and_queued_jobs_keep_theirs(opened: Opener, wan_folder: Path) -> None:
    line = opened(max_running=1)
    set_a(line)
    found, heard = loads(line), healths(line)
    running, waiting = line.ask("slow", steps=4), line.ask()
    future = line.queue.switch(str(wan_folder))
    assert line.queue.served.model_path == str(wan_folder) and line.queue.spec is not None
    assert line.queue.spec.is_video and line.queue.loras == ()
    got(future)
    assert running.status == "done" and heard[:4] == ["loading", "loading", "warming", "ready"]
    clip = line.ask(kind="video", num_frames=1)
    assert line.ended(waiting, clip) == ["done", "done"]
    assert waiting.loras == (A,) and clip.loras == ()
    line.until(lambda: line.queue.supervisor.config.model_path == str(wan_folder) and line.queue.health == "ready")
    assert found[0] == wan_folder.name and found[-1] == wan_folder.name and "tiny-scenes" in found


def test_a_call_is_for_the_model_that_is_served(opened: Opener, wan_folder: Path) -> None:
    """Even while the worker has changed back for an old job."""
    line = opened(max_running=1)
    slow = [line.ask("slow", steps=3), line.ask("slow", steps=6)]
    got(line.queue.switch(str(wan_folder)))
    line.until(lambda: slow[1].status == "running")
    got(line.queue.call("set_lora", lora_nickname="a", lora_path="a.safetensors"))
    assert line.queue.supervisor.config.model_path == str(wan_folder) and slow[1].status == "done"
    assert line.queue.loras == (A,)


def test_jobs_of_the_loaded_model_go_first_for_two_minutes(tuned: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    line = tuned(max_running=1)
    changes: list[str] = []
    monkeypatch.setattr(line.queue.supervisor, "change", changes.append)
    slow = line.ask("slow", steps=4)
    other, same, last = (line.ask() for _ in range(3))
    other.model_path = "other"
    assert line.ended(slow, same) == ["done", "done"]
    line.until(lambda: last.finished)
    assert changes == ["other"] and other.status == "queued"
    changes.clear()
    more = line.ask()
    assert more.status == "running"
    line.ended(more)
    monkeypatch.setattr(queue, "wall", lambda: other.created_at + 121)
    changes.clear()
    late = line.ask()
    assert (late.status, changes) == ("queued", ["other"])


def test_the_model_that_is_served_already(opened: Opener) -> None:
    line = opened()
    child = line.queue.supervisor.child
    assert got(line.queue.switch(line.queue.served.model_path)) is None
    assert line.queue.supervisor.child is child


def test_what_is_no_model_is_refused_before_anything_stops(opened: Opener) -> None:
    line = opened()
    with pytest.raises((ModelError, UsageError)):
        line.queue.switch("/no/such/model")
    assert line.ended(line.ask()) == ["done"]


def fail_to_load(line: Line, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have workers say that the model `name` cannot be loaded: the null worker reads its settings from the order."""
    send = line.queue.supervisor.send

    def sending(op: str, **fields: Any) -> None:
        if op == "load" and fields["config"]["model_path"].endswith(name):
            fields["config"]["model_path"] = "/no/such/model"
        send(op, **fields)

    monkeypatch.setattr(line.queue.supervisor, "send", sending)


def test_a_model_that_does_not_load_leaves_the_one_before(
    opened: Opener, wan_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = opened(max_running=1)
    set_a(line)
    fail_to_load(line, wan_folder.name, monkeypatch)
    future = line.queue.switch(str(wan_folder))
    clip = line.ask(kind="video", num_frames=1)
    with pytest.raises(ModelError, match="/no/such/model"):
        got(future)
    assert line.ended(clip) == ["model_load_failed"]
    assert line.queue.supervisor.wait(20, "ready") == "ready"
    job = line.ask()
    assert line.ended(job) == ["done"] and job.loras == (A,)
    assert line.queue.served.model_path == EngineConfig().model_path


def test_a_server_whose_model_does_not_load_says_why(opened: Opener) -> None:
    line = opened(config=EngineConfig(model_path="/no/such/model"), ready=False)
    assert line.queue.supervisor.wait(20, "unhealthy") == "unhealthy"
    supervisor = line.queue.supervisor
    assert supervisor.given_up and "/no/such/model" in supervisor.error
    got(line.queue.switch("tiny-scenes"))  # a user may try another one
    assert line.ended(line.ask()) == ["done"]
