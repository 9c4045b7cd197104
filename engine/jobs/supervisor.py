"""Supervisor: keeps one worker alive with the right model, hears it, and starts another one when it dies."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine import hub, log, schema
from engine.catalog import ModelSpec
from engine.config import EngineConfig
from engine.env import Environment
from engine.errors import GenerationError, ModelError, SgdiffError, UsageError, WorkerDied
from engine.jobs.child import Child
from engine.jobs.job import Job
from engine.profiler import monotonic
from engine.types import LoraRef

if TYPE_CHECKING:
    from engine.jobs.queue import JobQueue

logger = log.get(__name__)

POLL_S = 0.5  # how often time limits are looked at
RESTARTS, WITHIN_S = 3, 600.0  # so many deaths within this time, and then no more
CONTROL = ("set_lora", "merge_lora", "unmerge_lora")  # calls after which requests are drawn with other adapters


class Supervisor:
    """One thread that owns the worker. `changed` is notified on every change of health and at the end of every job."""

    def __init__(self, queue: JobQueue, config: EngineConfig, environment: Environment, command: Sequence[str]) -> None:
        self.queue, self.environment, self.command = queue, environment, command
        self.config = config  # of the model that is loaded, or being loaded
        self.changed = threading.Condition(queue.lock)
        self.health, self.error = "loading", ""
        self.given_up = False
        self.load_error: SgdiffError | None = None
        self.exclusive = False
        self.told: Mapping[str, Any] = {}  # what the worker said of itself
        self.child: Child | None = None
        self.spec = _described(config, environment)
        self.specs = {config.model_path: self.spec} if self.spec is not None else {}
        self.wanted: EngineConfig | None = None  # the model to load next
        self.switching: Future[None] | None = None
        self.closed = False
        self.deaths: deque[float] = deque(maxlen=RESTARTS + 1)
        self.calls: dict[int, tuple[str, Future[dict[str, Any]]]] = {}
        self.numbers = itertools.count()
        self.thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def start(self) -> None:
        """Start the worker in the background."""
        self.thread.start()

    def close(self) -> None:
        """Stop the worker and the thread."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()
        self.send("stop")
        if self.thread.is_alive():
            self.thread.join(5)
        if self.child is not None:
            self.child.stop(grace_s=5)

    def wait(self, timeout: float | None, *states: str) -> str:
        """Wait until health is one of `states`, at most `timeout` seconds; return what it is then."""
        end = None if timeout is None else monotonic() + timeout
        with self.changed:
            while self.health not in states and not self.closed:
                left = None if end is None else end - monotonic()
                if left is not None and left <= 0:
                    break
                self.changed.wait(left)
            return self.health

    # What the queue says

    def send(self, op: str, **fields: Any) -> None:
        """Send a command to the worker, if there is one."""
        if self.child is not None:
            self.child.send(op, **fields)

    def submit(self, job: Job, preview: bool) -> None:
        """Have a job drawn."""
        refs = [schema.plain(ref) for ref in job.loras]
        request = schema.plain(job.resolved)
        self.send("submit", job=job.id, request=request, setting=job.setting, loras=refs, preview=preview)

    def call(self, name: str, arguments: Mapping[str, Any]) -> Future[dict[str, Any]]:
        """Send a control call."""
        future: Future[dict[str, Any]] = Future()
        with self.changed:
            if self.child is None or self.health == "unhealthy":
                future.set_exception(WorkerDied(self.error or "the worker has died", final=self.given_up))
                return future
            number = next(self.numbers)
            self.calls[number] = name, future
            self.child.send("call", call=number, name=name, arguments=dict(arguments))
        return future

    def switch(self, config: EngineConfig) -> Future[None]:
        """Serve another model from now on. Raises what is wrong with it before anything is stopped."""
        future: Future[None] = Future()
        spec = _described(config, self.environment, strict=True)
        with self.changed:
            if config.model_path == self.queue.served.model_path:
                future.set_result(None)
                return future
            if self.switching is not None:
                self.switching.set_exception(UsageError("another model was asked for meanwhile"))
            self.queue.served, self.spec, self.switching = config, spec, future
            self.queue.loras, self.queue.setting = (), None
            self.deaths.clear()
            self.given_up = False
            if not self.queue.running:
                self.change(config)
        return future

    def change(self, config: EngineConfig) -> None:
        """Load another model as soon as the worker has ended; nothing runs. The caller holds the lock."""
        if config.model_path == self.config.model_path and self.wanted is None:
            self._switched()
            return
        self.wanted = config
        self._say("loading")
        self.send("stop")
        self.changed.notify_all()

    def _switched(self) -> None:
        if self.switching is not None and self.config.model_path == self.queue.served.model_path:
            self.switching.set_result(None)
            self.switching = None

    # The thread

    def _run(self) -> None:
        while not self.closed:
            with self.changed:
                if self.wanted is not None:
                    self.config, self.wanted = self.wanted, None
                self._say("loading")
                self.child = Child(self.command)
            root = log.current()
            config = schema.plain(self._loadable())
            self.send("load", config=config, scratch=str(self.queue.scratch), log_level=root[0], log_format=root[1])
            try:
                while True:
                    message = self.child.receive(POLL_S)
                    if message is not None:
                        self._hear(*message)
                    else:
                        self.queue.sweep()
            except EOFError:
                status = self.child.stop()
            self._ended(status)

    def _loadable(self) -> EngineConfig:
        """Return the settings that a worker starts with: adapters are for the model that is served alone."""
        if self.config.model_path == self.queue.served.model_path:
            return self.config
        return replace(
            self.config,
            lora_path=None,
            lora_nickname=None,
            lora_scale=None,
            lora_target=None,
            lora_target_modules=None,
            lora_weight_name=None,
            lora_alpha=None,
        )

    def _hear(self, told: Mapping[str, Any], payload: bytes) -> None:
        match told["event"]:
            case "progress":
                self.queue.progressed(told, payload)
            case "output":
                self.queue.drawn(told)
            case "failed":
                self.queue.ended(told["job"], told["error"]["code"], told["error"]["message"])
            case "reply":
                self._answer(told)
            case "loaded":
                self._loaded(told)
            case "load_failed":
                self.load_error = error_of(told["error"])
            case "ready":
                self._ready()

    def _answer(self, told: Mapping[str, Any]) -> None:
        with self.changed:
            name, future = self.calls.pop(told["call"])
            if "error" not in told and name in CONTROL:
                self.queue.setting = told["setting"]
                self.queue.loras = tuple(schema.read(LoraRef, ref) for ref in told["loras"])
        if "error" in told:
            future.set_exception(error_of(told["error"]))
        else:
            future.set_result({"result": told["result"]})

    def _loaded(self, told: Mapping[str, Any]) -> None:
        with self.changed:
            self.told, self.exclusive = told, told["exclusive"]
            if self.config.model_path == self.queue.served.model_path:
                self.spec = spec_of(told["spec"])
                if self.queue.setting is None and not self.queue.loras:
                    self.queue.loras = tuple(schema.read(LoraRef, ref) for ref in told["loras"])
                self.queue.setting = None
            self._say("warming")

    def _ready(self) -> None:
        with self.changed:
            self._restore_loras()
            self._say("ready")
            self._switched()
            self.queue.dispatch()

    def _restore_loras(self) -> None:
        """Set the adapters again that a worker had which has died."""
        if self.config.model_path != self.queue.served.model_path or not self.queue.loras:
            return
        if [schema.plain(ref) for ref in self.queue.loras] == self.told["loras"]:
            return
        refs = self.queue.loras
        columns = {
            "lora_nickname": [ref.name or ref.path for ref in refs],
            "lora_path": [ref.path for ref in refs],
            "target": [ref.target for ref in refs],
            "strength": [ref.scale for ref in refs],
            "lora_alpha": [ref.alpha for ref in refs],
            "weight_name": [ref.weight_name for ref in refs],
        }
        self.call("set_lora", columns)

    def _ended(self, status: int) -> None:
        """Decide what comes after a worker that has ended."""
        with self.changed:
            self.child = None
            if self.closed:
                return
            failure = self.load_error
            if failure is not None:
                self._give_up(failure)
            elif self.wanted is None:
                self._died(status)
            for _, future in self.calls.values():
                future.set_exception(WorkerDied("the worker has died", final=self.given_up))
            self.calls.clear()
            while self.given_up and self.wanted is None and not self.closed:
                self.changed.wait()

    def _died(self, status: int) -> None:
        self.deaths.append(monotonic())
        recent = [death for death in self.deaths if death > monotonic() - WITHIN_S]
        self.given_up = len(recent) > RESTARTS
        self.error = f"the worker process has died (exit status {status})"
        logger.error("%s; %s", self.error, "given up" if self.given_up else "another one is started")
        self._say("unhealthy")
        self.queue.died("worker_died", self.error)
        if self.given_up:
            self.error += f"; it died {RESTARTS + 1} times within {WITHIN_S / 60:.0f} minutes, and is not started again"

    def _give_up(self, failure: SgdiffError) -> None:
        """A model cannot be loaded: say so, and wait until another one is asked for."""
        self.load_error, self.given_up, self.error = None, True, failure.message
        logger.error("%s", failure.message)
        self._say("unhealthy")
        if self.switching is not None:
            self.switching.set_exception(failure)
            self.switching = None

    def _say(self, health: str) -> None:
        if health != "loading" or self.health != "unhealthy":  # unhealthy until the next worker has loaded
            self.health = health
        self.changed.notify_all()


def _described(config: EngineConfig, environment: Environment, strict: bool = False) -> ModelSpec | None:
    """Return what can be known of a model without its weights and without torch; None when a worker must tell.

    Raises ModelError or UsageError with `strict`; without it the worker will say what is wrong.
    """
    try:
        plan = hub.plan(config, environment)
        spec = plan.spec
        if spec is None or spec.family == "passthrough" or config.backend == "diffusers" or not plan.cached:
            return None
        from engine.engine import spec_of as full

        return full(replace(config, offline=True), environment)[1]
    except (ModelError, UsageError):
        if strict:
            raise
        return None


def spec_of(told: Mapping[str, Any]) -> ModelSpec:
    """Return the description of a model that a worker sent."""
    known: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in told.items()}
    return ModelSpec(**known)


def error_of(told: Mapping[str, Any]) -> SgdiffError:
    """Return an error that a worker sent."""
    kinds: dict[str, type[SgdiffError]] = {"usage": UsageError, "model": ModelError}
    kind = kinds.get(told["kind"], GenerationError)
    return kind(told["message"], code=told["code"], param=told["param"])
