"""The worker process: an Engine behind a channel. Its one thread takes commands between two units of work."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import env, log, schema
from engine.config import EngineConfig
from engine.errors import GenerationError, ModelError, SgdiffError, UsageError
from engine.runtime.channel import Channel, Message
from engine.types import LoraRef, Output, Progress, Request

if TYPE_CHECKING:
    from engine.engine import Engine
    from engine.lora.manager import LoraSet
    from engine.runtime.control import Control
    from engine.runtime.scheduler import Run

logger = log.get(__name__)
KEPT_SETTINGS = 16  # of adapters, as jobs refer to them by number; jobs of older ones name each adapter
CONTROL = ("set_lora", "merge_lora", "unmerge_lora")
CALLS = (*CONTROL, "list_loras", "memory")


@dataclass(slots=True, eq=False)
class Task:
    """A job at work: its outputs are separate runs, one after another."""

    job: str
    outputs: tuple[Request, ...]
    control: Control
    loras: LoraSet
    run: Run
    index: int = 0


@dataclass(slots=True)
class Worker:
    """Serves one engine until the channel ends. `scratch` takes the raw frames of finished outputs."""

    channel: Channel
    scratch: Path
    engine: Engine
    tasks: deque[Task] = field(default_factory=deque)
    settings: dict[int, LoraSet] = field(default_factory=dict)
    changes: int = 0  # of the adapters, so far

    def __post_init__(self) -> None:
        self.settings[0] = self.engine.loras.current

    def serve(self) -> None:
        """Take commands and do work until told to stop. Raises EOFError when the parent is gone."""
        scheduler = self.engine.scheduler
        while True:
            message = self.channel.receive(0 if self.tasks else None)
            while message is not None:
                if message[0]["op"] == "stop":
                    return
                self.take(message[0])
                message = self.channel.receive(0)
            if self.tasks:
                scheduler.tick()
                self._collect()

    def take(self, command: Mapping[str, Any]) -> None:
        """Act on one command."""
        match command["op"]:
            case "submit":
                self._submit(command)
            case "cancel":
                for task in self._of(command["job"]):
                    task.control.cancel()
            case "watch":
                for task in self._of(command["job"]):
                    task.control.preview = command["on"]
            case "call":
                self._call(command)

    def _of(self, job: str) -> list[Task]:
        return [task for task in self.tasks if task.job == job]

    def _submit(self, command: Mapping[str, Any]) -> None:
        job = command["job"]
        with self._failing(job):
            request = schema.read(Request, command["request"])
            loras = self._loras(request, command)
            control = self._control(job, command["preview"])
            outputs = request.outputs()
            run = self.engine.scheduler.submit(outputs[0], control, 0, loras)
            self.tasks.append(Task(job, outputs, control, loras, run))

    def _loras(self, request: Request, command: Mapping[str, Any]) -> LoraSet:
        """Return the adapters of a job: its own, else those that were set when it was taken in."""
        if request.loras is not None:
            return self.engine.loras.resolve(request.loras)
        if command["setting"] in self.settings:
            return self.settings[command["setting"]]
        return self.engine.loras.resolve([schema.read(LoraRef, ref) for ref in command["loras"]])

    def _control(self, job: str, preview: bool) -> Control:
        from engine.runtime.control import Control

        return Control(lambda progress: self._tell(job, progress), preview)

    @contextmanager
    def _failing(self, job: str) -> Iterator[None]:
        """Let a job fail alone."""
        try:
            yield
        except SgdiffError as error:
            self._fail(job, error)
        except Exception as error:
            logger.debug("%s failed", job, exc_info=True)
            self._fail(job, GenerationError(f"generation failed: {reason(error)}"))

    def _fail(self, job: str, error: SgdiffError) -> None:
        self.channel.send({"event": "failed", "job": job, "error": said(error)})

    def _tell(self, job: str, progress: Progress) -> None:
        self.channel.send(*heard(job, progress))

    def _collect(self) -> None:
        """Hand over what is finished; a job with further outputs goes on."""
        for task in [task for task in self.tasks if task.run.finished]:
            self.tasks.remove(task)
            with self._failing(task.job):
                if task.run.error is not None:
                    raise task.run.error
                self._hand_over(task)
                if task.index + 1 < len(task.outputs):
                    task.index += 1
                    request = task.outputs[task.index]
                    task.run = self.engine.scheduler.submit(request, task.control, task.index, task.loras)
                    self.tasks.append(task)

    def _hand_over(self, task: Task) -> None:
        output = self.engine.output(task.run)
        path = self.scratch / f"{task.job}-{task.index}.raw"
        self.scratch.mkdir(0o700, parents=True, exist_ok=True)  # what cleans temporary folders may have taken it
        output.frames.tofile(path)
        last = task.index + 1 == len(task.outputs)
        told = handed_over(task.job, output, last) | {"path": str(path), "adapters": len(self.engine.loras.cache)}
        self.channel.send(told)

    def _call(self, command: Mapping[str, Any]) -> None:
        """Do what a control call asks for, and answer it."""
        answer: dict[str, Any] = {"event": "reply", "call": command["call"]}
        try:
            assert command["name"] in CALLS
            result = getattr(self.engine, command["name"])(**command["arguments"])
            answer |= {"result": result, "adapters": len(self.engine.loras.cache)}
            if command["name"] in CONTROL:
                self._changed()
                answer |= {"setting": self.changes, "loras": self.engine.lora_refs()}
        except SgdiffError as error:
            answer["error"] = said(error)
        except Exception as error:
            logger.debug("%s failed", command["name"], exc_info=True)
            answer["error"] = said(GenerationError(f"{command['name']}: {reason(error)}"))
        self.channel.send(answer)

    def _changed(self) -> None:
        self.changes += 1
        self.settings[self.changes] = self.engine.loras.current
        if len(self.settings) > KEPT_SETTINGS:  # they hold weights
            del self.settings[min(self.settings)]


def reason(error: Exception) -> str:
    """Return what clients may read of an unexpected error: no places of this machine."""
    text = error.strerror if isinstance(error, OSError) else str(error)
    return text or type(error).__name__


def said(error: SgdiffError) -> dict[str, Any]:
    """Return an error as it travels."""
    return {
        "code": error.code,
        "message": error.message,
        "param": error.param,
        "kind": "usage" if isinstance(error, UsageError) else "model" if isinstance(error, ModelError) else "",
    }


def load(order: Mapping[str, Any], channel: Channel) -> Engine:
    """Return the engine that the first message asks for, ready to draw; tell what it is as soon as that is known."""
    from engine.engine import Engine

    engine = Engine(schema.read(EngineConfig, order["config"]), env.read())
    if order["loras"] is not None:
        restore(engine, [schema.read(LoraRef, ref) for ref in order["loras"]])
    scheduler = engine.scheduler
    if order["max_running"] is not None and not scheduler.pipeline.exclusive:
        scheduler.max_running = order["max_running"]
    channel.send({"event": "loaded", **described(engine)})
    engine.warm_up()
    return engine


def described(engine: Engine) -> dict[str, Any]:
    """Return what is told of an engine that is loaded."""
    return {
        "spec": {name: schema.plain(getattr(engine.spec, name)) for name in engine.spec.__slots__},
        "recipe": engine.recipe,
        "device": engine.device,
        "exclusive": engine.scheduler.pipeline.exclusive,
        "takes_loras": bool(engine.loras.networks),
        "loras": engine.lora_refs(),
        "adapters": len(engine.loras.cache),
    }


def heard(job: str, progress: Progress) -> Message:
    """Return how far a job is, as it travels."""
    plain = asdict(progress)
    return {"event": "progress", "job": job, **plain, "preview": None}, plain["preview"] or b""


def handed_over(job: str, output: Output, last: bool) -> dict[str, Any]:
    """Return an output of a job as it travels, without its frames."""
    return {
        "event": "output",
        "job": job,
        "index": output.index,
        "last": last,
        "shape": output.frames.shape,
        "recipe": output.recipe,
        "timings": asdict(output.timings),
    }


def restore(engine: Engine, loras: Sequence[LoraRef]) -> None:
    """Set the adapters that were set in a worker that has died. Where that fails, jobs will say so by themselves."""
    try:
        engine.choose(tuple(loras))
    except SgdiffError as error:
        logger.error("the adapters that were set cannot be set again: %s", error.message)


def start(channel: Channel) -> None:
    """Load the engine that the first message names, and serve it."""
    message = channel.receive()
    assert message is not None
    order = message[0]
    log.setup(order["log_level"], order["log_format"])
    try:
        engine = load(order, channel)
    except SgdiffError as error:
        channel.send({"event": "load_failed", "error": said(error)})
        return
    except Exception as error:
        logger.debug("loading failed", exc_info=True)
        failure = GenerationError(f"the model cannot be loaded: {str(error) or type(error).__name__}")
        channel.send({"event": "load_failed", "error": said(failure)})
        return
    channel.send({"event": "ready"})
    with engine:
        Worker(channel, Path(order["scratch"]), engine).serve()


def main(end: int) -> int:
    """Run a worker on a socket that was inherited under the number `end`; return the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent says when to end
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel = Channel(socket.socket(fileno=end))
    try:
        start(channel)
    except EOFError:
        pass  # the parent is gone, and with it everybody who would fetch a result
    except SystemExit as end_of_test:
        return int(end_of_test.code or 0)
    finally:
        channel.close()
    return 0


if __name__ == "__main__":
    status = main(int(sys.argv[1]))
    logging.shutdown()
    os._exit(status)  # libraries take seconds to clean up what the system frees at once, and somebody waits
