"""The worker: an engine behind a channel, in a thread of this process and, once, as the process that it is."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from engine import env, schema
from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import OutOfMemory
from engine.faults import Faults
from engine.jobs.child import COMMAND
from engine.profiler import monotonic
from engine.runtime.channel import Channel
from engine.types import LoraRef, Request
from engine.worker import KEPT_SETTINGS, Worker, load, main, start
from tests.engine.jobs.conftest import begin

SMALL = {"width": 32, "height": 32, "num_inference_steps": 4, "seed": 5}


class Link:
    """The parent's end of a worker, and what it said."""

    def __init__(self, engine: Engine, scratch: Path) -> None:
        ours, theirs = (Channel(end) for end in socket.socketpair())
        self.channel, self.engine, self.scratch = ours, engine, scratch
        self.events: list[dict[str, Any]] = []
        self.previews: dict[str, list[bytes]] = {}
        self.worker = Worker(theirs, scratch, engine)
        self.ends = (ours, theirs)
        self.thread = threading.Thread(target=self.worker.serve)
        self.thread.start()

    def submit(self, job: str, prompt: str = "a fox", preview: bool = False, **fields: Any) -> None:
        more = {"setting": fields.pop("setting", 0), "loras": fields.pop("loras", [])}
        request = self.engine.resolve(schema.read(Request, {"prompt": prompt, **SMALL, **fields}))
        self.send("submit", job=job, request=schema.plain(request), preview=preview, **more)

    def send(self, op: str, **fields: Any) -> None:
        assert self.channel.send({"op": op, **fields})

    def call(self, name: str, **arguments: Any) -> dict[str, Any]:
        self.send("call", call=1, name=name, arguments=arguments)
        return self.until(lambda event: event["event"] == "reply")

    def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Hear until an event comes; return it."""
        while True:
            message = self.channel.receive(30)
            assert message is not None, "waited too long"
            event, payload = message
            self.events.append(event)
            if payload:
                self.previews.setdefault(event["job"], []).append(payload)
            if wanted(event):
                return event

    def ends_of(self, *jobs: str) -> list[dict[str, Any]]:
        """Hear until jobs are done or failed; return the last event of each, in the order of their ends."""
        found: list[dict[str, Any]] = []
        while len(found) < len(jobs):
            found.append(
                self.until(lambda told: told["event"] == "failed" or (told["event"] == "output" and told["last"]))
            )
        return found

    def pixels(self, job: str, index: int = 0) -> bytes:
        """What was drawn; the worker forgets it."""
        path = self.scratch / f"{job}-{index}.raw"
        data = path.read_bytes()
        path.unlink()
        return data

    def close(self) -> None:
        self.channel.send({"op": "stop"})
        self.thread.join(30)
        assert not self.thread.is_alive()
        for end in self.ends:
            end.close()


@pytest.fixture
def link(flux: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Link]:
    found = Link(flux, tmp_path)
    yield found
    found.close()
    flux.unmerge_lora()


@pytest.fixture
def faults(flux: Engine, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have steps take longer, or fail."""

    def fault(**settings: Any) -> None:
        monkeypatch.setattr(flux.scheduler.pipeline, "faults", Faults(replace(env.read(), **settings)))

    return fault


@pytest.fixture
def adapters(flux: Engine, lora_file: Callable[..., Path]) -> list[dict[str, str]]:
    network = flux.scheduler.pipeline.model.components["transformer"]
    return [{"path": str(lora_file(network, f"style{seed}", seed))} for seed in (1, 2)]


def test_interleaved_runs_draw_what_they_draw_alone(link: Link, adapters: list[dict[str, str]]) -> None:
    asked: dict[str, dict[str, Any]] = {
        "base": {"num_inference_steps": 6},
        "one": {"loras": [adapters[0]], "seed": 6},
        "two": {"loras": [adapters[1]], "seed": 7, "width": 48},
    }
    own = {name: {**fields, "loras": fields.get("loras", [])} for name, fields in asked.items()}
    alone = {}
    for name, fields in own.items():
        link.submit(name, **{**fields, "loras": []}) if name == "base" else ask_own(link, name, fields)
        link.ends_of(name)
        alone[name] = link.pixels(name)
    assert len(set(alone.values())) == 3
    for name, fields in own.items():
        ask_own(link, name, fields)
    link.ends_of(*own)
    steps = [event["job"] for event in link.events if event["event"] == "progress"][-14:]
    assert len({*steps[:6]}) > 1, "they took turns"
    assert {name: link.pixels(name) for name in own} == alone


def ask_own(link: Link, job: str, fields: dict[str, Any]) -> None:
    """Submit a request with adapters of its own."""
    request = schema.read(Request, {"prompt": "a fox", **SMALL, **fields})
    plain = schema.plain(link.engine.resolve(request))
    link.send("submit", job=job, request=plain, setting=None, loras=[], preview=False)


def test_a_short_image_does_not_wait_for_a_long_one(link: Link, faults: Callable[..., None]) -> None:
    faults(test_step_delay_ms=10.0)
    link.submit("long", num_inference_steps=30)
    link.until(lambda told: told.get("step", 0) >= 2)
    link.submit("short")
    assert [told["job"] for told in link.ends_of("short", "long")] == ["short", "long"]


def test_cancel_takes_effect_within_a_step(link: Link, faults: Callable[..., None]) -> None:
    faults(test_step_delay_ms=100.0)
    link.submit("a", num_inference_steps=30)
    link.until(lambda told: told.get("step", 0) >= 1)
    link.send("cancel", job="a")
    begun = monotonic()
    told = link.ends_of("a")[0]
    assert (told["event"], told["error"]["code"]) == ("failed", "cancelled")
    assert monotonic() - begun < 0.6
    assert max(event.get("step", 0) for event in link.events) <= 3
    link.submit("b")
    assert link.ends_of("b")[0]["event"] == "output"


def test_previews_cost_nothing_to_the_picture(link: Link, faults: Callable[..., None]) -> None:
    link.submit("plain")
    link.ends_of("plain")
    assert link.previews == {}
    link.submit("looked", preview=True)
    link.ends_of("looked")
    assert len(link.previews["looked"]) >= 2 and link.previews["looked"][0].startswith(b"\xff\xd8")
    assert link.pixels("plain") == link.pixels("looked")
    faults(test_step_delay_ms=30.0)
    link.submit("later", num_inference_steps=12)
    link.until(lambda told: told.get("step", 0) >= 2)
    assert "later" not in link.previews
    link.send("watch", job="later", on=True)
    link.until(lambda told: "later" in link.previews)
    link.send("watch", job="later", on=False)
    link.ends_of("later")
    assert len(link.previews["later"]) < 8


def test_outputs_come_one_by_one_with_their_seeds(link: Link) -> None:
    link.submit("n", num_outputs_per_prompt=3)
    link.ends_of("n")
    outputs = [event for event in link.events if event["event"] == "output"]
    assert [(told["index"], told["last"], told["recipe"]["request"]["seed"]) for told in outputs] == [
        (0, False, 5), (1, False, 6), (2, True, 7),
    ]  # fmt: skip
    assert outputs[0]["shape"] == [1, 32, 32, 3] and outputs[0]["timings"]["tokens"]["latents"] > 0
    drawn = [link.pixels("n", index) for index in range(3)]
    link.submit("one", seed=6)
    link.ends_of("one")
    assert link.pixels("one") == drawn[1] != drawn[0]
    assert np.frombuffer(drawn[0], np.uint8).std() > 1


@pytest.mark.parametrize(("fault", "code"), [("error@2", "generation_failed"), ("oom@2", "out_of_memory")])
def test_one_job_fails_and_the_next_is_drawn(link: Link, faults: Callable[..., None], fault: str, code: str) -> None:
    faults(test_fault=fault)
    link.submit("bad", prompt="FAULT")
    link.submit("good")
    told = {entry["job"]: entry for entry in link.ends_of("bad", "good")}
    assert (told["bad"]["error"]["code"], told["good"]["event"]) == (code, "output")
    assert max(event.get("step", 0) for event in link.events if event.get("job") == "bad") == 2


def test_what_cannot_be_begun_fails_alone(link: Link, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    link.submit("nowhere", setting=None, loras=[{"path": str(tmp_path / "none.safetensors")}])
    link.send("submit", job="odd", request={"nonsense": 1}, setting=0, loras=[], preview=False)
    link.send("submit", job="short", request={"prompt": "x"}, setting=0, loras=[])
    link.submit("fine")
    told = {entry["job"]: entry for entry in link.ends_of("nowhere", "odd", "short", "fine")}
    assert told["nowhere"]["error"]["code"] == "lora_file_not_found"
    assert told["odd"]["error"]["code"] == "unknown_parameter"
    assert told["short"]["error"]["code"] == "generation_failed"
    assert told["fine"]["event"] == "output"


def test_what_cannot_be_handed_over_fails_alone(link: Link) -> None:
    scratch = link.worker.scratch
    (scratch / "file").write_text("in the way")
    link.worker.scratch = scratch / "file"
    link.submit("a", num_outputs_per_prompt=2)
    error = link.ends_of("a")[0]["error"]
    assert error["code"] == "generation_failed" and str(scratch) not in error["message"]
    assert error["message"] == "generation failed: File exists"
    link.worker.scratch = scratch / "cleaned" / "away"  # is made again
    link.submit("b")
    assert link.ends_of("b")[0]["event"] == "output" and (scratch / "cleaned" / "away" / "b-0.raw").exists()


def test_a_job_keeps_the_adapters_of_its_setting(link: Link, adapters: list[dict[str, str]]) -> None:
    link.submit("base")
    link.ends_of("base")
    told = link.call("set_lora", lora_nickname="a", lora_path=adapters[0]["path"])
    assert told["result"] == [] and told["loras"][0]["name"] == "a" and told["adapters"] > 0
    link.submit("set", setting=told["setting"])
    link.submit("before", setting=0)
    link.submit("by name", setting=None, loras=told["loras"])
    link.submit("of a worker that died", setting=99, loras=told["loras"])
    link.ends_of("set", "before", "by name", "of a worker that died")
    with_a = link.pixels("set")
    assert link.pixels("before") == link.pixels("base") != with_a
    assert link.pixels("by name") == link.pixels("of a worker that died") == with_a


def test_old_settings_are_forgotten(link: Link) -> None:
    for _ in range(KEPT_SETTINGS + 3):
        link.call("unmerge_lora")
    assert len(link.worker.settings) == KEPT_SETTINGS and link.worker.changes in link.worker.settings
    assert "setting" not in link.call("list_loras")


def test_a_call_that_fails_is_answered(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    told = link.call("set_lora", lora_nickname="nobody")
    assert (told["error"]["code"], told["error"]["kind"]) == ("lora_not_found", "model")
    assert link.call("set_lora", nonsense=1)["error"]["code"] == "generation_failed"
    assert link.call("close")["error"]["code"] == "generation_failed"
    assert link.call("list_loras")["result"]["active"] == {}


def test_memory_is_told_while_a_job_runs(link: Link) -> None:
    link.submit("a")
    told = link.call("memory")
    assert told["result"]["device"] == "cpu" and 0 < told["result"]["allocated_mb"] < told["result"]["total_mb"]
    assert "setting" not in told
    assert link.ends_of("a")[0]["event"] == "output"


# Loading


def order(folder: Path, **more: Any) -> dict[str, Any]:
    config = schema.plain(EngineConfig(model_path=str(folder), **more))
    rest = {"loras": None, "scratch": "", "max_running": None, "log_level": "error", "log_format": "text"}
    return {"op": "load", "config": config, **rest}


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = (Channel(end) for end in socket.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()


def test_a_loaded_engine_tells_what_it_is_and_warms_up(
    pair: tuple[Channel, Channel], flux_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    def warming(engine: Engine) -> None:
        told.append(pair[0].receive(5))

    monkeypatch.setattr(Engine, "warm_up", warming)
    wanted = {**order(flux_folder, warmup_mode="server"), "max_running": 7}
    with load(wanted, pair[1]) as engine:
        assert engine.scheduler.max_running == 7
    event = told[0][0]
    assert (event["event"], event["spec"]["family"], event["device"]) == ("loaded", "flux", "cpu")
    assert event["takes_loras"] is True
    assert event["loras"] == [] and event["exclusive"] is False and event["recipe"]


def test_adapters_of_a_dead_worker_are_set_again(
    pair: tuple[Channel, Channel],
    flux_folder: Path,
    adapters: list[dict[str, str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    ref = {"name": "a", "path": adapters[0]["path"], "scale": 0.5}
    with load({**order(flux_folder, lora_path=(adapters[1]["path"],)), "loras": [ref]}, pair[1]) as engine:
        refs = [schema.read(LoraRef, entry) for entry in engine.lora_refs()]
        assert [(entry.name, entry.scale) for entry in refs] == [("a", 0.5)]
    with load({**order(flux_folder), "loras": [{**ref, "path": "none.safetensors"}]}, pair[1]) as engine:
        assert engine.lora_refs() == [] and "cannot be set again" in caplog.text


@pytest.mark.parametrize("error", [OutOfMemory("too big"), RuntimeError("CUDA error")])
def test_what_prevents_loading_is_told(
    pair: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(*_: Any) -> None:
        raise error

    monkeypatch.setattr("engine.worker.load", broken)
    pair[0].send(order(Path("x")))
    start(pair[1])
    message = pair[0].receive(5)
    assert message is not None and message[0]["event"] == "load_failed"
    assert str(error) in message[0]["error"]["message"]


# The process


def test_signals_are_left_to_the_parent() -> None:
    """Ctrl-C reaches the whole group, and what runs is to be finished."""
    ours, theirs = socket.socketpair()
    ours.close()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        assert main(theirs.detach()) == 0
        assert {signal.getsignal(number) for number in before} == {signal.SIG_IGN}
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def cost(pid: int) -> float:
    """Return the seconds of computing that a process has used."""
    spent = psutil.Process(pid).cpu_times()
    return spent.user + spent.system


@pytest.mark.slow
def test_a_worker_that_dies_is_back_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGDIFF_TEST_STEP_DELAY_MS", "50")
    monkeypatch.setenv("SGDIFF_TEST_FAULT", "exit@1")
    line = begin(tmp_path, COMMAND, max_running=1)
    try:
        running, waiting = line.ask("slow", steps=40), line.ask(steps=1)
        line.until(lambda: running.step >= 2)
        child = line.queue.supervisor.child
        assert child is not None
        spent = cost(child.process.pid)
        os.kill(child.process.pid, signal.SIGKILL)
        assert line.ended(running) == ["worker_died"]
        assert line.queue.supervisor.wait(100, "ready") == "ready"
        another = line.queue.supervisor.child
        assert another is not None
        assert cost(another.process.pid) < 2 * spent, "a worker that comes back costs what the first did"
        assert line.ended(waiting) == ["done"]
        assert line.ended(line.ask("FAULT", steps=2)) == ["worker_died"]
        assert line.queue.supervisor.error.endswith("(exit status 70)")
    finally:
        line.queue.close()
    assert child.process.returncode == -signal.SIGKILL and not line.queue.delivery.scratch.exists()
