"""The worker process: an Engine behind a channel. Its one thread takes commands between two units of work."""

from __future__ import annotations

import signal
import socket
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import env, log, schema
from engine.config import EngineConfig
from engine.errors import GenerationError, ModelError, SgdiffError, UsageError
from engine.runtime.channel import Channel
from engine.types import LoraRef, Progress, Request

if TYPE_CHECKING:
    from engine.engine import Engine
    from engine.lora.manager import LoraSet
    from engine.runtime.control import Control
    from engine.runtime.scheduler import Run

logger = log.get(__name__)
CALLS = ("set_lora", "merge_lora", "unmerge_lora", "list_loras")


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
    settings: list[LoraSet] = field(default_factory=list)  # by number, as jobs refer to them

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
        from engine.runtime.control import Control

        job = command["job"]
        try:
            request = schema.read(Request, command["request"])
            own, number = request.loras, command["setting"]
            if own is None and number is not None:
                loras = self.settings[number]
            else:
                wanted = own if own is not None else tuple(schema.read(LoraRef, ref) for ref in command["loras"])
                loras = self.engine.loras.resolve(wanted)
            control = Control(preview=command["preview"])
            control.listeners.append(lambda progress: self._tell(job, progress))
            outputs = request.outputs()
            run = self.engine.scheduler.submit(outputs[0], control, 0, loras)
        except SgdiffError as error:
            self.channel.send({"event": "failed", "job": job, "error": said(error)})
            return
        self.tasks.append(Task(job, outputs, control, loras, run))

    def _tell(self, job: str, progress: Progress) -> None:
        plain = asdict(progress)
        self.channel.send({"event": "progress", "job": job, **plain, "preview": None}, plain["preview"] or b"")

    def _collect(self) -> None:
        """Hand over what is finished; a job with further outputs goes on."""
        for task in [task for task in self.tasks if task.run.finished]:
            if task.run.error is not None:
                self.tasks.remove(task)
                self.channel.send({"event": "failed", "job": task.job, "error": said(task.run.error)})
                continue
            self._hand_over(task)
            if task.index + 1 == len(task.outputs):
                self.tasks.remove(task)
                continue
            task.index += 1
            task.run = self.engine.scheduler.submit(task.outputs[task.index], task.control, task.index, task.loras)

    def _hand_over(self, task: Task) -> None:
        output = self.engine.output(task.run)
        path = self.scratch / f"{task.job}-{task.index}.raw"
        output.frames.tofile(path)
        self.channel.send(
            {
                "event": "output",
                "job": task.job,
                "index": task.index,
                "last": task.index + 1 == len(task.outputs),
                "path": str(path),
                "shape": output.frames.shape,
                "recipe": output.recipe,
                "timings": asdict(output.timings),
            }
        )

    def _call(self, command: Mapping[str, Any]) -> None:
        """Do what a control call asks for, and answer it."""
        answer: dict[str, Any] = {"event": "reply", "call": command["call"]}
        try:
            assert command["name"] in CALLS
            result = getattr(self.engine, command["name"])(**command["arguments"])
            self.settings.append(self.engine.loras.current)
            answer |= {"result": result, "setting": len(self.settings) - 1, "loras": self.engine.lora_refs()}
        except SgdiffError as error:
            answer["error"] = said(error)
        except Exception as error:
            logger.debug("%s failed", command["name"], exc_info=True)
            answer["error"] = said(GenerationError(f"{command['name']}: {str(error) or type(error).__name__}"))
        self.channel.send(answer)


def said(error: SgdiffError) -> dict[str, Any]:
    """Return an error as it travels."""
    return {
        "code": error.code,
        "message": error.message,
        "param": error.param,
        "kind": "usage" if isinstance(error, UsageError) else "model" if isinstance(error, ModelError) else "",
    }


def start(channel: Channel) -> None:
    """Load the engine that the first message names, tell what it is, and serve it."""
    message = channel.receive()
    assert message is not None
    order = message[0]
    log.setup(order["log_level"], order["log_format"])
    try:
        from engine.engine import Engine

        engine = Engine(schema.read(EngineConfig, order["config"]), env.read())
    except SgdiffError as error:
        channel.send({"event": "load_failed", "error": said(error)})
        return
    except Exception as error:
        logger.debug("loading failed", exc_info=True)
        failure = GenerationError(f"the model cannot be loaded: {str(error) or type(error).__name__}")
        channel.send({"event": "load_failed", "error": said(failure)})
        return
    worker = Worker(channel, Path(order["scratch"]), engine, settings=[engine.loras.current])
    spec = {name: schema.plain(getattr(engine.spec, name)) for name in engine.spec.__slots__}
    told = {
        "spec": spec,
        "recipe": engine.recipe,
        "device": engine.device,
        "exclusive": engine.scheduler.pipeline.exclusive,
    }
    channel.send({"event": "loaded", **told, "loras": engine.lora_refs()})
    engine.warm_up()
    channel.send({"event": "ready"})
    with engine:
        worker.serve()


def main(end: int) -> None:
    """Run a worker on a socket that was inherited under the number `end`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent says when to end
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel = Channel(socket.socket(fileno=end))
    try:
        start(channel)
    except EOFError:
        return  # the parent is gone, and with it everybody who would fetch a result


if __name__ == "__main__":
    main(int(sys.argv[1]))
